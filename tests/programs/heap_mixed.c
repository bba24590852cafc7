/* Blocks of mixed sizes, every second one freed again: by the main thread, or with --threads by so many, each on an
 * arena of its own where glibc gives it one. In use is what the program counts block by block. */

#include <pthread.h>
#include "heap.h"

enum { BLOCKS = 30000, MOST_THREADS = 16 };

static void *blocks[MOST_THREADS][BLOCKS];
static size_t kept_bytes[MOST_THREADS], kept_count[MOST_THREADS];
static pthread_barrier_t filled, end;

SITE void fill(long me) {
    for (int i = 0; i < BLOCKS; i++) {
        size_t bytes = 16 + (size_t)((i * 7L + me * 3) % 1400);
        blocks[me][i] = malloc(bytes);
        if (blocks[me][i] == NULL) _exit(5);
        memset(blocks[me][i], 'm', bytes);
    }
    for (int i = 0; i < BLOCKS; i += 2) free(blocks[me][i]);
    for (int i = 1; i < BLOCKS; i += 2) {
        kept_bytes[me] += chunk_bytes_of(blocks[me][i]);
        kept_count[me]++;
    }
    KEEP_FRAME();
}

static void *work(void *argument) {
    fill((long)argument);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&end);
    return NULL;
}

int main(int argc, char **argv) {
    long threads = number(argc, argv, "--threads", 0);
    if (threads > MOST_THREADS) _exit(2);
    open_heap_info();
    pthread_barrier_init(&filled, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&end, NULL, (unsigned)threads + 1);
    pthread_t ids[MOST_THREADS];
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)i) != 0) _exit(5);
    if (threads == 0) fill(0);
    pthread_barrier_wait(&filled);
    wait_for_go();
    size_t bytes = 0, count = 0;
    for (int i = 0; i < MOST_THREADS; i++) {
        bytes += kept_bytes[i];
        count += kept_count[i];
    }
    char more[128];
    snprintf(more, sizeof more, ",\"kept_bytes\":%zu,\"kept_count\":%zu", bytes, count);
    say_heap(more);
    wait_for_end();
    return 0;
}
