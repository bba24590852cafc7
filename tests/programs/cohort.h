/* Programs that leak by the clock while much else churns, until stdin closes. After the go each line on stdin is answered
 * by one line of truth: what every function keeps by then, counted block by block. What a window added is the difference
 * of two such lines.
 *
 * Rates are kept by absolute time, so that a program leaks as much on a slow machine as on a fast one. */

#ifndef COHORT_H
#define COHORT_H

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include "truth.h"

#define SECOND_NS 1000000000ULL

/* A function that keeps blocks, and what it keeps: bytes with the allocator's headers. */
struct site {
    const char *function;
    uint64_t bytes, blocks;
};

/* Of one thread, so that counting does not make threads wait for each other. */
struct tally {
    uint64_t answers, wrong;
    char apart[112];
};

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline void sleep_until_ns(uint64_t time) {
    struct timespec at = {(time_t)(time / SECOND_NS), (long)(time % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* xorshift64*: the same course for the same seed. */
static inline uint64_t random_below(uint64_t *state, uint64_t below) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 0x2545F4914F6CDD1DULL >> 33) % below;
}

/* Of 16 to 4096 bytes, small ones mostly: each doubling is as likely as the next. */
static inline size_t random_size(uint64_t *state) {
    size_t least = (size_t)16 << random_below(state, 8);
    return least + random_below(state, least + 1);
}

/* So many a second, from when it was first asked. */
struct pace {
    double per_second;
    uint64_t began, done;
};

/* How many are due that were not done; they count as done. What is more than `most` behind is forgotten: a machine that
 * cannot keep up does not owe it forever. */
static inline uint64_t due(struct pace *pace, uint64_t most) {
    uint64_t now = now_ns();
    if (pace->began == 0) pace->began = now;
    uint64_t all = (uint64_t)((double)(now - pace->began) / 1e9 * pace->per_second);
    uint64_t count = all > pace->done ? all - pace->done : 0;
    pace->done = all > pace->done ? all : pace->done;
    return count < most ? count : most;
}

/* Bytes that a block of glibc's costs: with its header, and where it has a mapping of its own with that header too. */
static inline size_t footprint(void *block) {
    size_t size_word;
    /* What lies before a block is nothing that the compiler knows of. */
    __asm__("" : "+r"(block));
    memcpy(&size_word, (char *)block - sizeof size_word, sizeof size_word);
    int mapped = (size_word & 2) != 0;
    return malloc_usable_size(block) + (mapped ? 16 : 8);
}

/* The same for a request that is served by an arena. */
static inline size_t chunk_for(size_t request) {
    size_t bytes = (request + 8 + 15) / 16 * 16;
    return bytes < 32 ? 32 : bytes;
}

static inline void keeps(struct site *site, uint64_t bytes) {
    __atomic_add_fetch(&site->bytes, bytes, __ATOMIC_RELAXED);
    __atomic_add_fetch(&site->blocks, 1, __ATOMIC_RELAXED);
}

static inline void drops(struct site *site, uint64_t bytes) {
    __atomic_sub_fetch(&site->bytes, bytes, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&site->blocks, 1, __ATOMIC_RELAXED);
}

enum { PROSE_BYTES = 8192 };
static char prose[PROSE_BYTES];

/* Text as servers hold it. To be called before anything else. */
static inline void write_prose(void) {
    static const char *const words[] = {"GET /index.html HTTP/1.1\r\n", "Host: shop.example\r\n", "Accept: text/html\r\n",
                                        "{\"user\":\"", "\",\"cart\":[", "],\"total\":", "the ", "order ", "was sent "};
    size_t used = 0;
    for (unsigned i = 0; used < PROSE_BYTES; i++) {
        const char *word = words[(i * 7 + i / 9) % (sizeof words / sizeof *words)];
        for (; *word != 0 && used < PROSE_BYTES; word++) prose[used++] = *word;
    }
}

/* What a record begins with: no constant of the program, and not the same twice. */
struct head {
    void *link;
    uint32_t number, length;
};

/* At most PROSE_BYTES / 2 of it are text, the rest is as the allocator gave it out. No function of its own: who touches
 * a block first is to be who asked for it. */
#define write_record(block, size, next, name)                                                                      \
    do {                                                                                                           \
        struct head head_ = {(next), (uint32_t)(name), (uint32_t)(size)};                                          \
        if ((size) < sizeof head_) {                                                                               \
            memset((block), (int)(name), (size));                                                                  \
        } else {                                                                                                   \
            size_t text_ = (size) - sizeof head_;                                                                  \
            if (text_ > PROSE_BYTES / 2) text_ = PROSE_BYTES / 2;                                                  \
            memcpy((block), &head_, sizeof head_);                                                                 \
            memcpy((char *)(block) + sizeof head_, prose + (uint64_t)(name) % (PROSE_BYTES / 2), text_);           \
        }                                                                                                          \
    } while (0)

/* Is what was written still there? */
static inline int reads_back(const void *block, size_t bytes, uint64_t number) {
    if (bytes < sizeof(struct head)) {
        const unsigned char *byte = (const unsigned char *)block;
        return byte[0] == (unsigned char)number && byte[bytes - 1] == (unsigned char)number;
    }
    const struct head *head = (const struct head *)block;
    size_t text = bytes - sizeof *head;
    if (text > PROSE_BYTES / 2) text = PROSE_BYTES / 2;
    return head->number == (uint32_t)number && head->length == bytes &&
           memcmp(head + 1, prose + number % (PROSE_BYTES / 2), text) == 0;
}

/* What a server does with a block beside having it: some nanoseconds for each of its bytes. */
static inline uint64_t digest(const void *block, size_t bytes) {
    const unsigned char *byte = (const unsigned char *)block;
    uint64_t hash = 14695981039346656037ULL;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * 1099511628211ULL;
    return hash;
}

/* Blocks that live until so many later ones have come. */
#define RING_SLOTS_MAX 256
struct ring {
    void *slots[RING_SLOTS_MAX];
    size_t bytes[RING_SLOTS_MAX];
    uint64_t numbers[RING_SLOTS_MAX];
    unsigned at;
};

/* Frees the oldest of `slots` blocks for this one, once it was read back. */
static inline void pass_through(struct ring *ring, unsigned slots, void *block, size_t bytes, uint64_t number,
                                struct tally *tally) {
    unsigned at = ring->at++ % slots;
    void *oldest = ring->slots[at];
    if (oldest != NULL && !reads_back(oldest, ring->bytes[at], ring->numbers[at])) tally->wrong++;
    free(oldest);
    ring->slots[at] = block;
    ring->bytes[at] = bytes;
    ring->numbers[at] = number;
    tally->answers++;
}

static inline void must_have(const void *block) {
    if (block == NULL) _exit(5);
}

/* `site` is what a report must put first; the list of sites ends with one that has no name, that of innocents with
 * NULL. */
struct cast {
    const char *site;
    struct site *sites;
    const char *const *innocents;
    const struct tally *tallies;
    int threads;
};

static inline void say_truth(const struct cast *cast) {
    char text[2048];
    size_t used = 0, all = 0, blocks = 0, answers = 0, wrong = 0;
    text[0] = 0;
    for (struct site *site = cast->sites; site->function != NULL; site++) {
        uint64_t bytes = __atomic_load_n(&site->bytes, __ATOMIC_RELAXED);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\"%s\":%llu", used == 0 ? "" : ",",
                                 site->function, (unsigned long long)bytes);
        all += bytes;
        blocks += __atomic_load_n(&site->blocks, __ATOMIC_RELAXED);
    }
    char innocents[1024];
    size_t listed = 0;
    innocents[0] = 0;
    for (const char *const *name = cast->innocents; *name != NULL; name++)
        listed += (size_t)snprintf(innocents + listed, sizeof innocents - listed, "%s\"%s\"", listed == 0 ? "" : ",",
                                   *name);
    for (int i = 0; i < cast->threads; i++) {
        answers += __atomic_load_n(&cast->tallies[i].answers, __ATOMIC_RELAXED);
        wrong += __atomic_load_n(&cast->tallies[i].wrong, __ATOMIC_RELAXED);
    }
    say("{\"site\":%s%s%s,\"committed_bytes\":%zu,\"calls\":%zu,\"answers\":%zu,\"wrong\":%zu,\"functions\":{%s},"
        "\"innocents\":[%s]}\n",
        cast->site == NULL ? "null" : "\"", cast->site == NULL ? "" : cast->site, cast->site == NULL ? "" : "\"", all,
        blocks, answers, wrong, text, innocents);
}

static pthread_barrier_t warm, go;
static volatile int stopping;

/* Called by each thread between its warm-up and its work. */
static inline void wait_for_work(void) {
    pthread_barrier_wait(&warm);
    pthread_barrier_wait(&go);
}

/* The whole course of a program: its threads warm up, work, and end when stdin closes. */
static inline void run(const struct cast *cast, void *(*work)(void *)) {
    enum { THREADS_MAX = 16 };
    pthread_t threads[THREADS_MAX];
    if (cast->threads > THREADS_MAX) _exit(2);
    pthread_barrier_init(&warm, NULL, (unsigned)cast->threads + 1);
    pthread_barrier_init(&go, NULL, (unsigned)cast->threads + 1);
    for (long i = 0; i < cast->threads; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) _exit(5);
    pthread_barrier_wait(&warm);
    wait_for_go();
    pthread_barrier_wait(&go);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1)
        if (byte == '\n') say_truth(cast);
    stopping = 1;
    for (int i = 0; i < cast->threads; i++) pthread_join(threads[i], NULL);
}

#endif
