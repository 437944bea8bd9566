// The SIMD form of kernels/scalar_quantized.cpp, written once over V and I (sixteen floats, sixteen int32). A file that
// includes it defines, beside V's operations,
//   I, to_float(I)
//   largest_magnitude(V, V): of 32 values; an infinity or a NaN if there is one
//   store_rounded(int8_t*, V, V): writes 32 values rounded to nearest, ties to even, and returns the sums of both halves
//   load_unsigned, load_signed: see quantized_panels.inl
//   dots<Weights, T, P, first>(group, dot): the exact integer sums of T tokens and P panels over a group, or over a half of
//     it from step `first` on (a step is four inputs), with planes as in kernels.h
//   quantized_tokens, quantized_panels: the size of the register tile
//   expands<W>: whether many tokens are faster with weights that expand<W>(group, to) has written out as bytes.

#include "quantized_panels.inl"

// One group of one tile: the weights of each panel, and the activations of the first token.
template <int P>
struct Group {
    const uint8_t* weights[P];
    const int8_t* x;     // [T][x_stride], 32 of them
    int64_t x_stride;
    const int32_t *sums, *low_sums;  // [T][sum_stride]
    int64_t sum_stride;

    int32_t sum(int t, int first, int count) const {  // of the activations of `count` steps
        const int64_t at = t * sum_stride;
        return count == 8 ? sums[at] : first == 0 ? low_sums[at] : sums[at] - low_sums[at];
    }
};

template <class W, int T, int P, int first>
void dots(const Group<P>& group, I (&dot)[T][P]);

// The smallest tile. Expanded weights meet more than four tiles of tokens, which are of equal size as far as possible.
template <class W>
constexpr int64_t least_tokens = 1;
template <class W>
constexpr int64_t least_tokens<Expanded<W>> = quantized_tokens * 4 / 5;

constexpr int64_t prefetch_distance = 8192;  // bytes; 4096 is slower, 16384 not faster

// Products of some groups: those from `first` on of panels whose weights begin at `panels`, with those from `x_first` on of the
// activations. The sums go on from `out`, or begin with the bias.
struct Groups {
    const Matmul& m;
    const uint8_t* panels;
    int64_t panel_bytes, panel_groups, first, x_first, count;
    bool accumulate, prefetches;
};

// The part of a group whose steps begin at `first`, and after it the rest of the group.
template <class W, int T, int P, int first = 0>
POPHOOD_INLINE void add_scaled(const Group<P>& group, const Scales<W> (&scales)[P], int64_t g, const float* s, V (&sum)[T][P]) {
    I dot[T][P];
    dots<W, T, P, first>(group, dot);
    for (int p = 0; p < P; ++p) {
        const V scale = scales[p].scale(g, first / 4);
        for (int t = 0; t < T; ++t)
            sum[t][p] = fma(to_float(dot[t][p]), mul(scale, broadcast(s[t * group.sum_stride])), sum[t][p]);
    }
    if constexpr (first + W::steps < 8) add_scaled<W, T, P, first + W::steps>(group, scales, g, s, sum);
}

template <class W, int T, int P>
inline void quantized_tile(const Groups& some, int64_t token, int64_t panel) {
    const Matmul& m = some.m;
    const QuantizedRows& a = m.quantized;
    float* out = m.out + token * m.out_stride + panel * 16;
    const int64_t x_start = (token / a.tile * a.groups + some.x_first) * a.tile + token % a.tile;
    const int64_t stride = a.tile == 1 ? a.groups : 1;  // from one token's group to the next token's
    Scales<W> scales[P];
    V sum[T][P];
    for (int p = 0; p < P; ++p) {
        scales[p].point_to(some.panels + p * some.panel_bytes, some.panel_groups);
        const V bias = m.bias ? load(m.bias + (panel + p) * 16) : zero();
        for (int t = 0; t < T; ++t)
            sum[t][p] = some.accumulate ? load_some(out + t * m.out_stride + p * 16, m.rows - (panel + p) * 16) : bias;
    }
    for (int64_t i = 0; i < some.count; ++i) {
        const int64_t g = some.first + i, at = x_start + i * a.tile;
        Group<P> group{{}, a.values + at * 32, stride * 32, a.sums + at, a.low_sums + at, stride};
        for (int p = 0; p < P; ++p) group.weights[p] = scales[p].weights() + g * group_stride<W>;
        if (some.prefetches && token == 0)
            for (int p = 0; p < P; ++p) {  // the same share of all bytes of a panel for every group; behind it begins the next pair
                const int64_t place = g * W::bytes + prefetch_distance;
                const uint8_t* ahead =
                    some.panels + p * some.panel_bytes + place + (place < some.panel_bytes ? 0 : (P - 1) * some.panel_bytes);
                for (int64_t line = 0; line < W::bytes; line += 64) prefetch(reinterpret_cast<const char*>(ahead + line));
            }
        add_scaled<W, T, P>(group, scales, g, a.scales + at, sum);
        if constexpr (W::format.minimum)
            for (int p = 0; p < P; ++p) {
                const V minimum = scales[p].minimum(g);
                for (int t = 0; t < T; ++t) sum[t][p] = fma(minimum, broadcast(a.offsets[at + t * stride]), sum[t][p]);
            }
    }
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t) store_some(out + t * m.out_stride + p * 16, sum[t][p], m.rows - (panel + p) * 16);
}

template <class W, int T, int P>
inline void quantized_tile_of(int64_t tokens, const Groups& some, int64_t token, int64_t panel) {
    if (tokens == T) return quantized_tile<W, T, P>(some, token, panel);
    if constexpr (T > least_tokens<W>) quantized_tile_of<W, T - 1, P>(tokens, some, token, panel);
}

// How many register tiles some tokens need.
inline int64_t register_tiles(int64_t tokens) { return (tokens + quantized_tokens - 1) / quantized_tokens; }

// Tokens first..last-1 in register tiles of equal size, as far as possible: eight tokens are four and four. They lie within a
// tile of activations.
template <class W, int P>
void tokens_of(const Groups& some, int64_t first, int64_t last, int64_t panel) {
    const int64_t tile = some.m.quantized.tile;
    for (int64_t token = first; token < last;) {
        const int64_t end = token / tile * tile + tile, left = (tile == 1 || end > last ? last : end) - token;
        const int64_t tiles = register_tiles(left), now = (left + tiles - 1) / tiles;
        quantized_tile_of<W, quantized_tokens, P>(now, some, token, panel);
        token += now;
    }
}

// Expands the weights and scales of P panels, some groups at a time, which then stay in the L2 cache while all tokens up to
// `last` pass by.
template <class W, int P>
void expanded_tokens_of(const Matmul& m, int64_t last, int64_t panel, uint8_t* scratch) {
    const int64_t groups = m.k / 32, panel_groups = m.panel_k / 32;
    constexpr int64_t stride = expanded_groups * Expanded<W>::bytes;
    for (int64_t start = 0; start < groups; start += expanded_groups) {
        const int64_t count = groups - start < expanded_groups ? groups - start : expanded_groups;
        for (int p = 0; p < P; ++p) {
            Scales<W> scales;
            scales.point_to(static_cast<const uint8_t*>(m.panels) + (panel + p) * m.panel_bytes, panel_groups);
            for (int64_t i = 0; i < count; ++i) {
                const int64_t g = m.first_group + start + i;
                const uint8_t* weights = scales.weights() + g * W::format.group_bytes;
                uint8_t* to = scratch + p * stride + i * Expanded<W>::bytes;
                for (int64_t line = 0; line < W::format.group_bytes; line += 64)
                    prefetch(reinterpret_cast<const char*>(weights + 2048 + line));
                expand<W>(weights, to);
                float* floats = reinterpret_cast<float*>(to + 512);
                for (int half = 0; half < W::format.scales; ++half) store(floats + half * 16, scales.scale(g, half));
                if constexpr (W::format.minimum) store(floats + 16, scales.minimum(g));
            }
        }
        tokens_of<Expanded<W>, P>({m, scratch, stride, expanded_groups, 0, m.first_group + start, count, start > 0, false}, 0, last,
                                  panel);
    }
}

// The tokens that expanded weights are worth while for: all of them, or those of whole tiles of activations.
template <class W>
int64_t tokens_of_expanded(const Matmul& m) {
    const int64_t tile = m.quantized.tile;
    if (m.m <= 4 * quantized_tokens) return 0;
    if (tile == 1) return m.m;
    return tile / register_tiles(tile) < least_tokens<Expanded<W>> ? 0 : m.m / tile * tile;
}

template <class W, int P>
void panels_of(const Matmul& m, int64_t panel, uint8_t* scratch) {
    int64_t first = 0;
    if constexpr (expands<W>) {
        first = tokens_of_expanded<W>(m);
        if (first > 0) expanded_tokens_of<W, P>(m, first, panel, scratch);
    }
    tokens_of<W, P>({m, static_cast<const uint8_t*>(m.panels) + panel * m.panel_bytes, m.panel_bytes, m.panel_k / 32,
                     m.first_group, m.first_group, m.k / 32, false, true}, first, m.m, panel);
}

// A panel, or a pair of them, stays in the L1 or L2 cache while all tokens pass by.
template <WeightType type>
void matmul_of(const Matmul& m, int64_t first, int64_t last, uint8_t* scratch) {
    using W = Weights<type>;
    int64_t panel = first;
    if (m.m > 1)
        for (; panel + quantized_panels <= last; panel += quantized_panels) panels_of<W, quantized_panels>(m, panel, scratch);
    for (; panel < last; ++panel) panels_of<W, 1>(m, panel, scratch);
}

void quantized_matmul(const Matmul& m, int64_t first, int64_t last, uint8_t* scratch) {
    switch (m.type) {
        case WeightType::q8_0: return matmul_of<WeightType::q8_0>(m, first, last, scratch);
        case WeightType::q4_0: return matmul_of<WeightType::q4_0>(m, first, last, scratch);
        case WeightType::q4_1: return matmul_of<WeightType::q4_1>(m, first, last, scratch);
        case WeightType::q5_0: return matmul_of<WeightType::q5_0>(m, first, last, scratch);
        case WeightType::q5_1: return matmul_of<WeightType::q5_1>(m, first, last, scratch);
        case WeightType::q4_k: return matmul_of<WeightType::q4_k>(m, first, last, scratch);
        case WeightType::q5_k: return matmul_of<WeightType::q5_k>(m, first, last, scratch);
        case WeightType::q6_k: return matmul_of<WeightType::q6_k>(m, first, last, scratch);
        default: return matmul_of<WeightType::iq4_nl>(m, first, last, scratch);
    }
}

void quantize(const float* x, int64_t k, const QuantizedRows& out, int64_t row) {
    for (int64_t g = 0; g < out.groups; ++g) {
        const int64_t at = g * 32, index = (row / out.tile * out.groups + g) * out.tile + row % out.tile;
        const V low = load_some(x + at, k - at), high = k - at > 16 ? load_some(x + at + 16, k - at - 16) : zero();
        const float largest = largest_magnitude(low, high);
        const bool finite = largest <= 3.4028235e38f, none = !finite || largest < 1e-30f;
        const float inverse = none ? 0.0f : 127.0f / largest, scale = finite ? (none ? 0.0f : largest / 127.0f) : not_a_number;
        HalfSums sums{0, 0};
        if (none) {
            for (int i = 0; i < 32; ++i) out.values[index * 32 + i] = 0;
        } else {
            sums = store_rounded(out.values + index * 32, mul(low, broadcast(inverse)), mul(high, broadcast(inverse)));
        }
        out.scales[index] = scale;
        out.low_sums[index] = sums.low;
        out.sums[index] = sums.low + sums.high;
        out.offsets[index] = scale * static_cast<float>(out.sums[index]);
    }
}
