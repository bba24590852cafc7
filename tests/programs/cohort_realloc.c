/* Journals that grow by realloc, each record appended in a small step: 32 of them are open at a time, and 60 a second
 * are full, closed and kept. Beside them replies are built up by realloc just so, and freed. With --fixed a closed
 * journal is freed too. */

#include "cohort.h"

enum { THREADS = 2, OPEN = 16, RECORD_BYTES = 90 };

struct journal {
    char *text;
    size_t used, room, full;
};

static struct site sites[] = {{"append_record", 0, 0}, {NULL, 0, 0}};
static const char *const innocents[] = {"build_reply", "read_form", NULL};
static struct tally tallies[THREADS];
static struct journal journals[THREADS][OPEN];
static char *closed[THREADS];
static volatile uint64_t sink;
static int fixed;
static double journals_a_second;
static long replies_a_second;

/* Half as much again, as most who grow buffers do: from 128 bytes to some 12 KB. */
SITE void append_record(int me, struct journal *journal, uint64_t number) {
    if (journal->used + RECORD_BYTES > journal->room) {
        size_t room = journal->room == 0 ? 128 : journal->room + journal->room / 2;
        if (journal->text != NULL) drops(&sites[0], footprint(journal->text));
        char *text = (char *)realloc(journal->text, room);
        must_have(text);
        keeps(&sites[0], footprint(text));
        journal->text = text;
        journal->room = room;
    }
    if (journal->used > 0 && !reads_back(journal->text, RECORD_BYTES, ((struct head *)journal->text)->number))
        tallies[me].wrong++;
    write_record(journal->text + journal->used, RECORD_BYTES, NULL, number);
    journal->used += RECORD_BYTES;
    KEEP_FRAME();
}

SITE void close_journal(int me, struct journal *journal, uint64_t *state) {
    if (fixed) {
        if (journal->text != NULL) drops(&sites[0], footprint(journal->text));
        free(journal->text);
    } else if (journal->text != NULL) {
        memcpy(journal->text, &closed[me], sizeof closed[me]);
        closed[me] = journal->text;
    }
    journal->text = NULL;
    journal->used = journal->room = 0;
    journal->full = 8000 + random_below(state, 4000);
    KEEP_FRAME();
}

SITE void build_reply(int me, uint64_t *state) {
    size_t bytes = 2000 + random_below(state, 4000), room = 128, used = 0;
    char *reply = (char *)malloc(room);
    must_have(reply);
    while (used + RECORD_BYTES < bytes) {
        if (used + RECORD_BYTES > room) {
            room += room / 2;
            reply = (char *)realloc(reply, room);
            must_have(reply);
        }
        write_record(reply + used, RECORD_BYTES, NULL, used);
        used += RECORD_BYTES;
    }
    sink += digest(reply, used / 4);
    if (!reads_back(reply, RECORD_BYTES, 0)) tallies[me].wrong++;
    tallies[me].answers++;
    free(reply);
    KEEP_FRAME();
}

SITE void read_form(int me, uint64_t *state) {
    size_t bytes = random_size(state);
    void *form = malloc(bytes);
    must_have(form);
    write_record(form, bytes, NULL, bytes);
    sink += digest(form, bytes / 4);
    tallies[me].answers++;
    free(form);
    KEEP_FRAME();
}

static void *work(void *argument) {
    int me = (int)(long)argument;
    uint64_t state = 998877665544ULL + (uint64_t)me, number = 0;
    struct journal *own = journals[me];
    for (int i = 0; i < OPEN; i++) {
        own[i].full = 8000 + random_below(&state, 4000);
        /* Some are further than others. */
        for (size_t used = 0; used < (size_t)i * own[i].full / OPEN; used += RECORD_BYTES)
            append_record(me, &own[i], ++number);
    }
    for (int i = 0; i < 2000; i++) {
        build_reply(me, &state);
        read_form(me, &state);
    }
    wait_for_work();
    /* A journal takes some 111 records. */
    struct pace appends = {journals_a_second / THREADS * 10000 / RECORD_BYTES, 0, 0};
    struct pace replies = {(double)replies_a_second / THREADS, 0, 0};
    uint64_t next = now_ns();
    while (!stopping) {
        for (uint64_t left = due(&replies, 200); left > 0; left--) {
            build_reply(me, &state);
            for (int i = 0; i < 4; i++) read_form(me, &state);
        }
        for (uint64_t left = due(&appends, UINT64_MAX); left > 0; left--) {
            struct journal *journal = &own[++number % OPEN];
            append_record(me, journal, number);
            if (journal->used >= journal->full) close_journal(me, journal, &state);
        }
        next += SECOND_NS / 1000;
        if (next < now_ns()) next = now_ns();
        sleep_until_ns(next);
    }
    return NULL;
}

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    journals_a_second = (double)number(argc, argv, "--journals", 60);
    replies_a_second = number(argc, argv, "--replies", 20000);
    write_prose();
    struct cast cast = {fixed ? NULL : "append_record", sites, innocents, tallies, THREADS};
    run(&cast, work);
    return 0;
}
