/* Churn that must not be blamed: churn_mappings maps and unmaps, churn_heap mallocs and frees, both flat out, and
 * between them gigabytes come and go. keep_a_little keeps one small mapping a step; the honest twin keeps nothing. */

#include <malloc.h>
#include <sys/mman.h>
#include "truth.h"

enum { BLOCKS = 64, LITTLE_PAGES = 8 };

SITE size_t churn_mappings(int rounds) {
    size_t mapped = 0;
    for (int i = 0; i < rounds; i++) {
        size_t bytes = (size_t)(i % 7 + 1) * 16 * PAGE_BYTES;
        char *range =
            (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (range == MAP_FAILED) _exit(5);
        range[0] = range[bytes - 1] = 1;
        munmap(range, bytes);
        mapped += bytes;
    }
    KEEP_FRAME();
    return mapped;
}

SITE size_t churn_heap(int rounds) {
    static char *blocks[BLOCKS];
    size_t taken = 0;
    for (int i = 0; i < rounds; i++) {
        char **block = &blocks[i * 31 % BLOCKS];
        size_t bytes = (size_t)(i % 13 + 1) * 1500;
        free(*block);
        *block = (char *)malloc(bytes);
        if (*block == NULL) _exit(5);
        memset(*block, 'c', bytes);
        taken += bytes;
    }
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
    KEEP_FRAME();
    return taken;
}

SITE void keep_a_little(void) {
    char *range = (char *)mmap(NULL, LITTLE_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED) _exit(5);
    memset(range, 'l', LITTLE_PAGES * PAGE_BYTES);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 40), pause = number(argc, argv, "--pause-ms", 10);
    /* The heap's top goes back to the kernel at each rest and is taken again: churn in brk as well. */
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 64 * 1024);
    churn_heap(2000);
    churn_mappings(100);
    size_t churned = 0;
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        churned += churn_mappings(100);
        churned += churn_heap(2000);
        if (!honest) keep_a_little();
        pause_milliseconds(pause);
    }
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%ld,\"innocents\":[\"churn_mappings\",\"churn_heap\"],"
        "\"churned_bytes\":%zu}\n",
        honest ? "null" : "\"keep_a_little\"", honest ? 0 : (size_t)steps * LITTLE_PAGES * PAGE_BYTES,
        honest ? 0 : steps, churned);
    wait_for_end();
    return 0;
}
