/* Lists full of free chunks that look in use to their neighbours: seven of each small size in the tcache, the further
 * ones of up to 128 bytes in fastbins. With --threads by so many, each with a tcache of its own. */

#include <pthread.h>
#include "heap.h"

enum { SIZES = 60, OF_A_SIZE = 100, FREED = 70, TCACHE_HOLDS = 7, FASTBIN_SIZES = 7, MOST_THREADS = 8 };

static void *blocks[MOST_THREADS + 1][SIZES][OF_A_SIZE];
static pthread_barrier_t filled, end;

SITE void fill_lists(long me) {
    for (int size = 0; size < SIZES; size++)
        for (int i = 0; i < OF_A_SIZE; i++) {
            blocks[me][size][i] = malloc(24 + 16 * (size_t)size);
            if (blocks[me][size][i] == NULL) _exit(5);
            memset(blocks[me][size][i], 't', 24);
        }
    for (int size = 0; size < SIZES; size++)
        for (int i = 0; i < FREED; i++) free(blocks[me][size][i]);
    KEEP_FRAME();
}

static void *work(void *argument) {
    fill_lists((long)argument);
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
        if (pthread_create(&ids[i], NULL, work, (void *)(i + 1)) != 0) _exit(5);
    if (threads == 0) fill_lists(0);
    pthread_barrier_wait(&filled);
    wait_for_go();
    size_t workers = threads == 0 ? 1 : (size_t)threads, bytes = 0;
    for (int me = 0; me <= MOST_THREADS; me++)
        for (int size = 0; size < SIZES; size++)
            for (int i = FREED; i < OF_A_SIZE; i++)
                if (blocks[me][size][i] != NULL) bytes += chunk_bytes_of(blocks[me][size][i]);
    char more[256];
    snprintf(more, sizeof more,
             ",\"kept_bytes\":%zu,\"kept_count\":%zu,\"tcache_count\":%zu,\"fastbin_count\":%zu,\"sizes\":%d,"
             "\"kept_of_a_size\":%zu",
             bytes, workers * SIZES * (OF_A_SIZE - FREED), workers * SIZES * TCACHE_HOLDS,
             workers * FASTBIN_SIZES * (FREED - TCACHE_HOLDS), SIZES, workers * (OF_A_SIZE - FREED));
    say_heap(more);
    wait_for_end();
    return 0;
}
