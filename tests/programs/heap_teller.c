/* Preloaded into a program that nobody wrote for a test: at SIGRTMIN + 3 it writes what mallinfo2 says to the file
 * $HEAP_TELLER/PID. Only to be asked while the program waits: mallinfo2 takes the locks of the heap. */

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256];

static void tell(int number) {
    (void)number;
    struct mallinfo2 info = mallinfo2();
    char unfinished[300], path[300], line[256];
    snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
    snprintf(unfinished, sizeof unfinished, "%s/.%d", folder, (int)getpid());
    int length = snprintf(line, sizeof line,
                          "{\"site\":null,\"committed_bytes\":0,\"calls\":0,\"uordblks\":%zu,\"fordblks\":%zu,"
                          "\"system\":%zu,\"fastbins\":%zu,\"mapped_bytes\":%zu,\"mapped_count\":%zu}\n",
                          info.uordblks, info.fordblks, info.arena, info.fsmblks, info.hblkhd, info.hblks);
    int file = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return;
    if (write(file, line, (size_t)length) == length) rename(unfinished, path);
    close(file);
}

__attribute__((constructor)) static void listen_for_the_signal(void) {
    const char *where = getenv("HEAP_TELLER");
    if (where == NULL || strlen(where) >= sizeof folder) return;
    strcpy(folder, where);
    struct sigaction action = {.sa_handler = tell, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN + 3, &action, NULL);
}
