// AVX-512 (F, BW, DQ, VL): sixteen floats are one register. The kernels are in simd.inl and training.inl.
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

constexpr int64_t tile_tokens = tile_size<14>;  // of two panels: 28 sums, 2 of weights, 1 of activations
constexpr int tile_panels = 2;
constexpr int query_tile = 4, score_tile = 8, value_columns = 4;

#include "avx512_lanes.inl"

// ---- for training: integers, square roots, and 16-bit storage ----

struct I {
    __m512i v;
};

inline I iota_from(uint32_t first) {
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_add_epi32(count, _mm512_set1_epi32(static_cast<int>(first)))};
}
inline I xor_shifted(I a, unsigned n) { return {_mm512_xor_si512(a.v, _mm512_srli_epi32(a.v, n))}; }
inline I multiply_by(I a, uint32_t by) { return {_mm512_mullo_epi32(a.v, _mm512_set1_epi32(static_cast<int>(by)))}; }
inline V zero_below(V a, I random, uint32_t threshold) {  // compares 31 bits of `random`
    const __m512i bound = _mm512_set1_epi32(static_cast<int>(threshold));
    return {_mm512_maskz_mov_ps(_mm512_cmpge_epi32_mask(_mm512_srli_epi32(random.v, 1), bound), a.v)};
}
inline V sqrt_of(V a) { return {_mm512_sqrt_ps(a.v)}; }
inline void store_16(void* p, __m512i a) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
}
inline __m512i load_u16(const void* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
inline void store_bfloat(uint16_t* p, V a) {  // rounds to nearest, ties to even
    const __m512i bits = _mm512_castps_si512(a.v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    store_16(p, _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16));
}
inline V load_master(const uint16_t* high, const int16_t* low) {
    const __m512i rest = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(load_u16(high), 16), rest))};
}
inline void store_master(uint16_t* high, int16_t* low, V a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i upper = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x8000)), 16);
    store_16(high, upper);
    store_16(low, _mm512_sub_epi32(bits, _mm512_slli_epi32(upper, 16)));
}
inline V load_moment2(const uint16_t* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(load_u16(p), 15))}; }
inline void store_moment2(uint16_t* p, V a, I random) {
    const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_srli_epi32(random.v, 17));
    store_16(p, _mm512_srli_epi32(rounded, 15));
}

#include "simd.inl"
#include "attention.inl"
#include "training.inl"

}  // namespace

const Kernels avx512_kernels = {"avx512", tile_tokens, matmul,   interleave, norm, attend, attend_range, combine, score, rope, gelu_tanh,
                                gelu_erf, silu,        multiply, add_to, copy, to_half, all_finite, exponential, exp_sums, scale_by, cap_to, &training,
                                nullptr};  // dispatch.cpp adds the quantised products

}  // namespace pophood
