// The thread pool: every item is worked on once, whoever calls and however late the workers are. Large memory: zeroed,
// aligned, and nobody else's, in whatever order blocks come and go.
#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "check.h"
#include "platform/os.h"
#include "platform/threads.h"

using namespace pophood;

namespace {

// Runs a round over `items` and checks that each was covered once by a worker below `threads`.
void covers_every_item(int threads, int64_t items, int64_t chunk) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
    parallel_for(threads, items, chunk, [&](int64_t begin, int64_t end, int worker) {
        CHECK(0 <= begin && begin < end && end <= items && 0 <= worker && worker < threads);
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const auto& count : seen) CHECK(count == 1);
}

}  // namespace

TEST(rounds_of_any_size_cover_every_item_once) {
    check::Random random(31);
    for (int round = 0; round < (quick ? 300 : 20'000); ++round) {
        const auto below = [&](uint64_t n) { return static_cast<int64_t>(random.bits() % n); };
        covers_every_item(1 + static_cast<int>(below(5)), below(200), 1 + below(20));
    }
}

TEST(several_callers_and_nested_calls_cover_every_item_once) {
    const auto many = [&] {
        for (int round = 0; round < (quick ? 50 : 1'000); ++round)
            parallel_for(3, 6, 1, [](int64_t, int64_t, int) { covers_every_item(3, 40, 7); });
    };
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) callers.emplace_back(many);
    for (std::thread& caller : callers) caller.join();
}

TEST(a_late_worker_is_left_out_for_a_while_and_comes_back) {
    using std::chrono::milliseconds;
    const auto workers_of = [](int64_t items, milliseconds late) {  // the number of items that others than the caller took
        std::atomic<int> others{0};
        parallel_for(2, items, 1, [&](int64_t, int64_t, int worker) {
            if (worker != 0) ++others, std::this_thread::sleep_for(late);
            else std::this_thread::sleep_for(milliseconds(1));
        });
        return others.load();
    };
    // The system itself may keep either thread from running, so one of many trials has to show it.
    bool left_out = false;
    for (int trial = 0; trial < 200 && !left_out; ++trial)
        left_out = workers_of(4, milliseconds(40)) > 0 && workers_of(4, milliseconds(0)) == 0;
    CHECK(left_out, "a round after a late worker is the caller's alone");
    for (int rounds = 0; workers_of(8, milliseconds(0)) == 0;) CHECK(++rounds < 1'000, "it never came back");
}

namespace {

// Allocates and frees blocks of 1 byte to 3 MiB at random; each is filled with a mark of its own and checked before it is freed.
void come_and_go(uint64_t seed, int steps) {
    check::Random random(seed);
    struct Held {
        AlignedBuffer buffer;
        uint8_t mark;
    };
    std::vector<Held> held;
    const auto all_are = [](const AlignedBuffer& buffer, uint8_t value) {
        const auto* bytes = static_cast<const uint8_t*>(buffer.get());
        return bytes[0] == value && std::memcmp(bytes, bytes + 1, buffer.bytes() - 1) == 0;
    };
    for (int step = 0; step < steps; ++step) {
        if (held.size() == 12 || (!held.empty() && random.bits() % 2 == 0)) {
            const size_t index = random.bits() % held.size();
            CHECK(all_are(held[index].buffer, held[index].mark), "somebody else wrote to it");
            held[index] = std::move(held.back());
            held.pop_back();
            continue;
        }
        AlignedBuffer buffer(1 + random.bits() % (size_t{1} << (10 + random.bits() % 12)));
        CHECK(reinterpret_cast<uintptr_t>(buffer.get()) % 64 == 0);
        CHECK(all_are(buffer, 0), "new memory is not zero");
        const auto mark = static_cast<uint8_t>(1 + random.bits() % 255);
        std::memset(buffer.get(), mark, buffer.bytes());
        held.push_back({std::move(buffer), mark});
    }
}

}  // namespace

TEST(blocks_of_memory_are_zeroed_and_belong_to_one_owner) {
    std::vector<std::thread> owners;
    for (uint64_t seed = 1; seed <= 3; ++seed) owners.emplace_back([&, seed] { come_and_go(seed, quick ? 200 : 3'000); });
    for (std::thread& owner : owners) owner.join();
}

TEST(one_block_at_a_time_takes_no_new_addresses) {
    std::set<uintptr_t> places;  // of 64 MiB
    for (int i = 0; i < 5'000; ++i) places.insert(reinterpret_cast<uintptr_t>(AlignedBuffer(100 << 10).get()) >> 26);
    CHECK(places.size() <= 4, "%zu places for one block after the other", places.size());
}
