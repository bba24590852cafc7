/* What a process can do in the middle of a window. The mode is the first argument:
 *   fork  a child is forked and leaks in leak_in_child; the parent holds still (--honest: the child leaks nothing);
 *   exec  leaks in leak_before_exec, then replaces itself by this same file, which leaks in leak_after_exec;
 *   exit  leaks in leak_before_exit, says its truth and exits at once. */

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "truth.h"

enum { RANGE_BYTES = 512 * 1024 };

/* Written out per site: see mmap_leak.c. */
#define LEAK()                                                                                                  \
    char *range = (char *)mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  \
    if (range == MAP_FAILED) _exit(5);                                                                          \
    memset(range, 'x', RANGE_BYTES);                                                                            \
    KEEP_FRAME()

SITE void leak_in_child(void) { LEAK(); }
SITE void leak_before_exec(void) { LEAK(); }
SITE void leak_after_exec(void) { LEAK(); }
SITE void leak_before_exit(void) { LEAK(); }

static long steps, pause_ms;

static size_t repeat(void (*leak)(void)) {
    for (long step = 0; step < steps; step++) {
        leak();
        pause_milliseconds(pause_ms);
    }
    return (size_t)steps * RANGE_BYTES;
}

static int fork_mode(int honest) {
    int done[2], stop[2];
    if (pipe(done) != 0 || pipe(stop) != 0) return 5;
    wait_for_go();
    pid_t child = fork();
    if (child < 0) return 5;
    if (child == 0) {
        char byte = 'd';
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(stop[1]);
        if (!honest) repeat(leak_in_child);
        if (write(done[1], &byte, 1) != 1) _exit(5);
        while (read(stop[0], &byte, 1) > 0) {
        }
        _exit(0);
    }
    char byte;
    if (read(done[0], &byte, 1) != 1) return 5;
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%ld,\"child\":%d}\n", honest ? "null" : "\"leak_in_child\"",
        honest ? 0 : (size_t)steps * RANGE_BYTES, honest ? 0 : steps, (int)child);
    wait_for_end();
    return 0;
}

int main(int argc, char **argv) {
    steps = number(argc, argv, "--steps", 20);
    pause_ms = number(argc, argv, "--pause-ms", 20);
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "fork") == 0) return fork_mode(flag(argc, argv, "--honest"));
    if (strcmp(mode, "exec") == 0) {
        wait_for_go();
        repeat(leak_before_exec);
        argv[1] = (char *)"after-exec";
        execv("/proc/self/exe", argv);
        return 5;
    }
    if (strcmp(mode, "after-exec") == 0) {
        size_t after = repeat(leak_after_exec);
        say("{\"site\":\"leak_after_exec\",\"committed_bytes\":%zu,\"calls\":%ld,\"committed_before_exec_bytes\":%zu}\n",
            after, steps, after);
        wait_for_end();
        return 0;
    }
    if (strcmp(mode, "exit") == 0) {
        wait_for_go();
        size_t committed = repeat(leak_before_exit);
        say("{\"site\":\"leak_before_exit\",\"committed_bytes\":%zu,\"calls\":%ld}\n", committed, steps);
        return 0;
    }
    return 2;
}
