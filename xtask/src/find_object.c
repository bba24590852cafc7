/* What gcc's unwinder asks the C library where a piece of code keeps its unwind information. musl has no such function, and a
 * static program is one piece: its program headers say where. After gcc's unwind-dw2-fde-dip.c and glibc's dl_find_object.h. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct dl_find_object {
    unsigned long long flags;
    void *map_start, *map_end;
    struct link_map *link_map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    uintptr_t pc;
    struct dl_find_object *found;
};

static int look(struct dl_phdr_info *info, size_t size, void *argument) {
    struct search *search = argument;
    uintptr_t start = UINTPTR_MAX, end = 0;
    void *eh_frame = NULL;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t address = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD) {
            if (address < start) start = address;
            if (address + header->p_memsz > end) end = address + header->p_memsz;
        } else if (header->p_type == PT_GNU_EH_FRAME) {
            eh_frame = (void *)address;
        }
    }
    if (!eh_frame || search->pc < start || search->pc >= end) return 0;
    search->found->flags = 0;
    search->found->map_start = (void *)start;
    search->found->map_end = (void *)end;
    search->found->link_map = NULL;
    search->found->eh_frame = eh_frame;
    return 1;
}

int _dl_find_object(void *pc, struct dl_find_object *found) {
    struct search search = {(uintptr_t)pc, found};
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}

/* The unwinder refers to these weakly, and calls them where there are threads: a static link would leave them out. */
__attribute__((used)) static void *const wanted[] = {
    (void *)pthread_once,        (void *)pthread_key_create,   (void *)pthread_getspecific,
    (void *)pthread_setspecific, (void *)pthread_mutex_lock,   (void *)pthread_mutex_unlock,
};
