/* Memory from before the window that is copied within it: a fork shares it, and overwrite_old then writes every page of
 * it. Each write is a fault and none is growth, since the page was this process's before. real_leak adds less than
 * that, and is all that may be blamed. The child only waits. */

#define _GNU_SOURCE
#include <signal.h>
#include "pages.h"

enum { OLD_PAGES = 8192, LEAKED_PAGES = 40 };

SITE void overwrite_old(char *old, size_t from, size_t count) {
    for (size_t page = from; page < from + count; page++) old[page * PAGE_BYTES]++;
    KEEP_FRAME();
}

SITE void real_leak(void) {
    char *range = map_pages(LEAKED_PAGES);
    write_pages(range, 0, LEAKED_PAGES);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 50), pause = number(argc, argv, "--pause-ms", 20);
    no_huge_pages();
    open_page_map();
    touch_stack();
    char *old = map_pages(OLD_PAGES);
    overwrite_old(old, 0, OLD_PAGES);
    wait_for_go();
    pid_t parent = getpid(), child = fork();
    if (child < 0) _exit(5);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent) pause_milliseconds(60000);
        _exit(0);
    }
    for (long step = 0; step < steps; step++) {
        size_t count = OLD_PAGES / (size_t)steps;
        overwrite_old(old, (size_t)step * count, count);
        if (!honest) real_leak();
        pause_milliseconds(pause);
    }
    size_t leaked = honest ? 0 : (size_t)steps * LEAKED_PAGES * PAGE_BYTES;
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%ld,\"innocents\":[\"overwrite_old\"],\"disagreements\":%d,"
        "\"copied_bytes\":%zu,\"functions\":{\"real_leak\":%zu,\"overwrite_old\":0}}\n",
        honest ? "null" : "\"real_leak\"", leaked, honest ? 0 : steps,
        own_bytes(old, OLD_PAGES) != OLD_PAGES * PAGE_BYTES, (size_t)steps * (OLD_PAGES / (size_t)steps) * PAGE_BYTES,
        leaked);
    wait_for_end();
    return 0;
}
