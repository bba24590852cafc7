/* What a program's own page map says, and random draws: for programs whose truth is which function brought in which
 * page. The page map is asked at the end (or between two steps), so that the truth which the program kept by its own
 * hand is checked against the kernel before a report is. */

#ifndef PAGES_H
#define PAGES_H

#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "truth.h"

#define HUGE_PAGE_BYTES (512 * PAGE_BYTES)

enum { PAGEMAP_CHUNK = 512 };

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)
#define PAGEMAP_FILE_OR_SHARED (1ULL << 61)
#define PAGEMAP_FRAME ((1ULL << 55) - 1)

static int page_map = -1;
static uint64_t zero_page_frame;

/* xorshift64*: the same course for the same seed. */
static inline uint64_t draw(uint64_t *state, uint64_t below) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 0x2545F4914F6CDD1DULL >> 33) % below;
}

static inline uint64_t seeded(long seed) { return ((uint64_t)seed + 1) * 0x9E3779B97F4A7C15ULL; }

/* One page a fault, whatever the machine's setting: with huge pages the first toucher would own its neighbours'. */
static inline void no_huge_pages(void) {
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) _exit(6);
}

/* Macros, what the sites do: an inlined function of its own would be the innermost frame, and so the one to blame. */
#define map_pages(pages)                                                                                    \
    ({                                                                                                      \
        void *mapped_range =                                                                                \
            mmap(NULL, (pages) * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);   \
        if (mapped_range == MAP_FAILED) _exit(5);                                                           \
        (char *)mapped_range;                                                                               \
    })

#define write_pages(start, from, count)                                                                     \
    for (size_t page = (from); page < (from) + (count); page++) (start)[page * PAGE_BYTES] = 1

/* To be called before ready. Learns the frame of the zero page, which is present where memory was read only: no
 * memory of this process. Frames are told to root alone, as these tests are. */
static inline void open_page_map(void) {
    page_map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (page_map < 0) _exit(4);
    char *page = map_pages(1);
    (void)*(volatile char *)page;
    uint64_t entry = 0;
    if (pread(page_map, &entry, sizeof entry, (off_t)((uintptr_t)page / PAGE_BYTES * sizeof entry)) != sizeof entry)
        _exit(4);
    zero_page_frame = entry & PAGEMAP_FRAME;
    if (!(entry & PAGEMAP_PRESENT) || zero_page_frame == 0) _exit(7);
    munmap(page, PAGE_BYTES);
}

/* Calls `each` for every page of the range that is this process's own: anonymous, resident or swapped, no zero page. */
static inline void each_own_page(const void *start, size_t pages, void (*each)(size_t page, void *context),
                                 void *context) {
    uint64_t entries[PAGEMAP_CHUNK];
    for (size_t from = 0; from < pages; from += PAGEMAP_CHUNK) {
        size_t count = pages - from < PAGEMAP_CHUNK ? pages - from : PAGEMAP_CHUNK;
        off_t at = (off_t)(((uintptr_t)start / PAGE_BYTES + from) * sizeof entries[0]);
        if (pread(page_map, entries, count * sizeof entries[0], at) != (ssize_t)(count * sizeof entries[0])) _exit(4);
        for (size_t i = 0; i < count; i++) {
            uint64_t entry = entries[i];
            int present = (entry & PAGEMAP_PRESENT) && !(entry & PAGEMAP_FILE_OR_SHARED) &&
                          (entry & PAGEMAP_FRAME) != zero_page_frame;
            if (present || (entry & PAGEMAP_SWAPPED)) each(from + i, context);
        }
    }
}

static inline void count_page(size_t page, void *count) {
    (void)page;
    ++*(size_t *)count;
}

/* Bytes of the range that are this process's own memory. */
static inline size_t own_bytes(const void *start, size_t pages) {
    size_t count = 0;
    each_own_page(start, pages, count_page, &count);
    return count * PAGE_BYTES;
}

/* Makes memory that the program needs for its own books resident before the window: no growth of it. */
static inline void touch_pages(void *start, size_t bytes) {
    volatile char *byte = (volatile char *)start;
    for (size_t i = 0; i < bytes; i += PAGE_BYTES) byte[i] = byte[i];
    byte[bytes - 1] = byte[bytes - 1];
}

/* The same for the stack that the work will need. */
static inline void touch_stack(void) {
    volatile char room[64 * 1024];
    for (size_t i = 0; i < sizeof room; i += PAGE_BYTES) room[i] = 1;
}

#endif
