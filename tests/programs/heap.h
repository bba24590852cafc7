/* What a program's own glibc says of its heap, printed as its truth: mallinfo2 for all arenas together, malloc_info
 * for each. Taken when the program is quiet; nothing here allocates between the figures and the end. */

#ifndef HEAP_H
#define HEAP_H

#include <malloc.h>
#include <stdint.h>
#include "truth.h"

enum { ARENA_WORDS_MAX = 2800, INFO_BYTES = 1 << 20, INFO_ARENAS_MAX = 64 };

static char info_text[INFO_BYTES], info_buffer[BUFSIZ];
static FILE *info_file;

/* malloc_info writes XML to a stream, and a stream is a block of the heap: made once, before any figure is taken. */
static inline void open_heap_info(void) {
    char name[] = "/tmp/heap_info_XXXXXX";
    int file = mkstemp(name);
    if (file < 0) _exit(4);
    unlink(name);
    info_file = fdopen(file, "w+");
    if (info_file == NULL) _exit(4);
    setvbuf(info_file, info_buffer, _IOFBF, sizeof info_buffer);
}

/* The number behind `key` in the element that begins with `element`, before `end`. */
static inline size_t info_number(const char *from, const char *end, const char *element, const char *key) {
    const char *at = strstr(from, element);
    if (at == NULL || at >= end) return 0;
    at = strstr(at, key);
    if (at == NULL || at >= end) return 0;
    return strtoull(at + strlen(key), NULL, 10);
}

/* As elements of a JSON list: what each arena has from the system, in fastbins, and in bins and top together. The last
 * is up to seven bytes a chunk too high: glibc adds up size words with the flags in them. */
static inline void arenas_of_info(char *into, size_t room) {
    into[0] = 0;
    if (info_file == NULL) return;
    if (malloc_info(0, info_file) != 0 || fflush(info_file) != 0) _exit(4);
    ssize_t length = pread(fileno(info_file), info_text, sizeof info_text - 1, 0);
    if (length <= 0) _exit(4);
    info_text[length] = 0;
    const char *at = info_text;
    size_t used = 0;
    for (int arenas = 0; (at = strstr(at, "<heap nr=")) != NULL && arenas < INFO_ARENAS_MAX; arenas++) {
        const char *end = strstr(at, "</heap>");
        if (end == NULL) break;
        int wrote = snprintf(
            into + used, room - used,
            "%s{\"system\":%zu,\"fast_count\":%zu,\"fast_bytes\":%zu,\"rest_count\":%zu,\"rest_bytes\":%zu}",
            arenas == 0 ? "" : ",", info_number(at, end, "<system type=\"current\"", "size=\""),
            info_number(at, end, "<total type=\"fast\"", "count=\""),
            info_number(at, end, "<total type=\"fast\"", "size=\""),
            info_number(at, end, "<total type=\"rest\"", "count=\""),
            info_number(at, end, "<total type=\"rest\"", "size=\""));
        if (wrote < 0 || (size_t)wrote >= room - used) _exit(4);
        used += (size_t)wrote;
        at = end;
    }
    if (ftruncate(fileno(info_file), 0) != 0) _exit(4);
    rewind(info_file);
}

/* Bytes that a block costs, its header included, as glibc itself sees them. */
static inline size_t chunk_bytes_of(void *block) { return malloc_usable_size(block) + 8; }

/* The truth, with what the program knows by its own hand: `more` are further JSON members, each with a comma before
 * it. */
static inline void say_heap(const char *more) {
    static char arenas[ARENA_WORDS_MAX];
    struct mallinfo2 info = mallinfo2();
    arenas_of_info(arenas, sizeof arenas);
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":0,\"uordblks\":%zu,\"fordblks\":%zu,\"system\":%zu,"
        "\"fastbins\":%zu,\"mapped_bytes\":%zu,\"mapped_count\":%zu,\"keepcost\":%zu,\"arenas\":[%s]%s}\n",
        info.uordblks, info.fordblks, info.arena, info.fsmblks, info.hblkhd, info.hblks, info.keepcost, arenas, more);
}

/* --name TEXT, anywhere among the arguments. */
static inline const char *text(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

/* Waits for one more line on stdin, for programs of more than one step. */
static inline void wait_for_line(void) {
    char byte;
    do {
        if (read(STDIN_FILENO, &byte, 1) != 1) _exit(0);
    } while (byte != '\n');
}

#endif
