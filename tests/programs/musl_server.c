/* Four threads serve: handle_upload keeps a block of each request, handle_page gives back what it took. The blocks are
 * large enough for musl and glibc alike to map each by itself; they are filled by memset, in assembly. The honest twin
 * keeps none. */

#include <pthread.h>
#include "truth.h"

enum { THREADS = 4, BLOCK_BYTES = 200 << 10, MOST = 4096 };

static char *kept[THREADS][MOST];
static size_t counts[THREADS];
static long requests, pause_ms;
static int honest;

SITE void handle_upload(size_t thread) {
    char *block = (char *)malloc(BLOCK_BYTES);
    if (block == NULL || counts[thread] == MOST) _exit(5);
    memset(block, 'u', BLOCK_BYTES);
    if (honest)
        free(block);
    else
        kept[thread][counts[thread]++] = block;
    KEEP_FRAME();
}

SITE void handle_page(void) {
    char *block = (char *)malloc(BLOCK_BYTES);
    if (block == NULL) _exit(5);
    memset(block, 'p', BLOCK_BYTES);
    KEEP_FRAME();
    free(block);
    KEEP_FRAME();
}

SITE void *serve(void *argument) {
    for (long request = 0; request < requests; request++) {
        handle_upload((size_t)argument);
        handle_page();
        pause_milliseconds(pause_ms);
    }
    KEEP_FRAME();
    return NULL;
}

int main(int argc, char **argv) {
    honest = flag(argc, argv, "--honest");
    requests = number(argc, argv, "--requests", 100);
    pause_ms = number(argc, argv, "--pause-ms", 5);
    wait_for_go();
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, serve, (void *)i) != 0) _exit(5);
    size_t calls = 0;
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        calls += counts[i];
    }
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"handle_page\"]}\n",
        honest ? "null" : "\"handle_upload\"", calls * whole_pages(BLOCK_BYTES + 16), calls);
    wait_for_end();
    return 0;
}
