/* One call site that allocates for every request, and of ten thousand requests one is never closed: 50 a second of
 * 2,000 bytes, among 500,000. With --fixed that one is closed with the others. */

#include "cohort.h"

enum { THREADS = 2, REQUEST_BYTES = 2000, ONE_IN = 10000, AT_ONCE = 8, TEXT_BYTES = 1200 };

static struct site sites[] = {{"open_request", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"answer_batch", NULL};
static struct tally tallies[THREADS];
static void *forgotten[THREADS];
static volatile uint64_t sink;
static int fixed;
static double requests_a_second;

SITE void *open_request(int me, uint64_t number) {
    void *request = malloc(REQUEST_BYTES);
    must_have(request);
    struct head head = {forgotten[me], (uint32_t)number, REQUEST_BYTES};
    memcpy(request, &head, sizeof head);
    memcpy((char *)request + sizeof head, prose + number % 4096, TEXT_BYTES);
    KEEP_FRAME();
    return request;
}

/* What such a server computes is what makes a share of its processor time enough to see one in ten thousand by. */
SITE void read_request(int me, const void *request) {
    sink += digest(request, TEXT_BYTES);
    tallies[me].answers++;
    KEEP_FRAME();
}

SITE void answer_batch(uint64_t *state) {
    size_t bytes = random_size(state) / 4 + 16;
    char *answer = (char *)malloc(bytes);
    must_have(answer);
    memcpy(answer, prose + bytes, bytes);
    sink += digest(answer, bytes);
    free(answer);
    KEEP_FRAME();
}

/* The one that is forgotten is any of those that are open, and open for as long as the others. */
SITE void serve(int me, uint64_t *number, uint64_t *state) {
    void *open[AT_ONCE];
    uint64_t first = *number;
    for (int i = 0; i < AT_ONCE; i++) open[i] = open_request(me, ++*number);
    for (int i = 0; i < AT_ONCE; i++) read_request(me, open[i]);
    for (int i = 0; i < 2; i++) answer_batch(state);
    for (int i = 0; i < AT_ONCE; i++) {
        const struct head *head = (const struct head *)open[i];
        if (head->number != (uint32_t)(first + 1 + (unsigned)i)) tallies[me].wrong++;
        if (head->number % ONE_IN == 7 && !fixed) {
            forgotten[me] = open[i];
            keeps(&sites[0], footprint(open[i]));
        } else {
            free(open[i]);
        }
    }
    KEEP_FRAME();
}

static void *work(void *argument) {
    int me = (int)(long)argument;
    uint64_t state = 1234567891011ULL + (uint64_t)me, number = (uint64_t)me * 5003;
    for (int i = 0; i < 4000; i++) serve(me, &number, &state);
    wait_for_work();
    struct pace pace = {requests_a_second / THREADS / AT_ONCE, 0, 0};
    uint64_t next = now_ns();
    while (!stopping) {
        for (uint64_t left = due(&pace, 2000); left > 0; left--) serve(me, &number, &state);
        next += SECOND_NS / 1000;
        if (next < now_ns()) next = now_ns();
        sleep_until_ns(next);
    }
    return NULL;
}

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    requests_a_second = (double)number(argc, argv, "--requests", 500000);
    write_prose();
    struct cast cast = {fixed ? NULL : "open_request", sites, innocents, tallies, THREADS};
    run(&cast, work);
    return 0;
}
