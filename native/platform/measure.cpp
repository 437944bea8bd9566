// Measures memory bandwidth and the rate of 8-bit products. See measure.h.
#include "platform/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "platform/os.h"
#include "platform/threads.h"

namespace pophood {
namespace {

// The best number of `units` per second in `rounds` calls of `work`.
template <class Work>
double best_rate(int rounds, double units, Work work) {
    double best = 0.0;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, units / seconds.count());
    }
    return best;
}

}  // namespace

double read_bandwidth(int threads, int64_t bytes, int rounds) {
    constexpr int64_t words_in_chunk = 1 << 17;  // 1 MiB
    const int64_t words = bytes / 8 / words_in_chunk * words_in_chunk;
    const AlignedBuffer memory(static_cast<size_t>(words) * 8);
    auto* values = static_cast<uint64_t*>(memory.get());
    for (int64_t i = 0; i < words; ++i) values[i] = static_cast<uint64_t>(i);  // touches every page
    std::atomic<uint64_t> total{0};
    const double best = best_rate(rounds, static_cast<double>(words) * 8.0, [&] {
        // One contiguous share per thread, which is how a matmul reads its weights.
        parallel_for(threads, threads, 1, [&](int64_t begin, int64_t end, int) {
            const int64_t share = words / threads / 16 * 16;
            const uint64_t* from = values + begin * share;
            uint64_t sum[16] = {};  // fits into the registers of the oldest x86-64
            for (int64_t i = 0; i < (end - begin) * share; i += 16)
                for (int64_t j = 0; j < 16; ++j) sum[j] += from[i + j];
            for (const uint64_t s : sum) total += s;
        });
    });
    return total.load() == 1 ? 0.0 : best;  // uses the sum, so that the compiler keeps the loop
}

double multiply_rate(const Kernels& kernels, int threads, int rounds) {
    constexpr int64_t tokens = 192, groups = 24, panels = 192, per_panel = groups * (panel_rows * 2 + 512);
    constexpr int64_t inputs = groups * quant_group, outputs = panels * panel_rows;
    std::vector<int8_t> values(tokens * inputs);  // 192 tokens are whole tiles
    std::vector<float> x(inputs), scales(tokens * groups), offsets(tokens * groups), out(tokens * outputs);
    std::vector<int32_t> sums(tokens * groups), low_sums(sums);
    const QuantizedRows rows = {values.data(), scales.data(), sums.data(), low_sums.data(), offsets.data(), groups, kernels.quantized->tile};
    const AlignedBuffer scratch(static_cast<size_t>(threads * worker_scratch));
    for (int64_t token = 0; token < tokens; ++token) {
        for (int64_t i = 0; i < inputs; ++i) x[static_cast<size_t>(i)] = static_cast<float>((i * 37 + token) % 255 - 127);
        kernels.quantized->quantize(x.data(), inputs, rows, token);
    }
    const AlignedBuffer weights(static_cast<size_t>(panels * per_panel));
    auto* bytes = static_cast<uint8_t*>(weights.get());
    for (int64_t i = 0; i < panels * per_panel; ++i)  // in the scales too, where these bytes are small numbers
        bytes[i] = static_cast<uint8_t>(i % per_panel < groups * panel_rows * 2 ? 16 : i * 41 % 251);
    const Matmul task{WeightType::q8_0, bytes,   nullptr, nullptr, 0,    out.data(), outputs,
                      tokens,           inputs,  outputs, inputs,  rows, per_panel,  0};
    return best_rate(rounds, 2.0 * static_cast<double>(tokens * inputs * outputs), [&] {
        parallel_for(threads, panels, 8, [&](int64_t begin, int64_t end, int worker) {
            kernels.quantized->matmul(task, begin, end, static_cast<uint8_t*>(scratch.get()) + worker * worker_scratch);
        });
    });
}

}  // namespace pophood
