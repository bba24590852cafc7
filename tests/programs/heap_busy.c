/* Four threads that malloc and free flat out, each on what it holds, from the go until stdin closes. Each publishes what
 * it holds, counted by malloc_usable_size: two words (bytes, blocks) on a cache line of its own, in a file that it maps
 * shared. A reader that looks before and after a census knows between which values the truth lay. */

#include <pthread.h>
#include <sys/mman.h>
#include "heap.h"

enum { THREADS = 4, HELD = 8000, LINE_WORDS = 8, FILE_BYTES = 4096 };

static uint64_t *published;
static void *held[THREADS][HELD];
static volatile int stop;
static pthread_barrier_t warm, go;

static inline void publish(uint64_t *line, uint64_t bytes, uint64_t count) {
    __atomic_store_n(&line[0], bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&line[1], count, __ATOMIC_RELAXED);
}

/* Bytes of the next request: small ones mostly, one in 64 of up to 16 KiB. */
static inline size_t wanted(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 26 == 0 ? 1500 + (*state >> 12) % 15000 : 16 + (*state >> 12) % 1500;
}

SITE void churn(int me, long rounds) {
    uint64_t *line = published + LINE_WORDS * me, bytes = line[0], count = line[1];
    uint32_t state = 12345 + (uint32_t)me + (uint32_t)bytes;
    for (long round = 0; round < rounds && !stop; round++) {
        size_t request = wanted(&state);
        void **slot = &held[me][(state >> 8) % HELD];
        if (*slot != NULL) {
            bytes -= chunk_bytes_of(*slot);
            count--;
            publish(line, bytes, count);
            free(*slot);
        }
        *slot = malloc(request);
        if (*slot == NULL) _exit(5);
        memset(*slot, 'b', 16);
        bytes += chunk_bytes_of(*slot);
        count++;
        publish(line, bytes, count);
    }
    KEEP_FRAME();
}

static void *work(void *argument) {
    int me = (int)(long)argument;
    churn(me, 40L * HELD);
    pthread_barrier_wait(&warm);
    pthread_barrier_wait(&go);
    while (!stop) churn(me, HELD);
    return NULL;
}

int main(int argc, char **argv) {
    const char *path = text(argc, argv, "--counts");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0 || ftruncate(file, FILE_BYTES) != 0) _exit(4);
    published = (uint64_t *)mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (published == MAP_FAILED) _exit(4);
    pthread_barrier_init(&warm, NULL, THREADS + 1);
    pthread_barrier_init(&go, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) _exit(5);
    pthread_barrier_wait(&warm);
    wait_for_go();
    pthread_barrier_wait(&go);
    wait_for_end();
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}
