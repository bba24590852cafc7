/* For any allocator: keep_blocks keeps blocks of 64 KiB that it writes whole, churn_small takes and frees small ones
 * that were all taken before the window. Nothing here asks how the allocator lays blocks out, only where they came to
 * lie: jemalloc's large ones begin anywhere in their first page and so touch one more. The honest twin frees. */

#include <stdint.h>
#include <sys/prctl.h>
#include "truth.h"

enum { BLOCK_BYTES = 64 * 1024, MOST = 8192, SMALL = 256 };

static char *kept[MOST];
static size_t kept_count;
static char *small[SMALL];

SITE void keep_blocks(int honest, int count) {
    for (int i = 0; i < count; i++) {
        char *block = (char *)malloc(BLOCK_BYTES);
        if (block == NULL || kept_count == MOST) _exit(5);
        memset(block, 'k', BLOCK_BYTES);
        if (honest)
            free(block);
        else
            kept[kept_count++] = block;
    }
    KEEP_FRAME();
}

SITE void churn_small(int rounds) {
    for (int i = 0; i < rounds; i++) {
        char **block = &small[i * 31 % SMALL];
        free(*block);
        *block = (char *)malloc((size_t)(i % 13 + 1) * 70);
        if (*block == NULL) _exit(5);
        memset(*block, 's', (size_t)(i % 13 + 1) * 70);
    }
    KEEP_FRAME();
}

/* Pages that kept blocks lie on. Neighbours may share one, so the blocks are put in order first. */
static size_t pages_of_kept(void) {
    for (size_t i = 1; i < kept_count; i++)
        for (size_t at = i; at > 0 && kept[at] < kept[at - 1]; at--) {
            char *block = kept[at];
            kept[at] = kept[at - 1];
            kept[at - 1] = block;
        }
    size_t pages = 0;
    uintptr_t counted = 0;
    for (size_t i = 0; i < kept_count; i++) {
        uintptr_t first = (uintptr_t)kept[i] / PAGE_BYTES, end = ((uintptr_t)kept[i] + BLOCK_BYTES - 1) / PAGE_BYTES + 1;
        if (first < counted) first = counted;
        pages += end - first;
        counted = end;
    }
    return pages;
}

/* A huge page that the allocator touched before the window has pages of blocks of the window in it, and this program
 * counts by blocks. The setting outlives exec, and so holds before the allocator has its first page. */
static void without_huge_pages(char **argv) {
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) return;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) _exit(6);
    execv(argv[0], argv);
    _exit(6);
}

int main(int argc, char **argv) {
    if (flag(argc, argv, "--small-pages")) without_huge_pages(argv);
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 50), pause = number(argc, argv, "--pause-ms", 20);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) ((char *volatile *)kept)[i] = NULL;
    churn_small(20000);
    keep_blocks(1, 4);
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        keep_blocks(honest, 8);
        churn_small(1000);
        pause_milliseconds(pause);
    }
    size_t live = pages_of_kept() * PAGE_BYTES;
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"churn_small\"],"
        "\"functions\":{\"keep_blocks\":%zu}}\n",
        honest ? "null" : "\"keep_blocks\"", kept_count * BLOCK_BYTES, kept_count, live);
    wait_for_end();
    return 0;
}
