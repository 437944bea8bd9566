// AMX INT8: `tdpbssd` multiplies a tile of 16 tokens and 32 inputs by one of 32 inputs and 16 outputs, which is one group of a
// panel. Only the quantised products of batches that lie in tiles; all others, and those of Q6_K, which has two scales in a
// group, are those of AVX-512 VNNI.
//
// What a group's integers are multiplied with takes longer than the integers. While the tiles are in use, these processors
// compute one register of 16 floats per cycle instead of two: 48 cycles for three operations on a tile of sums, which itself
// takes 16. So the tile of the next group is computed meanwhile, and the f32 sums stay in registers as far as they fit.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace pophood {
namespace {

#include "avx512_lanes.inl"
#include "lanes.inl"
#include "quantized_panels.inl"
#include "avx512_bytes.inl"
#include "amx_tiles.inl"

constexpr int64_t tile_tokens = 16, line = 64;
constexpr int64_t few_tokens = 4;         // in the last tile: AVX-512 VNNI is faster
constexpr int64_t prefetched_groups = 4;  // of activations, which come from the L2 cache

// The tiles: 0 and 1 hold the sums of two panels, 4 the activations, 6 and 7 the weights.
void use_tiles_for_groups() {
    TileShapes shapes;
    for (int p = 0; p < 2; ++p) {
        shapes.set(p, tile_tokens, line);
        shapes.set(6 + p, quant_group / 4, line);
    }
    shapes.set(4, tile_tokens, quant_group);
    use_tiles(shapes);
}

// Multiplies the activations by the weights of a panel's group.
template <int panel>
POPHOOD_INLINE void multiply_group(const uint8_t* weights) {
    load_tile<6 + panel>(weights, line);
    clear_tile<panel>();
    asm volatile("tdpbssd %%tmm%c1, %%tmm4, %%tmm%c0" : : "i"(panel), "i"(6 + panel));
}

// Weights that are expanded: per group 512 signed bytes, in steps of four inputs, and the scales and minima in f32.
template <class W>
constexpr int64_t expanded_bytes = Expanded<W>::bytes;

template <class W, int step = 0>
POPHOOD_INLINE void expand_signed(const uint8_t* group, uint8_t* to) {
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(W::format.zero));
    _mm512_storeu_si512(to + 64 * step, _mm512_sub_epi8(weights_of<W, step>(group), zero));
    if constexpr (step < 7) expand_signed<W, step + 1>(group, to);
}

template <class W>
void expand_groups(const Matmul& m, int64_t panel, int64_t first, int64_t count, uint8_t* to) {
    Scales<W> scales;
    scales.point_to(static_cast<const uint8_t*>(m.panels) + panel * m.panel_bytes, m.panel_k / quant_group);
    for (int64_t g = first; g < first + count; ++g, to += expanded_bytes<W>) {
        const uint8_t* weights = scales.weights() + g * W::format.group_bytes;
        for (int64_t ahead = 0; ahead < W::format.group_bytes; ahead += line)
            prefetch(reinterpret_cast<const char*>(weights + 2048 + ahead));
        expand_signed<W>(weights, to);
        float* floats = reinterpret_cast<float*>(to + 512);
        store(floats, scales.scale(g, 0));
        if constexpr (W::format.minimum) store(floats + 16, scales.minimum(g));
    }
}

// Some groups of two panels and of the activations of one tile of tokens.
template <class W>
struct Groups {
    const uint8_t* weights[2];
    const int8_t* values;          // [count][16][32]
    const float *scales, *offsets;  // [count][16]
    int64_t count;

    // The tile of the activations of group i.
    POPHOOD_INLINE void load_values(int64_t i) const {
        const int8_t* at = values + i * tile_tokens * quant_group;
        for (int64_t ahead = 0; ahead < tile_tokens * quant_group; ahead += line)
            prefetch(reinterpret_cast<const char*>(at + prefetched_groups * tile_tokens * quant_group + ahead));
        load_tile<4>(at, quant_group);
    }
    template <int panel>
    POPHOOD_INLINE void multiply(int64_t i) const {
        multiply_group<panel>(weights[panel] + i * expanded_bytes<W>);
    }
    // Adds the integers of group i, scaled, to the sums of T tokens.
    template <int T>
    POPHOOD_INLINE void add(const int32_t* dots, int64_t i, int panel, V (&sum)[T]) const {
        const float* own = reinterpret_cast<const float*>(weights[panel] + i * expanded_bytes<W> + 512);
        const V scale = load(own);
        for (int t = 0; t < T; ++t) {
            const V dot = {_mm512_cvtepi32_ps(_mm512_load_si512(dots + t * 16))};
            sum[t] = fma(dot, mul(scale, broadcast(scales[i * tile_tokens + t])), sum[t]);
        }
        if constexpr (W::format.minimum) {
            const V minimum = load(own + 16);
            for (int t = 0; t < T; ++t) sum[t] = fma(minimum, broadcast(offsets[i * tile_tokens + t]), sum[t]);
        }
    }
};

// Up to T tokens of a tile. Each half of a step computes the integers of one panel, writes those of the other one to memory,
// and scales what was written half a step before.
template <class W, int T>
POPHOOD_INLINE void add_groups(const Groups<W>& groups, V (&first)[T], V (&second)[T]) {
    alignas(64) int32_t dots[2][tile_tokens * 16];
    groups.load_values(0);
    groups.template multiply<0>(0);
    groups.template multiply<1>(0);
    store_tile<0>(dots[0], line);
    for (int64_t i = 1; i < groups.count; ++i) {
        groups.load_values(i);
        groups.template multiply<0>(i);
        store_tile<1>(dots[1], line);
        groups.add(dots[0], i - 1, 0, first);
        groups.template multiply<1>(i);
        store_tile<0>(dots[0], line);
        groups.add(dots[1], i - 1, 1, second);
    }
    store_tile<1>(dots[1], line);
    groups.add(dots[0], groups.count - 1, 0, first);
    groups.add(dots[1], groups.count - 1, 1, second);
}

// A tile of tokens by two panels, or one: then the second one is the first again, and is not kept.
template <class W, int T>
void tile(const Matmul& m, const Groups<W>& groups, bool accumulate, int64_t token, int64_t panel, int64_t panels) {
    const int64_t tokens = m.m - token < T ? m.m - token : T;
    V sum[2][T];
    for (int p = 0; p < 2; ++p) {
        const float* out = m.out + token * m.out_stride + (panel + p) * panel_rows;
        const V bias = m.bias && p < panels ? load(m.bias + (panel + p) * panel_rows) : zero();
        for (int t = 0; t < T; ++t)
            sum[p][t] = accumulate && t < tokens && p < panels
                            ? load_some(out + t * m.out_stride, m.rows - (panel + p) * panel_rows) : bias;
    }
    add_groups<W, T>(groups, sum[0], sum[1]);
    for (int p = 0; p < 2; ++p)
        for (int t = 0; t < T; ++t)
            if (t < tokens && p < panels)
                store_some(m.out + (token + t) * m.out_stride + (panel + p) * panel_rows, sum[p][t],
                           m.rows - (panel + p) * panel_rows);
}

// Expands the weights of two panels, some groups at a time, which then stay in the L2 cache, or for few tokens in the L1 cache,
// while all tokens pass by.
template <class W>
void panels_of(const Matmul& m, int64_t panel, int64_t panels, uint8_t* scratch) {
    const QuantizedRows& a = m.quantized;
    const int64_t all = m.k / quant_group, pass = m.m > 3 * tile_tokens ? expanded_groups : 16;
    for (int64_t start = 0; start < all; start += pass) {
        const int64_t count = all - start < pass ? all - start : pass;
        Groups<W> groups{{scratch, scratch + (panels - 1) * expanded_groups * expanded_bytes<W>}, nullptr, nullptr, nullptr, count};
        for (int64_t p = 0; p < panels; ++p)
            expand_groups<W>(m, panel + p, m.first_group + start, count, scratch + p * expanded_groups * expanded_bytes<W>);
        for (int64_t token = 0; token < m.m; token += tile_tokens) {
            const int64_t at = (token / tile_tokens * a.groups + m.first_group + start) * tile_tokens;
            groups.values = a.values + at * quant_group;
            groups.scales = a.scales + at;
            groups.offsets = a.offsets + at;
            if (m.m - token > tile_tokens / 2) tile<W, tile_tokens>(m, groups, start > 0, token, panel, panels);
            else tile<W, tile_tokens / 2>(m, groups, start > 0, token, panel, panels);
        }
    }
}

template <WeightType type>
void matmul_of(const Matmul& m, int64_t first, int64_t last, uint8_t* scratch) {
    use_tiles_for_groups();
    for (int64_t panel = first; panel < last; panel += 2)
        panels_of<Weights<type>>(m, panel, last - panel < 2 ? 1 : 2, scratch);
    release_tiles();
}

// The tokens after the whole tiles, as a product of their own. They begin a tile of activations.
Matmul rest_of(const Matmul& m, int64_t token) {
    Matmul rest = m;
    const int64_t at = token * m.quantized.groups;
    rest.m -= token;
    rest.out += token * m.out_stride;
    rest.quantized.values += at * quant_group;
    rest.quantized.scales += at;
    rest.quantized.sums += at;
    rest.quantized.low_sums += at;
    rest.quantized.offsets += at;
    return rest;
}

void in_tiles(const Matmul& m, int64_t first, int64_t last, uint8_t* scratch) {
    switch (m.type) {
        case WeightType::q8_0: return matmul_of<WeightType::q8_0>(m, first, last, scratch);
        case WeightType::q4_0: return matmul_of<WeightType::q4_0>(m, first, last, scratch);
        case WeightType::q4_1: return matmul_of<WeightType::q4_1>(m, first, last, scratch);
        case WeightType::q5_0: return matmul_of<WeightType::q5_0>(m, first, last, scratch);
        case WeightType::q5_1: return matmul_of<WeightType::q5_1>(m, first, last, scratch);
        case WeightType::q4_k: return matmul_of<WeightType::q4_k>(m, first, last, scratch);
        case WeightType::q5_k: return matmul_of<WeightType::q5_k>(m, first, last, scratch);
        case WeightType::iq4_nl: return matmul_of<WeightType::iq4_nl>(m, first, last, scratch);
        default: return avx512vnni_quantized.matmul(m, first, last, scratch);
    }
}

void matmul(const Matmul& m, int64_t first, int64_t last, uint8_t* scratch) {
    const int64_t rest = m.m % tile_tokens, whole = m.m - rest;
    if (m.quantized.tile != tile_tokens || whole == 0) return avx512vnni_quantized.matmul(m, first, last, scratch);
    if (rest == 0 || rest > few_tokens) return in_tiles(m, first, last, scratch);
    Matmul begin = m;
    begin.m = whole;
    in_tiles(begin, first, last, scratch);
    avx512vnni_quantized.matmul(rest_of(m, whole), first, last, scratch);
}

void quantize(const float* x, int64_t k, const QuantizedRows& out, int64_t row) { avx512vnni_quantized.quantize(x, k, out, row); }

}  // namespace

const QuantizedKernels amxint8_quantized = {quantize, matmul, tile_tokens};

}  // namespace pophood
