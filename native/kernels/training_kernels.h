// The arithmetic of training that each instruction set provides: everything between two matrix products, on bfloat16
// arrays with float32 inside. training/training.h applies these kernels to whole arrays. A row's bits depend neither
// on the number of threads nor on the instruction set.
#pragma once

#include <cstdint>

namespace pophood {

using Bfloat = uint16_t;  // the bits of a bfloat16

// Dropout whose mask is a hash of (seed, row, column): backward computes the mask again, and none is stored.
struct Dropout {
    uint32_t seed = 0;
    uint32_t threshold = 0;  // an element is dropped when 31 bits of its hash are below this; 0 drops nothing
    float scale = 1.0f;      // 1 / (1 - rate), applied to the other elements
};

// One AdamW step on float32 master weights that are stored as two halves: master = (weight << 16) + remainder, where
// `weight` is the bfloat16 that the matrix products use and `remainder` holds the other 16 bits, signed. Each moment
// takes two bytes: the first is a bfloat16; the second has no sign bit, so it keeps 8 bits of mantissa, and is rounded
// stochastically (rounding to nearest would lose a change of 0.1 % a step for ever).
struct AdamWStep {
    Bfloat* weight;
    int16_t* remainder;
    const Bfloat* gradient;
    Bfloat* moment1;
    uint16_t* moment2;
    int64_t n;
    float gradient_scale;  // multiplies the gradient first (clipping)
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    float bias_correction1, bias_correction2;  // 1 - beta^step
    uint32_t seed;                             // of the stochastic rounding
};

// The input of a layer norm, or of an RMS norm.
struct NormInput {
    const Bfloat* x;     // [rows, n]
    const Bfloat* gain;  // [n]
    const Bfloat* bias;  // [n] or null
    float epsilon;
    bool rms;
    int64_t rows, n;
};

// Attention scores under a causal mask: query q sees the keys 0..first+q.
struct CausalScores {
    Bfloat* scores;  // [matrices, queries, keys]
    int64_t matrices, queries, keys;
    int64_t first;  // the position of query 0
    Dropout dropout;
};

// One instruction set's kernels. Each works on one row or on one chunk of a flat array.
struct TrainingKernels {
    void (*adamw)(const AdamWStep&, int64_t begin, int64_t end);
    float (*sum_of_squares)(const Bfloat* x, int64_t n);
    void (*gelu)(const Bfloat* x, Bfloat* y, int64_t n);  // the tanh form, as in GPT-2
    void (*gelu_backward)(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n);
    void (*swiglu)(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n);  // silu(gate) * up
    void (*swiglu_backward)(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up,
                            int64_t n);
    void (*norm)(const NormInput&, int64_t row, Bfloat* y);
    // Adds to d_gain and d_bias, which may be null.
    void (*norm_backward)(const NormInput&, int64_t row, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias);
    void (*softmax)(const CausalScores&, int64_t row, float* scratch);
    void (*softmax_backward)(const CausalScores&, int64_t row, Bfloat* d_pattern, float row_dot, float* scratch);
    void (*dropout_add)(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t row, int64_t n, const Dropout&);  // null x: 0
    void (*rope)(const Bfloat* x, const float* cosines, const float* sines, bool inverse, Bfloat* out, int64_t d);
    // Per column of logits: the maximum over these rows, and the sum of exp(x - maximum).
    void (*column_sum_exp)(const Bfloat* logits, int64_t rows, int64_t columns, float* maximum, float* sum);
    // logits = exp(logits - logsumexp) * scale, with one logsumexp per column.
    void (*column_softmax)(Bfloat* logits, int64_t rows, int64_t columns, const float* logsumexp, float scale);
    double (*row_sum_exp)(const Bfloat* logits, int64_t n, float* maximum);  // the same two for one row
    void (*row_softmax)(Bfloat* logits, int64_t n, float logsumexp, float scale);
};

}  // namespace pophood
