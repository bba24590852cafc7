/* A window with one kind of growth, told by its own count in the bytes of chunks:
 *   --leak      blocks that are kept;
 *   --fragment  blocks that shrink to next to nothing, and the holes that they leave fit none of those to come: the
 *               memory is free, and the allocator keeps it;
 *   --both      half of each;
 *   --cache     a cache that is filled within the first third of the window, and from then on replaces;
 *   --churn     blocks taken and freed, all sizes of which were taken before the window. */

#include "heap.h"
#include "pages.h"

/* A record is larger than any hole: none of them fits it, up to STEPS_MAX steps. */
enum { RECORD_BYTES = 2040, FIRST_BYTES = 504, SIZE_STEP = 16, SHRUNK_BYTES = 24, HELD = 2000, STEPS_MAX = 90 };
enum { RECORDS_MAX = 40000, SHRUNK_MAX = 80000, CACHE_SLOTS = 10000 };
_Static_assert(RECORD_BYTES > FIRST_BYTES + STEPS_MAX * SIZE_STEP, "records must not fill holes");

static void *leaked[RECORDS_MAX], *shrunk[SHRUNK_MAX], *cache[CACHE_SLOTS], *held[HELD];
static size_t leaked_count, leaked_bytes, shrunk_count, shrunk_bytes, free_bytes, cached_count;
static uint64_t state;

SITE void keep_records(size_t bytes) {
    for (size_t taken = 0; taken < bytes; taken += RECORD_BYTES + 8) {
        if (leaked_count == RECORDS_MAX) _exit(5);
        void *record = malloc(RECORD_BYTES);
        if (record == NULL) _exit(5);
        memset(record, 'l', RECORD_BYTES);
        leaked_bytes += chunk_bytes_of(record);
        leaked[leaked_count++] = record;
    }
    KEEP_FRAME();
}

SITE void shrink_buffers(size_t bytes, size_t size) {
    size_t first = shrunk_count;
    for (size_t taken = 0; taken < bytes; taken += size + 8) {
        if (shrunk_count == SHRUNK_MAX) _exit(5);
        void *buffer = malloc(size);
        if (buffer == NULL) _exit(5);
        memset(buffer, 's', size);
        free_bytes += chunk_bytes_of(buffer);
        shrunk[shrunk_count++] = buffer;
    }
    for (size_t i = first; i < shrunk_count; i++) {
        shrunk[i] = realloc(shrunk[i], SHRUNK_BYTES);
        shrunk_bytes += chunk_bytes_of(shrunk[i]);
        free_bytes -= chunk_bytes_of(shrunk[i]);
    }
    KEEP_FRAME();
}

SITE void look_up(size_t times, size_t slots) {
    for (size_t i = 0; i < times; i++) {
        size_t slot = cached_count < slots ? cached_count++ : draw(&state, slots);
        free(cache[slot]);
        cache[slot] = malloc(RECORD_BYTES);
        if (cache[slot] == NULL) _exit(5);
        memset(cache[slot], 'c', RECORD_BYTES);
    }
    KEEP_FRAME();
}

SITE void churn(size_t times) {
    for (size_t i = 0; i < times; i++) {
        size_t slot = draw(&state, HELD), bytes = 16 + draw(&state, 1500);
        free(held[slot]);
        held[slot] = malloc(bytes);
        if (held[slot] == NULL) _exit(5);
        memset(held[slot], 'h', bytes);
    }
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    long steps = number(argc, argv, "--steps", 80), pause = number(argc, argv, "--pause-ms", 40);
    size_t step_bytes = (size_t)number(argc, argv, "--step-bytes", 256 * 1024);
    int both = flag(argc, argv, "--both");
    int leak = both || flag(argc, argv, "--leak"), fragment = both || flag(argc, argv, "--fragment");
    int caches = flag(argc, argv, "--cache"), churns = flag(argc, argv, "--churn");
    if (steps > STEPS_MAX) _exit(2);
    size_t part = both ? step_bytes / 2 : step_bytes;
    no_huge_pages();
    state = seeded(7);
    touch_pages(leaked, sizeof leaked);
    touch_pages(shrunk, sizeof shrunk);
    touch_pages(cache, sizeof cache);
    touch_stack();
    churn(40 * HELD);
    size_t free_before = mallinfo2().fordblks;
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        if (leak) keep_records(part);
        if (fragment) shrink_buffers(part, FIRST_BYTES + (size_t)step * SIZE_STEP);
        if (caches) look_up(CACHE_SLOTS * 3 / (size_t)steps, CACHE_SLOTS);
        if (churns) churn(HELD);
        pause_milliseconds(pause);
    }
    /* By glibc's own count: what the tops do is in it. */
    size_t free_grown = mallinfo2().fordblks - free_before;
    say("{\"site\":%s,\"committed_bytes\":0,\"calls\":0,\"leaked_bytes\":%zu,\"leaked_count\":%zu,\"shrunk_bytes\":%zu,"
        "\"shrunk_count\":%zu,\"free_bytes\":%zu,\"cached_bytes\":%zu,\"record_bytes\":%d,"
        "\"free_grown_bytes\":%zd}\n",
        leak ? "\"keep_records\"" : "null", leaked_bytes, leaked_count, shrunk_bytes, shrunk_count, free_bytes,
        cached_count * (RECORD_BYTES + 8), RECORD_BYTES, free_grown);
    wait_for_end();
    return 0;
}
