/* Stacks that are hard to copy whole: map_at_the_bottom maps below --depth recursive calls (2,000), or below one frame
 * of --frame-kib KiB (48). A stack that is cut must say so, and still name the site, which is at its inner end. */

#include <sys/mman.h>
#include "truth.h"

enum { RANGE_BYTES = 64 * 1024 };

SITE void map_at_the_bottom(void) {
    char *range = (char *)mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED) _exit(5);
    memset(range, 'x', RANGE_BYTES);
    KEEP_FRAME();
}

SITE void descend(long depth) {
    if (depth > 0)
        descend(depth - 1);
    else
        map_at_the_bottom();
    KEEP_FRAME();
}

SITE void below_a_large_frame(size_t kibibytes) {
    volatile char frame[kibibytes * 1024];
    memset((char *)frame, 'f', sizeof frame);
    map_at_the_bottom();
    KEEP_FRAME();
    if (frame[sizeof frame - 1] != 'f') _exit(6);
}

int main(int argc, char **argv) {
    long steps = number(argc, argv, "--steps", 40), pause = number(argc, argv, "--pause-ms", 20);
    long depth = number(argc, argv, "--depth", 2000);
    size_t frame = (size_t)number(argc, argv, "--frame-kib", 48);
    int large_frame = flag(argc, argv, "--large-frame");
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        if (large_frame)
            below_a_large_frame(frame);
        else
            descend(depth);
        pause_milliseconds(pause);
    }
    say("{\"site\":\"map_at_the_bottom\",\"committed_bytes\":%zu,\"calls\":%ld}\n", (size_t)steps * RANGE_BYTES, steps);
    wait_for_end();
    return 0;
}
