// The SIMD form of kernels/scalar.cpp, written once over V: sixteen floats in whatever registers the instruction set has.
// One file per instruction set includes it inside an anonymous namespace, after defining V, its operations and the sizes of
// its register tile, `tile_tokens` rows of x. It must not include a header with inline functions: the linker could keep the copy that
// was compiled for a newer CPU, which would crash an older one.

#include "lanes.inl"

// ---- matmul: a register tile of T tokens x 16 rows, one FMA chain per output ----------------------------------------

struct FloatWeights {
    const float* w;
    V at(int64_t k) const { return load(w + k * 16); }
    const void* address(int64_t k) const { return w + k * 16; }
};
struct HalfWeights {
    const uint16_t* w;
    V at(int64_t k) const { return load_half(w + k * 16); }
    const void* address(int64_t k) const { return w + k * 16; }
};
struct BfloatWeights {
    const uint16_t* w;
    V at(int64_t k) const { return load_bfloat(w + k * 16); }
    const void* address(int64_t k) const { return w + k * 16; }
};

struct Tile {
    const float* x;
    int64_t x_stride;
    float* out;
    int64_t out_stride;
    int64_t k;      // inputs in this pass
    int64_t rows;   // of the panel that exist: 1..16
    bool accumulate;  // start from the values in `out`
    const float* bias;
};

template <int T, class Weights>
inline void tile(const Weights& weights, const Tile& t) {
    V sum[T];
    for (int i = 0; i < T; ++i)
        sum[i] = t.accumulate ? load_some(t.out + i * t.out_stride, t.rows) : t.bias ? load(t.bias) : zero();
    for (int64_t k = 0; k < t.k; ++k) {
        const V w = weights.at(k);
        if (T == 1) prefetch(static_cast<const char*>(weights.address(k)) + 4096);
        for (int i = 0; i < T; ++i) sum[i] = fma(broadcast(t.x[i * t.x_stride + k]), w, sum[i]);
    }
    for (int i = 0; i < T; ++i) store_some(t.out + i * t.out_stride, sum[i], t.rows);
}

template <int T, class Weights>
inline void tile_of(int64_t tokens, const Weights& weights, const Tile& t) {
    if (tokens == T) return tile<T>(weights, t);
    if constexpr (T > 1) tile_of<T - 1>(tokens, weights, t);
}

template <class Weights>
void all_tokens(const Weights& weights, Tile t, int64_t tokens) {
    while (tokens > 0) {
        const int64_t now = tokens < tile_tokens ? tokens : tile_tokens;
        tile_of<tile_tokens>(now, weights, t);
        t.x += now * t.x_stride;
        t.out += now * t.out_stride;
        tokens -= now;
    }
}

// A large batch is computed in passes over k and groups of tokens, so that the weights and activations of a pass stay in
// the L2 cache and 16-bit weights are converted once per group instead of once per tile.
void matmul(const Matmul& m, int64_t first, int64_t last, float* scratch) {
    const bool small = m.m <= 2 * tile_tokens;
    const int64_t pass = small ? m.k : k_block;
    const int64_t group = small ? m.m : tile_tokens * 5;
    for (int64_t k = 0; k < m.k; k += pass) {
        const int64_t inputs = m.k - k < pass ? m.k - k : pass;
        for (int64_t token = 0; token < m.m; token += group) {
            const int64_t tokens = m.m - token < group ? m.m - token : group;
            for (int64_t panel = first; panel < last; ++panel) {
                const int64_t start = (panel * m.panel_k + k) * 16, rows = m.rows - panel * 16;
                const Tile t = {m.x + token * m.x_stride + k, m.x_stride, m.out + token * m.out_stride + panel * 16,
                                m.out_stride, inputs, rows < 16 ? rows : 16, k > 0 || m.accumulate,
                                m.bias ? m.bias + panel * 16 : nullptr};
                if (m.type == WeightType::f32) {
                    all_tokens(FloatWeights{static_cast<const float*>(m.panels) + start}, t, tokens);
                    continue;
                }
                const uint16_t* w = static_cast<const uint16_t*>(m.panels) + start;
                const bool half = m.type == WeightType::f16;
                if (small) {
                    if (half) all_tokens(HalfWeights{w}, t, tokens);
                    else all_tokens(BfloatWeights{w}, t, tokens);
                    continue;
                }
                for (int64_t i = 0; i < inputs; ++i)
                    store(scratch + i * 16, half ? load_half(w + i * 16) : load_bfloat(w + i * 16));
                all_tokens(FloatWeights{scratch}, t, tokens);
            }
        }
    }
}

// ---- element-wise kernels, norms, RoPE ------------------------------------------------------------------------------

void norm(const float* x, const float* gain, const float* bias, float eps, bool rms, float* out, int64_t n) {
    V mean = zero();
    if (!rms) {
        V sum = zero();
        for (int64_t i = 0; i < n; i += 16) sum = add(sum, load_some(x + i, n - i));
        mean = broadcast(reduce(sum) / static_cast<float>(n));
    }
    V squares = zero();
    for (int64_t i = 0; i < n; i += 16) {
        const V centred = keep_first(sub(load_some(x + i, n - i), mean), n - i);
        squares = fma(centred, centred, squares);
    }
    const float variance = reduce(squares) / static_cast<float>(n);
    const V factor = broadcast(1.0f / square_root(variance + eps));
    for (int64_t i = 0; i < n; i += 16) {
        V y = mul(sub(load_some(x + i, n - i), mean), factor);
        if (gain) {
            const V g = load_some(gain + i, n - i);
            y = bias ? fma(y, g, load_some(bias + i, n - i)) : mul(y, g);
        }
        store_some(out + i, y, n - i);
    }
}

void rope(float* head, const float* cosines, const float* sines, int64_t d) {
    const int64_t half = d / 2;
    for (int64_t i = 0; i < half; i += 16) {
        const int64_t n = half - i;
        const V a = load_some(head + i, n), b = load_some(head + half + i, n);
        const V c = load_some(cosines + i, n), s = load_some(sines + i, n);
        store_some(head + i, fma(a, c, negate(mul(b, s))), n);
        store_some(head + half + i, fma(b, c, mul(a, s)), n);
    }
}

inline V sigmoid_times(V x, V u) { return div(x, add(broadcast(1.0f), exp_of(negate(u)))); }

void gelu_tanh(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i);
        const V cubic = fma(mul(v, v), mul(v, broadcast(0.044715f)), v);
        store_some(x + i, sigmoid_times(v, mul(cubic, broadcast(1.59576912160573f))), n - i);
    }
}

void silu(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i);
        store_some(x + i, sigmoid_times(v, v), n - i);
    }
}

void multiply(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store_some(x + i, mul(load_some(x + i, n - i), load_some(y + i, n - i)), n - i);
}

void add_to(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store_some(x + i, add(load_some(x + i, n - i), load_some(y + i, n - i)), n - i);
}

void copy(float* out, const float* x, int64_t n) {
    int64_t i = 0;
    // Streaming stores need whole cache lines.
    for (; i < n && reinterpret_cast<uintptr_t>(out + i) % 64 != 0; ++i) out[i] = x[i];
    for (; i + 16 <= n; i += 16) stream(out + i, load(x + i));
    for (; i < n; ++i) out[i] = x[i];
    stream_fence();
}

void to_half(uint16_t* out, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        if (n - i >= 16) {
            store_half(out + i, load(x + i));
            continue;
        }
        uint16_t half[16];
        store_half(half, load_some(x + i, n - i));
        for (int64_t j = 0; j < 16 && i + j < n; ++j) out[i + j] = half[j];
    }
}

bool all_finite(const float* x, int64_t n) {  // x - x is 0 for a finite x, NaN otherwise
    V sum = zero();
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i);
        sum = add(sum, sub(v, v));
    }
    return reduce(sum) == 0.0f;
}

void exponential(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store_some(x + i, exp_of(load_some(x + i, n - i)), n - i);
}
