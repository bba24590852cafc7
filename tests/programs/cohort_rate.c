/* Mallocs and frees at one rate: --rate 10 a second, or any other, or 0 for as fast as it can. What it has written it
 * reads back before it frees it, and it keeps nothing. Knows nothing of its allocator, so that any will do. */

#include "cohort.h"

enum { THREADS_MAX = 8 };

static struct site sites[] = {{"answer_fast", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"answer_fast", NULL};
static struct tally tallies[THREADS_MAX];
static struct ring rings[THREADS_MAX];
static long blocks_a_second, threads;

SITE void answer_fast(int me, uint64_t *state) {
    size_t bytes = random_size(state) / 8 + 16;
    uint64_t number = *state;
    void *block = malloc(bytes);
    must_have(block);
    write_record(block, bytes, NULL, number);
    pass_through(&rings[me], 64, block, bytes, number, &tallies[me]);
    KEEP_FRAME();
}

static void *work(void *argument) {
    int me = (int)(long)argument;
    uint64_t state = 31415926535ULL + (uint64_t)me;
    for (int i = 0; i < 10000; i++) answer_fast(me, &state);
    wait_for_work();
    struct pace pace = {(double)blocks_a_second / (double)threads, 0, 0};
    while (!stopping) {
        if (blocks_a_second == 0) {
            for (int i = 0; i < 1000; i++) answer_fast(me, &state);
            continue;
        }
        for (uint64_t left = due(&pace, 5000); left > 0; left--) answer_fast(me, &state);
        sleep_until_ns(now_ns() + SECOND_NS / 1000 * (blocks_a_second < 1000 ? 20 : 1));
    }
    return NULL;
}

int main(int argc, char **argv) {
    blocks_a_second = number(argc, argv, "--rate", 0);
    threads = number(argc, argv, "--threads", 2);
    if (threads < 1 || threads > THREADS_MAX) _exit(2);
    write_prose();
    struct cast cast = {NULL, sites, innocents, tallies, (int)threads};
    run(&cast, work);
    return 0;
}
