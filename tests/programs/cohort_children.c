/* A server that starts its workers within the window, at the first line after the go. Each worker leaks in handle_upload
 * while handle_render and handle_search churn much more; the server itself only waits. What all of them keep is counted
 * in memory that they share. With --fixed nothing is kept. */

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "cohort.h"

enum { WORKERS_MAX = 20, UPLOAD_BYTES = 1000, AT_ONCE = 64 };

/* What the processes share. */
struct shared {
    struct site sites[2];
    struct tally tallies[WORKERS_MAX + 1];
};

static struct shared *shared;
static const char *const innocents[] = {"handle_render", "handle_search", NULL};
static int fixed;
static double uploads_a_second, requests_a_second;

struct upload {
    struct upload *next;
    char text[UPLOAD_BYTES - sizeof(struct upload *)];
};
static struct upload *uploads;

SITE void handle_upload(uint64_t number) {
    struct upload *upload = (struct upload *)malloc(sizeof *upload);
    must_have(upload);
    memcpy(upload->text, prose + number % 4096, sizeof upload->text);
    if (fixed) {
        free(upload);
        KEEP_FRAME();
        return;
    }
    upload->next = uploads;
    uploads = upload;
    keeps(&shared->sites[0], footprint(upload));
    KEEP_FRAME();
}

SITE void handle_render(uint64_t *random, uint64_t number, struct ring *ring, struct tally *tally) {
    size_t bytes = random_size(random);
    void *page = malloc(bytes);
    must_have(page);
    write_record(page, bytes, NULL, number);
    pass_through(ring, 100, page, bytes, number, tally);
    KEEP_FRAME();
}

/* Of the size that leaks, so that size alone does not tell. */
SITE void handle_search(uint64_t number, struct ring *ring, struct tally *tally) {
    size_t bytes = UPLOAD_BYTES - number % 8;
    void *hits = malloc(bytes);
    must_have(hits);
    write_record(hits, bytes, NULL, number);
    pass_through(ring, 50, hits, bytes, number, tally);
    KEEP_FRAME();
}

SITE void work_as(long worker, pid_t server) {
    struct tally *tally = &shared->tallies[worker];
    struct ring rendered = {{0}, {0}, {0}, 0}, found = {{0}, {0}, {0}, 0};
    struct pace leaks = {uploads_a_second, 0, 0}, churns = {requests_a_second, 0, 0};
    uint64_t random = 88172645463325252ULL + (uint64_t)worker, number = 0;
    while (getppid() == server) {
        for (uint64_t left = due(&leaks, UINT64_MAX); left > 0; left--) handle_upload(++number);
        for (uint64_t left = due(&churns, AT_ONCE); left > 0; left--) {
            handle_render(&random, ++number, &rendered, tally);
            handle_search(++number, &found, tally);
        }
        sleep_until_ns(now_ns() + SECOND_NS / 1000);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    long workers = number(argc, argv, "--workers", 3);
    uploads_a_second = (double)number(argc, argv, "--uploads", 1500);
    requests_a_second = (double)number(argc, argv, "--requests", 20000);
    if (workers > WORKERS_MAX) _exit(2);
    write_prose();
    shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) _exit(5);
    shared->sites[0].function = "handle_upload";
    struct cast cast = {fixed ? NULL : "handle_upload", shared->sites, innocents, shared->tallies, WORKERS_MAX + 1};
    pid_t server = getpid(), children[WORKERS_MAX], stranger = -1;
    int started = 0;
    wait_for_go();
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        if (byte != '\n') continue;
        shared->tallies[WORKERS_MAX].answers++;
        say_truth(&cast);
        for (long worker = 0; !started && worker < workers; worker++) {
            children[worker] = fork();
            if (children[worker] < 0) _exit(5);
            if (children[worker] > 0) continue;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            work_as(worker, server);
        }
        if (!started && flag(argc, argv, "--stranger")) {
            stranger = fork();
            if (stranger == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                setenv("LD_PRELOAD", "libjemalloc.so.2", 1);
                execlp("sleep", "sleep", "600", (char *)NULL);
                _exit(5);
            }
        }
        started = 1;
    }
    if (stranger > 0) kill(stranger, SIGKILL);
    for (long worker = 0; started && worker < workers; worker++) kill(children[worker], SIGKILL);
    return 0;
}
