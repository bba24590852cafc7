// A server of eight threads behind virtual methods. Its uploads are never dropped; every other handler is honest. All
// threads but the first live on glibc's thread arenas, which reserve 64 MiB with PROT_NONE and grow by mprotect.
//
// The honest handlers' blocks are small and few, so that after the warm-up they come back from the thread's own cache:
// what extends an arena is handle_upload alone, and evidence from mappings names it rightly. The honest twin drops its
// uploads.

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <atomic>
#include <initializer_list>
#include "truth.h"

namespace shop {

constexpr int kThreads = 8;
constexpr int kCacheSlots = 16;
constexpr size_t kUploadBytes = 6000;

bool honest = false;

struct Upload {
    Upload *next;
    char body[kUploadBytes - sizeof(Upload *)];
};

struct Worker {
    Upload *uploads = nullptr;
    char *cache[kCacheSlots] = {};
    unsigned turn = 0;
};

class Handler {
public:
    virtual void handle(Worker &worker) = 0;
};

class LoginHandler : public Handler {
public:
    SITE void handle_login(Worker &worker) {
        char *&slot = worker.cache[worker.turn % kCacheSlots];
        delete[] slot;
        slot = new char[200 + worker.turn % 3 * 16];
        memset(slot, 'l', 200);
        KEEP_FRAME();
    }
    SITE void handle(Worker &worker) override {
        handle_login(worker);
        KEEP_FRAME();
    }
};

class RenderHandler : public Handler {
public:
    SITE void handle_render(Worker &worker) {
        char *page = new char[900];
        memset(page, 'r', 900);
        char *part = new char[120 + worker.turn % 5 * 32];
        memset(part, 'p', 120);
        KEEP_FRAME();
        delete[] part;
        delete[] page;
        KEEP_FRAME();
    }
    SITE void handle(Worker &worker) override {
        handle_render(worker);
        KEEP_FRAME();
    }
};

class UploadHandler : public Handler {
public:
    SITE void handle_upload(Worker &worker) {
        Upload *upload = new Upload;
        memset(upload->body, 'u', sizeof upload->body);
        if (honest) {
            delete upload;
        } else {
            upload->next = worker.uploads;
            worker.uploads = upload;
        }
        KEEP_FRAME();
    }
    SITE void handle(Worker &worker) override {
        handle_upload(worker);
        KEEP_FRAME();
    }
};

LoginHandler login;
RenderHandler render;
UploadHandler upload;
Handler *const handlers[] = {&login, &render, &upload, &render, &login};

Worker workers[kThreads];
pthread_barrier_t warm, go, done, end;
std::atomic<size_t> kept{0};
long steps = 40, pause_ms = 20;

// A vector of sizes that the honest handlers ask for, taken and given back: whatever they need later is cached.
SITE void warm_up(Worker &worker) {
    for (worker.turn = 0; worker.turn < 240; worker.turn++) {
        login.handle(worker);
        render.handle(worker);
    }
    KEEP_FRAME();
}

SITE void serve(Worker &worker) {
    for (int i = 0; i < 20; i++) {
        for (Handler *handler : handlers) {
            handler->handle(worker);
            worker.turn++;
        }
        if (!honest) kept++;
    }
    KEEP_FRAME();
}

void *work(void *argument) {
    Worker &worker = *static_cast<Worker *>(argument);
    warm_up(worker);
    pthread_barrier_wait(&warm);
    pthread_barrier_wait(&go);
    for (long step = 0; step < steps; step++) {
        serve(worker);
        pause_milliseconds(pause_ms);
    }
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&end);
    return nullptr;
}

}  // namespace shop

int main(int argc, char **argv) {
    using namespace shop;
    honest = flag(argc, argv, "--honest");
    steps = number(argc, argv, "--steps", 40);
    pause_ms = number(argc, argv, "--pause-ms", 20);
    // An arena for each thread, whatever the number of CPUs.
    mallopt(M_ARENA_MAX, 2 * kThreads);
    for (pthread_barrier_t *barrier : {&warm, &go, &done, &end}) pthread_barrier_init(barrier, nullptr, kThreads + 1);
    pthread_t threads[kThreads];
    for (int i = 0; i < kThreads; i++)
        if (pthread_create(&threads[i], nullptr, work, &workers[i]) != 0) _exit(5);
    pthread_barrier_wait(&warm);
    size_t before = committed_now();
    wait_for_go();
    pthread_barrier_wait(&go);
    pthread_barrier_wait(&done);
    size_t committed = committed_now() - before;
    // Each upload extends the top of its arena by at most one mprotect.
    say("{\"site\":%s,\"committed_bytes\":%zu,\"calls\":%zu,\"threads\":%d,\"requested_bytes\":%zu,"
        "\"innocents\":[\"handle_render\",\"handle_login\"]}\n",
        honest ? "null" : "\"handle_upload\"", committed, kept.load(), kThreads, kept.load() * kUploadBytes);
    wait_for_end();
    pthread_barrier_wait(&end);
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
    return 0;
}
