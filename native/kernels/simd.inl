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
    int64_t x_stride;  // of interleaved rows unused
    float* out;
    int64_t out_stride;
    int64_t k;      // inputs in this pass
    int64_t rows;   // of the panels that exist: 1..16 of the last one
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
void all_tokens(const Weights& weights, const Matmul& m, int64_t panel) {
    const int64_t rows = m.rows - panel * 16;
    Tile t = {m.x, m.x_stride, m.out + panel * 16, m.out_stride, m.k, rows < 16 ? rows : 16, m.accumulate,
              m.bias ? m.bias + panel * 16 : nullptr};
    for (int64_t token = 0; token < m.m; token += tile_tokens) {
        const int64_t now = m.m - token < tile_tokens ? m.m - token : tile_tokens;
        tile_of<tile_tokens>(now, weights, t);
        t.x += now * t.x_stride;
        t.out += now * t.out_stride;
    }
}

// ---- many tokens: interleaved rows, T tokens x P panels, passes over k ----------------------------------------------

// One input of T tokens and P panels: P loads and T broadcasts from one or two cache lines feed T * P products.
template <int T, int P>
POPHOOD_INLINE void add_input(const float* x, const float* const (&panels)[P], int64_t k, V (&sum)[T][P]) {
    V w[P];
    for (int p = 0; p < P; ++p) w[p] = load(panels[p] + k * 16);
    for (int i = 0; i < T; ++i) {
        const V a = broadcast(x[k * T + i]);
        for (int p = 0; p < P; ++p) sum[i][p] = fma(a, w[p], sum[i][p]);
    }
}

// `whole` panels have 16 rows. The inputs of the next tile, T or fewer tokens from `next` on, are prefetched on the way.
template <int T, int P, bool whole>
POPHOOD_INLINE void interleaved_tile(const float* const (&panels)[P], const Tile& t, const float* next) {
    static const float none[16 * P] = {};
    const float* from = t.accumulate ? t.out : t.bias ? t.bias : none;
    const int64_t stride = t.accumulate ? t.out_stride : 0;
    V sum[T][P];
    for (int i = 0; i < T; ++i)
        for (int p = 0; p < P; ++p)
            sum[i][p] = whole ? load(from + i * stride + p * 16) : load_some(from + i * stride + p * 16, t.rows - p * 16);
    const float* x = t.x;
    int64_t k = 0;
    for (; k + 2 <= t.k; k += 2) {
        prefetch(reinterpret_cast<const char*>(next + k * T));
        prefetch(reinterpret_cast<const char*>(next + (k + 1) * T));
        add_input<T, P>(x, panels, k, sum);
        add_input<T, P>(x, panels, k + 1, sum);
    }
    if (k < t.k) add_input<T, P>(x, panels, k, sum);
    for (int i = 0; i < T; ++i)
        for (int p = 0; p < P; ++p) {
            if constexpr (whole) store(t.out + i * t.out_stride + p * 16, sum[i][p]);
            else store_some(t.out + i * t.out_stride + p * 16, sum[i][p], t.rows - p * 16);
        }
}

// RowTiles of more rows than one tile holds are at least half as large as it.
template <int T, int P>
void interleaved_tile_of(int64_t tokens, const float* const (&panels)[P], const Tile& t, const float* next) {
    if (tokens == T && t.rows >= P * 16) return interleaved_tile<T, P, true>(panels, t, next);
    if (tokens == T) return interleaved_tile<T, P, false>(panels, t, next);
    if constexpr (T > tile_tokens / 2) interleaved_tile_of<T - 1, P>(tokens, panels, t, next);
}

// Where a product's weights are, and how many bytes one input of a panel has.
struct Panels {
    const char* start;
    int64_t panel_k, bytes;
    explicit Panels(const Matmul& m)
        : start(static_cast<const char*>(m.panels)), panel_k(m.panel_k), bytes(m.type == WeightType::f32 ? 64 : 32) {}
    const char* at(int64_t panel, int64_t k) const { return start + (panel * panel_k + k) * bytes; }
};

struct Pass {
    int64_t panel, k, inputs;
    const char* next[2];  // the weights of the pass that follows
};

// The weights of a pass in f32.
inline const float* floats_of(const Matmul& m, const char* weights, int64_t inputs, float* scratch) {
    if (m.type == WeightType::f32) return reinterpret_cast<const float*>(weights);
    const uint16_t* w = reinterpret_cast<const uint16_t*>(weights);
    for (int64_t k = 0; k < inputs; ++k)
        store(scratch + k * 16, m.type == WeightType::f16 ? load_half(w + k * 16) : load_bfloat(w + k * 16));
    return scratch;
}

// Some inputs of P panels and all tokens. The weights of the next pass, which may come from memory, are prefetched a few cache
// lines per tile.
template <int P>
void interleaved_pass(const Matmul& m, const Pass& pass, float* scratch) {
    const RowTiles tiles(m.m, tile_tokens);
    const Panels panels(m);
    const float* w[P];
    for (int p = 0; p < P; ++p)
        w[p] = floats_of(m, panels.at(pass.panel + p, pass.k), pass.inputs, scratch + p * k_block * 16);
    const int64_t lines = pass.inputs * panels.bytes / 64;
    const float* x = m.interleaved;
    Tile t = {x, 0, m.out + pass.panel * 16, m.out_stride, pass.inputs, m.rows - pass.panel * 16, pass.k > 0 || m.accumulate,
              m.bias ? m.bias + pass.panel * 16 : nullptr};
    for (int64_t i = 0; i < tiles.count; ++i) {
        for (int p = 0; p < P; ++p)
            for (int64_t line = i * lines / tiles.count; line < (i + 1) * lines / tiles.count; ++line)
                prefetch(pass.next[p] + line * 64);
        const int64_t now = tiles.rows(i);
        t.x = x + pass.k * now;
        x += m.k * now;
        interleaved_tile_of<tile_tokens, P>(now, w, t, x + pass.k * now);
        t.out += now * t.out_stride;
    }
}

// Weights and activations of a pass stay in the L2 cache, and 16-bit weights are converted once per pass.
void interleaved_matmul(const Matmul& m, int64_t first, int64_t last, float* scratch) {
    const int64_t passes = (m.k + k_block - 1) / k_block, inputs = (m.k + passes - 1) / passes;
    const Panels panels(m);
    for (int64_t k = 0; k < m.k; k += inputs) {
        Pass pass = {first, k, m.k - k < inputs ? m.k - k : inputs, {}};
        while (pass.panel < last) {
            const int64_t count = last - pass.panel < tile_panels ? 1 : tile_panels, next = pass.panel + count;
            const bool ends = next >= last;  // then the next inputs of the first panels follow, or those after the last
            for (int64_t p = 0; p < tile_panels; ++p)
                pass.next[p] = !ends              ? panels.at(next + p, k)
                               : k + inputs < m.k ? panels.at(first + p, k + inputs)
                                                  : panels.at(next + p, 0);
            if (count == tile_panels) interleaved_pass<tile_panels>(m, pass, scratch);
            else interleaved_pass<1>(m, pass, scratch);
            pass.panel = next;
        }
    }
}

void matmul(const Matmul& m, int64_t first, int64_t last, float* scratch) {
    if (m.interleaved && m.m > tile_tokens) return interleaved_matmul(m, first, last, scratch);
    const Panels panels(m);
    for (int64_t panel = first; panel < last; ++panel) {
        const void* w = panels.at(panel, 0);
        if (m.type == WeightType::f32) all_tokens(FloatWeights{static_cast<const float*>(w)}, m, panel);
        else if (m.type == WeightType::f16) all_tokens(HalfWeights{static_cast<const uint16_t*>(w)}, m, panel);
        else all_tokens(BfloatWeights{static_cast<const uint16_t*>(w)}, m, panel);
    }
}

// Four inputs at a time. What `transpose` writes behind them is overwritten by those that follow.
void interleave(const float* x, int64_t x_stride, int64_t rows, int64_t k, float* out) {
    int64_t i = 0;
    if (rows >= 4)
        for (; i + 8 <= k; i += 4) transpose(x + i, x_stride, rows, out + i * rows);
    for (; i < k; ++i)
        for (int64_t row = 0; row < rows; ++row) out[i * rows + row] = x[row * x_stride + i];
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

void exp_sums(const float* x, float shift, int64_t n, double* sums) {
    const V by = broadcast(shift);
    alignas(64) float e[16];
    double lane[8];
    for (int j = 0; j < 8; ++j) lane[j] = sums[j];
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        store(e, exp_of(sub(load(x + i), by)));
        for (int j = 0; j < 8; ++j) lane[j] += static_cast<double>(e[j]);
        for (int j = 0; j < 8; ++j) lane[j] += static_cast<double>(e[j + 8]);
    }
    for (int j = 0; j < 8; ++j) sums[j] = lane[j];
    if (i == n) return;
    store(e, exp_of(sub(load_some(x + i, n - i), by)));
    for (int64_t j = 0; j < n - i; ++j) sums[j % 8] += static_cast<double>(e[j]);
}

void scale_by(float* x, float by, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store_some(x + i, mul(load_some(x + i, n - i), broadcast(by)), n - i);
}

// cap * tanh(x / cap), with tanh(u) = 1 - 2 / (1 + exp(2u))
inline V capped(V x, V cap) {
    const V u = div(x, cap), one = broadcast(1.0f);
    return mul(cap, sub(one, div(broadcast(2.0f), add(one, exp_of(add(u, u))))));
}

void cap_to(float* x, float cap, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store_some(x + i, capped(load_some(x + i, n - i), broadcast(cap)), n - i);
}
