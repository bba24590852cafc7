// A server of eight threads with five handlers, all of which allocate and free as C++ does: strings, vectors and owned
// objects of all sizes. handle_upload forgets one upload in four. handle_search has a cache of results, bounded, of which
// the least recently used goes first:
//   --cache full      full before the go: each new result replaces one, and nothing grows;
//   --cache filling   empty at the go, and not full for a minute: it grows, as it should;
//   --cache none      (the default) no cache at all.
// 20,000 requests a second in all. With --fixed each upload is dropped when a few more have come.

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>
#include "cohort.h"

namespace {

constexpr int kThreads = 8;
constexpr size_t kCacheEntries = 20000, kUploadsWhenFixed = 16;
enum { UPLOAD, SEARCH };

site sites[] = {{"handle_upload", 0, 0}, {"handle_search", 0, 0}, {nullptr, 0, 0}};
const char *const innocents[] = {"handle_login", "handle_render", "handle_status", nullptr};
tally tallies[kThreads + 1];  // the last one's is who fills the cache
volatile uint64_t sink;
bool fixed;
double requests_a_second;
size_t cache_entries;

struct Upload {
    std::unique_ptr<Upload> older;
    std::string name, body;
    std::vector<uint32_t> parts;
    uint64_t received = 0;
};

struct Result {
    std::string query, page;
};

struct Worker {
    uint64_t state = 0, number = 0, uploads_seen = 0;
    std::unique_ptr<Upload> uploads;
    std::unique_ptr<Upload> latest[kUploadsWhenFixed];
    std::vector<std::string> sessions{64};
    int me = 0;
};

Worker workers[kThreads];

std::mutex cache_lock;
std::list<Result> cache_order;
std::unordered_map<std::string, std::list<Result>::iterator> cache_index;

// No function: the culprit of a string is who wants it.
#define text_of(bytes, number) std::string(prose + (number) % 4096, (bytes))

// Blocks that a string has beside itself: none where it is short.
size_t footprint_of(const std::string &text) {
    return text.capacity() > 15 ? footprint(const_cast<char *>(text.data())) : 0;
}

size_t footprint_of(const Upload &upload) {
    return chunk_for(sizeof upload) + footprint_of(upload.name) + footprint_of(upload.body) +
           footprint(const_cast<uint32_t *>(upload.parts.data()));
}

// The entry, its node in the list, its node in the table with the key's own copy.
size_t footprint_of(const Result &result, const std::string &key) {
    using Node = std::__detail::_Hash_node<decltype(cache_index)::value_type, true>;
    return chunk_for(sizeof(std::_List_node<Result>)) + chunk_for(sizeof(Node)) + footprint_of(result.query) +
           footprint_of(result.page) + footprint_of(key);
}

SITE void handle_login(Worker &worker) {
    std::string user = text_of(12 + random_below(&worker.state, 40), worker.number);
    std::vector<std::string> claims;
    for (int i = 0; i < 4; i++) claims.push_back(user + text_of(10 + i * 9, worker.number + i));
    sink += digest(claims.back().data(), claims.back().size());
    worker.sessions[worker.number % worker.sessions.size()] = claims[worker.number % 4];
    KEEP_FRAME();
}

// A page stays until the next one, which most of them outgrow.
SITE void handle_render(Worker &worker) {
    std::vector<std::string> rows;
    size_t count = 4 + random_below(&worker.state, 12);
    for (size_t i = 0; i < count; i++) rows.emplace_back(text_of(random_size(&worker.state) / 2, worker.number + i));
    std::string page;
    for (const std::string &row : rows) page += row;
    sink += digest(page.data(), page.size() / 4);
    KEEP_FRAME();
}

SITE void handle_status(Worker &worker) {
    auto counts = std::make_unique<std::vector<uint64_t>>(8 + random_below(&worker.state, 60), worker.number);
    if (counts->back() != worker.number) tallies[worker.me].wrong++;
    sink += digest(counts->data(), counts->size() * sizeof(uint64_t));
    KEEP_FRAME();
}

SITE void handle_upload(Worker &worker) {
    auto upload = std::make_unique<Upload>();
    upload->received = worker.number;
    upload->name = text_of(24 + random_below(&worker.state, 8), worker.number);
    upload->body = text_of(900 + random_below(&worker.state, 600), worker.number);
    upload->parts.assign(40 + random_below(&worker.state, 40), static_cast<uint32_t>(worker.number));
    sink += digest(upload->body.data(), upload->body.size());
    if (++worker.uploads_seen % 4 != 0) return;
    keeps(&sites[UPLOAD], footprint_of(*upload));
    if (fixed) {
        std::unique_ptr<Upload> &slot = worker.latest[worker.uploads_seen / 4 % kUploadsWhenFixed];
        if (slot) drops(&sites[UPLOAD], footprint_of(*slot));
        slot = std::move(upload);
    } else {
        upload->older = std::move(worker.uploads);
        worker.uploads = std::move(upload);
    }
    KEEP_FRAME();
}

// One search in four asks for what is not in the cache.
SITE void handle_search(Worker &worker) {
    bool known = random_below(&worker.state, 4) != 0;
    uint64_t number = known ? random_below(&worker.state, worker.number + 1) : ++worker.number;
    char query[40];
    snprintf(query, sizeof query, "query %02d %020llu", worker.me, static_cast<unsigned long long>(number));
    std::vector<uint32_t> hits(20 + random_below(&worker.state, 200), static_cast<uint32_t>(number));
    sink += digest(hits.data(), hits.size() * sizeof(uint32_t));
    if (cache_entries == 0) return;
    std::lock_guard<std::mutex> guard(cache_lock);
    auto found = cache_index.find(query);
    if (found != cache_index.end()) {
        cache_order.splice(cache_order.begin(), cache_order, found->second);
        if (found->second->query != query) tallies[worker.me].wrong++;
        return;
    }
    if (known) return;
    if (cache_order.size() >= cache_entries) {
        auto last = cache_index.find(cache_order.back().query);
        if (last == cache_index.end()) _exit(6);
        drops(&sites[SEARCH], footprint_of(cache_order.back(), last->first));
        cache_index.erase(last);
        cache_order.pop_back();
    }
    cache_order.emplace_front();
    Result &result = cache_order.front();
    result.query = query;
    result.page = text_of(260 + number * 37 % 400, number);
    auto entry = cache_index.emplace(result.query, cache_order.begin()).first;
    keeps(&sites[SEARCH], footprint_of(result, entry->first));
    KEEP_FRAME();
}

SITE void serve(Worker &worker) {
    // What a request costs beside its memory: some 20 microseconds.
    for (int i = 0; i < 2; i++) sink += digest(prose, sizeof prose);
    switch (worker.number++ % 5) {
    case 0: handle_login(worker); break;
    case 1: handle_search(worker); break;
    case 2: handle_render(worker); break;
    case 3: handle_upload(worker); break;
    default: handle_status(worker); break;
    }
    tallies[worker.me].answers++;
    KEEP_FRAME();
}

void *work(void *argument) {
    int me = static_cast<int>(reinterpret_cast<long>(argument));
    Worker &worker = workers[me];
    worker.me = me;
    worker.state = 424242424242ULL + static_cast<uint64_t>(me);
    for (int i = 0; i < 5000; i++) {
        handle_login(worker);
        handle_render(worker);
        handle_status(worker);
        if (fixed) handle_upload(worker);
        worker.number++;
    }
    wait_for_work();
    pace requests = {requests_a_second / kThreads, 0, 0};
    uint64_t next = now_ns();
    while (!stopping) {
        for (uint64_t left = due(&requests, 200); left > 0; left--) serve(worker);
        next += 4 * SECOND_NS / 1000;
        if (next < now_ns()) next = now_ns();
        sleep_until_ns(next);
    }
    return nullptr;
}

}  // namespace

int main(int argc, char **argv) {
    fixed = flag(argc, argv, "--fixed");
    requests_a_second = static_cast<double>(number(argc, argv, "--requests", 20000));
    std::string mode = "none";
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--cache") == 0) mode = argv[i + 1];
    write_prose();
    // An arena for each thread, whatever the number of CPUs.
    mallopt(M_ARENA_MAX, 2 * kThreads);
    cache_entries = mode == "none" ? 0 : mode == "full" ? kCacheEntries : 20 * kCacheEntries;
    // The table's own array is there from the start.
    if (cache_entries > 0) cache_index.reserve(cache_entries + 1);
    if (mode == "full") {
        Worker filler;
        filler.state = 1;
        filler.me = kThreads;
        while (cache_order.size() < kCacheEntries) handle_search(filler);
    }
    cast server = {fixed ? nullptr : "handle_upload", sites, innocents, tallies, kThreads};
    run(&server, work);
    return 0;
}
