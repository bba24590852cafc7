/* A process that nobody watches, at what a tracer of another process may make dearer. It takes turns at two kinds of
 * work and times each by itself, in processor time, so that it does not matter who else runs: slot 0 counts getpid system
 * calls, slot 1 page faults. */

#define _GNU_SOURCE
#include "counters.h"
#include <sys/syscall.h>

enum { CALLS = 4000, PAGES = 512, BYTES = PAGES * PAGE_BYTES };

static uint64_t processor_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    counters_open(arguments[1]);
    char *memory = (char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    madvise(memory, BYTES, MADV_NOHUGEPAGE);
    for (;;) {
        uint64_t began = processor_time();
        for (int call = 0; call < CALLS; call++) syscall(SYS_getpid);
        uint64_t called = processor_time();
        for (size_t page = 0; page < PAGES; page++) *(volatile char *)(memory + page * PAGE_BYTES) = 1;
        uint64_t touched = processor_time();
        /* Not timed: giving the pages back is neither kind of work. */
        madvise(memory, BYTES, MADV_DONTNEED);
        counters_add(0, CALLS, called - began);
        counters_add(1, PAGES, touched - called);
        counters_warm();
    }
}
