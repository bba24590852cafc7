/* One thread that maps 16 pages, touches them and unmaps them, as fast as it can. A unit of work is such a round. */

#define _GNU_SOURCE
#include "counters.h"

enum { PAGES = 16, BYTES = PAGES * PAGE_BYTES };

int main(int count, char **arguments) {
    if (count != 2) return 2;
    counters_open(arguments[1]);
    for (;;) {
        char *memory = (char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return 1;
        for (size_t page = 0; page < PAGES; page++) *(volatile char *)(memory + page * PAGE_BYTES) = 1;
        munmap(memory, BYTES);
        counters_add(0, 1, 0);
        counters_warm();
    }
}
