// Everything that training computes between two matrix products (small: a contract), over whole arrays in bfloat16.
// Numbers only; the callers are in src/pophood/train. kernels/training_kernels.h declares the arithmetic of one row.
#pragma once

#include <cstdint>

#include "kernels/training_kernels.h"

namespace pophood {

const TrainingKernels& training_kernels();  // of this processor

// Runs the kernels on the threads of torch's own OpenMP runtime, whose entry point (GOMP_parallel) is passed in. Those
// threads spin between two products, and threads of ours would compete with them for the cores. Null: our own threads.
using ParallelRegion = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
void use_openmp_threads(ParallelRegion region);

// Each function below uses at most `threads` threads.

void adamw(const AdamWStep& step, int threads);
double sum_of_squares(const Bfloat* x, int64_t n, int threads);
void gelu(const Bfloat* x, Bfloat* y, int64_t n, int threads);
void gelu_backward(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n, int threads);
void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n, int threads);
void swiglu_backward(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n,
                     int threads);
void norm(const NormInput& input, Bfloat* y, int threads);
void norm_backward(const NormInput& input, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias, int threads);

// Replaces the scores by softmax(scores) after dropout, the attention pattern.
void softmax(const CausalScores& scores, int threads);

// Replaces the scores by the same pattern again, and `d_pattern` by the gradient of the scores. `row_dot` [matrices,
// queries] holds the dot product of each query's output with its gradient.
void softmax_backward(const CausalScores& scores, Bfloat* d_pattern, const float* row_dot, int threads);

void dropout_add(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t rows, int64_t n, const Dropout& dropout, int threads);

// Rotates the pairs (i, i + d/2) of every head by their token's angles, or by the negative angles when `inverse` is
// set (backward): [tokens, heads, d].
void rope(const Bfloat* x, const float* cosines, const float* sines, bool inverse, Bfloat* out, int64_t tokens, int64_t heads,
          int64_t d, int threads);

// Cross-entropy of logits [vocabulary, columns] or [rows, vocabulary]. Writes the loss of each column or row to `loss`
// and, unless `scale` is 0, replaces the logits by their gradient times `scale`.
void column_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t vocabulary, int64_t columns, float scale,
                          float* loss, int threads);
void row_cross_entropy(Bfloat* logits, const int64_t* targets, int64_t rows, int64_t vocabulary, float scale, float* loss,
                       int threads);

}  // namespace pophood
