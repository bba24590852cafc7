/* One thread that takes and frees small blocks as fast as it can, without growth: what it holds was touched when it
 * warmed up. A unit of work is a malloc with the free of an older block.
 *
 *   malloc_storm COUNTERS [MIB]
 *
 * As latencies it counts how long each PUBLISHED_EACH units took: the longest is the longest stall.
 * With MIB it also keeps that much in such blocks, every fourth of which is freed: a heap that takes long to read. */

#define _GNU_SOURCE
#include "counters.h"

enum { HELD = 4096, PUBLISHED_EACH = 256, WARM_UP_ROUNDS = 2000 };

static char *held[HELD];

/* The last of a chain, in which each points at the one before. */
static void **last;

static void keep(uint64_t bytes) {
    void *freed = NULL;
    uint64_t count = 0;
    for (uint64_t kept = 0; kept < bytes; count++) {
        size_t request = 16 + count * 37 % 496;
        void **block = (void **)malloc(request);
        if (block == NULL) exit(1);
        if (count % 4 == 0) {
            free(freed);
            freed = block;
            continue;
        }
        *block = last;
        last = block;
        kept += request;
    }
}

int main(int count, char **arguments) {
    if (count != 2 && count != 3) return 2;
    counters_open(arguments[1]);
    if (count == 3) keep(strtoull(arguments[2], NULL, 10) << 20);
    uint64_t state = 0x9E3779B97F4A7C15, last_published = nanoseconds_now();
    for (uint64_t round = 0;; round++) {
        for (int index = 0; index < PUBLISHED_EACH; index++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char **slot = &held[state % HELD];
            free(*slot);
            *slot = (char *)malloc(16 + (state >> 32) % 496);
            if (*slot == NULL) return 1;
            *(volatile char *)*slot = 1;
        }
        counters_add(0, PUBLISHED_EACH, 0);
        uint64_t now = nanoseconds_now();
        counters_latency(now - last_published);
        last_published = now;
        if (round == WARM_UP_ROUNDS) counters_warm();
    }
}
