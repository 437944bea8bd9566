// Products of quantised weights and activations (small: a contract), as one table of functions per instruction set.
//
// The inputs of a product lie in groups of 32. The weights of a row and a group share a scale (and, in some types, a
// minimum; in Q6_K each half of a group has its own scale); the activations of a token and a group share a scale. With q and
// a for the integers:
//
//   out[m][r] = bias[r] + sum over groups, ascending, of  (scale[r][g] * s[m][g]) * dot(q[r][g], a[m][g])
//                                                        + minimum[r][g] * (s[m][g] * sum(a[m][g]))
//
// The integer sums are exact and the f32 operations have one order, so every instruction set gives the same bits.
#pragma once

#include <cstdint>

// Without it GCC leaves a tile's recursive templates as calls, and the sums in memory: less than half as fast.
#if defined(_MSC_VER) && !defined(__clang__)
#define POPHOOD_INLINE __forceinline
#else
#define POPHOOD_INLINE inline __attribute__((always_inline))
#endif

namespace pophood {

inline constexpr int64_t quant_group = 32;  // inputs in one group

// How a type stores its weights: in GGUF's blocks, and in our panels (kernels.h draws them).
struct QuantFormat {
    int block, block_bytes;  // weights and bytes of a block in a file
    int bits;                // of a weight in the first plane: 8 or 4
    int high_bits;           // of a weight in the second plane: 0, 1 or 2
    int zero;                // what the panel stores for the weight 0: 2^n or 0
    bool minimum;            // a group has one
    bool nested;             // scales and minima are integers of 8 bits, each 256 weights having an f16 for each of both
    int scales;              // in a group: 1, or one for each half of it
    bool steps;              // a weight of 4 bits is an index into iq4_steps
    int group_bytes;         // in a panel: the weights of 16 rows
};

// In the order of WeightType from q8_0 on.
inline constexpr QuantFormat quant_formats[] = {
    {32, 34, 8, 0, 128, false, false, 1, false, 512},   // Q8_0
    {32, 18, 4, 0, 8, false, false, 1, false, 256},     // Q4_0
    {32, 20, 4, 0, 0, true, false, 1, false, 256},      // Q4_1
    {32, 22, 4, 1, 16, false, false, 1, false, 320},    // Q5_0
    {32, 24, 4, 1, 0, true, false, 1, false, 320},      // Q5_1
    {256, 144, 4, 0, 0, true, true, 1, false, 256},     // Q4_K
    {256, 176, 4, 1, 0, true, true, 1, false, 320},     // Q5_K
    {256, 210, 4, 2, 32, false, true, 2, false, 384},   // Q6_K
    {32, 18, 4, 0, 128, false, false, 1, true, 256},    // IQ4_NL
};

inline constexpr uint8_t iq4_steps[16] = {1,   24,  45,  63,  79,  93,  106, 118,  // kvalues_iq4nl in ggml, plus 128
                                          129, 141, 153, 166, 181, 197, 217, 241};

// Rows of activations: a = round_even(x * (127 / max|x|)) with the scale max|x| / 127, in groups of 32. Inputs after the
// end of a row are zero. A group that holds an infinity or a NaN has the scale NaN, which the products then pass on.
//
// Rows lie in tiles, in which the same group of all rows lies together; a tile of one row is that row.
struct QuantizedRows {
    int8_t* values;     // [ceil(m / tile)][groups][tile][32]
    float* scales;      // [ceil(m / tile)][groups][tile]
    int32_t* sums;      // likewise: of the values
    int32_t* low_sums;  // of the first 16 of them
    float* offsets;     // scale * sum
    int64_t groups;
    int64_t tile = 1;   // rows in a tile
};

// Rows of activations in a register tile. Every size up to it is compiled by itself, so builds that only run tests
// (sanitizers, which instrument every instruction, and cross compilers) take small tiles.
template <int64_t rows>
#if defined(POPHOOD_SMALL_TILES)
inline constexpr int64_t tile_size = rows < 2 ? rows : 2;
#else
inline constexpr int64_t tile_size = rows;
#endif

inline constexpr int64_t expanded_groups = 64;  // of a panel that are expanded to bytes at a time, for many tokens
inline constexpr int64_t quantized_scratch = 2 * expanded_groups * (512 + 2 * 64);

struct HalfSums {  // of the first and the last 16 values of a group
    int32_t low, high;
};

struct Matmul;

inline constexpr int64_t least_tiles = 3;  // with fewer, unpacking the weights takes longer than tiles save

struct QuantizedKernels {
    // Quantises one row of k inputs to row `row` of `out`.
    void (*quantize)(const float* x, int64_t k, const QuantizedRows& out, int64_t row);

    // Computes panels first..last-1 of a product whose type is one of the quantised ones. `scratch` holds quantized_scratch
    // bytes, is aligned to 64 of them, and belongs to the calling thread.
    void (*matmul)(const Matmul&, int64_t first, int64_t last, uint8_t* scratch);

    int64_t tile = 1;  // rows in a tile of the activations of a batch that is best given in tiles: one of least_tiles and more
};

}  // namespace pophood
