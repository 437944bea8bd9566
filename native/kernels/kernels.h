// The arithmetic that each instruction set provides, as one table of functions. Numbers only.
//
// kernels/scalar.cpp is the specification, in plain loops. The SIMD kernels give the same bits, because
//   - a dot product is one FMA chain over k, ascending (FMA is correctly rounded on every CPU),
//   - a sum over features uses 16 lanes (element i goes to lane i % 16) and one fixed tree (reduce: +8, +4, +2, +1),
//   - exp is our own polynomial, in which each step is one FMA.
// Size letters are those of src/pophood/config.py.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/quantized.h"

namespace pophood {

// bf16_pairs is BF16 for kernels that multiply in it. From q8_0 on they are GGUF's blocks, which quant_formats describes.
enum class WeightType : int { f32, f16, bf16, bf16_pairs, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, iq4_nl };

inline constexpr int64_t panel_rows = 16;  // output rows interleaved in one panel
inline constexpr int64_t kv_block = 32;    // positions in one block of the KV cache
inline constexpr int64_t kv_range = 512;   // positions whose attention has one maximum; see AttentionTask
inline constexpr int64_t k_block = 640;    // inputs that one pass of a large matmul covers, at most
inline constexpr int64_t max_queries = 8;  // query rows that share one walk over a key/value head
inline constexpr int64_t max_head = 256;   // the largest D
inline constexpr int64_t float_scratch = 2 * k_block * panel_rows * 4;  // bytes: k_block inputs of two panels in f32
// Bytes that a thread needs for the products: weights in f32, or expanded blocks.
inline constexpr int64_t worker_scratch = float_scratch > quantized_scratch ? float_scratch : quantized_scratch;
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Rows of activations in bfloat16, in tiles like those of QuantizedRows, with zeros after the end of a row.
struct RoundedRows {
    uint16_t* values = nullptr;  // [ceil(m / tile)][groups][tile][32]
    int64_t groups = 0, tile = 1;
};

// Rows of activations divided into register tiles of at most `most` rows, which differ by one row at most.
struct RowTiles {
    int64_t count, least, larger;  // the first `larger` tiles have one row more than `least`
    POPHOOD_INLINE RowTiles(int64_t m, int64_t most) : count((m + most - 1) / most), least(m / count), larger(m % count) {}
    POPHOOD_INLINE int64_t rows(int64_t tile) const { return least + (tile < larger ? 1 : 0); }
    POPHOOD_INLINE int64_t first(int64_t tile) const { return tile * least + (tile < larger ? tile : larger); }
};

// out[m][r] = bias[r] + sum_k x[m][k] * w[r][k]
//
// Weights lie in panels: panel p holds rows 16p..16p+15 as [k][16], so a thread reads one contiguous stream and one
// load feeds 16 outputs without a horizontal sum. Missing rows of the last panel are zero.
//
// A panel of bf16_pairs is [ceil(panel_k / 2)][16][2].
//
// A panel of a quantised type begins with its scales: [groups][16] in f16, then as many minima if the type has them. In the K
// types these are one per 256 inputs, and integers of 8 bits follow: scales [groups][1 or 2][16], then minima [groups][16].
// The weights come last, per group of 32 inputs in planes whose 64-byte lines hold four inputs of 16 rows, [16][4] bytes, so
// that one load feeds 16 outputs of `vpdpbusd`:
//   8 bits    eight lines: line s holds inputs 4s..4s+3,
//   4 bits    four lines: the low nibbles of line j are inputs 4j..4j+3, the high ones 16+4j..16+4j+3,
//   + 1 bit   one line: bit s of its bytes belongs to inputs 4s..4s+3,
//   + 2 bits  two lines: bits 2j and 2j+1 of the first belong to inputs 4j..4j+3, those of the second to 16+4j..16+4j+3.
struct Matmul {
    WeightType type;
    const void* panels;   // [ceil(rows/16)][panel_k][16]
    const float* bias;    // [ceil16(rows)] or null
    const float* x;       // [m][k]
    int64_t x_stride;
    float* out;           // [m][rows]
    int64_t out_stride;
    int64_t m, k, rows;
    int64_t panel_k;      // inputs in a panel: k, or more when only some of them are multiplied
    QuantizedRows quantized{};  // the activations of a quantised type, in place of x; k counts whole groups
    int64_t panel_bytes = 0;    // of a quantised type
    int64_t first_group = 0;    // of a quantised panel and of `quantized`: the first group that is multiplied
    RoundedRows rounded{};      // the activations of bf16_pairs, in place of x
    const float* interleaved = nullptr;  // x once more, for many rows: RowTiles, each [k][its rows]; not of every type
    bool accumulate = false;    // the sums go on from `out` instead of the bias; not of a quantised type
};

// Attention of several queries to one key/value head; each query has its own number of visible positions.
//
// Positions are taken in ranges of 512 at absolute places. A range has a part of its own for each query: the largest score
// m, the total of exp(score - m), and the sum of exp(score - m) * v. Parts add up in ascending order. So a range may be
// computed anywhere, and no bit depends on it.
//
// A block of keys is [D][32], one of values [32][d_padded]. In q8_0 the numbers are int8, and before them are f16 scales,
// [ceil(D/32)][32]: one per position and group of 32 features.
struct AttentionTask {
    int64_t n_queries;                 // 1..max_queries
    const float* q[max_queries];       // [D]
    float* out[max_queries];           // [D]
    int64_t visible[max_queries];      // the query attends to positions first..visible-1
    WeightType kv_type;                // f32, f16 or q8_0: of the keys and values; the arithmetic is in f32
    const void* const* k_blocks;       // per 32 positions
    const void* const* v_blocks;
    int64_t d, d_padded;
    float scale;
    float cap;                         // of scores, see Kernels::cap; 0: none
    int64_t first[max_queries];        // not 0 where attention has a window; 0 <= first < visible
};

// Floats of one range's part of a query: m, the total, 14 unused ones, and the sum [d_padded].
inline constexpr int64_t part_size(int64_t d_padded) { return 16 + d_padded; }

struct TrainingKernels;

// Products in bfloat16 with sums in f32: for each pair of inputs, ascending, two products are added to the sum as `vdpbf16ps`
// does it. They have no scalar twin: their bits depend on the instruction, though not on threads, batches or chunks.
struct Bf16Kernels {
    // Rounds one row of k inputs to row `row` of `out`, to nearest, ties to even.
    void (*round)(const float* x, int64_t k, const RoundedRows& out, int64_t row);

    void (*matmul)(const Matmul&, int64_t first, int64_t last);

    int64_t tile = 1;  // as in QuantizedKernels
};

struct Kernels {
    const char* name;
    int64_t matmul_tokens;  // rows of x in one register tile; a batch is best cut at multiples of it

    // Computes panels first..last-1. `scratch` holds float_scratch bytes, is aligned to 64 of them, and belongs to the calling
    // thread. With more rows than a tile has it is much faster if they are interleaved too; the bits are the same.
    void (*matmul)(const Matmul&, int64_t first, int64_t last, float* scratch);

    // Writes the rows of one tile as [k][rows]. Null where products do not read such rows.
    void (*interleave)(const float* x, int64_t x_stride, int64_t rows, int64_t k, float* out);

    // Layer norm with bias, or RMS norm if `rms`. A null gain gives the normalised values alone.
    void (*norm)(const float* x, const float* gain, const float* bias, float eps, bool rms, float* out, int64_t n);

    // out = softmax(capped(q . k * scale)) . v
    void (*attend)(const AttentionTask&);

    // One range of it: writes the parts of the queries that see some of it to parts[n_queries][part_size].
    void (*attend_range)(const AttentionTask&, int64_t range, float* parts);

    // out [d] = what the parts of one query, `stride` floats apart, add up to; overwrites the first.
    void (*combine)(float* parts, int64_t ranges, int64_t stride, float* out, int64_t d);

    // The scores alone: out[j][0..visible-1] = capped(q . k * scale). Used by taps; does not read v_blocks or first.
    void (*score)(const AttentionTask&);

    // RoPE: rotates the pairs (i, i + d/2) of a head by the angles whose cosines and sines [d/2] are given.
    void (*rope)(float* head, const float* cosines, const float* sines, int64_t d);

    void (*gelu_tanh)(float* x, int64_t n);                  // GPT-2: x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))
    void (*gelu_erf)(float* x, int64_t n);                   // x * Phi(x)
    void (*silu)(float* x, int64_t n);                       // x * sigmoid(x)
    void (*multiply)(float* x, const float* y, int64_t n);   // x *= y
    void (*add)(float* x, const float* y, int64_t n);        // x += y
    void (*copy)(float* out, const float* x, int64_t n);     // bypasses the caches: taps are read much later
    void (*to_half)(uint16_t* out, const float* x, int64_t n);  // f16, rounded to nearest, ties to even
    bool (*all_finite)(const float* x, int64_t n);
    void (*exponential)(float* x, int64_t n);                // exp in place, for the softmax of taps
    void (*exp_sums)(const float* x, float shift, int64_t n, double* sums);  // sums[i % 8] += exp(x[i] - shift)
    void (*scale)(float* x, float by, int64_t n);            // x *= by
    void (*cap)(float* x, float cap, int64_t n);             // x = cap * tanh(x / cap)
    const TrainingKernels* training;                         // training_kernels.h
    const QuantizedKernels* quantized;                       // quantized.h
    const Bf16Kernels* bf16 = nullptr;                       // null where the processor cannot multiply bfloat16
};

void gelu_erf(float* x, int64_t n);  // in scalar.cpp, shared by all tables: it is rare, and libm's erf has no SIMD form

extern const Kernels scalar_kernels;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels avx2_kernels;
extern const QuantizedKernels avxvnni_quantized;     // takes the place of avx2's where the processor has AVX-VNNI
extern const Kernels avx512_kernels;               // its quantised products are those of avx2
extern const QuantizedKernels avx512vnni_quantized;  // takes their place where the processor has VNNI
extern const Bf16Kernels avx512bf16_kernels;        // beside those of VNNI, where the processor has both
extern const QuantizedKernels amxint8_quantized;   // these two take their place where the processor and the system have AMX
extern const Bf16Kernels amxbf16_kernels;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const Kernels neon_kernels;
extern const QuantizedKernels dotprod_quantized;     // take the place of neon's where the processor has them, the last first
extern const QuantizedKernels i8mm_quantized;
#endif

// Returns the best table that this CPU and its operating system can run, or the one that `forced` names ("scalar", "avx2",
// "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", "dotprod", "i8mm"); null if `forced` is unknown or cannot
// run here.
const Kernels* choose_kernels(const char* forced);

// Returns the names of the tables that can run here, separated by spaces, the fastest last.
const char* available_kernels();

}  // namespace pophood
