/* Large blocks, each with a mapping of its own: from malloc, calloc and realloc, and aligned ones from memalign and
 * posix_memalign, whose headers do not stand where their mappings begin. Some are freed again. */

#include "heap.h"

enum { BLOCKS = 120, ALIGNED = 24 };

static void *blocks[BLOCKS], *aligned[ALIGNED];

SITE void take_large(void) {
    for (int i = 0; i < BLOCKS; i++) {
        size_t bytes = 300000 + (size_t)i * 5000;
        blocks[i] = i % 3 == 0 ? calloc(1, bytes) : malloc(bytes);
        if (blocks[i] == NULL) _exit(5);
        memset(blocks[i], 'l', 100);
        if (i % 5 == 0) blocks[i] = realloc(blocks[i], bytes * 2);
    }
    KEEP_FRAME();
}

SITE void take_aligned(void) {
    for (int i = 0; i < ALIGNED; i++) {
        size_t alignment = (size_t)64 << i % 12, bytes = 400000 + (size_t)i * 10000;
        if (i % 2 == 0)
            aligned[i] = memalign(alignment, bytes);
        else if (posix_memalign(&aligned[i], alignment, bytes) != 0)
            _exit(5);
        if (aligned[i] == NULL) _exit(5);
        memset(aligned[i], 'a', 100);
    }
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    /* A threshold of one's own is not raised when a large block is freed. */
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    open_heap_info();
    take_large();
    if (flag(argc, argv, "--aligned")) take_aligned();
    for (int i = 0; i < BLOCKS; i += 4) free(blocks[i]);
    wait_for_go();
    size_t bytes = 0, count = 0;
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 4 == 0) continue;
        bytes += malloc_usable_size(blocks[i]);
        count++;
    }
    for (int i = 0; i < ALIGNED; i++) {
        if (aligned[i] == NULL) continue;
        bytes += malloc_usable_size(aligned[i]);
        count++;
    }
    char more[128];
    snprintf(more, sizeof more, ",\"usable_bytes\":%zu,\"block_count\":%zu", bytes, count);
    say_heap(more);
    wait_for_end();
    return 0;
}
