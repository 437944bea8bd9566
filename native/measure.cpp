// See measure.h.
#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "threads.h"
#include "weights.h"

namespace pophood {

double read_bandwidth(int threads, int64_t bytes, int rounds) {
    constexpr int64_t words_in_piece = 1 << 17;  // 1 MiB
    const int64_t words = bytes / 8 / words_in_piece * words_in_piece;
    const Pages memory(static_cast<size_t>(words) * 8);
    auto* values = static_cast<uint64_t*>(memory.get());
    for (int64_t i = 0; i < words; ++i) values[i] = static_cast<uint64_t>(i);  // makes every page real
    std::atomic<uint64_t> total{0};
    double best = 0.0;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        // One contiguous half per thread, as a matmul reads its weights.
        parallel_for(threads, threads, 1, [&](int64_t begin, int64_t end, int) {
            const int64_t share = words / threads / 16 * 16;
            const uint64_t* from = values + begin * share;
            uint64_t sum[16] = {};  // as many as fit in registers on the oldest x86-64
            for (int64_t i = 0; i < (end - begin) * share; i += 16)
                for (int64_t j = 0; j < 16; ++j) sum[j] += from[i + j];
            uint64_t all = 0;
            for (const uint64_t s : sum) all += s;
            total += all;
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(words) * 8.0 / seconds.count());
    }
    return total.load() == 1 ? 0.0 : best;  // the sum is used, so the loop stays
}

}  // namespace pophood
