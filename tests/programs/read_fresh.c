/* receive_body keeps bodies that only the kernel ever wrote: read(2), from a pipe and from /dev/zero in turn, into
 * fresh blocks of malloc, so that the pages come by faults taken in kernel mode. receive_and_drop does the same and
 * frees. The honest twin keeps none. */

#include <malloc.h>
#include <pthread.h>
#include "pages.h"

enum { BODY_PAGES = 64, MOST = 4096 };

static char *bodies[MOST];
static size_t body_count;
static int pipes[2], zeroes;

static void *send_bodies(void *unused) {
    static char part[16 * 4096];
    (void)unused;
    memset(part, 'b', sizeof part);
    while (write(pipes[1], part, sizeof part) > 0) {
    }
    return NULL;
}

/* A macro: an inlined function of its own would be the one to blame. */
#define RECEIVE(body, from)                                            \
    size_t bytes = BODY_PAGES * PAGE_BYTES - 32, got = 0;              \
    char *body = (char *)malloc(bytes);                                \
    if (body == NULL) _exit(5);                                        \
    while (got < bytes) {                                              \
        ssize_t part = read(from, body + got, bytes - got);            \
        if (part <= 0) _exit(5);                                       \
        got += (size_t)part;                                           \
    }

SITE void receive_body(int from) {
    RECEIVE(body, from)
    if (body_count == MOST) _exit(5);
    bodies[body_count++] = body;
    KEEP_FRAME();
}

SITE void receive_and_drop(int from) {
    RECEIVE(body, from)
    free(body);
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest");
    long steps = number(argc, argv, "--steps", 50), pause = number(argc, argv, "--pause-ms", 20);
    no_huge_pages();
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    open_page_map();
    touch_stack();
    touch_pages(bodies, sizeof bodies);
    zeroes = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    pthread_t sender;
    if (zeroes < 0 || pipe(pipes) != 0 || pthread_create(&sender, NULL, send_bodies, NULL) != 0) _exit(5);
    receive_and_drop(pipes[0]);
    receive_and_drop(zeroes);
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        for (int turn = 0; turn < 2; turn++) {
            int from = turn ? zeroes : pipes[0];
            if (honest)
                receive_and_drop(from);
            else
                receive_body(from);
            receive_and_drop(from);
        }
        pause_milliseconds(pause);
    }
    size_t present = 0;
    for (size_t i = 0; i < body_count; i++) present += own_bytes(bodies[i] - 16, BODY_PAGES);
    size_t kept = body_count * BODY_PAGES * PAGE_BYTES;
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"innocents\":[\"receive_and_drop\"],\"disagreements\":%d,"
        "\"functions\":{\"receive_body\":%zu,\"receive_and_drop\":0}}\n",
        honest ? "null" : "\"receive_body\"", kept, body_count, present != kept, kept);
    wait_for_end();
    return 0;
}
