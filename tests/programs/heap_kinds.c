/* A heap of a known shape, and what the allocator says of it (mallinfo2, or mallinfo before 2.33). The first argument
 * chooses the shape. It is linked so that it runs with any glibc from 2.17 on, by that glibc's own loader: so nothing
 * here may need a symbol that came later, but weakly.
 *
 *   small    every second of many small blocks freed
 *   lists    fastbins, a full tcache, and large blocks freed that a tuned tcache keeps
 *   threads  an arena for each of eight threads, with a tcache of its own, in several heaps
 *   large    blocks with mappings of their own, aligned ones too
 *   pieces   something stands in the way of the break, so that the main heap goes on elsewhere
 *   mapped   every block has a mapping of its own */

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include "truth.h"

enum { THREADS = 8, BLOCKS = 100000 };

struct now { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
extern struct now mallinfo2_now(void) __asm__("mallinfo2") __attribute__((weak));
extern struct mallinfo mallinfo_before(void) __asm__("mallinfo") __attribute__((weak));
extern const char *gnu_get_libc_version(void);

static void *kept[BLOCKS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int settled;

static void small(void) {
    for (int i = 0; i < BLOCKS; i++) kept[i] = malloc(536);
    for (int i = 0; i < BLOCKS; i += 2) free(kept[i]);
}

static void lists(void) {
    enum { CLASSES = 20, EACH = 200, FREED = 150, LARGE = 40 };
    static void *block[CLASSES * EACH], *large[LARGE], *between[LARGE];
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < EACH; i++) block[c * EACH + i] = malloc(24 + 16 * (size_t)c);
    for (int i = 0; i < LARGE; i++) {
        large[i] = malloc(1500 + 700 * (size_t)i);
        between[i] = malloc(600);
    }
    for (int i = 0; i < LARGE; i++) free(large[i]);
    free(between[0]);
    /* As large as a mapping of its own: only a tcache that is tuned for it keeps such a one. */
    for (int i = 0; i < 4; i++) large[i] = malloc(2000000 + 300000 * (size_t)i);
    for (int i = 0; i < 4; i++) free(large[i]);
    /* Last: what is freed in one piece of 64 KiB or more empties the fastbins. */
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < FREED; i++) free(block[c * EACH + i]);
}

static void *worker(void *argument) {
    enum { MINE = 20000 };
    size_t me = (size_t)argument;
    /* Some threads outgrow their first heap of 64 MiB, and end it with an odd rest. */
    size_t most = me % 2 == 0 ? 900 : 9000;
    void **mine = calloc(MINE, sizeof *mine);
    for (size_t i = 0; i < MINE; i++) mine[i] = malloc(40 + (i * 7 + me * 16) % most);
    for (size_t i = 0; i < MINE; i += 2) free(mine[i]);
    pthread_mutex_lock(&lock);
    settled++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (;;) pause();
    return mine;
}

static void threads(void) {
    for (size_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)i) != 0) _exit(5);
    }
    pthread_mutex_lock(&lock);
    while (settled < THREADS) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void large(void) {
    for (int i = 0; i < 50; i++) memset(kept[i] = malloc(300000 + (size_t)i * 5000), 1, 100);
    for (size_t alignment = 16, i = 50; alignment <= 1 << 20; alignment *= 2, i++)
        if (posix_memalign(&kept[i], alignment, 400000) != 0) _exit(6);
    for (int i = 0; i < 50; i += 5) free(kept[i]);
    kept[1] = realloc(kept[1], 3000000);
}

static void pieces(void) {
    char *end = sbrk(0);
    void *obstacle = mmap(end + (1 << 20), PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (obstacle == MAP_FAILED) _exit(7);
    for (int i = 0; i < 20000; i++) {
        kept[i] = malloc(40 + (size_t)i * 7 % 900);
        /* Their mappings come to lie between the heap's pieces. */
        if (i % 4000 == 0) kept[BLOCKS - 1 - i] = malloc(3000000);
    }
    for (int i = 0; i < 20000; i += 2) free(kept[i]);
}

static void mapped(void) {
    mallopt(M_MMAP_THRESHOLD, 0);
    for (int i = 0; i < 1000; i++) kept[i] = malloc(24 + (size_t)i * 40);
    for (int i = 0; i < 1000; i += 3) free(kept[i]);
}

int main(int argc, char **argv) {
    static const struct { const char *name; void (*make)(void); } shapes[] = {
        {"small", small}, {"lists", lists}, {"threads", threads},
        {"large", large}, {"pieces", pieces}, {"mapped", mapped},
    };
    wait_for_go();
    for (size_t i = 0; argc > 1 && i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(argv[1], shapes[i].name) == 0) shapes[i].make();
    struct now now = {0};
    if (mallinfo2_now) {
        now = mallinfo2_now();
    } else {
        struct mallinfo before = mallinfo_before();
        now.arena = (unsigned)before.arena;
        now.hblks = (unsigned)before.hblks;
        now.hblkhd = (unsigned)before.hblkhd;
        now.fsmblks = (unsigned)before.fsmblks;
        now.uordblks = (unsigned)before.uordblks;
        now.fordblks = (unsigned)before.fordblks;
    }
    say("{\"site\":null,\"committed_bytes\":0,\"calls\":0,\"version\":\"%s\",\"system\":%zu,\"mapped_count\":%zu,"
        "\"mapped_bytes\":%zu,\"fastbins\":%zu,\"uordblks\":%zu,\"fordblks\":%zu}\n",
        gnu_get_libc_version(), now.arena, now.hblks, now.hblkhd, now.fsmblks, now.uordblks, now.fordblks);
    wait_for_end();
    return 0;
}
