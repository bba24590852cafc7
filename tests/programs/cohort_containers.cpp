// What C++ keeps in containers: the blocks come from operator new, below the standard library's own functions, and it is
// the program's functions that are to be named. record_events keeps vectors that grew by push_back, index_orders nodes of
// a map, note_remark strings, open_account objects; others use all of these and give them back. With --fixed what is kept
// is dropped when a few hundred more have come.

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>
#include "cohort.h"

namespace market {

constexpr int kThreads = 2;
constexpr size_t kKeptWhenFixed = 300;
enum { EVENTS, ORDERS, REMARKS, ACCOUNTS };

site sites[] = {{"record_events", 0, 0}, {"index_orders", 0, 0}, {"note_remark", 0, 0}, {"open_account", 0, 0},
                {nullptr, 0, 0}};
const char *const innocents[] = {"sort_batch", "join_words", "count_words", nullptr};
tally tallies[kThreads];
volatile uint64_t sink;
bool fixed;
double steps_a_second;

struct Event {
    uint64_t at, kind, amount;
};

class Account {
public:
    explicit Account(uint64_t number) { write_record(text, sizeof text, nullptr, number); }
    virtual ~Account() = default;
    virtual uint64_t balance() const { return digest(text, 8); }

private:
    char text[280];
};

struct Worker {
    uint64_t state = 0, number = 0;
    std::deque<std::vector<Event>> journals;
    std::map<uint64_t, uint64_t> orders;
    std::deque<std::string> remarks;
    std::deque<std::unique_ptr<Account>> accounts;
    int me = 0;
};

Worker workers[kThreads];

// What an element costs in a deque, whose blocks are of 512 bytes.
template <typename Element>
size_t slot_bytes(const std::deque<Element> &) {
    return sizeof(Element) * chunk_for(512) / 512;
}

SITE void record_events(Worker &worker) {
    std::vector<Event> events;
    size_t count = 33 + random_below(&worker.state, 28);
    for (size_t i = 0; i < count; i++) events.push_back({worker.number + i, i, i * 3});
    keeps(&sites[EVENTS], footprint(events.data()) + slot_bytes(worker.journals));
    if (fixed && worker.journals.size() >= kKeptWhenFixed) {
        drops(&sites[EVENTS], footprint(worker.journals.front().data()) + slot_bytes(worker.journals));
        worker.journals.pop_front();
    }
    worker.journals.push_back(std::move(events));
    KEEP_FRAME();
}

SITE void index_orders(Worker &worker) {
    constexpr size_t bytes = sizeof(std::_Rb_tree_node<std::pair<const uint64_t, uint64_t>>);
    for (int i = 0; i < 12; i++) {
        uint64_t order = ++worker.number;
        worker.orders.emplace(order, order * 7);
        keeps(&sites[ORDERS], chunk_for(bytes));
        if (fixed && worker.orders.size() > kKeptWhenFixed) {
            worker.orders.erase(worker.orders.begin());
            drops(&sites[ORDERS], chunk_for(bytes));
        }
    }
    KEEP_FRAME();
}

SITE void note_remark(Worker &worker) {
    std::string remark(prose + worker.number % 4096, 120 + random_below(&worker.state, 280));
    remark += " (seen)";
    keeps(&sites[REMARKS], footprint(remark.data()) + slot_bytes(worker.remarks));
    if (fixed && worker.remarks.size() >= kKeptWhenFixed) {
        drops(&sites[REMARKS], footprint(worker.remarks.front().data()) + slot_bytes(worker.remarks));
        worker.remarks.pop_front();
    }
    worker.remarks.push_back(std::move(remark));
    KEEP_FRAME();
}

SITE void open_account(Worker &worker) {
    auto account = std::make_unique<Account>(++worker.number);
    sink += account->balance();
    keeps(&sites[ACCOUNTS], footprint(account.get()) + slot_bytes(worker.accounts));
    if (fixed && worker.accounts.size() >= kKeptWhenFixed) {
        drops(&sites[ACCOUNTS], footprint(worker.accounts.front().get()) + slot_bytes(worker.accounts));
        worker.accounts.pop_front();
    }
    worker.accounts.push_back(std::move(account));
    KEEP_FRAME();
}

SITE void sort_batch(Worker &worker) {
    std::vector<Event> batch;
    size_t count = 20 + random_below(&worker.state, 60);
    for (size_t i = 0; i < count; i++) batch.push_back({random_below(&worker.state, 1000), i, worker.number});
    for (size_t i = 1; i < count; i++)
        if (batch[i].at < batch[i - 1].at) std::swap(batch[i], batch[i - 1]);
    if (batch.back().amount != worker.number) tallies[worker.me].wrong++;
    sink += digest(batch.data(), batch.size() * sizeof(Event));
    KEEP_FRAME();
}

SITE void join_words(Worker &worker) {
    std::string text;
    size_t count = 5 + random_below(&worker.state, 20);
    for (size_t i = 0; i < count; i++) text += std::string(prose + i * 31, 10 + random_below(&worker.state, 30));
    sink += digest(text.data(), text.size());
    KEEP_FRAME();
}

SITE void count_words(Worker &worker) {
    std::map<uint64_t, uint64_t> counts;
    for (int i = 0; i < 30; i++) counts[random_below(&worker.state, 40)]++;
    sink += counts.begin()->second;
    KEEP_FRAME();
}

// Some 150 of malloc, of which 15 are kept.
SITE void serve(Worker &worker, bool keep) {
    // What it costs beside: some 250 microseconds.
    for (int i = 0; i < 25; i++) sink += digest(prose, sizeof prose);
    for (int i = 0; i < 4; i++) sort_batch(worker);
    for (int i = 0; i < 2; i++) join_words(worker);
    count_words(worker);
    if (keep) {
        record_events(worker);
        index_orders(worker);
        note_remark(worker);
        open_account(worker);
    }
    tallies[worker.me].answers++;
    KEEP_FRAME();
}

void *work(void *argument) {
    int me = static_cast<int>(reinterpret_cast<long>(argument));
    Worker &worker = workers[me];
    worker.me = me;
    worker.state = 5555555555ULL + static_cast<uint64_t>(me);
    for (size_t i = 0; i < 2 * kKeptWhenFixed; i++) serve(worker, fixed);
    wait_for_work();
    pace steps = {steps_a_second / kThreads, 0, 0};
    while (!stopping) {
        for (uint64_t left = due(&steps, 200); left > 0; left--) serve(worker, worker.number++ % 8 < 2);
        sleep_until_ns(now_ns() + SECOND_NS / 1000);
    }
    return nullptr;
}

}  // namespace market

int main(int argc, char **argv) {
    using namespace market;
    fixed = flag(argc, argv, "--fixed");
    steps_a_second = static_cast<double>(number(argc, argv, "--steps", 1500));
    write_prose();
    cast market_cast = {fixed ? nullptr : "record_events", sites, innocents, tallies, kThreads};
    run(&market_cast, work);
    return 0;
}
