/* A server whose connections end, but not their state: 20 a second come, say something and go, and 2 KB of each are
 * never freed. Little is allocated beside it. With --fixed the state goes with its connection. */

#include <sys/socket.h>
#include "cohort.h"

enum { STATE_BYTES = 2048, MESSAGES = 5 };

struct connection {
    struct connection *next;
    int socket;
    char text[STATE_BYTES - sizeof(struct connection *) - sizeof(long)];
};

static struct site sites[] = {{"accept_connection", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"answer_message", NULL};
static struct tally tally;
static struct connection *connections;
static volatile uint64_t sink;
static int fixed;
static double connections_a_second;

SITE struct connection *accept_connection(int socket, uint64_t number) {
    struct connection *connection = (struct connection *)malloc(sizeof *connection);
    must_have(connection);
    connection->socket = socket;
    memcpy(connection->text, prose + number % 4096, sizeof connection->text);
    keeps(&sites[0], footprint(connection));
    connection->next = connections;
    connections = connection;
    KEEP_FRAME();
    return connection;
}

SITE void answer_message(struct connection *connection) {
    char buffer[512];
    ssize_t length = read(connection->socket, buffer, sizeof buffer);
    if (length <= 0) _exit(6);
    char *answer = (char *)malloc((size_t)length + 64);
    must_have(answer);
    memcpy(answer, buffer, (size_t)length);
    sink += digest(answer, (size_t)length);
    if (write(connection->socket, answer, (size_t)length) != length) _exit(6);
    free(answer);
    KEEP_FRAME();
}

/* The socket is closed, and the state is forgotten. */
SITE void close_connection(struct connection *connection) {
    close(connection->socket);
    if (fixed) {
        connections = connection->next;
        drops(&sites[0], footprint(connection));
        free(connection);
    }
    KEEP_FRAME();
}

/* The other end too: it says something, and is answered with the same. */
SITE void serve_one(uint64_t number) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) _exit(5);
    struct connection *connection = accept_connection(ends[0], number);
    for (size_t i = 0; i < MESSAGES; i++) {
        char answer[512];
        const char *said = prose + number % 2000 + i * 50;
        size_t length = 30 + (number + i * 7) % 400;
        if (write(ends[1], said, length) != (ssize_t)length) _exit(6);
        answer_message(connection);
        if (read(ends[1], answer, sizeof answer) != (ssize_t)length || memcmp(answer, said, length) != 0) tally.wrong++;
        tally.answers++;
    }
    close_connection(connection);
    close(ends[1]);
    KEEP_FRAME();
}

static void *work(void *argument) {
    (void)argument;
    uint64_t number = 0;
    for (int i = 0; i < 20; i++) serve_one(++number);
    wait_for_work();
    struct pace pace = {connections_a_second, 0, 0};
    while (!stopping) {
        for (uint64_t left = due(&pace, UINT64_MAX); left > 0; left--) serve_one(++number);
        sleep_until_ns(now_ns() + 10 * SECOND_NS / 1000);
    }
    return NULL;
}

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    connections_a_second = (double)number(argc, argv, "--connections", 20);
    write_prose();
    struct cast cast = {fixed ? NULL : "accept_connection", sites, innocents, &tally, 1};
    run(&cast, work);
    return 0;
}
