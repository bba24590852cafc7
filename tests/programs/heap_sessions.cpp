// A server that leaks one class of object among many: each upload opens a Session, of 536 bytes and with a virtual
// table, which nobody closes. Requests, replies and strings come and go beside it, and accounts are kept from before
// the window: more bytes than the sessions will have, but no growth.

#include <pthread.h>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include "truth.h"

constexpr int kThreads = 4;
constexpr size_t kSessionBytes = 536, kAccountBytes = 344;
constexpr int kAccounts = 30000, kCookies = 64;

class Session {
public:
    explicit Session(Session *older) : next(older) { memset(body, 's', sizeof body); }
    virtual ~Session() = default;
    virtual size_t answer() const { return sizeof body; }
    Session *next;

private:
    char body[kSessionBytes - sizeof(void *) - sizeof(Session *)];
};
static_assert(sizeof(Session) == kSessionBytes, "a size of its own");

namespace shop {

class Account {
public:
    explicit Account(Account *older) : next(older) { memset(body, 'a', sizeof body); }
    virtual ~Account() = default;
    Account *next;

private:
    char body[kAccountBytes - sizeof(void *) - sizeof(Account *)];
};

class Message {
public:
    virtual ~Message() = default;
    virtual size_t length() const = 0;
};

class Request : public Message {
public:
    explicit Request(size_t bytes) : text(bytes, 'q') {}
    size_t length() const override { return text.size(); }

private:
    std::string text;
    char head[180] = {};
};

class Reply : public Message {
public:
    explicit Reply(const Request &request) : text(request.length() / 2 + 20, 'r') {}
    size_t length() const override { return text.size(); }

private:
    std::string text;
    char head[300] = {};
};

}  // namespace shop

struct Worker {
    Session *sessions = nullptr;
    std::map<unsigned, std::string> cookies;
    unsigned turn = 0;
    size_t told = 0;
};

static Worker workers[kThreads];
static shop::Account *accounts;
static std::atomic<size_t> opened{0};
static pthread_barrier_t warm, go, done, end;
static long steps, pause_ms, uploads;

SITE void handle_upload(Worker &worker) {
    worker.sessions = new Session(worker.sessions);
    opened++;
    KEEP_FRAME();
}

SITE void handle_page(Worker &worker) {
    unsigned turn = worker.turn++;
    auto request = std::make_unique<shop::Request>(20 + turn * 37 % 900);
    auto reply = std::make_unique<shop::Reply>(*request);
    worker.cookies[turn % kCookies] = std::string(16 + turn * 13 % 200, 'c');
    if (turn % 3 == 0) worker.cookies.erase((turn + 7) % kCookies);
    worker.told += reply->length();
    KEEP_FRAME();
}

SITE void serve(Worker &worker) {
    for (long upload = 0; upload < uploads; upload++) {
        for (int page = 0; page < 4; page++) handle_page(worker);
        handle_upload(worker);
    }
    KEEP_FRAME();
}

static void *work(void *argument) {
    Worker &worker = *static_cast<Worker *>(argument);
    for (int i = 0; i < 4000; i++) handle_page(worker);
    serve(worker);
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

int main(int argc, char **argv) {
    steps = number(argc, argv, "--steps", 80);
    pause_ms = number(argc, argv, "--pause-ms", 40);
    uploads = number(argc, argv, "--uploads", 40);
    for (int i = 0; i < kAccounts; i++) accounts = new shop::Account(accounts);
    for (pthread_barrier_t *barrier : {&warm, &go, &done, &end}) pthread_barrier_init(barrier, nullptr, kThreads + 1);
    pthread_t threads[kThreads];
    for (int i = 0; i < kThreads; i++)
        if (pthread_create(&threads[i], nullptr, work, &workers[i]) != 0) _exit(5);
    pthread_barrier_wait(&warm);
    size_t before = opened;
    wait_for_go();
    pthread_barrier_wait(&go);
    pthread_barrier_wait(&done);
    size_t all = opened;
    say("{\"site\":\"handle_upload\",\"committed_bytes\":%zu,\"calls\":%zu,\"sessions\":%zu,\"sessions_grown\":%zu,"
        "\"session_bytes\":%zu,\"accounts\":%d,\"innocents\":[\"handle_page\"]}\n",
        (all - before) * kSessionBytes, all - before, all, all - before, kSessionBytes, kAccounts);
    wait_for_end();
    pthread_barrier_wait(&end);
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
    return 0;
}
