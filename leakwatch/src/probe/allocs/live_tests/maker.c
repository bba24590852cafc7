/* Makes blocks whose births are known: see mod.rs. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define SITE __attribute__((noinline, noclone))
typedef void *(*maker)(void);
static void *old, *made;
static struct { const char *name; void *site; size_t size; void *block, *old; } told[4096];
static int births;
static void tell(const char *name, maker site, size_t size) {
    old = 0;
    void *block = site();
    int at = __atomic_fetch_add(&births, 1, __ATOMIC_RELAXED);
    told[at].name = name; told[at].site = site; told[at].size = size; told[at].block = block; told[at].old = old;
}
static volatile int zero;
SITE static void *plain(void) { void *p = malloc(1000); zero = 0; return p; }
SITE static void *cleared(void) { void *p = calloc(10, 30); zero = 0; return p; }
SITE static void *from_none(void) { made = realloc(0, 50); zero = 0; return made; }
SITE static void *grown(void) { old = made; made = realloc(made, 100000); zero = 0; return made; }
SITE static void *shrunk(void) { old = made; made = realloc(made, 60000); zero = 0; return made; }
SITE static void *mapped(void) { old = made; made = realloc(made, 3000000); zero = 0; return made; }
SITE static void *array(void) { old = made; made = reallocarray(made, 7, 900000); zero = 0; return made; }
SITE static void *aligned(void) { void *p = memalign(64, 200); zero = 0; return p; }
SITE static void *barely(void) { void *p = aligned_alloc(16, 320); zero = 0; return p; }
SITE static void *stored(void) { void *p = 0; zero = posix_memalign(&p, 128, 500); return p; }
SITE static void *paged(void) { void *p = valloc(100); zero = 0; return p; }
SITE static void *whole(void) { void *p = pvalloc(100); zero = 0; return p; }
SITE static void fail(void) {
    void *p = 0;
    volatile size_t huge = PTRDIFF_MAX, none = 0;
    p = malloc(huge); if (p) abort();
    p = calloc(huge, huge); if (p) abort();
    if (posix_memalign(&p, 3, 64) == 0) abort();
    p = malloc(64); p = realloc(p, none); if (p) abort();
}
static void kinds(void) {
    for (int i = 0; i < 5; i++) tell("malloc", plain, 1000);
    tell("calloc", cleared, 300);
    tell("realloc", from_none, 50);
    tell("realloc", grown, 100000);
    tell("realloc", shrunk, 60000);
    tell("realloc", mapped, 3000000);
    tell("reallocarray", array, 6300000);
    tell("memalign", aligned, 200);
    tell("memalign", barely, 320);
    tell("posix_memalign", stored, 500);
    tell("valloc", paged, 100);
    tell("pvalloc", whole, 100);
    fail();
}
SITE static void *deep(void) { void *p = malloc(777); zero = 0; return p; }
SITE static void descend(int depth) { volatile char room[300]; room[0] = 1; if (depth) descend(depth - 1); else tell("malloc", deep, 777); room[1] = 2; }
static void *worker(void *p) { for (int i = 0; i < 200; i++) descend((long)p * 5); return 0; }
static volatile int stop;
static volatile long calls[4];
static void *storm(void *p) {
    void *kept[64] = {0};
    unsigned x = (long)p + 1;
    while (!stop) {
        x = x * 1664525 + 1013904223;
        unsigned i = x >> 26;
        free(kept[i]);
        kept[i] = x & 0x100 ? realloc(0, 16 + (x >> 20)) : malloc(16 + (x >> 20));
        calls[(long)p]++;
    }
    return 0;
}
static void *fiber_stack_call(void *stack) {
    void *p;
    /* The stack pointer goes elsewhere for the length of one call. */
    __asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; mov $4000, %%edi; call malloc; mov %%rbx, %%rsp"
        : "=a"(p) : "r"((char *)stack + 65536 - 64)
        : "rbx", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    return p;
}
int main(int argc, char **argv) {
    static char out[1 << 16];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    const char *how = argv[1];
    pthread_t t[4];
    void *fiber = strcmp(how, "fiber") ? 0 : malloc(65536);
    int busy = !strcmp(how, "storm");
    if (busy) for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, storm, (void *)i);
    puts("ready"); fflush(stdout);
    char c;
    if (read(0, &c, 1) != 1) return 1;
    if (!strcmp(how, "kinds")) kinds();
    if (!strcmp(how, "threads")) {
        for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, worker, (void *)(i + 1));
        for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    }
    if (fiber) { fiber_stack_call(fiber); for (int i = 0; i < 5; i++) tell("malloc", plain, 1000); }
    if (busy) { stop = 1; for (int i = 0; i < 4; i++) pthread_join(t[i], 0); printf("%ld\n", calls[0] + calls[1] + calls[2] + calls[3]); }
    for (int i = 0; i < births; i++)
        printf("%s %zu %zu %zu %zu\n", told[i].name, (size_t)told[i].site, told[i].size, (size_t)told[i].block, (size_t)told[i].old);
    puts("end"); fflush(stdout);
    if (read(0, &c, 1) != 1) return 1;
    return 0;
}
