/* Transparent huge pages: one fault brings in 512 pages. leak_huge writes one byte of each huge page of its mapping,
 * split_huge gives half of each up again (the kernel splits them), borrow_huge unmaps, leak_small_pages writes page by
 * page where huge pages are not wanted, leak_large_blocks does so in large blocks of malloc.
 *
 *   --mode always    every mapping of these functions asks for huge pages: what the machine's setting "always" does,
 *                    without touching a setting that others share
 *   --mode madvise   only leak_huge, split_huge and borrow_huge ask
 *   --mode never     huge pages are switched off for this process
 *
 * What is resident is the page map's own answer: the kernel may have no huge page to give. */

#include <malloc.h>
#include "pages.h"

enum { HUGE_PAGES = 2, SMALL_PAGES = 384, LARGE_PAGES = 1280, MOST = 512 };

enum mode { ALWAYS, MADVISE, NEVER };

struct kept {
    char *start;
    size_t pages;
};

static enum mode mode = MADVISE;
static struct kept huge[MOST], split[MOST], little[MOST], large[MOST];

static void ask_for_huge(char *start, size_t bytes, int wanted) {
    if (mode == NEVER) return;
    if (madvise(start, bytes, wanted || mode == ALWAYS ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0) _exit(6);
}

/* Maps what holds the huge pages aligned, asks for them, and writes a byte of each. */
#define TAKE_HUGE(start)                                                                                             \
    char *start = map_pages((HUGE_PAGES + 1) * 512);                                                                 \
    start = (char *)(((uintptr_t)start + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1));                             \
    ask_for_huge(start, HUGE_PAGES * HUGE_PAGE_BYTES, 1);                                                            \
    for (size_t i = 0; i < HUGE_PAGES; i++) start[i * HUGE_PAGE_BYTES + 77 * PAGE_BYTES] = 1

SITE void leak_huge(struct kept *kept) {
    TAKE_HUGE(start);
    *kept = (struct kept){start, HUGE_PAGES * 512};
    KEEP_FRAME();
}

SITE void split_huge(struct kept *kept) {
    TAKE_HUGE(start);
    for (size_t i = 0; i < HUGE_PAGES; i++)
        madvise(start + i * HUGE_PAGE_BYTES + HUGE_PAGE_BYTES / 2, HUGE_PAGE_BYTES / 2, MADV_DONTNEED);
    *kept = (struct kept){start, HUGE_PAGES * 512};
    KEEP_FRAME();
}

SITE void borrow_huge(void) {
    TAKE_HUGE(start);
    munmap(start, HUGE_PAGES * HUGE_PAGE_BYTES);
    KEEP_FRAME();
}

SITE void leak_small_pages(struct kept *kept) {
    char *start = map_pages(SMALL_PAGES);
    ask_for_huge(start, SMALL_PAGES * PAGE_BYTES, 0);
    write_pages(start, 0, SMALL_PAGES);
    *kept = (struct kept){start, SMALL_PAGES};
    KEEP_FRAME();
}

SITE void leak_large_blocks(struct kept *kept) {
    size_t bytes = LARGE_PAGES * PAGE_BYTES - 32;
    char *block = (char *)malloc(bytes);
    if (block == NULL) _exit(5);
    ask_for_huge(block - 16, bytes + 32, 0);
    memset(block, 'l', bytes);
    *kept = (struct kept){block - 16, LARGE_PAGES};
    KEEP_FRAME();
}

static size_t resident(const struct kept *kept, long count) {
    size_t bytes = 0;
    for (long i = 0; i < count; i++) bytes += own_bytes(kept[i].start, kept[i].pages);
    return bytes;
}

int main(int argc, char **argv) {
    long steps = number(argc, argv, "--steps", 20), pause = number(argc, argv, "--pause-ms", 40);
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--mode") == 0)
            mode = strcmp(argv[i + 1], "always") == 0 ? ALWAYS : strcmp(argv[i + 1], "never") == 0 ? NEVER : MADVISE;
    if (steps > MOST) _exit(2);
    if (mode == NEVER) no_huge_pages();
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    open_page_map();
    touch_stack();
    touch_pages(huge, sizeof huge);
    touch_pages(split, sizeof split);
    touch_pages(little, sizeof little);
    touch_pages(large, sizeof large);
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        leak_huge(&huge[step]);
        split_huge(&split[step]);
        borrow_huge();
        leak_small_pages(&little[step]);
        leak_large_blocks(&large[step]);
        pause_milliseconds(pause);
    }
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":%ld,\"innocents\":[\"borrow_huge\"],\"touched_huge_bytes\":%zu,"
        "\"functions\":{\"leak_huge\":%zu,\"split_huge\":%zu,\"borrow_huge\":0,\"leak_small_pages\":%zu,"
        "\"leak_large_blocks\":%zu}}\n",
        steps, (size_t)steps * HUGE_PAGES * PAGE_BYTES, resident(huge, steps), resident(split, steps),
        resident(little, steps), resident(large, steps));
    wait_for_end();
    return 0;
}
