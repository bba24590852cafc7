/* One thread that touches fresh pages as fast as it can. A unit of work is a page. */

#define _GNU_SOURCE
#include "counters.h"

enum { BYTES = 64 << 20, PUBLISHED_EACH = 64 };

int main(int count, char **arguments) {
    if (count != 2) return 2;
    counters_open(arguments[1]);
    char *memory = (char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    /* One fault a page, whatever the machine says of huge pages. */
    madvise(memory, BYTES, MADV_NOHUGEPAGE);
    for (;;) {
        for (size_t at = 0; at < BYTES; at += PUBLISHED_EACH * PAGE_BYTES) {
            for (size_t page = 0; page < PUBLISHED_EACH; page++)
                *(volatile char *)(memory + at + page * PAGE_BYTES) = 1;
            counters_add(0, PUBLISHED_EACH, 0);
        }
        madvise(memory, BYTES, MADV_DONTNEED);
        counters_warm();
    }
}
