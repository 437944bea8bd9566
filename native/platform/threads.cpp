// The thread pool: workers join a round, take chunks from shares of its work, and leave. See threads.h.
#include "platform/threads.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "platform/os.h"

namespace pophood {
namespace {

using Work = std::function<void(int64_t, int64_t, int)>;
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr auto spin_limit = microseconds(50);
std::atomic<bool> spinning_allowed{true};

// Calls `done` until it is true. Spins first, because the next step of a forward pass is microseconds away; then sleeps
// until `value` changes.
template <class Done>
void wait_until(const std::atomic<uint32_t>& value, Done done) {
    if (spinning_allowed.load(std::memory_order_relaxed)) {
        const auto end = Clock::now() + spin_limit;
        do {
            for (int i = 0; i < 32; ++i) {
                if (done(value.load(std::memory_order_acquire))) return;
                pause_briefly();
            }
        } while (Clock::now() < end);
    }
    for (uint32_t now = value.load(std::memory_order_acquire); !done(now); now = value.load(std::memory_order_acquire))
        sleep_while(value, now);
}

// Decides whether workers take part. On a busy machine the system preempts a worker in the middle of a chunk, and the caller
// would wait for milliseconds, round after round. After a late worker the caller works alone for a pause, then tries again;
// a worker that is late soon after a pause doubles the next one.
class Punctuality {
   public:
    bool alone(Clock::time_point now) const { return now < alone_until_; }

    // `waited` is the time between the caller's last chunk and the end of the round, `chunk` the mean time of its chunks.
    void record(Clock::duration waited, Clock::duration chunk, Clock::time_point now) {
        if (waited < late + 4 * chunk) return;
        pause_ = now - alone_until_ < soon ? std::min<Clock::duration>(2 * pause_, longest_pause) : shortest_pause;
        alone_until_ = now + pause_;
    }

   private:
    static constexpr Clock::duration late = microseconds(800), soon = milliseconds(50), shortest_pause = milliseconds(8),
                                     longest_pause = milliseconds(500);
    Clock::duration pause_ = shortest_pause;
    Clock::time_point alone_until_{};
};

class Pool {
   public:
    ~Pool() {
        stopping_ = true;
        limit_ = static_cast<uint32_t>(max_threads);
        wake_all(limit_);
        state_.fetch_add(1u << epoch_shift);
        wake_all(state_);
        for (auto& thread : workers_) thread.join();
    }

    // Returns false if the caller should work alone: the pool is busy with a second caller or because `work` itself called
    // parallel_for, or workers were late.
    bool try_run(int threads, int64_t items, int64_t chunk, const Work& work) {
        std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
        if (!lock.owns_lock()) return false;
        const auto begin = Clock::now();
        if (punctuality_.alone(begin)) return false;
        while (static_cast<int>(workers_.size()) < threads - 1)
            workers_.emplace_back([this, number = static_cast<int>(workers_.size()) + 1] { serve(number); });
        if (limit() != threads) {
            limit_.store(static_cast<uint32_t>(threads), std::memory_order_release);
            wake_all(limit_);
        }
        work_ = &work;
        chunk_ = chunk;
        sharing_ = threads;
        const int64_t chunks_of_all = (items + chunk - 1) / chunk;
        for (int w = 0; w < threads; ++w) {
            Share& share = shares_[static_cast<size_t>(w)];
            share.next.store(chunks_of_all * w / threads * chunk, std::memory_order_relaxed);
            share.end = std::min(chunks_of_all * (w + 1) / threads * chunk, items);
        }
        // No worker is in a round now, so nobody else writes to the state.
        const uint32_t epoch = (state_.load(std::memory_order_relaxed) >> epoch_shift) + 1;
        state_.store(epoch << epoch_shift | open, std::memory_order_release);
        wake_all(state_);
        const int64_t chunks = std::max<int64_t>(1, take_chunks(0));
        const auto done = Clock::now();
        if ((state_.fetch_and(~open, std::memory_order_acq_rel) & joined) != 0) {
            wait_until(state_, [](uint32_t state) { return (state & joined) == 0; });
            const auto end = Clock::now();
            punctuality_.record(end - done, (done - begin) / chunks, end);
        }
        return true;
    }

   private:
    // The state of a round: its number, whether workers may join, and how many have joined and not left. A worker that the
    // system has not woken up yet is nobody's concern: a round ends without it.
    static constexpr uint32_t joined = 0x7FFF, open = 0x8000, epoch_shift = 16;

    int limit() const { return static_cast<int>(limit_.load(std::memory_order_relaxed)); }

    void serve(int number) {
        for (uint32_t seen = 0;;) {
            wait_until(limit_, [&](uint32_t limit) { return number < static_cast<int>(limit); });
            wait_until(state_, [&](uint32_t state) {
                return (state >> epoch_shift) != seen || limit() <= number;
            });
            uint32_t state = state_.load(std::memory_order_acquire);
            if (stopping_) return;
            seen = state >> epoch_shift;
            while ((state & open) != 0 && (state >> epoch_shift) == seen)
                if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) {
                    if (number < limit()) take_chunks(number);
                    const uint32_t before = state_.fetch_sub(1, std::memory_order_acq_rel);
                    if ((before & (open | joined)) == 1) wake_all(state_);
                    break;
                }
        }
    }

    // Works on chunks until there are none, first those of the worker's own share, in order, then what is left of others'.
    // Returns the number of chunks that this thread took.
    int64_t take_chunks(int worker) {
        int64_t taken = 0;
        for (int i = 0; i < sharing_; ++i) {
            Share& share = shares_[static_cast<size_t>((worker + i) % sharing_)];
            while (share.next.load(std::memory_order_relaxed) < share.end) {
                const int64_t begin = share.next.fetch_add(chunk_, std::memory_order_relaxed);
                if (begin >= share.end) break;
                (*work_)(begin, std::min(begin + chunk_, share.end), worker);
                ++taken;
            }
        }
        return taken;
    }

    // Neighbouring chunks go to the same thread, which then reads one stream of weights.
    struct alignas(64) Share {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    std::vector<std::thread> workers_;
    std::mutex busy_;
    Punctuality punctuality_;
    const Work* work_ = nullptr;
    int64_t chunk_ = 1;
    int sharing_ = 1;  // threads that have a share
    std::atomic<bool> stopping_{false};
    alignas(64) std::atomic<uint32_t> state_{0};
    alignas(64) std::atomic<uint32_t> limit_{1};
    std::array<Share, max_threads> shares_;
};

// A forked child has the pool's memory but none of its threads, so it makes a new pool and leaves the old one alone.
Pool* the_pool = nullptr;
std::mutex* pool_mutex = new std::mutex;

Pool& pool() {
    std::lock_guard<std::mutex> lock(*pool_mutex);
    if (!the_pool) {
        static const bool registered = [] {
            on_fork_in_child([] {
                the_pool = nullptr;
                pool_mutex = new std::mutex;
            });
            return true;
        }();
        (void)registered;
        the_pool = new Pool;  // never destroyed: threads may outlive static objects at exit
    }
    return *the_pool;
}

}  // namespace

void allow_spinning(bool allowed) { spinning_allowed = allowed; }

void parallel_for(int threads, int64_t items, int64_t chunk, const Work& work) {
    if (items <= 0) return;
    if (chunk < 1) chunk = 1;
    threads = std::min(threads, max_threads);
    if (threads > 1 && items > chunk && pool().try_run(threads, items, chunk, work)) return;
    work(0, items, 0);
}

}  // namespace pophood
