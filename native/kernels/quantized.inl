// The SIMD form of kernels/scalar_quantized.cpp, written once over V and I (sixteen floats, sixteen int32). A file that
// includes it defines, beside V's operations,
//   I, to_float(I)
//   largest_magnitude(V, V): of 32 values; an infinity or a NaN if there is one
//   store_rounded(int8_t*, V, V): writes 32 values rounded to nearest, ties to even, and returns their sum
//   dots<Weights, T, P>(group, dot): the exact integer sums of one group for T tokens and P panels
//   quantized_tokens, quantized_panels: the size of the register tile.

struct EightBits {  // Q8_0
    static constexpr int64_t bytes = 512, bits = 8, zero = 7;  // stored are weight + 2^zero
    static constexpr bool minimum = false;
};
struct FourBits {  // Q4_0
    static constexpr int64_t bytes = 256, bits = 4, zero = 3;
    static constexpr bool minimum = false;
};
struct FourBitsAndMinimum {  // Q4_1
    static constexpr int64_t bytes = 256, bits = 4, zero = -1;  // stored are the weights themselves
    static constexpr bool minimum = true;
};

// One group of one tile: the weights of each panel, and the activations of the first token.
template <int P>
struct Group {
    const uint8_t* weights[P];
    const int8_t* x;     // [T][x_stride], 32 of them
    int64_t x_stride;
    const int32_t* sums;  // [T][sum_stride]
    int64_t sum_stride;
};

template <class Weights, int T, int P>
void dots(const Group<P>& group, I (&dot)[T][P]);

constexpr int64_t prefetch_distance = 8192;  // bytes; 4096 is slower, 16384 not faster

template <class Weights, int T, int P>
inline void quantized_tile(const Matmul& m, int64_t token, int64_t panel) {
    const QuantizedRows& a = m.quantized;
    const int64_t panel_groups = m.panel_k / 32, bytes = m.panel_bytes;
    const int64_t last = m.first_group + m.k / 32;
    constexpr int64_t group_bytes = Weights::bytes + (Weights::minimum ? 64 : 32);
    const uint8_t* start = static_cast<const uint8_t*>(m.panels) + panel * bytes;
    const uint16_t* scales[P];
    const uint8_t* weights[P];
    V sum[T][P];
    for (int p = 0; p < P; ++p) {
        scales[p] = reinterpret_cast<const uint16_t*>(start + p * bytes);
        weights[p] = start + p * bytes + panel_groups * (Weights::minimum ? 64 : 32);
        const V bias = m.bias ? load(m.bias + (panel + p) * 16) : zero();
        for (int t = 0; t < T; ++t) sum[t][p] = bias;
    }
    const float *s = a.scales + token * a.groups, *offsets = a.offsets + token * a.groups;
    Group<P> group{{}, a.values + token * a.groups * 32, a.groups * 32, a.sums + token * a.groups, a.groups};
    for (int64_t g = m.first_group; g < last; ++g) {
        Group<P> now = group;
        for (int p = 0; p < P; ++p) now.weights[p] = weights[p] + g * Weights::bytes;
        now.x += g * 32;
        now.sums += g;
        if (token == 0)
            for (int p = 0; p < P; ++p) {  // panels follow one another: the same share of all their bytes for every group
                const char* ahead = reinterpret_cast<const char*>(start) + p * bytes + g * group_bytes + prefetch_distance;
                for (int64_t line = 0; line < group_bytes; line += 64) prefetch(ahead + line);
            }
        I dot[T][P];
        dots<Weights, T, P>(now, dot);
        for (int p = 0; p < P; ++p) {
            const V scale = load_half(scales[p] + g * 16);
            for (int t = 0; t < T; ++t)
                sum[t][p] = fma(to_float(dot[t][p]), mul(scale, broadcast(s[t * a.groups + g])), sum[t][p]);
            if (!Weights::minimum) continue;
            const V minimum = load_half(scales[p] + (panel_groups + g) * 16);
            for (int t = 0; t < T; ++t) sum[t][p] = fma(minimum, broadcast(offsets[t * a.groups + g]), sum[t][p]);
        }
    }
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t)
            store_some(m.out + (token + t) * m.out_stride + (panel + p) * 16, sum[t][p], m.rows - (panel + p) * 16);
}

template <class Weights, int T, int P>
inline void quantized_tile_of(int64_t tokens, const Matmul& m, int64_t token, int64_t panel) {
    if (tokens == T) return quantized_tile<Weights, T, P>(m, token, panel);
    if constexpr (T > 1) quantized_tile_of<Weights, T - 1, P>(tokens, m, token, panel);
}

template <class Weights, int P>
void all_tokens_of(const Matmul& m, int64_t panel) {
    for (int64_t token = 0; token < m.m; token += quantized_tokens) {
        const int64_t left = m.m - token;
        quantized_tile_of<Weights, quantized_tokens, P>(left < quantized_tokens ? left : quantized_tokens, m, token, panel);
    }
}

// A panel, or a pair of them, stays in the L1 or L2 cache while all tokens pass by.
template <class Weights>
void matmul_of(const Matmul& m, int64_t first, int64_t last) {
    int64_t panel = first;
    if (m.m > 1)
        for (; panel + quantized_panels <= last; panel += quantized_panels) all_tokens_of<Weights, quantized_panels>(m, panel);
    for (; panel < last; ++panel) all_tokens_of<Weights, 1>(m, panel);
}

void quantized_matmul(const Matmul& m, int64_t first, int64_t last) {
    if (m.type == WeightType::q8_0) return matmul_of<EightBits>(m, first, last);
    if (m.type == WeightType::q4_0) return matmul_of<FourBits>(m, first, last);
    matmul_of<FourBitsAndMinimum>(m, first, last);
}

void quantize(const float* x, int64_t k, const QuantizedRows& out, int64_t row) {
    for (int64_t g = 0; g < out.groups; ++g) {
        const int64_t at = g * 32, index = row * out.groups + g;
        const V low = load_some(x + at, k - at), high = k - at > 16 ? load_some(x + at + 16, k - at - 16) : zero();
        const float largest = largest_magnitude(low, high);
        const bool finite = largest <= 3.4028235e38f, none = !finite || largest < 1e-30f;
        const float inverse = none ? 0.0f : 127.0f / largest, scale = finite ? (none ? 0.0f : largest / 127.0f) : not_a_number;
        int32_t sum = 0;
        if (none) {
            for (int i = 0; i < 32; ++i) out.values[index * 32 + i] = 0;
        } else {
            sum = store_rounded(out.values + index * 32, mul(low, broadcast(inverse)), mul(high, broadcast(inverse)));
        }
        out.scales[index] = scale;
        out.sums[index] = sum;
        out.offsets[index] = scale * static_cast<float>(sum);
    }
}
