// Training's kernels over whole arrays: cut into pieces of fixed size, which threads take as they come.
#include "training.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "half.h"
#include "kernels.h"
#include "threads.h"

namespace pophood {
namespace {

constexpr int64_t stretch = 1 << 15;      // elements of a flat array
constexpr int64_t summed_rows = 32;       // whose gradients of gain and bias are added up before the others'
constexpr int64_t vocabulary_piece = 512; // rows of logits: with 512 columns they stay in the second cache

ParallelRegion region = nullptr;

using Work = std::function<void(int64_t begin, int64_t end)>;

struct Shared {
    const Work& work;
    int64_t items, piece;
    std::atomic<int64_t> next{0};
};

void take_pieces(void* data) {
    Shared& shared = *static_cast<Shared*>(data);
    for (;;) {
        const int64_t begin = shared.next.fetch_add(shared.piece, std::memory_order_relaxed);
        if (begin >= shared.items) return;
        shared.work(begin, begin + shared.piece < shared.items ? begin + shared.piece : shared.items);
    }
}

// As parallel_for, and as there a piece's bits may not depend on who takes it.
void in_pieces(int threads, int64_t items, int64_t piece, const Work& work) {
    if (!region || threads < 2 || items <= piece)
        return parallel_for(threads, items, piece, [&](int64_t begin, int64_t end, int) { work(begin, end); });
    Shared shared{work, items, piece};
    region(take_pieces, &shared, static_cast<unsigned>(threads), 0);
}

// Of rows that hold `n` elements each.
int64_t rows_of_a_piece(int64_t n) { return n >= stretch / 2 ? 1 : stretch / 2 / n; }

float* scratch_of(int64_t n) {
    thread_local std::vector<float> scratch;
    if (scratch.size() < static_cast<size_t>(n + 16)) scratch.resize(static_cast<size_t>(n + 16));
    return scratch.data();
}

}  // namespace

void borrow_threads(ParallelRegion of) { region = of; }

const TrainingKernels& training_kernels() {
    static const TrainingKernels& chosen = [&]() -> const TrainingKernels& {
        const Kernels* kernels = choose_kernels(std::getenv("POPHOOD_ISA"));
        return *(kernels ? kernels : choose_kernels(nullptr))->training;
    }();
    return chosen;
}

void update(const AdamW& parameter, int threads) {
    in_pieces(threads, parameter.n, stretch,
              [&](int64_t begin, int64_t end) { training_kernels().adamw(parameter, begin, end); });
}

double sum_of_squares(const Bfloat* x, int64_t n, int threads) {
    std::vector<double> part(static_cast<size_t>((n + stretch - 1) / stretch));
    in_pieces(threads, n, stretch, [&](int64_t begin, int64_t end) {
        for (; begin < end; begin += stretch)
            part[static_cast<size_t>(begin / stretch)] =
                training_kernels().sum_of_squares(x + begin, end - begin < stretch ? end - begin : stretch);
    });
    double sum = 0.0;
    for (double p : part) sum += p;
    return sum;
}

void gelu(const Bfloat* x, Bfloat* y, int64_t n, int threads) {
    in_pieces(threads, n, stretch,
              [&](int64_t begin, int64_t end) { training_kernels().gelu(x + begin, y + begin, end - begin); });
}

void gelu_back(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n, int threads) {
    in_pieces(threads, n, stretch, [&](int64_t begin, int64_t end) {
        training_kernels().gelu_back(x + begin, d_y + begin, d_x + begin, end - begin);
    });
}

void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n, int threads) {
    in_pieces(threads, n, stretch, [&](int64_t begin, int64_t end) {
        training_kernels().swiglu(gate + begin, up + begin, y + begin, end - begin);
    });
}

void swiglu_back(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n, int threads) {
    in_pieces(threads, n, stretch, [&](int64_t begin, int64_t end) {
        training_kernels().swiglu_back(gate + begin, up + begin, d_y + begin, d_gate + begin, d_up + begin, end - begin);
    });
}

void norm(const Norm& of, Bfloat* y, int threads) {
    in_pieces(threads, of.rows, rows_of_a_piece(of.n), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) training_kernels().norm(of, row, y);
    });
}

void norm_back(const Norm& of, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias, int threads) {
    const int64_t pieces = (of.rows + summed_rows - 1) / summed_rows, width = d_gain ? of.n : 0;
    std::vector<float> gains(static_cast<size_t>(pieces * width)), biases(d_bias ? gains.size() : 0);
    in_pieces(threads, pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece)
            for (int64_t row = piece * summed_rows; row < of.rows && row < (piece + 1) * summed_rows; ++row)
                training_kernels().norm_back(of, row, d_y, d_x, d_gain ? gains.data() + piece * width : nullptr,
                                             d_bias ? biases.data() + piece * width : nullptr);
    });
    for (int64_t i = 0; i < width; ++i) d_gain[i] = 0.0f;
    for (int64_t i = 0; d_bias && i < width; ++i) d_bias[i] = 0.0f;
    for (int64_t piece = 0; piece < pieces; ++piece)
        for (int64_t i = 0; i < width; ++i) {
            d_gain[i] += gains[static_cast<size_t>(piece * width + i)];
            if (d_bias) d_bias[i] += biases[static_cast<size_t>(piece * width + i)];
        }
}

void soften(const Pattern& pattern, int threads) {
    in_pieces(threads, pattern.matrices * pattern.queries, rows_of_a_piece(pattern.keys), [&](int64_t begin, int64_t end) {
        float* scratch = scratch_of(pattern.keys);
        for (int64_t row = begin; row < end; ++row) training_kernels().soften(pattern, row, scratch);
    });
}

void soften_back(const Pattern& pattern, Bfloat* d_pattern, const float* own, int threads) {
    in_pieces(threads, pattern.matrices * pattern.queries, rows_of_a_piece(pattern.keys), [&](int64_t begin, int64_t end) {
        float* scratch = scratch_of(pattern.keys);
        for (int64_t row = begin; row < end; ++row)
            training_kernels().soften_back(pattern, row, d_pattern, own[row], scratch);
    });
}

void add_dropped(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t rows, int64_t n, const Dropout& dropout, int threads) {
    in_pieces(threads, rows, rows_of_a_piece(n), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) training_kernels().add_dropped(x, y, out, row, n, dropout);
    });
}

void turn(const Bfloat* x, const float* cosines, const float* sines, bool back, Bfloat* out, int64_t tokens, int64_t heads,
          int64_t d, int threads) {
    in_pieces(threads, tokens, rows_of_a_piece(heads * d), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * heads; row < end * heads; ++row) {
            const int64_t angle = row / heads * (d / 2);
            training_kernels().turn(x + row * d, cosines + angle, sines + angle, back, out + row * d, d);
        }
    });
}

namespace {

// What the target's logit becomes: of its probability, 1 is missing.
Bfloat target_gradient(float loss, float scale) {
    const float gradient = (std::exp(-loss) - 1.0f) * scale;
    uint32_t bits;
    std::memcpy(&bits, &gradient, sizeof bits);
    return static_cast<Bfloat>((bits + ((bits >> 16) & 1u) + 0x7FFFu) >> 16);
}

float widened(Bfloat x) { return from_bits(static_cast<uint32_t>(x) << 16); }

}  // namespace

void column_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t vocabulary, int64_t columns, float scale,
                          float* loss, int threads) {
    const int64_t pieces = (vocabulary + vocabulary_piece - 1) / vocabulary_piece;
    const auto rows_of = [&](int64_t piece) {
        const int64_t left = vocabulary - piece * vocabulary_piece;
        return left < vocabulary_piece ? left : vocabulary_piece;
    };
    std::vector<float> highest(static_cast<size_t>(pieces * columns)), sum(highest.size());
    in_pieces(threads, pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece)
            training_kernels().column_sums(logits + piece * vocabulary_piece * columns, rows_of(piece), columns,
                                           highest.data() + piece * columns, sum.data() + piece * columns);
    });
    std::vector<float> mass(static_cast<size_t>(columns));
    for (int64_t c = 0; c < columns; ++c) {
        float top = minus_infinity;
        for (int64_t piece = 0; piece < pieces; ++piece)
            top = std::fmax(top, highest[static_cast<size_t>(piece * columns + c)]);
        double total = 0.0;
        for (int64_t piece = 0; piece < pieces; ++piece) {
            const auto at = static_cast<size_t>(piece * columns + c);
            total += static_cast<double>(sum[at]) * std::exp(static_cast<double>(highest[at]) - static_cast<double>(top));
        }
        const auto at = static_cast<size_t>(c);
        mass[at] = static_cast<float>(static_cast<double>(top) + std::log(total));
        loss[c] = mass[at] - widened(logits[targets[c] * columns + c]);
    }
    if (scale == 0.0f) return;
    in_pieces(threads, pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece)
            training_kernels().column_softmax(logits + piece * vocabulary_piece * columns, rows_of(piece), columns,
                                              mass.data(), scale);
    });
    for (int64_t c = 0; c < columns; ++c) logits[targets[c] * columns + c] = target_gradient(loss[c], scale);
}

void row_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t rows, int64_t vocabulary, float scale, float* loss,
                       int threads) {
    in_pieces(threads, rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            Bfloat* row = logits + r * vocabulary;
            float highest;
            const double sum = training_kernels().row_sum(row, vocabulary, &highest);
            const auto mass = static_cast<float>(static_cast<double>(highest) + std::log(sum));
            loss[r] = mass - widened(row[targets[r]]);
            if (scale == 0.0f) continue;
            training_kernels().row_softmax(row, vocabulary, mass, scale);
            row[targets[r]] = target_gradient(loss[r], scale);
        }
    });
}

}  // namespace pophood
