/* A heap whose top was given back: blocks of which the last three quarters are freed, with a low M_TRIM_THRESHOLD, so
 * that `free` itself shrinks the heap; with --keep-top a high one, so that all of it stays as one free top, and with
 * --trim malloc_trim gives that back. The blocks are too large for the tcache, which would pin the end. */

#include "heap.h"

enum { BLOCKS = 40000, BLOCK_BYTES = 1500 };

static void *blocks[BLOCKS];

SITE void fill_and_free_the_end(void) {
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        if (blocks[i] == NULL) _exit(5);
        memset(blocks[i], 't', BLOCK_BYTES);
    }
    for (int i = BLOCKS - 1; i >= BLOCKS / 4; i--) free(blocks[i]);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    mallopt(M_TRIM_THRESHOLD, flag(argc, argv, "--keep-top") ? 1 << 30 : 64 * 1024);
    mallopt(M_TOP_PAD, 0);
    open_heap_info();
    fill_and_free_the_end();
    if (flag(argc, argv, "--trim")) malloc_trim(0);
    wait_for_go();
    size_t bytes = 0;
    for (int i = 0; i < BLOCKS / 4; i++) bytes += chunk_bytes_of(blocks[i]);
    char more[128];
    snprintf(more, sizeof more, ",\"kept_bytes\":%zu,\"kept_count\":%d", bytes, BLOCKS / 4);
    say_heap(more);
    wait_for_end();
    return 0;
}
