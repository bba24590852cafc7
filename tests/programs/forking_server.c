/* A server that starts a process for each client within the window. Each keeps its own amount (serve_client: the first
 * 1 MiB, the second 2...), and the server itself keeps a little of each (accept_client). All stay until the end. */

#define _GNU_SOURCE
#include <signal.h>
#include "pages.h"

enum { MOST_CLIENTS = 8, ACCEPTED_PAGES = 128, STEPS = 10 };

SITE void serve_client(size_t pages) {
    char *range = map_pages(pages);
    write_pages(range, 0, pages);
    if (own_bytes(range, pages) != pages * PAGE_BYTES) _exit(7);
    KEEP_FRAME();
}

SITE void accept_client(void) {
    char *range = map_pages(ACCEPTED_PAGES);
    write_pages(range, 0, ACCEPTED_PAGES);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    long clients = number(argc, argv, "--clients", 4), pause = number(argc, argv, "--pause-ms", 30);
    if (clients > MOST_CLIENTS) _exit(2);
    no_huge_pages();
    open_page_map();
    touch_stack();
    int done[2];
    if (pipe(done) != 0) _exit(5);
    wait_for_go();
    pid_t server = getpid(), children[MOST_CLIENTS];
    for (long client = 0; client < clients; client++) {
        accept_client();
        children[client] = fork();
        if (children[client] < 0) _exit(5);
        if (children[client] > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* The page map that was opened before is the server's. */
        close(page_map);
        page_map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        for (int step = 0; step < STEPS; step++) {
            serve_client(256 * (size_t)(client + 1) / STEPS);
            pause_milliseconds(pause);
        }
        if (write(done[1], "d", 1) != 1) _exit(5);
        while (getppid() == server) pause_milliseconds(60000);
        _exit(0);
    }
    for (long client = 0; client < clients; client++) {
        char byte;
        if (read(done[0], &byte, 1) != 1) _exit(5);
    }
    size_t accepted = (size_t)clients * ACCEPTED_PAGES * PAGE_BYTES, served = 0;
    for (long client = 0; client < clients; client++)
        served += 256 * (size_t)(client + 1) / STEPS * STEPS * PAGE_BYTES;
    say("{\"site\":null,\"committed_bytes\":%zu,\"calls\":%ld,\"functions\":{\"accept_client\":%zu,\"serve_client\":%zu},"
        "\"processes\":{\"%d\":%zu",
        accepted + served, clients * (STEPS + 1), accepted, served, (int)server, accepted);
    for (long client = 0; client < clients; client++)
        say(",\"%d\":%zu", (int)children[client], 256 * (size_t)(client + 1) / STEPS * STEPS * PAGE_BYTES);
    say("}}\n");
    wait_for_end();
    return 0;
}
