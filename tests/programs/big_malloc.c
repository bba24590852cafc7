/* keep_big keeps 1 MiB blocks, each a mapping of its own; borrow_big takes blocks of the same size, and as often, and
 * gives them back. The honest twin keeps none. */

#include <malloc.h>
#include "truth.h"

enum { BLOCK_BYTES = 1 << 20, MOST = 4096 };

static char *kept[MOST];
static size_t kept_count;

SITE size_t keep_big(int honest) {
    char *block = (char *)malloc(BLOCK_BYTES);
    if (block == NULL || kept_count == MOST) _exit(5);
    memset(block, 'k', BLOCK_BYTES);
    size_t committed = mapped_chunk_bytes(malloc_usable_size(block));
    if (honest)
        free(block);
    else
        kept[kept_count++] = block;
    KEEP_FRAME();
    return honest ? 0 : committed;
}

SITE void borrow_big(void) {
    char *block = (char *)malloc(BLOCK_BYTES);
    if (block == NULL) _exit(5);
    memset(block, 'b', BLOCK_BYTES);
    KEEP_FRAME();
    free(block);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 40), pause = number(argc, argv, "--pause-ms", 20);
    /* glibc raises its threshold to the size of a mapped block that was freed, and would serve the next ones from the
     * heap: a threshold that was set stays. */
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    borrow_big();
    size_t committed = 0;
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        committed += keep_big(honest);
        borrow_big();
        pause_milliseconds(pause);
    }
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"borrow_big\"],\"borrowed_bytes\":%zu}\n",
        honest ? "null" : "\"keep_big\"", committed, kept_count, (size_t)steps * mapped_chunk_bytes(BLOCK_BYTES));
    wait_for_end();
    return 0;
}
