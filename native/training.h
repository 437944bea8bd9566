// What training computes between the products of matrices, in bfloat16 with float32 inside. Numbers only; the
// callers are in src/pophood/train. A row's bits depend neither on the number of threads nor on the instruction set.
#pragma once

#include <cstdint>

namespace pophood {

using Bfloat = uint16_t;  // its bits

// Which elements a dropout keeps: a hash of (seed, row, column), so that backward asks again and nothing is stored.
struct Dropout {
    uint32_t seed = 0;
    uint32_t threshold = 0;  // dropped where 31 bits of the hash are below it; 0: nothing is
    float scale = 1.0f;      // 1 / (1 - rate), for what is kept
};

// AdamW over float32 masters that are kept as two halves: master = (high << 16) + low, where `high` is the bfloat16
// that is multiplied and `low` the signed rest of the bits. The moments take two bytes each: the mean is a bfloat16;
// the mean square, which has no sign, keeps 8 bits of its mantissa, rounded up or down at random (a change of 0.1 %
// a step would otherwise never get through).
struct AdamW {
    Bfloat* high;
    int16_t* low;
    const Bfloat* gradient;
    Bfloat* mean;
    uint16_t* square;
    int64_t n;
    float factor;  // the gradient is multiplied by it first (clipping)
    float rate, beta1, beta2, epsilon, decay;
    float correction1, correction2;  // 1 - beta^step
    uint32_t seed;                   // of the rounding
};

struct Norm {
    const Bfloat* x;     // [rows, n]
    const Bfloat* gain;  // [n]
    const Bfloat* bias;  // [n] or null
    float epsilon;
    bool rms;
    int64_t rows, n;
};

struct Pattern {
    Bfloat* score;  // [matrices, queries, keys]
    int64_t matrices, queries, keys;
    int64_t first;  // query r sees keys 0..first+r
    Dropout dropout;
};

// One instruction set's kernels: a row or a stretch at a time.
struct TrainingKernels {
    void (*adamw)(const AdamW&, int64_t begin, int64_t end);
    float (*sum_of_squares)(const Bfloat* x, int64_t n);
    void (*gelu)(const Bfloat* x, Bfloat* y, int64_t n);  // GPT-2's, by tanh
    void (*gelu_back)(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n);
    void (*swiglu)(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n);  // silu(gate) * up
    void (*swiglu_back)(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n);
    void (*norm)(const Norm&, int64_t row, Bfloat* y);
    void (*norm_back)(const Norm&, int64_t row, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias);  // adds to the last two
    void (*soften)(const Pattern&, int64_t row, float* scratch);
    void (*soften_back)(const Pattern&, int64_t row, Bfloat* d_pattern, float own, float* scratch);
    void (*add_dropped)(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t row, int64_t n, const Dropout&);  // x null: 0
    void (*turn)(const Bfloat* x, const float* cosines, const float* sines, bool back, Bfloat* out, int64_t d);
    // Columns of logits: the highest of each in these rows, and the sum of exp(x - highest).
    void (*column_sums)(const Bfloat* logits, int64_t rows, int64_t columns, float* highest, float* sum);
    // logits = exp(logits - mass) * scale: the softmax of each column, of which `mass` is the logarithm of the sum.
    void (*column_softmax)(Bfloat* logits, int64_t rows, int64_t columns, const float* mass, float scale);
    double (*row_sum)(const Bfloat* logits, int64_t n, float* highest);  // the same for one row
    void (*row_softmax)(Bfloat* logits, int64_t n, float mass, float scale);
};

const TrainingKernels& training_kernels();  // of this processor

// Torch's own threads are awake between two of its products, and spin: ours would have to share their cores. This is
// the entry of its OpenMP runtime (GOMP_parallel), where it has that one; null: threads of our own.
using ParallelRegion = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
void borrow_threads(ParallelRegion region);

// ---- the whole of each, on up to `threads` threads ----

void update(const AdamW& parameter, int threads);
double sum_of_squares(const Bfloat* x, int64_t n, int threads);
void gelu(const Bfloat* x, Bfloat* y, int64_t n, int threads);
void gelu_back(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n, int threads);
void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n, int threads);
void swiglu_back(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n, int threads);
void norm(const Norm& of, Bfloat* y, int threads);
void norm_back(const Norm& of, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias, int threads);
void soften(const Pattern& pattern, int threads);  // scores become softmax(scores), dropped
// Scores become the dropped pattern again, `d_pattern` the gradient of the scores; `own`: each row's d_z . z.
void soften_back(const Pattern& pattern, Bfloat* d_pattern, const float* own, int threads);
void add_dropped(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t rows, int64_t n, const Dropout& dropout, int threads);
// Pairs (i, i + d/2) of every head by their token's angles: [tokens, heads, d]; `back`: the other way round.
void turn(const Bfloat* x, const float* cosines, const float* sines, bool back, Bfloat* out, int64_t tokens, int64_t heads,
          int64_t d, int threads);
// Cross-entropy of logits, [vocabulary, columns] or [rows, vocabulary]: the loss of each column or row into `loss`, the
// gradient times `scale` into the logits (unless `scale` is 0).
void column_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t vocabulary, int64_t columns, float scale,
                          float* loss, int threads);
void row_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t rows, int64_t vocabulary, float scale, float* loss,
                       int threads);

}  // namespace pophood
