/* Names chosen to hurt whoever prints them: the process and one of its threads call themselves by escape sequences,
 * quotes and line breaks. The test adds a file name and arguments of the same kind. */

#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "truth.h"

enum { RANGE_BYTES = 256 * 1024 };

static long steps, pause_ms;

SITE void keep_hostile(void) {
    char *range = (char *)mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED) _exit(5);
    memset(range, 'h', RANGE_BYTES);
    KEEP_FRAME();
}

static void *work(void *nothing) {
    /* At most 15 bytes: clear the screen, then a line that looks like leakwatch's own. */
    prctl(PR_SET_NAME, "\033[2J\nleak: no");
    for (long step = 0; step < steps; step++) {
        keep_hostile();
        pause_milliseconds(pause_ms);
    }
    return nothing;
}

int main(int argc, char **argv) {
    steps = number(argc, argv, "--steps", 40);
    pause_ms = number(argc, argv, "--pause-ms", 20);
    prctl(PR_SET_NAME, "\033]0;x\a\r\"<b>\\\xff");
    wait_for_go();
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) _exit(5);
    pthread_join(thread, NULL);
    say("{\"site\":\"keep_hostile\",\"committed_bytes\":%zu,\"calls\":%ld}\n", (size_t)steps * RANGE_BYTES, steps);
    wait_for_end();
    return 0;
}
