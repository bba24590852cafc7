// Threads that serve requests (requests.h) and leak slowly, as what leakwatch is for does: one request in LEAKED_EACH
// leaves its session behind, some 500 bytes.
//
//   server COUNTERS THREADS RATE
//
// RATE is in requests a second of all threads together; 0 is full speed. With a rate, requests come at random and do
// not wait for one another: latency counts from the moment a request was due, also where its thread was still busy. At full
// speed it counts from the end of the thread's last one. A unit of work is a request.

#include "counters.h"
#include "requests.h"

#include <atomic>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t LEAKED_EACH = 8, WARM_UP_REQUESTS = 10000;

struct Session {
    std::string user;
    Fields fields;
};

struct Worker {
    Random random;
    std::vector<std::unique_ptr<Session>> sessions;
    uint64_t served = 0, checksum = 0;

    void serve() {
        Served request = ::serve(random, served % LARGE_EACH == 0, checksum);
        if (served % LEAKED_EACH == 0) {
            auto session = std::make_unique<Session>();
            session->user = request.fields["user"];
            session->fields["field1"] = request.fields["field1"];
            session->fields["state"] = request.page.substr(0, 300);
            sessions.push_back(std::move(session));
        }
        served++;
    }
};

void sleep_until(uint64_t when) {
    struct timespec until = {time_t(when / 1000000000), long(when % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
    }
}

std::atomic<int> cold_threads;

void work(int slot, double seconds_between) {
    prctl(PR_SET_TIMERSLACK, 1);
    Worker worker{{0x9E3779B97F4A7C15 * uint64_t(slot + 1)}, {}, 0, 0};
    while (worker.served < WARM_UP_REQUESTS) worker.serve();
    if (--cold_threads == 0) counters_warm();
    uint64_t last_served = nanoseconds_now();
    double due = double(last_served);
    for (;;) {
        if (seconds_between > 0) {
            due += -std::log(1 - worker.random.part()) * seconds_between * 1e9;
            if (double(nanoseconds_now()) < due) sleep_until(uint64_t(due));
        }
        worker.serve();
        uint64_t now = nanoseconds_now(), since = seconds_between > 0 ? uint64_t(due) : last_served;
        counters_latency(now > since ? now - since : 0);
        last_served = now;
        counters_add(slot, 1, 0);
    }
}

} // namespace

int main(int count, char **arguments) {
    if (count != 4) return 2;
    counters_open(arguments[1]);
    int threads = std::min(atoi(arguments[2]), int(SLOTS));
    double rate = atof(arguments[3]);
    cold_threads = threads;
    std::vector<std::thread> workers;
    for (int slot = 0; slot < threads; slot++)
        workers.emplace_back(work, slot, rate > 0 ? threads / rate : 0);
    for (auto &worker : workers) worker.join();
}
