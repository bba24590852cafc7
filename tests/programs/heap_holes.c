/* Forty rounds of blocks that shrink: what a round leaves free is smaller than any block of the rounds after it, so
 * nothing is used again and the heap grows, though next to nothing of it is in use. Most of the small rests lie in
 * fastbins at the end; with --consolidated they are one with the holes around them. With --in-window all of that is done
 * after the go, else before. At the second line on stdin the program trims its heap, and tells how much memory that gave
 * back. */

#include "heap.h"
#include "pages.h"

enum { ROUNDS = 40, ROUND_BYTES = 7 << 20, FIRST_BYTES = 504, STEP_BYTES = 32, SHRUNK_BYTES = 24, KEEP_EVERY = 50 };
enum { BLOCKS_MAX = ROUNDS * (ROUND_BYTES / FIRST_BYTES) };

static void *blocks[BLOCKS_MAX];
static size_t count, kept_bytes, kept_count, last_own;

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

/* At the end most of the rests are freed too. */
SITE void make_holes(void) {
    for (size_t round = 0; round < ROUNDS; round++) shrink_round(FIRST_BYTES + round * STEP_BYTES);
    for (size_t i = 0; i < count; i++) {
        if (i % KEEP_EVERY != 0) {
            free(blocks[i]);
        } else {
            kept_bytes += chunk_bytes_of(blocks[i]);
            kept_count++;
        }
    }
    KEEP_FRAME();
}

static void say_holes(const char *heap, size_t before) {
    size_t pages = ((size_t)((char *)sbrk(0) - heap) + PAGE_BYTES - 1) / PAGE_BYTES, own = own_bytes(heap, pages);
    char more[256];
    snprintf(more, sizeof more, ",\"kept_bytes\":%zu,\"kept_count\":%zu,\"own_bytes\":%zu,\"trimmed_bytes\":%zu",
             kept_bytes, kept_count, own, before > own ? before - own : 0);
    say_heap(more);
    last_own = own;
}

int main(int argc, char **argv) {
    int in_window = flag(argc, argv, "--in-window");
    no_huge_pages();
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    open_heap_info();
    open_page_map();
    touch_pages(blocks, sizeof blocks);
    char *heap = (char *)sbrk(0);
    heap -= (uintptr_t)heap % PAGE_BYTES;
    if (!in_window) make_holes();
    /* Freeing a chunk of 64 KiB or more empties the fastbins. */
    if (flag(argc, argv, "--consolidated")) {
        void *volatile large = malloc(100000);
        free(large);
    }
    wait_for_go();
    if (in_window) make_holes();
    say_holes(heap, 0);

    wait_for_line();
    malloc_trim(0);
    say_holes(heap, last_own);
    wait_for_end();
    return 0;
}
