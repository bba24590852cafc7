/* Threads of the program's own making: sixteen fibers, whose stacks are blocks of the heap, take turns on one thread and
 * allocate on them. No stack of theirs is one that the kernel knows, so nobody may put a return probe there. */

#include <ucontext.h>
#include "cohort.h"

enum { FIBERS = 16, STACK_BYTES = 64 * 1024 };

static struct site sites[] = {{"answer_on_fiber", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"answer_on_fiber", NULL};
static struct tally tally;
static struct ring rings[FIBERS];
static ucontext_t scheduler, fibers[FIBERS];
static uint64_t states[FIBERS];

SITE void answer_on_fiber(int me) {
    size_t bytes = random_size(&states[me]) / 8 + 16;
    uint64_t number = states[me];
    void *block = malloc(bytes);
    must_have(block);
    write_record(block, bytes, NULL, number);
    pass_through(&rings[me], 32, block, bytes, number, &tally);
    KEEP_FRAME();
}

static void live(int me) {
    for (;;) {
        answer_on_fiber(me);
        swapcontext(&fibers[me], &scheduler);
    }
}

static void *work(void *argument) {
    (void)argument;
    for (int i = 0; i < FIBERS; i++) {
        states[i] = 2718281828ULL + (uint64_t)i;
        if (getcontext(&fibers[i]) != 0) _exit(5);
        fibers[i].uc_stack.ss_sp = malloc(STACK_BYTES);
        must_have(fibers[i].uc_stack.ss_sp);
        fibers[i].uc_stack.ss_size = STACK_BYTES;
        fibers[i].uc_link = NULL;
        makecontext(&fibers[i], (void (*)(void))live, 1, i);
    }
    for (int i = 0; i < 1000; i++) swapcontext(&scheduler, &fibers[i % FIBERS]);
    wait_for_work();
    struct pace pace = {20000, 0, 0};
    unsigned turn = 0;
    while (!stopping) {
        for (uint64_t left = due(&pace, 500); left > 0; left--) swapcontext(&scheduler, &fibers[turn++ % FIBERS]);
        sleep_until_ns(now_ns() + SECOND_NS / 1000);
    }
    return NULL;
}

int main(void) {
    write_prose();
    struct cast cast = {NULL, sites, innocents, &tally, 1};
    run(&cast, work);
    return 0;
}
