// AVX-512 BF16: `vdpbf16ps` multiplies 32 pairs of bfloat16 and adds each two products to one of 16 sums. Only products with
// weights that are stored in bfloat16; everything else is in avx512.cpp and avx512vnni.cpp.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

#include "avx512_lanes.inl"
#include "lanes.inl"

constexpr int64_t tokens_in_tile = tile_size<12>, panels_in_tile = 2;  // 24 sums, 2 of weights, 1 of activations
constexpr int64_t pairs_in_pass = 512;                      // weights and activations of a pass stay in the L2 cache

inline __m512bh pairs_at(const uint16_t* p) {
    const __m512i bits = _mm512_loadu_si512(p);
    return (__m512bh)bits;
}
inline __m512bh pair_of(const uint16_t* p) {  // in every lane
    int pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

// Rounds to nearest, ties to even; numbers too small for a normal bfloat16 become zero.
void round_row(const float* x, int64_t k, const RoundedRows& out, int64_t row) {
    uint16_t* to = out.values + (row / out.tile * out.groups * out.tile + row % out.tile) * 32;
    for (int64_t i = 0; i < out.groups * 32; i += 16) {
        const __m256i half = (__m256i)_mm512_cvtneps_pbh(load_some(x + i, k - i).v);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 32 * out.tile * 32 + i % 32), half);
    }
}

// Pairs first..last-1 of all inputs; the sums go on from `out`, or begin with the bias.
template <int T, int P>
POPHOOD_INLINE void tile(const Matmul& m, int64_t first, int64_t last, int64_t token, int64_t panel) {
    const int64_t panel_pairs = (m.panel_k + 1) / 2;
    const uint16_t* w = static_cast<const uint16_t*>(m.panels) + panel * panel_pairs * 32;
    const int64_t x_stride = m.rounded.groups * 32;
    const uint16_t* x = m.rounded.values + token * x_stride;
    float* out = m.out + token * m.out_stride + panel * panel_rows;
    __m512 sum[T][P];
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t)
            sum[t][p] = first > 0 ? load_some(out + t * m.out_stride + p * panel_rows, m.rows - (panel + p) * panel_rows).v
                        : m.bias  ? load(m.bias + (panel + p) * panel_rows).v
                                  : _mm512_setzero_ps();
    for (int64_t i = first; i < last; ++i) {
        __m512bh weights[P];
        for (int p = 0; p < P; ++p) {
            const uint16_t* at = w + (p * panel_pairs + i) * 32;
            weights[p] = pairs_at(at);
            if (T == 1) prefetch(reinterpret_cast<const char*>(at) + 4096);
        }
        for (int t = 0; t < T; ++t) {
            const __m512bh pair = pair_of(x + t * x_stride + 2 * i);
            for (int p = 0; p < P; ++p) sum[t][p] = _mm512_dpbf16_ps(sum[t][p], weights[p], pair);
        }
    }
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t)
            store_some(out + t * m.out_stride + p * panel_rows, {sum[t][p]}, m.rows - (panel + p) * panel_rows);
}

template <int T, int P>
void tile_of(int64_t tokens, const Matmul& m, int64_t first, int64_t last, int64_t token, int64_t panel) {
    if (tokens == T) return tile<T, P>(m, first, last, token, panel);
    if constexpr (T > 1) tile_of<T - 1, P>(tokens, m, first, last, token, panel);
}

template <int P>
void all_tokens(const Matmul& m, int64_t panel) {
    const int64_t pairs = (m.k + 1) / 2, pass = m.m > tokens_in_tile ? pairs_in_pass : pairs;
    for (int64_t first = 0; first < pairs; first += pass) {
        const int64_t last = first + pass < pairs ? first + pass : pairs;
        for (int64_t token = 0; token < m.m;) {
            const int64_t left = m.m - token, tiles = (left + tokens_in_tile - 1) / tokens_in_tile;
            const int64_t now = (left + tiles - 1) / tiles;
            tile_of<tokens_in_tile, P>(now, m, first, last, token, panel);
            token += now;
        }
    }
}

void matmul(const Matmul& m, int64_t first, int64_t last) {
    int64_t panel = first;
    if (m.m > 1)
        for (; panel + panels_in_tile <= last; panel += panels_in_tile) all_tokens<panels_in_tile>(m, panel);
    for (; panel < last; ++panel) all_tokens<1>(m, panel);
}

}  // namespace

const Bf16Kernels avx512bf16_kernels = {round_row, matmul};

}  // namespace pophood
