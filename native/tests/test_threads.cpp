// The thread pool: every item is worked on once, whoever calls and however late the workers are.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
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
