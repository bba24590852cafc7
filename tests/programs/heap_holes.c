/* Forty rounds of blocks that shrink: what a round leaves free is smaller than any block of the rounds after it, so
 * nothing is used again and the heap grows, though next to nothing of it is in use. Most of the small rests lie in
 * fastbins at the end; with --consolidated they are one with the holes around them. At the second line on stdin the
 * program trims its heap, and tells how much memory that gave back. */

#include "heap.h"
#include "pages.h"

enum { ROUNDS = 40, ROUND_BYTES = 7 << 20, FIRST_BYTES = 504, STEP_BYTES = 32, SHRUNK_BYTES = 24, KEEP_EVERY = 50 };
enum { BLOCKS_MAX = ROUNDS * (ROUND_BYTES / FIRST_BYTES) };

static void *blocks[BLOCKS_MAX];
static size_t count;

SITE void shrink_round(size_t bytes) {
    size_t first = count;
    for (size_t taken = 0; taken < ROUND_BYTES; taken += bytes + 8) {
        if (count == BLOCKS_MAX) _exit(5);
        blocks[count] = malloc(bytes);
        if (blocks[count] == NULL) _exit(5);
        memset(blocks[count++], 'h', bytes);
    }
    for (size_t i = first; i < count; i++) blocks[i] = realloc(blocks[i], SHRUNK_BYTES);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    no_huge_pages();
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    open_heap_info();
    open_page_map();
    touch_pages(blocks, sizeof blocks);
    char *heap = (char *)sbrk(0);
    heap -= (uintptr_t)heap % PAGE_BYTES;
    for (size_t round = 0; round < ROUNDS; round++) shrink_round(FIRST_BYTES + round * STEP_BYTES);
    size_t kept_bytes = 0, kept_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i % KEEP_EVERY != 0) {
            free(blocks[i]);
        } else {
            kept_bytes += chunk_bytes_of(blocks[i]);
            kept_count++;
        }
    }
    /* Freeing a chunk of 64 KiB or more empties the fastbins. */
    if (flag(argc, argv, "--consolidated")) {
        void *volatile large = malloc(100000);
        free(large);
    }
    wait_for_go();
    char more[256];
    size_t own = own_bytes(heap, ((size_t)((char *)sbrk(0) - heap) + PAGE_BYTES - 1) / PAGE_BYTES);
    snprintf(more, sizeof more, ",\"kept_bytes\":%zu,\"kept_count\":%zu,\"own_bytes\":%zu", kept_bytes, kept_count, own);
    say_heap(more);

    wait_for_line();
    malloc_trim(0);
    size_t left = own_bytes(heap, ((size_t)((char *)sbrk(0) - heap) + PAGE_BYTES - 1) / PAGE_BYTES);
    snprintf(more, sizeof more, ",\"kept_bytes\":%zu,\"kept_count\":%zu,\"own_bytes\":%zu,\"trimmed_bytes\":%zu",
             kept_bytes, kept_count, left, own - left);
    say_heap(more);
    wait_for_end();
    return 0;
}
