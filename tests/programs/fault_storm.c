/* One thread faults as fast as it can: storm_pages maps, touches every page and unmaps, again and again. keep_a_few keeps
 * a small mapping a round, which must not drown. */

#include "pages.h"

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

SITE void storm_pages(size_t pages) {
    char *range = map_pages(pages);
    write_pages(range, 0, pages);
    munmap(range, pages * PAGE_BYTES);
    KEEP_FRAME();
}

SITE size_t keep_a_few(size_t pages) {
    char *range = map_pages(pages);
    write_pages(range, 0, pages);
    size_t bytes = own_bytes(range, pages);
    KEEP_FRAME();
    return bytes;
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    double seconds = (double)number(argc, argv, "--milliseconds", 6000) / 1000;
    size_t pages = (size_t)number(argc, argv, "--mib", 64) * 256, few = (size_t)number(argc, argv, "--keep-pages", 64);
    no_huge_pages();
    open_page_map();
    touch_stack();
    wait_for_go();
    size_t rounds = 0, kept = 0;
    for (double end = seconds_now() + seconds; seconds_now() < end; rounds++) {
        storm_pages(pages);
        if (!honest) kept += keep_a_few(few);
    }
    size_t meant = honest ? 0 : rounds * few * PAGE_BYTES;
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"storm_pages\"],\"disagreements\":%d,"
        "\"faults\":%zu,\"functions\":{\"keep_a_few\":%zu,\"storm_pages\":0}}\n",
        honest ? "null" : "\"keep_a_few\"", meant, honest ? 0 : rounds, kept != meant, rounds * pages + meant / PAGE_BYTES,
        meant);
    wait_for_end();
    return 0;
}
