/* grow_table grows one table by mremap, as realloc does with large blocks; every fourth time something stands right
 * behind it, so that it must move. What it held before the go is no growth. The honest twin shrinks it back. */

#define _GNU_SOURCE
#include <sys/mman.h>
#include "truth.h"

static char *table;
static size_t table_bytes = 16 * PAGE_BYTES;

SITE void grow_table(size_t by) {
    size_t bytes = table_bytes + by;
    char *moved = (char *)mremap(table, table_bytes, bytes, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) _exit(5);
    for (size_t at = table_bytes; at < bytes; at += PAGE_BYTES) moved[at] = 1;
    table = moved;
    table_bytes = bytes;
    KEEP_FRAME();
}

SITE void shrink_table(size_t bytes) {
    if (mremap(table, table_bytes, bytes, 0) == MAP_FAILED) _exit(5);
    table_bytes = bytes;
    KEEP_FRAME();
}

/* Takes the pages right behind the table, so that its next growth must move it. */
SITE void fence(void) {
    mmap(table + table_bytes, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    KEEP_FRAME();
}

/* realloc of a large block: glibc calls mremap. */
SITE void grow_block(char **block, size_t bytes) {
    char *grown = (char *)realloc(*block, bytes);
    if (grown == NULL) _exit(5);
    memset(grown, 'r', bytes);
    *block = grown;
    KEEP_FRAME();
}

int main(int argc, char **argv) {
    int honest = flag(argc, argv, "--honest"), by_realloc = flag(argc, argv, "--realloc");
    long steps = number(argc, argv, "--steps", 50), pause = number(argc, argv, "--pause-ms", 20);
    const size_t first = table_bytes, by = 64 * PAGE_BYTES;
    table = (char *)mmap(NULL, table_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) _exit(5);
    memset(table, 1, table_bytes);
    char *block = NULL;
    size_t block_bytes = 1 << 20;
    if (by_realloc) grow_block(&block, block_bytes);
    size_t before = committed_now();
    wait_for_go();
    for (long step = 0; step < steps; step++) {
        if (by_realloc) {
            block_bytes += by;
            grow_block(&block, block_bytes);
        } else {
            grow_table(by);
            if (step % 4 == 0) fence();
        }
        pause_milliseconds(pause);
    }
    if (honest && !by_realloc) shrink_table(first);
    if (honest && by_realloc) grow_block(&block, 1 << 20);
    size_t committed = committed_now() - before;
    say("{\"site\":%s%s%s,\"committed_bytes\":%zu,\"calls\":%ld}\n", honest ? "null" : "\"",
        honest ? "" : by_realloc ? "grow_block" : "grow_table", honest ? "" : "\"", committed, honest ? 0 : steps);
    wait_for_end();
    return 0;
}
