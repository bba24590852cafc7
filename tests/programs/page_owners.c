/* Who touched each page that is still there. Three functions write runs of pages wherever they are sent: some fresh,
 * some given up and touched anew, some present already. load_document mallocs large blocks and writes their first
 * half, note_event keeps small blocks on the heap, peek only reads (the zero page comes: nobody's memory), give_back
 * unmaps, frees and gives pages up by MADV_DONTNEED. All of it in an order drawn from a seed.
 *
 * The truth is kept by page: its owner is the function that first wrote it since it was last given up. At the end the
 * page map must agree (disagreements is 0). On the heap, where malloc's own words lie too, the page map read between
 * two steps tells which pages a step brought in. With --honest everything is given back. */

#define _GNU_SOURCE
#include <malloc.h>
#include "pages.h"

enum { SLOTS = 160, MOST_PAGES = 64, NOTES = 3000, HEAP_PAGES = 16384 };

enum owner { NOBODY, BEFORE, ORDERS, SESSIONS, INDEX, DOCUMENT, EVENT, PEEK, GIVE_BACK, OWNERS };

static const char *const NAMES[OWNERS] = {[ORDERS] = "write_orders",    [SESSIONS] = "write_sessions",
                                          [INDEX] = "write_index",      [DOCUMENT] = "load_document",
                                          [EVENT] = "note_event",       [PEEK] = "peek",
                                          [GIVE_BACK] = "give_back"};

struct slot {
    char *start; /* of the first page */
    size_t pages;
    char *block; /* where malloc gave it: 16 bytes later */
    unsigned char owner[MOST_PAGES];
};

static struct slot slots[SLOTS];
static char *notes[NOTES];
static unsigned char heap_owner[HEAP_PAGES], heap_seen[HEAP_PAGES];
static char *heap_start;
static size_t owned[OWNERS], given_up;
static uint64_t state;

static void own(struct slot *slot, size_t page, enum owner owner) {
    if (slot->owner[page] != NOBODY) return;
    slot->owner[page] = (unsigned char)owner;
    owned[owner]++;
}

static void disown(struct slot *slot, size_t page) {
    if (slot->owner[page] == NOBODY) return;
    owned[slot->owner[page]]--;
    slot->owner[page] = NOBODY;
    given_up++;
}

/* The last bytes of each page: a block's header lies at the front of the first one. A macro: an inlined function of its
 * own would be the one to blame. */
#define WRITE_RUN(slot, from, count) \
    for (size_t page = from; page < from + count; page++) slot->start[(page + 1) * PAGE_BYTES - 64] = 1

SITE void write_orders(struct slot *slot, size_t from, size_t count) {
    WRITE_RUN(slot, from, count);
    KEEP_FRAME();
}

SITE void write_sessions(struct slot *slot, size_t from, size_t count) {
    WRITE_RUN(slot, from, count);
    KEEP_FRAME();
}

SITE void write_index(struct slot *slot, size_t from, size_t count) {
    WRITE_RUN(slot, from, count);
    KEEP_FRAME();
}

SITE void peek(struct slot *slot, size_t from, size_t count) {
    for (size_t page = from; page < from + count; page++)
        (void)*(volatile char *)(slot->start + (page + 1) * PAGE_BYTES - 64);
    KEEP_FRAME();
}

SITE void load_document(struct slot *slot, size_t pages) {
    size_t bytes = pages * PAGE_BYTES - 32;
    char *block = (char *)malloc(bytes);
    if (block == NULL || mapped_chunk_bytes(malloc_usable_size(block)) != pages * PAGE_BYTES) _exit(5);
    memset(block, 'd', pages / 2 * PAGE_BYTES - 16);
    slot->start = block - 16;
    slot->pages = pages;
    slot->block = block;
    KEEP_FRAME();
}

SITE void note_event(char **note, size_t bytes) {
    *note = (char *)malloc(bytes);
    if (*note == NULL) _exit(5);
    memset(*note, 'n', bytes);
    KEEP_FRAME();
}

SITE void give_back(struct slot *slot, char **note, size_t from, size_t count) {
    if (note != NULL) {
        free(*note);
        *note = NULL;
    } else if (count > 0) {
        madvise(slot->start + from * PAGE_BYTES, count * PAGE_BYTES, MADV_DONTNEED);
    } else if (slot->block != NULL) {
        free(slot->block);
    } else {
        munmap(slot->start, slot->pages * PAGE_BYTES);
    }
    KEEP_FRAME();
}

static void see_heap_page(size_t page, void *owner) {
    heap_seen[page] = 1;
    if (heap_owner[page] != NOBODY) return;
    heap_owner[page] = *(unsigned char *)owner;
    owned[*(unsigned char *)owner]++;
}

/* What the step changed on the heap: new pages are its own, pages that are gone have no owner. */
static void look_at_heap(enum owner owner) {
    size_t pages = (size_t)((char *)sbrk(0) - heap_start) / PAGE_BYTES;
    if (pages > HEAP_PAGES) _exit(8);
    unsigned char byte = (unsigned char)owner;
    memset(heap_seen, 0, sizeof heap_seen);
    each_own_page(heap_start, pages, see_heap_page, &byte);
    for (size_t page = 0; page < HEAP_PAGES; page++)
        if (heap_owner[page] != NOBODY && !heap_seen[page]) {
            owned[heap_owner[page]]--;
            heap_owner[page] = NOBODY;
            given_up++;
        }
}

static void new_slot(struct slot *slot) {
    if (draw(&state, 3) == 0) {
        size_t pages = 40 + draw(&state, MOST_PAGES - 40 + 1);
        load_document(slot, pages);
        for (size_t page = 0; page < pages / 2; page++) own(slot, page, DOCUMENT);
        return;
    }
    slot->pages = 8 + draw(&state, MOST_PAGES - 8 + 1);
    slot->start = map_pages(slot->pages);
    slot->block = NULL;
}

static void free_slot(struct slot *slot) {
    give_back(slot, NULL, 0, 0);
    for (size_t page = 0; page < slot->pages; page++) disown(slot, page);
    slot->start = NULL;
}

static void step(void) {
    struct slot *slot = &slots[draw(&state, SLOTS)];
    uint64_t what = draw(&state, 20);
    if (what < 3) {
        for (int i = 0; i < 12; i++) {
            char **note = &notes[draw(&state, NOTES)];
            if (*note == NULL) {
                note_event(note, 200 + draw(&state, 3000));
                look_at_heap(EVENT);
            } else if (draw(&state, 3) == 0) {
                give_back(NULL, note, 0, 0);
                look_at_heap(GIVE_BACK);
            }
        }
        return;
    }
    if (slot->start == NULL) {
        new_slot(slot);
        return;
    }
    size_t from = draw(&state, slot->pages), count = 1 + draw(&state, slot->pages - from);
    if (what < 4) {
        free_slot(slot);
    } else if (what < 6) {
        /* Not the first page of a malloc's block, which holds its size. */
        if (from == 0) return;
        give_back(slot, NULL, from, count);
        for (size_t page = from; page < from + count; page++) disown(slot, page);
    } else if (what < 8) {
        peek(slot, from, count);
    } else {
        enum owner owner = what < 12 ? ORDERS : what < 16 ? SESSIONS : INDEX;
        void (*const write)(struct slot *, size_t, size_t) =
            owner == ORDERS ? write_orders : owner == SESSIONS ? write_sessions : write_index;
        write(slot, from, count);
        for (size_t page = from; page < from + count; page++) own(slot, page, owner);
    }
}

static size_t disagreements;

struct seen {
    unsigned char pages[MOST_PAGES];
};

static void see_page(size_t page, void *seen) { ((struct seen *)seen)->pages[page] = 1; }

static void check(const struct slot *slot) {
    struct seen seen = {{0}};
    each_own_page(slot->start, slot->pages, see_page, &seen);
    for (size_t page = 0; page < slot->pages; page++)
        disagreements += seen.pages[page] != (slot->owner[page] != NOBODY);
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long operations = number(argc, argv, "--operations", 1500), pause = number(argc, argv, "--pause-ms", 10);
    state = seeded(number(argc, argv, "--seed", 1));
    no_huge_pages();
    heap_start = (char *)sbrk(0);
    if ((uintptr_t)heap_start % PAGE_BYTES != 0) _exit(8);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    open_page_map();
    touch_stack();
    /* The books are there before the window, and so are the heap's first pages. */
    touch_pages(slots, sizeof slots);
    touch_pages(notes, sizeof notes);
    touch_pages(heap_owner, sizeof heap_owner);
    touch_pages(heap_seen, sizeof heap_seen);
    free(malloc(1000));
    look_at_heap(BEFORE);
    wait_for_go();
    for (long i = 0; i < operations; i++) {
        step();
        if (i % 16 == 15) pause_milliseconds(pause);
    }
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].start != NULL) honest ? free_slot(&slots[i]) : check(&slots[i]);
    if (honest) {
        for (size_t i = 0; i < NOTES; i++)
            if (notes[i] != NULL) give_back(NULL, &notes[i], 0, 0);
        malloc_trim(0);
        look_at_heap(GIVE_BACK);
    }
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":%ld,\"disagreements\":%zu,\"given_up_bytes\":%zu,\"functions\":{",
        operations, disagreements, given_up * PAGE_BYTES);
    for (int owner = ORDERS; owner < OWNERS; owner++)
        say("%s\"%s\":%zu", owner == ORDERS ? "" : ",", NAMES[owner], owned[owner] * PAGE_BYTES);
    say("}}\n");
    wait_for_end();
    return 0;
}
