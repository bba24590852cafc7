/* Threads that take and free small blocks at a given rate, without growth: what they hold was taken when they warmed up.
 * A unit of work is a malloc with the free of an older block.
 *
 *   malloc_rate COUNTERS THREADS RATE
 *
 * RATE is in mallocs a second of all threads together; 0 is as fast as they can. With a rate a thread wakes at most a
 * thousand times a second, and does then what has become due; what it is behind by more than a tenth of a second is not
 * made up for. As latencies it counts how late a thread woke; without a rate, how long each PUBLISHED_EACH units took. */

#define _GNU_SOURCE
#include "counters.h"
#include <pthread.h>

enum { HELD = 4096, PUBLISHED_EACH = 256, WARM_UP_ROUNDS = 200 };

static const uint64_t SECOND = 1000000000, LEAST_SLEEP = 1000000, BEHIND_MOST = 100000000;
static long threads, rate;
static int cold_threads;

struct worker {
    char *held[HELD];
    uint64_t state;
};

static void replace(struct worker *worker, uint64_t units) {
    for (; units > 0; units--) {
        worker->state ^= worker->state << 13;
        worker->state ^= worker->state >> 7;
        worker->state ^= worker->state << 17;
        char **slot = &worker->held[worker->state % HELD];
        free(*slot);
        *slot = (char *)malloc(16 + (worker->state >> 32) % 496);
        if (*slot == NULL) exit(1);
        *(volatile char *)*slot = 1;
    }
}

static void sleep_until(uint64_t when) {
    struct timespec until = {(time_t)(when / SECOND), (long)(when % SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {
    }
}

static void *work(void *argument) {
    int slot = (int)(long)argument;
    prctl(PR_SET_TIMERSLACK, 1);
    struct worker *worker = (struct worker *)calloc(1, sizeof *worker);
    if (worker == NULL) exit(1);
    worker->state = 0x9E3779B97F4A7C15 * (uint64_t)(slot + 1);
    for (int round = 0; round < WARM_UP_ROUNDS; round++) replace(worker, PUBLISHED_EACH);
    if (__atomic_sub_fetch(&cold_threads, 1, __ATOMIC_SEQ_CST) == 0) counters_warm();
    uint64_t start = nanoseconds_now(), last = start, done = 0;
    double between = rate > 0 ? (double)SECOND * (double)threads / (double)rate : 0;
    for (;;) {
        if (rate == 0) {
            replace(worker, PUBLISHED_EACH);
            uint64_t now = nanoseconds_now();
            counters_latency(now - last);
            last = now;
            counters_add(slot, PUBLISHED_EACH, 0);
            continue;
        }
        uint64_t wake = start + (uint64_t)((double)(done + 1) * between);
        if (wake < last + LEAST_SLEEP) wake = last + LEAST_SLEEP;
        sleep_until(wake);
        last = nanoseconds_now();
        counters_latency(last - wake);
        uint64_t due = (uint64_t)((double)(last - start) / between);
        uint64_t most = done + 1 + (uint64_t)((double)BEHIND_MOST / between);
        if (due > most) {
            start += (uint64_t)((double)(due - most) * between);
            due = most;
        }
        while (done < due) {
            uint64_t units = due - done < PUBLISHED_EACH ? due - done : PUBLISHED_EACH;
            replace(worker, units);
            counters_add(slot, units, 0);
            done += units;
        }
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    counters_open(arguments[1]);
    threads = atol(arguments[2]);
    rate = atol(arguments[3]);
    if (threads < 1 || rate < 0) return 2;
    if (threads > SLOTS) threads = SLOTS;
    cold_threads = (int)threads;
    for (long slot = 0; slot < threads; slot++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)slot) != 0) return 1;
    }
    for (;;) pause();
}
