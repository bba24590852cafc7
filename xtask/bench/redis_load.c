/* Clients of a redis server, each with a connection of its own that has one request on its way at a time. Every other
 * request replaces a value by one of another size, the others read. A unit of work is a request; its latency is the time
 * to its answer.
 *
 *   redis_load COUNTERS SOCKET CLIENTS
 *
 * It ends when the server does not answer. */

#define _GNU_SOURCE
#include "counters.h"
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { KEYS = 20000, VALUE_MOST = 1500, BUFFER = 4096 };

static const char *path;
static long clients;
static int cold_clients;

static void failed(const char *what) {
    perror(what);
    exit(1);
}

static int connected(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) exit(2);
    strcpy(address.sun_path, path);
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address) != 0) failed("redis");
    return server;
}

static void write_whole(int server, const char *text, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t more = write(server, text + sent, length - sent);
        if (more <= 0) failed("write to redis");
        sent += (size_t)more;
    }
}

/* An answer is a line, and behind a line of $LENGTH that many bytes and a line's end. -1 is the length of nothing. */
static void read_answer(int server) {
    char buffer[BUFFER];
    size_t got = 0, wanted = 0;
    while (wanted == 0 || got < wanted) {
        ssize_t more = read(server, buffer + got, sizeof buffer - 1 - got);
        if (more <= 0) failed("read from redis");
        got += (size_t)more;
        buffer[got] = 0;
        char *end = wanted == 0 ? strstr(buffer, "\r\n") : NULL;
        if (end == NULL) continue;
        if (buffer[0] == '-') {
            fprintf(stderr, "redis refuses: %s\n", buffer);
            exit(1);
        }
        long length = buffer[0] == '$' ? atol(buffer + 1) : -1;
        wanted = (size_t)(end + 2 - buffer) + (length >= 0 ? (size_t)length + 2 : 0);
        if (wanted >= sizeof buffer) exit(1);
    }
}

static void set(int server, const char *value, uint64_t key, uint64_t bytes) {
    char text[BUFFER], name[32];
    int name_length = snprintf(name, sizeof name, "key:%llu", (unsigned long long)key);
    int length = snprintf(text, sizeof text, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%llu\r\n%.*s\r\n", name_length, name,
                          (unsigned long long)bytes, (int)bytes, value);
    write_whole(server, text, (size_t)length);
    read_answer(server);
}

static void get(int server, uint64_t key) {
    char text[BUFFER], name[32];
    int name_length = snprintf(name, sizeof name, "key:%llu", (unsigned long long)key);
    int length = snprintf(text, sizeof text, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", name_length, name);
    write_whole(server, text, (size_t)length);
    read_answer(server);
}

static void *work(void *argument) {
    long slot = (long)argument;
    int server = connected();
    char value[VALUE_MOST + 1];
    memset(value, 'v', sizeof value);
    uint64_t state = 0x9E3779B97F4A7C15 * (uint64_t)(slot + 1);
    /* Its share of the keys: from then on redis holds as much as it ever will. */
    for (long key = slot; key < KEYS; key += clients) set(server, value, (uint64_t)key, VALUE_MOST / 2);
    if (__atomic_sub_fetch(&cold_clients, 1, __ATOMIC_SEQ_CST) == 0) counters_warm();
    for (;;) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t key = (state >> 11) % KEYS, began = nanoseconds_now();
        if (state & 1)
            set(server, value, key, 16 + (state >> 32) % (VALUE_MOST - 16));
        else
            get(server, key);
        counters_latency(nanoseconds_now() - began);
        counters_add((int)slot, 1, 0);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    counters_open(arguments[1]);
    path = arguments[2];
    clients = atol(arguments[3]);
    if (clients < 1 || clients > SLOTS) return 2;
    cold_clients = (int)clients;
    for (long slot = 0; slot < clients; slot++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)slot) != 0) return 1;
    }
    for (;;) pause();
}
