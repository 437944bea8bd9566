// AVX-512 VNNI: `vpdpbusd` multiplies 64 unsigned by 64 signed bytes and adds fours of products to 16 sums. Only the
// quantised products; everything else is in avx512.cpp.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

constexpr int64_t quantized_tokens = tile_size<6>, quantized_panels = 2;  // 12 integer and 12 float sums, 2 of weights, 2 of scales

#include "avx512_lanes.inl"
#include "lanes.inl"

struct I {
    __m512i v;
};

inline V to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline float largest_magnitude(V a, V b) {  // bits without the sign are in the order of the numbers, infinities and NaNs last
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a.v), magnitude),
                                          _mm512_and_si512(_mm512_castps_si512(b.v), magnitude));
    const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(bits), _mm512_extracti64x4_epi64(bits, 1));
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1))));
}
inline int32_t sum_of(__m512i a) {
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline HalfSums store_rounded(int8_t* p, V low, V high) {
    const __m512i a = _mm512_cvtps_epi32(low.v), b = _mm512_cvtps_epi32(high.v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(b));
    return {sum_of(a), sum_of(b)};
}
inline __m512i four_of(const int8_t* p) {  // four bytes in every lane
    int four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

template <class W>
constexpr bool expands = W::format.high_bits != 0 || W::format.nested || W::format.steps;  // plain nibbles gain nothing

#include "quantized.inl"

#include "avx512_bytes.inl"

// Steps are taken in the order 0, 4, 1, 5, ..., so that one load serves both nibbles, or in half a group in ascending order.
template <class W, int T, int P, int first, int index = 0>
POPHOOD_INLINE void add_steps(const Group<P>& group, I (&dot)[T][P]) {
    constexpr int step = W::format.scales == 1 && W::format.bits == 4 ? index % 2 * 4 + index / 2 : first + index;
    __m512i w[P];
    for (int p = 0; p < P; ++p) w[p] = weights_of<W, step>(group.weights[p]);
    for (int t = 0; t < T; ++t) {
        const __m512i x = four_of(group.x + t * group.x_stride + 4 * step);
        for (int p = 0; p < P; ++p) dot[t][p].v = _mm512_dpbusd_epi32(dot[t][p].v, w[p], x);
    }
    if constexpr (index + 1 < W::steps) add_steps<W, T, P, first, index + 1>(group, dot);
}

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    for (int t = 0; t < T; ++t) {  // stored are weight + zero, so the sum starts at -zero times the sum of x
        __m512i start = _mm512_setzero_si512();
        if constexpr (W::format.zero != 0)
            start = _mm512_sub_epi32(start, _mm512_slli_epi32(_mm512_set1_epi32(group.sum(t, first, W::steps)), log2_of(W::format.zero)));
        for (int p = 0; p < P; ++p) dot[t][p].v = start;
    }
    add_steps<W, T, P, first>(group, dot);
}

}  // namespace

const QuantizedKernels avx512vnni_quantized = {quantize, quantized_matmul};

}  // namespace pophood
