/* Fragmentation: fill_blocks takes small blocks, and all but every 32nd are freed again. Next to nothing is in use, but
 * no page is free of it, so the heap keeps them all: the growth that smaps shows. Nothing beyond it may be blamed. */

#include <malloc.h>
#include "pages.h"

enum { BLOCKS = 120000, BLOCK_BYTES = 200, KEEP_EVERY = 32 };

static char *blocks[BLOCKS];

SITE void fill_blocks(size_t from, size_t count) {
    for (size_t i = from; i < from + count; i++) {
        blocks[i] = (char *)malloc(BLOCK_BYTES);
        if (blocks[i] == NULL) _exit(5);
        memset(blocks[i], 'f', BLOCK_BYTES);
    }
    KEEP_FRAME();
}

SITE void free_most(void) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (i % KEEP_EVERY != 0) free(blocks[i]);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    long steps = number(argc, argv, "--steps", 40), pause = number(argc, argv, "--pause-ms", 20);
    no_huge_pages();
    char *heap = (char *)sbrk(0);
    open_page_map();
    touch_stack();
    touch_pages(blocks, sizeof blocks);
    free(malloc(1000));
    size_t before = own_bytes(heap, (size_t)((char *)sbrk(0) - heap) / PAGE_BYTES);
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        fill_blocks((size_t)step * (BLOCKS / (size_t)steps), BLOCKS / (size_t)steps);
        pause_milliseconds(pause);
    }
    free_most();
    size_t grown = own_bytes(heap, (size_t)((char *)sbrk(0) - heap) / PAGE_BYTES) - before;
    size_t in_use = BLOCKS / KEEP_EVERY * (BLOCK_BYTES + 8);
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":%d,\"in_use_bytes\":%zu,\"functions\":{\"fill_blocks\":%zu,"
        "\"free_most\":0}}\n",
        BLOCKS, in_use, grown);
    wait_for_end();
    return 0;
}
