// Measures memory bandwidth (small: one function that nothing else shares). See measure.h.
#include "platform/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "platform/os.h"
#include "platform/threads.h"

namespace pophood {

double read_bandwidth(int threads, int64_t bytes, int rounds) {
    constexpr int64_t words_in_chunk = 1 << 17;  // 1 MiB
    const int64_t words = bytes / 8 / words_in_chunk * words_in_chunk;
    const AlignedBuffer memory(static_cast<size_t>(words) * 8);
    auto* values = static_cast<uint64_t*>(memory.get());
    for (int64_t i = 0; i < words; ++i) values[i] = static_cast<uint64_t>(i);  // touches every page
    std::atomic<uint64_t> total{0};
    double best = 0.0;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        // One contiguous share per thread, which is how a matmul reads its weights.
        parallel_for(threads, threads, 1, [&](int64_t begin, int64_t end, int) {
            const int64_t share = words / threads / 16 * 16;
            const uint64_t* from = values + begin * share;
            uint64_t sum[16] = {};  // fits into the registers of the oldest x86-64
            for (int64_t i = 0; i < (end - begin) * share; i += 16)
                for (int64_t j = 0; j < 16; ++j) sum[j] += from[i + j];
            for (const uint64_t s : sum) total += s;
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(words) * 8.0 / seconds.count());
    }
    return total.load() == 1 ? 0.0 : best;  // uses the sum, so that the compiler keeps the loop
}

}  // namespace pophood
