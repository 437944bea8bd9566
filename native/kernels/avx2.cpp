// AVX2, FMA and F16C: sixteen floats are two 256-bit registers. The kernels are in simd.inl and training.inl.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

constexpr int64_t tile_tokens = tile_size<6>;  // 12 sums, 2 of weights, 1 broadcast: 15 of 16 registers
constexpr int tile_panels = 1;
constexpr int64_t quantized_tokens = tile_size<6>, quantized_panels = 1;
constexpr int query_tile = 2, score_tile = 2, value_columns = 2;

#include "avx2_lanes.inl"

// ---- for training: integers, square roots, and 16-bit storage ----

inline I iota_from(uint32_t first) {
    const __m256i count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_add_epi32(count, all(first)), _mm256_add_epi32(count, all(first + 8))};
}
inline __m256i xor_shifted(__m256i a, int n) { return _mm256_xor_si256(a, _mm256_srli_epi32(a, n)); }
inline I xor_shifted(I a, int n) { return {xor_shifted(a.low, n), xor_shifted(a.high, n)}; }
inline I multiply_by(I a, uint32_t by) { return {_mm256_mullo_epi32(a.low, all(by)), _mm256_mullo_epi32(a.high, all(by))}; }
inline __m256 zero_below(__m256 a, __m256i random, uint32_t threshold) {
    const __m256i below = _mm256_cmpgt_epi32(all(threshold), _mm256_srli_epi32(random, 1));
    return _mm256_andnot_ps(_mm256_castsi256_ps(below), a);
}
inline V zero_below(V a, I random, uint32_t threshold) {  // compares 31 bits of `random`
    return {zero_below(a.low, random.low, threshold), zero_below(a.high, random.high, threshold)};
}
inline V sqrt_of(V a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
inline __m256i load_u16(const void* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline void store_16(void* p, __m256i low, __m256i high) {  // the low 16 bits of each lane
    const __m256i mask = all(0xFFFF);
    const __m256i both = _mm256_packus_epi32(_mm256_and_si256(low, mask), _mm256_and_si256(high, mask));
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_permute4x64_epi64(both, 0xD8));
}
inline __m256i nearest_bfloat(__m256i bits) {  // rounds to nearest, ties to even
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), all(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, all(0x7FFF))), 16);
}
inline void store_bfloat(uint16_t* p, V a) { store_16(p, nearest_bfloat(bits_of(a.low)), nearest_bfloat(bits_of(a.high))); }
inline __m256 join_master(const uint16_t* high, const int16_t* low) {
    const __m256i rest = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(load_u16(high), 16), rest));
}
inline V load_master(const uint16_t* high, const int16_t* low) {
    return {join_master(high, low), join_master(high + 8, low + 8)};
}
inline __m256i upper_half(__m256 a) { return _mm256_srli_epi32(_mm256_add_epi32(bits_of(a), all(0x8000)), 16); }
inline __m256i remainder_of(__m256 a, __m256i upper) { return _mm256_sub_epi32(bits_of(a), _mm256_slli_epi32(upper, 16)); }
inline void store_master(uint16_t* high, int16_t* low, V a) {
    const __m256i first = upper_half(a.low), second = upper_half(a.high);
    store_16(high, first, second);
    store_16(low, remainder_of(a.low, first), remainder_of(a.high, second));
}
inline V load_moment2(const uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(load_u16(p), 15)),
            _mm256_castsi256_ps(_mm256_slli_epi32(load_u16(p + 8), 15))};
}
inline __m256i round_stochastically(__m256 a, __m256i random) {
    return _mm256_srli_epi32(_mm256_add_epi32(bits_of(a), _mm256_srli_epi32(random, 17)), 15);
}
inline void store_moment2(uint16_t* p, V a, I random) {
    store_16(p, round_stochastically(a.low, random.low), round_stochastically(a.high, random.high));
}

#include "simd.inl"
#include "attention.inl"
#include "training.inl"
template <class W>
constexpr bool expands = false;

#include "quantized.inl"

// `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits and saturates. It never does here, and neither do
// the sums in 16 bits: with |x| at most 127, two products with weights of 8 bits (as magnitude and sign) are at most 32,512;
// eight pairs with 4 bits 30,480, four with 5 bits 31,496, two with 6 bits 32,004. Then the sums become 32 bits wide.

// The weights of step j of a half of a group, of eight rows: unsigned, or signed where they have 8 bits. `plane` holds the high
// bits of step j in 0x01 (and, of the second half, in 0x10) or 0x03.
template <class W, int half>
POPHOOD_INLINE __m256i weights_of(const uint8_t* group, int j, __m256i plane) {
    if constexpr (W::format.bits == 8)
        return _mm256_xor_si256(load_bytes(group + 64 * (4 * half + j)), _mm256_set1_epi8(-128));
    const __m256i line = load_bytes(group + 64 * j);
    const __m256i nibbles = _mm256_and_si256(half == 0 ? line : _mm256_srli_epi16(line, 4), _mm256_set1_epi8(15));
    if constexpr (W::format.steps) {
        const __m256i steps = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(iq4_steps)));
        return _mm256_xor_si256(_mm256_shuffle_epi8(steps, nibbles), _mm256_set1_epi8(-128));
    }
    if constexpr (W::format.high_bits == 0) return nibbles;
    const bool shifted = W::format.high_bits == 1 && half == 1;
    const __m256i high = _mm256_and_si256(shifted ? plane : _mm256_slli_epi16(plane, 4),
                                          _mm256_set1_epi8(W::format.high_bits == 1 ? 0x10 : 0x30));
    return _mm256_or_si256(nibbles, high);
}

inline __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// Unrolled, GCC loads the activations of all steps first, and has registers for none of them.
#if defined(__clang__)
#define POPHOOD_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define POPHOOD_KEEP_LOOP _Pragma("GCC unroll 1")
#else
#define POPHOOD_KEEP_LOOP
#endif

// Adds the products of one step to the sums of T tokens: in 16 bits, or in 32 where the weights have 8.
template <class W, int half, int T, int P>
POPHOOD_INLINE void add_step(const Group<P>& group, const uint8_t* weights, int j, __m256i plane, __m256i (&sum)[T]) {
    const __m256i w = weights_of<W, half>(weights, j, plane);
    const int8_t* x = group.x + 16 * half + 4 * j;
    if constexpr (W::format.bits == 8 || W::format.steps) {
        const __m256i magnitude = _mm256_abs_epi8(w);
        for (int t = 0; t < T; ++t) {
            const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four_of(x + t * group.x_stride), w));
            sum[t] = _mm256_add_epi32(sum[t], widened(pairs));
        }
    } else {
        for (int t = 0; t < T; ++t)
            sum[t] = _mm256_add_epi16(sum[t], _mm256_maddubs_epi16(w, four_of(x + t * group.x_stride)));
    }
}

// Eight rows of a group, or of a half of it: the sums of T tokens and the weights then fit into the registers.
template <class W, int first, int T, int P>
POPHOOD_INLINE void half_of_dots(const Group<P>& group, const uint8_t* weights, __m256i (&sum)[T]) {
    constexpr bool wide = W::format.bits == 8 || W::format.steps;
    constexpr int high_bits = W::format.high_bits, steps_in_16_bits = high_bits == 2 ? 2 : 4;
    for (int t = 0; t < T; ++t) sum[t] = _mm256_setzero_si256();
    __m256i plane = _mm256_setzero_si256();
    if constexpr (high_bits != 0) plane = load_bytes(weights + 256 + (high_bits == 2 ? first * 16 : 0));
    const auto next_plane = [&] {
        if constexpr (high_bits != 0) plane = _mm256_srli_epi16(plane, high_bits);
    };
    if constexpr (wide || high_bits == 0) {
        POPHOOD_KEEP_LOOP
        for (int j = 0; j < 4; ++j) {
            add_step<W, 0>(group, weights, j, plane, sum);
            add_step<W, 1>(group, weights, j, plane, sum);
        }
        if constexpr (!wide)
            for (int t = 0; t < T; ++t) sum[t] = widened(sum[t]);
    } else {
        const auto add_half = [&](auto add) {
            for (int j = 0; j < 4; j += steps_in_16_bits) {
                __m256i pairs[T];
                for (int t = 0; t < T; ++t) pairs[t] = _mm256_setzero_si256();
                for (int step = j; step < j + steps_in_16_bits; ++step) {
                    add(step, pairs);
                    next_plane();
                }
                for (int t = 0; t < T; ++t) sum[t] = _mm256_add_epi32(sum[t], widened(pairs[t]));
            }
        };
        const __m256i whole = plane;
        if constexpr (first == 0) add_half([&](int j, __m256i (&pairs)[T]) { add_step<W, 0>(group, weights, j, plane, pairs); });
        if constexpr (W::steps == 8) plane = whole;
        if constexpr (first + W::steps == 8) add_half([&](int j, __m256i (&pairs)[T]) { add_step<W, 1>(group, weights, j, plane, pairs); });
    }
    if constexpr (!wide && W::format.zero != 0)
        for (int t = 0; t < T; ++t)
            sum[t] = _mm256_sub_epi32(sum[t], _mm256_set1_epi32(group.sum(t, first, W::steps) * W::format.zero));
}
#undef POPHOOD_KEEP_LOOP

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    for (int p = 0; p < P; ++p) {
        __m256i low[T], high[T];
        half_of_dots<W, first>(group, group.weights[p], low);
        half_of_dots<W, first>(group, group.weights[p] + 32, high);
        for (int t = 0; t < T; ++t) dot[t][p] = {low[t], high[t]};
    }
}

constexpr QuantizedKernels quantized = {quantize, quantized_matmul};

}  // namespace

const Kernels avx2_kernels = {"avx2",   tile_tokens, matmul,   interleave, norm, attend, attend_range, combine, score, rope, gelu_tanh,
                              gelu_erf, silu,        multiply, add_to, copy, to_half, all_finite, exponential, exp_sums, scale_by, cap_to, &training,
                              &quantized};

}  // namespace pophood
