// Applies the training kernels to whole arrays, cut into chunks of a fixed size that threads take as they become free.
#include "training/training.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/half.h"
#include "kernels/kernels.h"
#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t chunk_elements = 1 << 15;  // of a flat array
constexpr int64_t partial_rows = 32;         // rows whose gradients of gain and bias form one partial sum
constexpr int64_t vocabulary_chunk = 512;    // rows of logits: with 512 columns they fit in the L2 cache

ParallelRegion region = nullptr;

using Work = std::function<void(int64_t begin, int64_t end)>;

struct ChunkQueue {
    const Work& work;
    int64_t items, chunk;
    std::atomic<int64_t> next{0};
};

void take_chunks(void* data) {
    ChunkQueue& queue = *static_cast<ChunkQueue*>(data);
    for (;;) {
        const int64_t begin = queue.next.fetch_add(queue.chunk, std::memory_order_relaxed);
        if (begin >= queue.items) return;
        queue.work(begin, begin + queue.chunk < queue.items ? begin + queue.chunk : queue.items);
    }
}

// Like parallel_for, but on torch's OpenMP threads if use_openmp_threads was called. A chunk's bits must not depend on
// the thread that computes it.
void in_chunks(int threads, int64_t items, int64_t chunk, const Work& work) {
    if (!region || threads < 2 || items <= chunk)
        return parallel_for(threads, items, chunk, [&](int64_t begin, int64_t end, int) { work(begin, end); });
    ChunkQueue queue{work, items, chunk};
    region(take_chunks, &queue, static_cast<unsigned>(threads), 0);
}

// Rows of `n` elements that make one chunk.
int64_t rows_per_chunk(int64_t n) { return n >= chunk_elements / 2 ? 1 : chunk_elements / 2 / n; }

// At least `n` floats that belong to the calling thread, in whole vectors of 16.
float* thread_scratch(int64_t n) {
    thread_local std::vector<float> scratch;
    if (scratch.size() < static_cast<size_t>(n + 16)) scratch.resize(static_cast<size_t>(n + 16));
    return scratch.data();
}

}  // namespace

void use_openmp_threads(ParallelRegion entry) { region = entry; }

const TrainingKernels& training_kernels() {
    static const TrainingKernels& chosen = [&]() -> const TrainingKernels& {
        const Kernels* kernels = choose_kernels(std::getenv("POPHOOD_ISA"));
        return *(kernels ? kernels : choose_kernels(nullptr))->training;
    }();
    return chosen;
}

void adamw(const AdamWStep& step, int threads) {
    in_chunks(threads, step.n, chunk_elements, [&](int64_t begin, int64_t end) { training_kernels().adamw(step, begin, end); });
}

double sum_of_squares(const Bfloat* x, int64_t n, int threads) {
    std::vector<double> partial(static_cast<size_t>((n + chunk_elements - 1) / chunk_elements));
    in_chunks(threads, n, chunk_elements, [&](int64_t begin, int64_t end) {
        for (; begin < end; begin += chunk_elements)
            partial[static_cast<size_t>(begin / chunk_elements)] =
                training_kernels().sum_of_squares(x + begin, end - begin < chunk_elements ? end - begin : chunk_elements);
    });
    double sum = 0.0;
    for (double p : partial) sum += p;
    return sum;
}

void gelu(const Bfloat* x, Bfloat* y, int64_t n, int threads) {
    in_chunks(threads, n, chunk_elements,
              [&](int64_t begin, int64_t end) { training_kernels().gelu(x + begin, y + begin, end - begin); });
}

void gelu_backward(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n, int threads) {
    in_chunks(threads, n, chunk_elements, [&](int64_t begin, int64_t end) {
        training_kernels().gelu_backward(x + begin, d_y + begin, d_x + begin, end - begin);
    });
}

void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n, int threads) {
    in_chunks(threads, n, chunk_elements, [&](int64_t begin, int64_t end) {
        training_kernels().swiglu(gate + begin, up + begin, y + begin, end - begin);
    });
}

void swiglu_backward(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n,
                     int threads) {
    in_chunks(threads, n, chunk_elements, [&](int64_t begin, int64_t end) {
        training_kernels().swiglu_backward(gate + begin, up + begin, d_y + begin, d_gate + begin, d_up + begin, end - begin);
    });
}

void norm(const NormInput& input, Bfloat* y, int threads) {
    in_chunks(threads, input.rows, rows_per_chunk(input.n), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) training_kernels().norm(input, row, y);
    });
}

void norm_backward(const NormInput& input, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias, int threads) {
    const int64_t chunks = (input.rows + partial_rows - 1) / partial_rows, width = d_gain ? input.n : 0;
    std::vector<float> gains(static_cast<size_t>(chunks * width)), biases(d_bias ? gains.size() : 0);
    in_chunks(threads, chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            for (int64_t row = chunk * partial_rows; row < input.rows && row < (chunk + 1) * partial_rows; ++row)
                training_kernels().norm_backward(input, row, d_y, d_x, d_gain ? gains.data() + chunk * width : nullptr,
                                             d_bias ? biases.data() + chunk * width : nullptr);
    });
    for (int64_t i = 0; i < width; ++i) d_gain[i] = 0.0f;
    for (int64_t i = 0; d_bias && i < width; ++i) d_bias[i] = 0.0f;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int64_t i = 0; i < width; ++i) {
            d_gain[i] += gains[static_cast<size_t>(chunk * width + i)];
            if (d_bias) d_bias[i] += biases[static_cast<size_t>(chunk * width + i)];
        }
}

void softmax(const CausalScores& scores, int threads) {
    in_chunks(threads, scores.matrices * scores.queries, rows_per_chunk(scores.keys), [&](int64_t begin, int64_t end) {
        float* scratch = thread_scratch(scores.keys);
        for (int64_t row = begin; row < end; ++row) training_kernels().softmax(scores, row, scratch);
    });
}

void softmax_backward(const CausalScores& scores, Bfloat* d_pattern, const float* row_dot, int threads) {
    in_chunks(threads, scores.matrices * scores.queries, rows_per_chunk(scores.keys), [&](int64_t begin, int64_t end) {
        float* scratch = thread_scratch(scores.keys);
        for (int64_t row = begin; row < end; ++row)
            training_kernels().softmax_backward(scores, row, d_pattern, row_dot[row], scratch);
    });
}

void dropout_add(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t rows, int64_t n, const Dropout& dropout, int threads) {
    in_chunks(threads, rows, rows_per_chunk(n), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) training_kernels().dropout_add(x, y, out, row, n, dropout);
    });
}

void rope(const Bfloat* x, const float* cosines, const float* sines, bool inverse, Bfloat* out, int64_t tokens, int64_t heads,
          int64_t d, int threads) {
    in_chunks(threads, tokens, rows_per_chunk(heads * d), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * heads; row < end * heads; ++row) {
            const int64_t angle = row / heads * (d / 2);
            training_kernels().rope(x + row * d, cosines + angle, sines + angle, inverse, out + row * d, d);
        }
    });
}

namespace {

// The gradient of the target's logit, (probability - 1) * scale, as the nearest bfloat16.
Bfloat target_gradient(float loss, float scale) {
    const float gradient = (std::exp(-loss) - 1.0f) * scale;
    uint32_t bits;
    std::memcpy(&bits, &gradient, sizeof bits);
    return static_cast<Bfloat>((bits + ((bits >> 16) & 1u) + 0x7FFFu) >> 16);
}

float to_f32(Bfloat x) { return f32_from_bits(static_cast<uint32_t>(x) << 16); }

}  // namespace

void column_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t vocabulary, int64_t columns, float scale,
                          float* loss, int threads) {
    const int64_t chunks = (vocabulary + vocabulary_chunk - 1) / vocabulary_chunk;
    const auto rows_of = [&](int64_t chunk) {
        const int64_t left = vocabulary - chunk * vocabulary_chunk;
        return left < vocabulary_chunk ? left : vocabulary_chunk;
    };
    std::vector<float> maximum(static_cast<size_t>(chunks * columns)), sum(maximum.size());
    in_chunks(threads, chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            training_kernels().column_sum_exp(logits + chunk * vocabulary_chunk * columns, rows_of(chunk), columns,
                                           maximum.data() + chunk * columns, sum.data() + chunk * columns);
    });
    std::vector<float> logsumexp(static_cast<size_t>(columns));
    for (int64_t c = 0; c < columns; ++c) {
        float top = minus_infinity;
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
            top = std::fmax(top, maximum[static_cast<size_t>(chunk * columns + c)]);
        double total = 0.0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const auto at = static_cast<size_t>(chunk * columns + c);
            total += static_cast<double>(sum[at]) * std::exp(static_cast<double>(maximum[at]) - static_cast<double>(top));
        }
        const auto at = static_cast<size_t>(c);
        logsumexp[at] = static_cast<float>(static_cast<double>(top) + std::log(total));
        loss[c] = logsumexp[at] - to_f32(logits[targets[c] * columns + c]);
    }
    if (scale == 0.0f) return;
    in_chunks(threads, chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            training_kernels().column_softmax(logits + chunk * vocabulary_chunk * columns, rows_of(chunk), columns,
                                              logsumexp.data(), scale);
    });
    for (int64_t c = 0; c < columns; ++c) logits[targets[c] * columns + c] = target_gradient(loss[c], scale);
}

void row_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t rows, int64_t vocabulary, float scale, float* loss,
                       int threads) {
    in_chunks(threads, rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            Bfloat* row = logits + r * vocabulary;
            float maximum;
            const double sum = training_kernels().row_sum_exp(row, vocabulary, &maximum);
            const auto logsumexp = static_cast<float>(static_cast<double>(maximum) + std::log(sum));
            loss[r] = logsumexp - to_f32(row[targets[r]]);
            if (scale == 0.0f) continue;
            training_kernels().row_softmax(row, vocabulary, logsumexp, scale);
            row[targets[r]] = target_gradient(loss[r], scale);
        }
    });
}

}  // namespace pophood
