/* Every mapping call there is, at random (but by a seed), from several threads at once; then quiet, holding whatever
 * is left. Ledger and kernel must then agree to the page.
 *
 * Each thread owns slots (mappings wherever the kernel puts them, whole or cut) and a playground: a reserved range in
 * which it maps with MAP_FIXED. The playground never has a hole, because another thread's mmap could be given it
 * between two calls, and MAP_FIXED would then replace what that thread owns: what is given up there becomes PROT_NONE. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include "truth.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum { MOST_THREADS = 16, SLOTS = 48, MOST_PAGES = 40, PLAYGROUND_PAGES = 512 };

struct slot {
    char *start;
    size_t pages;
};

struct thread {
    pthread_t thread;
    uint64_t state;
    struct slot slots[SLOTS];
    char *playground;
    unsigned long calls;
};

static struct thread threads[MOST_THREADS];
static pthread_barrier_t started, finished, end;
static long operations;
static int dont_unmap;

/* xorshift64*: the same storm for the same seed. */
static uint64_t draw(struct thread *self, uint64_t below) {
    self->state ^= self->state >> 12;
    self->state ^= self->state << 25;
    self->state ^= self->state >> 27;
    return (self->state * 0x2545F4914F6CDD1DULL >> 33) % below;
}

static int draw_protection(struct thread *self) {
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                      PROT_READ | PROT_WRITE};
    return protections[draw(self, 5)];
}

static const int ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS;

static void new_slot(struct thread *self, struct slot *slot) {
    if (slot->start != NULL) munmap(slot->start, slot->pages * PAGE_BYTES);
    slot->pages = 1 + draw(self, MOST_PAGES);
    slot->start = (char *)mmap(NULL, slot->pages * PAGE_BYTES, draw_protection(self), ANONYMOUS, -1, 0);
    if (slot->start == MAP_FAILED) _exit(5);
}

/* Cuts the front, the back or the middle off; what is behind a cut-out middle moves to another slot. */
static void cut(struct thread *self, struct slot *slot) {
    if (slot->pages < 3) return;
    size_t from = draw(self, slot->pages - 1), count = 1 + draw(self, slot->pages - from - 1);
    munmap(slot->start + from * PAGE_BYTES, count * PAGE_BYTES);
    struct slot rest = {slot->start + (from + count) * PAGE_BYTES, slot->pages - from - count};
    if (from == 0) {
        *slot = rest;
        return;
    }
    slot->pages = from;
    if (rest.pages == 0) return;
    struct slot *other = &self->slots[draw(self, SLOTS)];
    if (other == slot || other->start != NULL)
        munmap(rest.start, rest.pages * PAGE_BYTES);
    else
        *other = rest;
}

/* Fails with EFAULT where the slot spans two mappings: a call that fails must leave the ledger as it was. */
static void resize(struct thread *self, struct slot *slot) {
    size_t pages = 1 + draw(self, MOST_PAGES);
    int flags = draw(self, 4) == 0 ? 0 : MREMAP_MAYMOVE;
    void *moved = mremap(slot->start, slot->pages * PAGE_BYTES, pages * PAGE_BYTES, flags);
    if (moved == MAP_FAILED) return;
    slot->start = (char *)moved;
    slot->pages = pages;
}

static void move_into_playground(struct thread *self, struct slot *slot) {
    size_t page = draw(self, PLAYGROUND_PAGES - MOST_PAGES);
    size_t pages = slot->pages < MOST_PAGES ? slot->pages : MOST_PAGES;
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    /* With DONTUNMAP the old range stays, empty; lengths must be equal. */
    if (dont_unmap && pages == slot->pages && draw(self, 3) == 0) flags |= MREMAP_DONTUNMAP;
    void *moved = mremap(slot->start, slot->pages * PAGE_BYTES, pages * PAGE_BYTES, flags,
                         self->playground + page * PAGE_BYTES);
    if (moved == MAP_FAILED) {
        /* The kernel may have given the target range up before it failed: close the hole. */
        mmap(self->playground + page * PAGE_BYTES, pages * PAGE_BYTES, PROT_NONE, ANONYMOUS | MAP_FIXED, -1, 0);
        self->calls++;
    } else if (!(flags & MREMAP_DONTUNMAP)) {
        slot->start = NULL;
    }
}

static void play(struct thread *self) {
    size_t page = draw(self, PLAYGROUND_PAGES - MOST_PAGES), pages = 1 + draw(self, MOST_PAGES);
    char *start = self->playground + page * PAGE_BYTES;
    switch (draw(self, 4)) {
    case 0:
        mprotect(start, pages * PAGE_BYTES, draw_protection(self));
        break;
    case 1:
        mmap(start, pages * PAGE_BYTES, PROT_NONE, ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        break;
    case 2:
        madvise(start, pages * PAGE_BYTES, MADV_DONTNEED);
        break;
    default:
        mmap(start, pages * PAGE_BYTES, draw_protection(self), ANONYMOUS | MAP_FIXED, -1, 0);
    }
}

/* Calls that the kernel refuses: a release told at entry must then be taken back. */
static void fail(struct thread *self, struct slot *slot) {
    switch (draw(self, 3)) {
    case 0:
        munmap(slot->start + 1, PAGE_BYTES);
        break;
    case 1:
        mremap(slot->start, slot->pages * PAGE_BYTES, slot->pages * PAGE_BYTES, MREMAP_FIXED, slot->start);
        break;
    default:
        mprotect(slot->start + 1, PAGE_BYTES, PROT_NONE);
    }
}

SITE void blow(struct thread *self) {
    struct slot *slot = &self->slots[draw(self, SLOTS)];
    self->calls++;
    uint64_t what = draw(self, 16);
    if (slot->start == NULL || what < 3) {
        new_slot(self, slot);
        return;
    }
    if (what < 5)
        cut(self, slot);
    else if (what < 8)
        resize(self, slot);
    else if (what < 10)
        mprotect(slot->start + draw(self, slot->pages) * PAGE_BYTES, PAGE_BYTES, draw_protection(self));
    else if (what < 11)
        madvise(slot->start, slot->pages * PAGE_BYTES, draw(self, 2) ? MADV_DONTNEED : MADV_FREE);
    else if (what < 12)
        move_into_playground(self, slot);
    else if (what < 13)
        fail(self, slot);
    else
        play(self);
    KEEP_FRAME();
}

static void *work(void *argument) {
    struct thread *self = (struct thread *)argument;
    self->playground = (char *)mmap(NULL, PLAYGROUND_PAGES * PAGE_BYTES, PROT_NONE, ANONYMOUS, -1, 0);
    if (self->playground == MAP_FAILED) _exit(5);
    pthread_barrier_wait(&started);
    for (long i = 0; i < operations; i++) blow(self);
    pthread_barrier_wait(&finished);
    pthread_barrier_wait(&end);
    return NULL;
}

struct digest {
    size_t ranges, bytes;
};

static void digest_range(unsigned long start, unsigned long stop, void *context) {
    struct digest *digest = (struct digest *)context;
    digest->ranges++;
    digest->bytes += stop - start;
}

int main(int argc, char **argv) {
    long count = number(argc, argv, "--threads", 4);
    if (count < 1 || count > MOST_THREADS) _exit(2);
    operations = number(argc, argv, "--operations", 4000);
    dont_unmap = !flag(argc, argv, "--no-dont-unmap");
    uint64_t seed = (uint64_t)number(argc, argv, "--seed", 1);
    pthread_barrier_init(&started, NULL, (unsigned)count + 1);
    pthread_barrier_init(&finished, NULL, (unsigned)count + 1);
    pthread_barrier_init(&end, NULL, (unsigned)count + 1);
    wait_for_go();
    /* The threads start within the window: their stacks are mappings too. */
    for (long i = 0; i < count; i++) {
        threads[i].state = (seed + 1) * 0x9E3779B97F4A7C15ULL + (uint64_t)i;
        if (pthread_create(&threads[i].thread, NULL, work, &threads[i]) != 0) _exit(5);
    }
    pthread_barrier_wait(&started);
    /* The heap's end breathes beside the storm. Only this thread moves it: none of the others mallocs. */
    struct thread breath = {.state = seed + 99};
    uint64_t rounds = 0;
    for (; rounds < 300; rounds++) {
        size_t pages = 1 + draw(&breath, 30);
        if (sbrk((intptr_t)(pages * PAGE_BYTES)) == (void *)-1) _exit(5);
        if (rounds % 3 != 0) sbrk(-(intptr_t)(pages * PAGE_BYTES) + 512);
    }
    pthread_barrier_wait(&finished);
    unsigned long calls = 2 * rounds;
    for (long i = 0; i < count; i++) calls += threads[i].calls;
    struct digest digest = {0, 0};
    each_committed_range(digest_range, &digest);
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":%lu,\"ranges\":%zu,\"committed_now_bytes\":%zu}\n", calls,
        digest.ranges, digest.bytes);
    wait_for_end();
    pthread_barrier_wait(&end);
    return 0;
}
