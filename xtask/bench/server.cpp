// Threads that serve requests the way a C++ service does: parse into maps of strings, look into a bounded cache, render
// into a growing string, now and then take a larger buffer. It leaks slowly, as what leakwatch is for does: one request
// in LEAKED_EACH leaves its session behind, some 500 bytes.
//
//   server COUNTERS THREADS RATE
//
// RATE is in requests a second of all threads together; 0 is full speed. With a rate, requests come at random and do
// not wait for one another: latency counts from the moment a request was due, also where its thread was still busy. At full
// speed it counts from the end of the thread's last one. A unit of work is a request.

#include "counters.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

constexpr size_t CACHE_SHARDS = 8, SHARD_BYTES = 4 << 20;
constexpr uint64_t KEYS = 20000, LEAKED_EACH = 8, LARGE_EACH = 16, WARM_UP_REQUESTS = 10000, LOOKUPS = 6;

struct Random {
    uint64_t state;
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state >> 11;
    }
    uint64_t below(uint64_t end) { return next() % end; }
    double part() { return double(next() % (1 << 30)) / (1 << 30); }
};

// The least recently used go when a shard is full.
class Cache {
    struct Entry {
        std::string key, value;
    };
    struct Shard {
        std::mutex lock;
        std::list<Entry> entries;
        std::unordered_map<std::string, std::list<Entry>::iterator> by_key;
        size_t bytes = 0;
    };
    Shard shards[CACHE_SHARDS];

  public:
    template <class Make> std::string get(const std::string &key, Make make) {
        Shard &shard = shards[std::hash<std::string>()(key) % CACHE_SHARDS];
        std::lock_guard<std::mutex> guard(shard.lock);
        auto found = shard.by_key.find(key);
        if (found != shard.by_key.end()) {
            shard.entries.splice(shard.entries.begin(), shard.entries, found->second);
            return found->second->value;
        }
        shard.entries.push_front({key, make()});
        shard.by_key[key] = shard.entries.begin();
        shard.bytes += shard.entries.front().value.size();
        while (shard.bytes > SHARD_BYTES) {
            shard.bytes -= shard.entries.back().value.size();
            shard.by_key.erase(shard.entries.back().key);
            shard.entries.pop_back();
        }
        return shard.entries.front().value;
    }
};

Cache cache;

using Fields = std::unordered_map<std::string, std::string>;

struct Session {
    std::string user;
    Fields fields;
};

std::string receive(Random &random) {
    std::string text = "user=u" + std::to_string(random.next());
    for (uint64_t field = 4 + random.below(12); field > 0; field--)
        text += "&field" + std::to_string(field) + "=" + std::string(4 + random.below(120), char('a' + field));
    return text;
}

Fields parse(const std::string &text) {
    Fields fields;
    for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.find('&', at), text.size());
        size_t equals = text.find('=', at);
        fields[text.substr(at, equals - at)] = text.substr(equals + 1, end - equals - 1);
        at = end + 1;
    }
    return fields;
}

std::string load(Random &random) {
    // Most entries are small and few are large.
    return std::string(size_t(200 * std::exp(4 * random.part())), 'v');
}

std::string render(const Fields &fields, const std::string &entry, Random &random) {
    std::string page = "{";
    for (const auto &field : fields) page += "\"" + field.first + "\": \"" + field.second + "\", ";
    for (uint64_t row = 4 + random.below(20); row > 0; row--)
        page += "\"row" + std::to_string(row) + "\": \"" + entry.substr(0, 300) + "\", ";
    return page + "}";
}

// Stands for a compression or an upload.
uint64_t work_in_large_buffer(Random &random) {
    size_t bytes = (64 << 10) + random.below(448 << 10);
    std::unique_ptr<char[]> buffer(new char[bytes]);
    memset(buffer.get(), int(bytes & 0x7f), bytes);
    return uint64_t(buffer[bytes / 2]);
}

struct Worker {
    Random random;
    std::vector<std::unique_ptr<Session>> sessions;
    uint64_t served = 0, checksum = 0;

    void serve() {
        Fields fields = parse(receive(random));
        std::string page;
        for (uint64_t lookup = 0; lookup < LOOKUPS; lookup++) {
            // Some keys are asked for more often than others.
            double key = random.part();
            std::string entry = cache.get("entry" + std::to_string(uint64_t(key * key * key * KEYS)),
                                          [this] { return load(random); });
            page += render(fields, entry, random);
        }
        if (served % LARGE_EACH == 0) checksum += work_in_large_buffer(random);
        checksum += page.size();
        if (served % LEAKED_EACH == 0) {
            auto session = std::make_unique<Session>();
            session->user = fields["user"];
            session->fields["field1"] = fields["field1"];
            session->fields["state"] = page.substr(0, 300);
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
