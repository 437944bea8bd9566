// AVX-512 VNNI: `vpdpbusd` multiplies 64 unsigned by 64 signed bytes and adds fours of products to 16 sums. Only the
// quantised products; everything else is in avx512.cpp.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

constexpr int64_t quantized_tokens = 6, quantized_panels = 2;  // 12 integer and 12 float sums, 2 of weights, 2 of scales

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
inline int32_t store_rounded(int8_t* p, V low, V high) {
    const __m512i a = _mm512_cvtps_epi32(low.v), b = _mm512_cvtps_epi32(high.v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(b));
    const __m512i both = _mm512_add_epi32(a, b);
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline __m512i load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline __m512i four_of(const int8_t* p) {  // four bytes in every lane
    int four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

#include "quantized.inl"

template <class Weights, int T, int P>
inline void dots(const Group<P>& group, I (&dot)[T][P]) {
    for (int t = 0; t < T; ++t) {  // stored are weight + 2^zero, so the sum starts at -2^zero times the sum of x
        const __m512i start = Weights::zero < 0 ? _mm512_setzero_si512()
                              : _mm512_sub_epi32(_mm512_setzero_si512(),
                                                 _mm512_slli_epi32(_mm512_set1_epi32(group.sums[t * group.sum_stride]),
                                                                   Weights::zero < 0 ? 0 : Weights::zero));
        for (int p = 0; p < P; ++p) dot[t][p].v = start;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int j = 0; j < (Weights::bits == 8 ? 8 : 4); ++j) {
        __m512i low[P], high[P];
        for (int p = 0; p < P; ++p) {
            low[p] = load_bytes(group.weights[p] + 64 * j);
            if (Weights::bits == 8) continue;
            high[p] = _mm512_and_si512(_mm512_srli_epi16(low[p], 4), nibble);
            low[p] = _mm512_and_si512(low[p], nibble);
        }
        for (int t = 0; t < T; ++t) {
            const __m512i x = four_of(group.x + t * group.x_stride + 4 * j);
            for (int p = 0; p < P; ++p) dot[t][p].v = _mm512_dpbusd_epi32(dot[t][p].v, low[p], x);
        }
        if (Weights::bits == 8) continue;
        for (int t = 0; t < T; ++t) {
            const __m512i x = four_of(group.x + t * group.x_stride + 16 + 4 * j);
            for (int p = 0; p < P; ++p) dot[t][p].v = _mm512_dpbusd_epi32(dot[t][p].v, high[p], x);
        }
    }
}

}  // namespace

const QuantizedKernels avx512vnni_quantized = {quantize, quantized_matmul};

}  // namespace pophood
