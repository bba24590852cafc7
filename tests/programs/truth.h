/* The protocol every target program follows, so that a test knows what a right report must say.
 *
 *   1. the program prints {"ready":true,"pid":N} and waits for a line on stdin: leakwatch attaches meanwhile;
 *   2. it works, then prints its truth as one line of JSON: what it knows of itself, counted by its own hand;
 *   3. it stays alive, holding what it holds, until stdin closes.
 *
 * Nothing here allocates: stdio's buffers would be growth that belongs to no one. Everything goes through read(2),
 * write(2) and arrays of fixed size. */

#ifndef TRUTH_H
#define TRUTH_H

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A function that must be a frame of its own, under its own name: not inlined, not cloned, not analysed across. */
#if defined(__has_attribute)
#if __has_attribute(noipa)
#define SITE __attribute__((noipa))
#endif
#endif
#ifndef SITE
#define SITE __attribute__((noinline))
#endif

/* Put after a call that must not become a jump: a tail call leaves no frame behind. */
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

#define PAGE_BYTES 4096UL

static inline size_t whole_pages(size_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

/* Bytes of address space behind one malloc that glibc served by a mapping of its own: the chunk's 16 bytes of header
 * come before the usable ones, and the two together are whole pages. */
static inline size_t mapped_chunk_bytes(size_t usable) { return whole_pages(usable + 16); }

static inline void say(const char *format, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    size_t left = length < 0 ? 0 : (size_t)length < sizeof line ? (size_t)length : sizeof line - 1;
    const char *from = line;
    while (left > 0) {
        ssize_t written = write(STDOUT_FILENO, from, left);
        if (written <= 0) _exit(3);
        from += written;
        left -= (size_t)written;
    }
}

/* Says ready, waits for the go. */
static inline void wait_for_go(void) {
    say("{\"ready\":true,\"pid\":%d}\n", (int)getpid());
    char byte;
    do {
        if (read(STDIN_FILENO, &byte, 1) != 1) _exit(0);
    } while (byte != '\n');
}

/* Holds everything until the other side closes stdin. */
static inline void wait_for_end(void) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
}

static inline void pause_milliseconds(long milliseconds) {
    if (milliseconds <= 0) return;
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* --name, anywhere among the arguments. */
static inline int flag(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return 1;
    return 0;
}

/* --name NUMBER, anywhere among the arguments. */
static inline long number(int argc, char **argv, const char *name, long otherwise) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return strtol(argv[i + 1], NULL, 10);
    return otherwise;
}

/* Calls `each` for every range of private, writable, anonymous memory of this process, the main thread's stack left
 * out (it grows by faults, not by calls). */
static inline void each_committed_range(void (*each)(unsigned long start, unsigned long end, void *context),
                                        void *context) {
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0) _exit(4);
    char buffer[8192];
    size_t held = 0;
    for (;;) {
        ssize_t got = read(maps, buffer + held, sizeof buffer - held - 1);
        if (got <= 0) break;
        held += (size_t)got;
        buffer[held] = 0;
        char *line = buffer, *end;
        while ((end = strchr(line, '\n')) != NULL) {
            *end = 0;
            unsigned long start, stop, inode;
            char protection[5];
            if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &start, &stop, protection, &inode) == 4 && inode == 0 &&
                protection[1] == 'w' && protection[3] == 'p' && strstr(line, "[stack]") == NULL)
                each(start, stop, context);
            line = end + 1;
        }
        held -= (size_t)(line - buffer);
        memmove(buffer, line, held);
    }
    close(maps);
}

static inline void add_range(unsigned long start, unsigned long end, void *total) {
    *(size_t *)total += end - start;
}

/* Private, writable, anonymous address space, in bytes: what a report calls committed. */
static inline size_t committed_now(void) {
    size_t total = 0;
    each_committed_range(add_range, &total);
    return total;
}

#endif
