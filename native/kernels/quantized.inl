// The SIMD form of kernels/scalar_quantized.cpp, written once over V and I (sixteen floats, sixteen int32). A file that
// includes it defines, beside V's operations,
//   I, to_float(I)
//   largest_magnitude(V, V): of 32 values; an infinity or a NaN if there is one
//   store_rounded(int8_t*, V, V): writes 32 values rounded to nearest, ties to even, and returns the sums of both halves
//   load_unsigned, load_signed: sixteen integers of 8 bits as floats
//   dots<Weights, T, P, first>(group, dot): the exact integer sums of T tokens and P panels over a group, or over a half of
//     it from step `first` on (a step is four inputs), with planes as in kernels.h
//   quantized_tokens, quantized_panels: the size of the register tile
//   expands<W>: whether many tokens are faster with weights that expand<W>(group, to) has written out as bytes.

// Without it GCC leaves a tile's recursive templates as calls, and the sums in memory: less than half as fast.
#if defined(_MSC_VER) && !defined(__clang__)
#define POPHOOD_INLINE __forceinline
#else
#define POPHOOD_INLINE inline __attribute__((always_inline))
#endif

template <WeightType type>
struct Weights {
    static constexpr QuantFormat format = quant_formats[static_cast<int>(type) - static_cast<int>(WeightType::q8_0)];
    static constexpr int steps = 8 / format.scales;  // that share a scale
    // Bytes of a panel for each of its groups, scales included.
    static constexpr int64_t bytes =
        format.group_bytes + (format.nested ? 16 * (format.scales + format.minimum) + 4 * (1 + format.minimum)
                                            : 32 * (1 + format.minimum));
};

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

template <class W, int step = 0>
void expand(const uint8_t* group, uint8_t* to);  // lines of unsigned bytes, one per step from `step` on

template <class W, int T, int P, int first>
void dots(const Group<P>& group, I (&dot)[T][P]);

// The scales of one panel.
template <class W>
struct Scales {
    const uint16_t* halves;
    const uint8_t* bytes;
    int64_t groups;

    void point_to(const uint8_t* panel, int64_t panel_groups) {
        halves = reinterpret_cast<const uint16_t*>(panel);
        bytes = panel + panel_groups / 8 * 32 * (1 + W::format.minimum);  // if nested
        groups = panel_groups;
    }
    V scale(int64_t g, int half) const {
        if constexpr (!W::format.nested) return load_half(halves + g * 16);
        const V d = load_half(halves + g / 8 * 16);
        if constexpr (W::format.minimum) return mul(d, load_unsigned(bytes + g * 16));
        return mul(d, load_signed(reinterpret_cast<const int8_t*>(bytes) + (g * W::format.scales + half) * 16));
    }
    V minimum(int64_t g) const {
        if constexpr (!W::format.nested) return load_half(halves + (groups + g) * 16);
        return negate(mul(load_half(halves + (groups + g) / 8 * 16), load_unsigned(bytes + (groups + g) * 16)));
    }
    const uint8_t* weights() const {
        if constexpr (!W::format.nested) return reinterpret_cast<const uint8_t*>(halves + groups * 16 * (1 + W::format.minimum));
        return bytes + groups * 16 * (W::format.scales + W::format.minimum);
    }
};

// Groups of a panel whose weights were expanded to bytes and whose scales to f32, for many tokens: per group the weights, the
// scales, the minimum.
template <class W>
struct Expanded {
    static constexpr QuantFormat format = {32, 0, 8, 0, W::format.zero, W::format.minimum, false, W::format.scales, false, 512};
    static constexpr int steps = W::steps;
    static constexpr int64_t bytes = 512 + 64 * (format.scales + format.minimum);
};
template <class W>
struct Scales<Expanded<W>> {
    const uint8_t* start;

    void point_to(const uint8_t* panel, int64_t) { start = panel; }
    const float* floats(int64_t g, int64_t index) const {
        return reinterpret_cast<const float*>(start + g * Expanded<W>::bytes + 512) + index * 16;
    }
    V scale(int64_t g, int half) const { return load(floats(g, half)); }
    V minimum(int64_t g) const { return load(floats(g, W::format.scales)); }
    const uint8_t* weights() const { return start; }
};
template <class W>
constexpr int64_t group_stride = W::format.group_bytes;
template <class W>
constexpr int64_t group_stride<Expanded<W>> = Expanded<W>::bytes;

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
    Scales<W> scales[P];
    V sum[T][P];
    for (int p = 0; p < P; ++p) {
        scales[p].point_to(some.panels + p * some.panel_bytes, some.panel_groups);
        const V bias = m.bias ? load(m.bias + (panel + p) * 16) : zero();
        for (int t = 0; t < T; ++t)
            sum[t][p] = some.accumulate ? load_some(out + t * m.out_stride + p * 16, m.rows - (panel + p) * 16) : bias;
    }
    for (int64_t i = 0; i < some.count; ++i) {
        const int64_t g = some.first + i, at = token * a.groups + some.x_first + i;
        Group<P> group{{}, a.values + at * 32, a.groups * 32, a.sums + at, a.low_sums + at, a.groups};
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
                for (int t = 0; t < T; ++t) sum[t][p] = fma(minimum, broadcast(a.offsets[at + t * a.groups]), sum[t][p]);
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

// Tiles of equal size, as far as possible: eight tokens are four and four.
template <class W, int P>
void all_tokens_of(const Groups& some, int64_t panel) {
    for (int64_t token = 0; token < some.m.m;) {
        const int64_t left = some.m.m - token, tiles = (left + quantized_tokens - 1) / quantized_tokens;
        const int64_t now = (left + tiles - 1) / tiles;
        quantized_tile_of<W, quantized_tokens, P>(now, some, token, panel);
        token += now;
    }
}

// Expands the weights and scales of P panels, some groups at a time, which then stay in the L2 cache while all tokens pass by.
template <class W, int P>
void expanded_tokens_of(const Matmul& m, int64_t panel, uint8_t* scratch) {
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
        all_tokens_of<Expanded<W>, P>({m, scratch, stride, expanded_groups, 0, m.first_group + start, count, start > 0, false}, panel);
    }
}

template <class W, int P>
void panels_of(const Matmul& m, int64_t panel, uint8_t* scratch) {
    if constexpr (expands<W>)
        if (m.m > 4 * quantized_tokens) return expanded_tokens_of<W, P>(m, panel, scratch);
    all_tokens_of<W, P>({m, static_cast<const uint8_t*>(m.panels) + panel * m.panel_bytes, m.panel_bytes, m.panel_k / 32,
                         m.first_group, m.first_group, m.k / 32, false, true}, panel);
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
        const int64_t at = g * 32, index = row * out.groups + g;
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
