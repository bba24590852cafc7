/* Small blocks leak onto the heap of a single thread. leak_small is the only function that allocates after the go,
 * so here the heap's growth point is the culprit. The honest twin frees the oldest block for each new one. */

#include <malloc.h>
#include "truth.h"

enum { BLOCK_BYTES = 1000, HELD = 64, BLOCKS_PER_STEP = 500 };

struct block {
    struct block *next;
    char payload[BLOCK_BYTES - sizeof(struct block *)];
};

static struct block *leaked;
static struct block *ring[HELD];
static size_t turn;

SITE void leak_small(int honest) {
    struct block *block = (struct block *)malloc(sizeof *block);
    if (block == NULL) _exit(5);
    memset(block->payload, 'x', sizeof block->payload);
    if (honest) {
        free(ring[turn % HELD]);
        ring[turn++ % HELD] = block;
    } else {
        block->next = leaked;
        leaked = block;
    }
    KEEP_FRAME();
}

SITE void serve(int honest, char **end, size_t *calls) {
    for (int i = 0; i < BLOCKS_PER_STEP; i++) {
        leak_small(honest);
        /* The end of the heap as glibc remembers it: no system call. */
        char *now = (char *)sbrk(0);
        *calls += now != *end;
        *end = now;
    }
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 40), pause = number(argc, argv, "--pause-ms", 20);
    /* Both twins start from a heap that exists and whose bins are warm. */
    for (int i = 0; i < 4 * HELD; i++) leak_small(1);
    char *before = (char *)sbrk(0), *end = before;
    size_t calls = 0;
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        serve(honest, &end, &calls);
        pause_milliseconds(pause);
    }
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"requested_bytes\":%zu}\n", honest ? "null" : "\"leak_small\"",
        (size_t)(end - before), calls, honest ? 0 : (size_t)steps * BLOCKS_PER_STEP * BLOCK_BYTES);
    wait_for_end();
    return 0;
}
