/* A server and, in a child, its clients. Connections come in clumps at random and stay. Per mode:
 *   --keep      each connection has 24 KiB of state that stays as long as it: memory goes with connections.
 *   --requests  connections come and go about a level, and a request keeps 3 KiB, at a steady rate: memory grows, and not
 *               with connections.
 *   else        connections come and go, and nothing stays.
 * It works until stdin closes. */

#include <arpa/inet.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <stdint.h>
#include "truth.h"

enum { STATE_BYTES = 24 * 1024, REQUEST_BYTES = 3 * 1024, CONNECTIONS_MOST = 4000, TICK_MILLISECONDS = 100 };

struct connection {
    int socket;
    char *state;
};

static struct connection open_ones[CONNECTIONS_MOST];
static size_t opened;
static uint64_t seed = 88172645463325252u;

static unsigned draw(unsigned below) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)((seed >> 33) % below);
}

SITE void accept_one(int listener, int orders, int with_state) {
    char order = 'c';
    if (write(orders, &order, 1) != 1) _exit(6);
    int socket = accept(listener, NULL, NULL);
    if (socket < 0 || opened == CONNECTIONS_MOST) _exit(6);
    struct connection *connection = &open_ones[opened++];
    connection->socket = socket;
    connection->state = with_state ? (char *)malloc(STATE_BYTES) : NULL;
    if (with_state) memset(connection->state, 'x', STATE_BYTES);
    KEEP_FRAME();
}

SITE void close_one(int orders) {
    if (opened == 0) return;
    struct connection *connection = &open_ones[--opened];
    char order = 'd';
    if (write(orders, &order, 1) != 1) _exit(6);
    close(connection->socket);
    free(connection->state);
    KEEP_FRAME();
}

SITE void keep_request(void) {
    char *request = (char *)malloc(REQUEST_BYTES);
    if (request == NULL) _exit(5);
    memset(request, 'x', REQUEST_BYTES);
    KEEP_FRAME();
}

/* The clients: `c` opens one more, `d` closes the latest. */
static void clients(int orders, const struct sockaddr_in *address) {
    static int sockets[CONNECTIONS_MOST];
    size_t count = 0;
    char order;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(orders, &order, 1) == 1) {
        if (order == 'd' && count > 0) {
            close(sockets[--count]);
        } else if (order == 'c' && count < CONNECTIONS_MOST) {
            int client = socket(AF_INET, SOCK_STREAM, 0);
            if (client < 0 || connect(client, (const struct sockaddr *)address, sizeof *address) < 0) _exit(7);
            sockets[count++] = client;
        }
    }
    _exit(0);
}

int main(int argc, char **argv) {
    int keep = flag(argc, argv, "--keep"), requests = flag(argc, argv, "--requests");
    int listener = socket(AF_INET, SOCK_STREAM, 0), orders[2];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 512) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0 || pipe(orders) < 0)
        _exit(4);
    pid_t child = fork();
    if (child < 0) _exit(4);
    if (child == 0) {
        close(orders[1]);
        clients(orders[0], &address);
    }
    close(orders[0]);
    for (int i = 0; i < 60; i++) accept_one(listener, orders[1], keep);
    wait_for_go();
    size_t at_start = opened;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) != 0) {
        /* A clump once in some seconds. */
        if (draw(25) == 0) {
            for (unsigned left = 10 + draw(60); left > 0 && opened < CONNECTIONS_MOST; left--)
                accept_one(listener, orders[1], keep);
        }
        if (!keep && opened > at_start + 20 && draw(10) == 0)
            for (unsigned left = draw(80); left > 0 && opened > at_start; left--) close_one(orders[1]);
        if (requests) for (int i = 0; i < 12; i++) keep_request();
        pause_milliseconds(TICK_MILLISECONDS);
    }
    return 0;
}
