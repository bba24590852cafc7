/* Three leaks among heavy churn, some 40, 35 and 25 % of what is kept: records of 1,000 bytes, images of 300 kB (which
 * malloc gives mappings of their own), and segments that are mapped directly. Two threads do both; one of the churning
 * functions asks for the very size of the records. With --fixed each of the three keeps its latest few only.
 *
 * No block of the churn is large enough for a mapping: freeing one would move the images to the heap. */

#include <sys/mman.h>
#include "cohort.h"

enum { THREADS = 2, RECORD_BYTES = 1000, IMAGE_BYTES = 300 * 1000, SEGMENT_BYTES = 256 * 1024, KEPT_WHEN_FIXED = 8 };
enum { RECORDS, IMAGES, SEGMENTS };

static struct site sites[] = {{"keep_records", 0, 0}, {"keep_images", 0, 0}, {"map_segments", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"parse_headers", "render_page", "fetch_row", "join_cookies", NULL};
static struct tally tallies[THREADS];
static struct ring brief[THREADS], longer[THREADS], rows[THREADS];
static void *latest[THREADS][3][KEPT_WHEN_FIXED];
static unsigned turns[THREADS][3];
static void *chains[THREADS][3];
static volatile uint64_t sink;
static int fixed;
static long mallocs_a_second;
static double records_a_second, images_a_second, segments_a_second;

/* What a fixed twin has given up for the newest block, if that many were there. */
static inline void *outdated(int me, int which, void *block) {
    void **slot = &latest[me][which][turns[me][which]++ % KEPT_WHEN_FIXED];
    void *oldest = *slot;
    *slot = block;
    return oldest;
}

SITE void keep_records(int me, uint64_t number) {
    void *record = malloc(RECORD_BYTES);
    must_have(record);
    write_record(record, RECORD_BYTES, chains[me][RECORDS], number);
    keeps(&sites[RECORDS], footprint(record));
    if (fixed) {
        void *oldest = outdated(me, RECORDS, record);
        if (oldest != NULL) drops(&sites[RECORDS], footprint(oldest));
        free(oldest);
    } else {
        chains[me][RECORDS] = record;
    }
    KEEP_FRAME();
}

SITE void keep_images(int me, uint64_t number) {
    char *image = (char *)malloc(IMAGE_BYTES);
    must_have(image);
    for (size_t at = 0; at < IMAGE_BYTES; at += 2000) write_record(image + at, 2000, chains[me][IMAGES], number + at);
    keeps(&sites[IMAGES], footprint(image));
    if (fixed) {
        void *oldest = outdated(me, IMAGES, image);
        if (oldest != NULL) drops(&sites[IMAGES], footprint(oldest));
        free(oldest);
    } else {
        chains[me][IMAGES] = image;
    }
    KEEP_FRAME();
}

SITE void map_segments(int me, uint64_t number) {
    char *segment =
        (char *)mmap(NULL, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (segment == MAP_FAILED) _exit(5);
    for (size_t at = 0; at < SEGMENT_BYTES; at += 2048) write_record(segment + at, 2048, chains[me][SEGMENTS], number);
    keeps(&sites[SEGMENTS], SEGMENT_BYTES);
    if (fixed) {
        void *oldest = outdated(me, SEGMENTS, segment);
        if (oldest != NULL) {
            munmap(oldest, SEGMENT_BYTES);
            drops(&sites[SEGMENTS], SEGMENT_BYTES);
        }
    } else {
        chains[me][SEGMENTS] = segment;
    }
    KEEP_FRAME();
}

/* Taken and given back within microseconds. */
SITE void parse_headers(int me, uint64_t *state) {
    size_t bytes = random_size(state);
    uint64_t number = *state;
    void *header = malloc(bytes);
    must_have(header);
    write_record(header, bytes, NULL, number);
    sink += digest(header, bytes);
    if (!reads_back(header, bytes, number)) tallies[me].wrong++;
    tallies[me].answers++;
    free(header);
    KEEP_FRAME();
}

SITE void render_page(int me, uint64_t *state) {
    size_t bytes = random_size(state);
    uint64_t number = *state;
    void *page = calloc(1, bytes);
    must_have(page);
    write_record(page, bytes, NULL, number);
    sink += digest(page, bytes);
    pass_through(&brief[me], 16, page, bytes, number, &tallies[me]);
    KEEP_FRAME();
}

SITE void join_cookies(int me, uint64_t *state) {
    size_t bytes = random_size(state);
    uint64_t number = *state;
    void *cookie = malloc(bytes / 2 + 8);
    must_have(cookie);
    cookie = realloc(cookie, bytes);
    must_have(cookie);
    write_record(cookie, bytes, NULL, number);
    pass_through(&longer[me], 200, cookie, bytes, number, &tallies[me]);
    KEEP_FRAME();
}

SITE void fetch_row(int me, uint64_t *state) {
    random_below(state, 2);
    uint64_t number = *state;
    void *row = malloc(RECORD_BYTES);
    must_have(row);
    write_record(row, RECORD_BYTES, NULL, number);
    sink += digest(row, RECORD_BYTES / 4);
    pass_through(&rows[me], 64, row, RECORD_BYTES, number, &tallies[me]);
    KEEP_FRAME();
}

/* Ten of malloc and its kin. */
SITE void serve(int me, uint64_t *state) {
    for (int i = 0; i < 3; i++) parse_headers(me, state);
    for (int i = 0; i < 3; i++) render_page(me, state);
    for (int i = 0; i < 2; i++) fetch_row(me, state);
    join_cookies(me, state);
    KEEP_FRAME();
}

static void leak(int me, struct pace paces[3], uint64_t *number) {
    for (uint64_t left = due(&paces[RECORDS], UINT64_MAX); left > 0; left--) keep_records(me, ++*number);
    for (uint64_t left = due(&paces[IMAGES], UINT64_MAX); left > 0; left--) keep_images(me, ++*number);
    for (uint64_t left = due(&paces[SEGMENTS], UINT64_MAX); left > 0; left--) map_segments(me, ++*number);
}

static void *work(void *argument) {
    int me = (int)(long)argument;
    uint64_t state = 88172645463325252ULL + (uint64_t)me, number = (uint64_t)me << 20;
    for (int i = 0; i < 20000; i++) serve(me, &state);
    for (int i = 0; fixed && i < 2 * KEPT_WHEN_FIXED; i++) {
        keep_records(me, ++number);
        keep_images(me, ++number);
        map_segments(me, ++number);
    }
    wait_for_work();
    /* Images come from the one thread, segments from the other. */
    struct pace paces[3] = {{records_a_second / THREADS, 0, 0},
                            {me == 0 ? images_a_second : 0, 0, 0},
                            {me == 1 ? segments_a_second : 0, 0, 0}};
    struct pace churn = {(double)mallocs_a_second / 10 / THREADS, 0, 0};
    uint64_t next = now_ns();
    while (!stopping) {
        for (uint64_t left = due(&churn, 200); left > 0; left--) serve(me, &state);
        leak(me, paces, &number);
        next += SECOND_NS / 1000;
        if (next < now_ns()) next = now_ns();
        sleep_until_ns(next);
    }
    return NULL;
}

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    mallocs_a_second = number(argc, argv, "--mallocs", 300000);
    records_a_second = (double)number(argc, argv, "--records", 800);
    images_a_second = (double)number(argc, argv, "--images-in-100s", 233) / 100;
    segments_a_second = (double)number(argc, argv, "--segments-in-100s", 195) / 100;
    write_prose();
    struct cast cast = {fixed ? NULL : "keep_records", sites, innocents, tallies, THREADS};
    run(&cast, work);
    return 0;
}
