/* What every program of the bench shares with it: a file of counters, mapped shared, that the bench reads while the
 * program works. So nothing in the program has to answer, and no thread is there that the untraced program would not
 * have. Also the only way out: a program works until it is killed, at the latest when the bench dies.
 *
 * The file, in 64-bit words of the machine:
 *   word 0                     1 once the program is warm
 *   word 8 + 8 * SLOT          how many units of work were done; one slot a thread (or a kind of work), a cache line each
 *   word 9 + 8 * SLOT          nanoseconds spent at them, where the program times them itself
 *   word 1024 + BUCKET         latencies: how many fell into the bucket, see latency_bucket */

#ifndef LEAKWATCH_BENCH_COUNTERS_H
#define LEAKWATCH_BENCH_COUNTERS_H

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_SLOT = 8,
    SLOT_WORDS = 8,
    SLOTS = 64,
    FIRST_BUCKET = 1024,
    LATENCY_BITS = 7,
    BUCKETS = 4608,
    WORDS = FIRST_BUCKET + BUCKETS,
    PAGE_BYTES = 4096
};

static uint64_t *counters;

/* Opens the file that the bench has made. */
static inline void counters_open(const char *path) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0 || ftruncate(file, WORDS * 8) != 0) {
        perror(path);
        exit(1);
    }
    void *mapped = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (mapped == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    counters = (uint64_t *)mapped;
}

/* From here on the program does nothing that it has not done before. */
static inline void counters_warm(void) { __atomic_store_n(&counters[0], 1, __ATOMIC_RELEASE); }

/* A slot has one writer: plain additions, published whole. */
static inline void counters_add(int slot, uint64_t units, uint64_t nanoseconds) {
    uint64_t *words = &counters[FIRST_SLOT + SLOT_WORDS * slot];
    __atomic_store_n(&words[0], words[0] + units, __ATOMIC_RELAXED);
    if (nanoseconds != 0) __atomic_store_n(&words[1], words[1] + nanoseconds, __ATOMIC_RELAXED);
}

static inline uint64_t nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Buckets of equal width up to 2^LATENCY_BITS, and from there as many in each power of two: all are under 0.8 % wide. */
static inline unsigned latency_bucket(uint64_t nanoseconds) {
    unsigned shift = 0;
    while (nanoseconds >> (LATENCY_BITS + 1 + shift) != 0) shift++;
    uint64_t bucket = ((uint64_t)shift << LATENCY_BITS) + (nanoseconds >> shift);
    return bucket < BUCKETS ? (unsigned)bucket : BUCKETS - 1;
}

static inline void counters_latency(uint64_t nanoseconds) {
    __atomic_fetch_add(&counters[FIRST_BUCKET + latency_bucket(nanoseconds)], 1, __ATOMIC_RELAXED);
}

#endif
