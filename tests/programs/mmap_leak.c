/* map_and_forget maps ranges of several sizes and loses them; map_and_release maps as much and unmaps it. The honest
 * twin forgets none. */

#include <sys/mman.h>
#include "truth.h"

/* Written out twice: an inlined function of its own would be the innermost frame, and so the one to blame. */
#define MAP(range, bytes)                                                                                     \
    char *range = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);      \
    if (range == MAP_FAILED) _exit(5);                                                                        \
    for (size_t at = 0; at < bytes; at += PAGE_BYTES) range[at] = 1

SITE void map_and_forget(size_t bytes, int honest) {
    MAP(range, bytes);
    if (honest) munmap(range, bytes);
    KEEP_FRAME();
}

SITE void map_and_release(size_t bytes) {
    MAP(range, bytes);
    munmap(range, bytes);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 100), pause = number(argc, argv, "--pause-ms", 10);
    size_t committed = 0, calls = 0;
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        size_t bytes = (size_t)(step % 16 + 1) * 5 * PAGE_BYTES;
        map_and_forget(bytes, honest);
        map_and_release(bytes);
        map_and_release(2 * bytes);
        committed += honest ? 0 : bytes;
        calls += !honest;
        pause_milliseconds(pause);
    }
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"map_and_release\"]}\n",
        honest ? "null" : "\"map_and_forget\"", committed, calls);
    wait_for_end();
    return 0;
}
