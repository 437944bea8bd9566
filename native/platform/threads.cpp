// The thread pool: workers wait for a round, take chunks from a shared counter, and report back. See threads.h.
#include "platform/threads.h"

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
constexpr auto spin_limit = std::chrono::microseconds(50);
std::atomic<bool> spinning_allowed{true};

// Waits until `value` differs from `old`. Spins first, because the next step of a forward pass is microseconds away.
template <class T>
void wait_for_change(const std::atomic<T>& value, T old) {
    if (spinning_allowed.load(std::memory_order_relaxed)) {
        const auto end = std::chrono::steady_clock::now() + spin_limit;
        do {
            for (int i = 0; i < 32; ++i) {
                if (value.load(std::memory_order_acquire) != old) return;
                pause_briefly();
            }
        } while (std::chrono::steady_clock::now() < end);
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

class Pool {
   public:
    ~Pool() {
        stopping_ = true;
        round_.fetch_add(1);
        round_.notify_all();
        for (auto& thread : workers_) thread.join();
    }

    // Returns false if the pool is busy: with a second caller, or because `work` itself called parallel_for.
    bool try_run(int threads, int64_t items, int64_t chunk, const Work& work) {
        std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
        if (!lock.owns_lock()) return false;
        while (static_cast<int>(workers_.size()) < threads - 1)
            workers_.emplace_back([this, number = static_cast<int>(workers_.size()) + 1,
                                   seen = round_.load()] { serve(number, seen); });
        work_ = &work;
        items_ = items;
        chunk_ = chunk;
        next_.store(0, std::memory_order_relaxed);
        threads_ = threads;
        waiting_for_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
        take_chunks(0);
        for (int left = waiting_for_.load(std::memory_order_acquire); left > 0;
             left = waiting_for_.load(std::memory_order_acquire))
            wait_for_change(waiting_for_, left);
        return true;
    }

   private:
    void serve(int number, uint32_t seen) {
        for (;;) {
            wait_for_change(round_, seen);
            seen = round_.load(std::memory_order_acquire);
            if (stopping_) return;
            if (number < threads_) take_chunks(number);
            if (waiting_for_.fetch_sub(1, std::memory_order_acq_rel) == 1) waiting_for_.notify_one();
        }
    }

    void take_chunks(int worker) {
        for (;;) {
            const int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
            if (begin >= items_) return;
            (*work_)(begin, begin + chunk_ < items_ ? begin + chunk_ : items_, worker);
        }
    }

    std::vector<std::thread> workers_;
    std::mutex busy_;
    const Work* work_ = nullptr;
    int64_t items_ = 0, chunk_ = 1;
    int threads_ = 1;
    bool stopping_ = false;
    std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<uint32_t> round_{0};
    alignas(64) std::atomic<int> waiting_for_{0};
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
    if (threads > 1 && items > chunk && pool().try_run(threads, items, chunk, work)) return;
    work(0, items, 0);
}

}  // namespace pophood
