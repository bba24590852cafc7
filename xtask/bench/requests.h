// Requests, served the way a C++ service does: parse into maps of strings, look into a bounded cache, render into a growing
// string, now and then take a larger buffer. Nothing of it stays but what the cache holds.

#ifndef LEAKWATCH_BENCH_REQUESTS_H
#define LEAKWATCH_BENCH_REQUESTS_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace {

constexpr size_t CACHE_SHARDS = 8, SHARD_BYTES = 4 << 20;
constexpr uint64_t KEYS = 20000, LARGE_EACH = 16, LOOKUPS = 6;

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

struct Served {
    Fields fields;
    std::string page;
};

// `taken` gets something of the page and of the larger buffer, which otherwise a compiler might do without.
Served serve(Random &random, bool large, uint64_t &taken) {
    Served served{parse(receive(random)), {}};
    for (uint64_t lookup = 0; lookup < LOOKUPS; lookup++) {
        // Some keys are asked for more often than others.
        double key = random.part();
        std::string entry =
            cache.get("entry" + std::to_string(uint64_t(key * key * key * KEYS)), [&] { return load(random); });
        served.page += render(served.fields, entry, random);
    }
    if (large) taken += work_in_large_buffer(random);
    taken += served.page.size();
    return served;
}

} // namespace

#endif
