/* Memory that stood mapped before the window, by mmap and by a large malloc, and is first touched within it: no mapping
 * call tells of that growth. fill_old_buffer writes three quarters of both; borrow_pages maps, writes and unmaps. The
 * honest twin gives the buffers' pages up again by MADV_DONTNEED. */

#include <malloc.h>
#include "pages.h"

enum { MAPPED_PAGES = 4096, MALLOCED_PAGES = 2048, BORROWED_PAGES = 48 };

static char *mapped, *malloced;

SITE void fill_old_buffer(char *buffer, size_t from, size_t count) {
    write_pages(buffer, from, count);
    KEEP_FRAME();
}

SITE void borrow_pages(void) {
    char *range = map_pages(BORROWED_PAGES);
    write_pages(range, 0, BORROWED_PAGES);
    munmap(range, BORROWED_PAGES * PAGE_BYTES);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 48), pause = number(argc, argv, "--pause-ms", 20);
    no_huge_pages();
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    open_page_map();
    touch_stack();
    mapped = map_pages(MAPPED_PAGES);
    /* Whole pages of the block: its header's page is touched by malloc. */
    char *block = (char *)malloc((MALLOCED_PAGES + 1) * PAGE_BYTES);
    if (block == NULL) _exit(5);
    malloced = (char *)(((uintptr_t)block + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1));
    if (own_bytes(mapped, MAPPED_PAGES) + own_bytes(malloced, MALLOCED_PAGES) != 0) _exit(7);
    borrow_pages();
    wait_for_go();
    size_t filled = 0;
    for (long step = 0; step < steps; step++) {
        size_t of_mapped = MAPPED_PAGES * 3 / 4 / (size_t)steps, of_malloced = MALLOCED_PAGES * 3 / 4 / (size_t)steps;
        fill_old_buffer(mapped, (size_t)step * of_mapped, of_mapped);
        fill_old_buffer(malloced, (size_t)step * of_malloced, of_malloced);
        filled += (of_mapped + of_malloced) * PAGE_BYTES;
        borrow_pages();
        pause_milliseconds(pause);
    }
    if (honest) {
        madvise(mapped, MAPPED_PAGES * PAGE_BYTES, MADV_DONTNEED);
        madvise(malloced, MALLOCED_PAGES * PAGE_BYTES, MADV_DONTNEED);
        filled = 0;
    }
    size_t present = own_bytes(mapped, MAPPED_PAGES) + own_bytes(malloced, MALLOCED_PAGES);
    say("{\"site\":%s,\"committed_bytes\":0,\"calls\":%ld,\"innocents\":[\"borrow_pages\"],\"disagreements\":%d,"
        "\"functions\":{\"fill_old_buffer\":%zu,\"borrow_pages\":0}}\n",
        honest ? "null" : "\"fill_old_buffer\"", steps, present != filled, filled);
    wait_for_end();
    return 0;
}
