// How fast the machine is just now: on each CPU a thread serves the same few requests (requests.h) again and again, for
// about a millisecond in EVERY_MILLISECONDS, by its own processor time. Who else works counts only by what all share: caches,
// memory, and the other half of a core, whoever has it.
//
//   yardstick COUNTERS
//
// A unit of work is a request; nanoseconds are of processor time.

#include "counters.h"
#include "requests.h"

#include <atomic>
#include <sched.h>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t WARM_UP_REQUESTS = 2000, REQUESTS = 16, EVERY_MILLISECONDS = 50;

uint64_t own_nanoseconds() {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return uint64_t(now.tv_sec) * 1000000000 + uint64_t(now.tv_nsec);
}

std::atomic<int> cold_threads;

void serve_the_same(int cpu, uint64_t requests, uint64_t &taken) {
    Random random{0x9E3779B97F4A7C15 * uint64_t(cpu + 1)};
    for (uint64_t request = 0; request < requests; request++) serve(random, request == 0, taken);
}

void work(int slot, int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) exit(1);
    uint64_t taken = 0;
    for (uint64_t served = 0; served < WARM_UP_REQUESTS; served += REQUESTS) serve_the_same(cpu, REQUESTS, taken);
    if (--cold_threads == 0) counters_warm();
    for (;;) {
        uint64_t started = own_nanoseconds();
        serve_the_same(cpu, REQUESTS, taken);
        counters_add(slot, REQUESTS, own_nanoseconds() - started);
        usleep(EVERY_MILLISECONDS * 1000);
    }
}

} // namespace

int main(int count, char **arguments) {
    if (count != 2) return 2;
    counters_open(arguments[1]);
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all) != 0) return 1;
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < SLOTS; cpu++)
        if (CPU_ISSET(cpu, &all)) cpus.push_back(cpu);
    cold_threads = int(cpus.size());
    std::vector<std::thread> workers;
    for (size_t slot = 0; slot < cpus.size(); slot++) workers.emplace_back(work, int(slot), cpus[slot]);
    for (auto &worker : workers) worker.join();
}
