// Products of quantised weights and activations (small: a contract), as one table of functions per instruction set.
//
// The inputs of a product lie in groups of 32. The weights of a row and a group share a scale (and, in Q4_1, a minimum);
// the activations of a token and a group share a scale. With q and a for the stored integers:
//
//   out[m][r] = bias[r] + sum over groups, ascending, of  (scale[r][g] * s[m][g]) * dot(q[r][g], a[m][g])
//                                                        + minimum[r][g] * (s[m][g] * sum(a[m][g]))      (Q4_1 only)
//
// The integer sums are exact and the f32 operations have one order, so every instruction set gives the same bits.
#pragma once

#include <cstdint>

namespace pophood {

inline constexpr int64_t quant_group = 32;  // inputs in one group

// Rows of activations: a = round_even(x * (127 / max|x|)) with the scale max|x| / 127, in groups of 32. Inputs after the
// end of a row are zero. A group that holds an infinity or a NaN has the scale NaN, which the products then pass on.
struct QuantizedRows {
    int8_t* values;   // [m][groups * 32]
    float* scales;    // [m][groups]
    int32_t* sums;    // [m][groups]: of the values
    float* offsets;   // [m][groups]: scale * sum
    int64_t groups;
};

struct Matmul;

struct QuantizedKernels {
    // Quantises one row of k inputs to row `row` of `out`.
    void (*quantize)(const float* x, int64_t k, const QuantizedRows& out, int64_t row);

    // Computes panels first..last-1 of a product whose type is one of the quantised ones.
    void (*matmul)(const Matmul&, int64_t first, int64_t last);
};

}  // namespace pophood
