// The SIMD form of kernels/scalar.cpp, written once over V: sixteen floats in whatever registers the instruction set has.
// One file per instruction set includes it inside an anonymous namespace, after defining V, its operations and the sizes of
// its register tiles: `tile_tokens` rows of x, `query_tile` queries, `score_tile` pairs of a query and a block, and
// `value_columns` vectors of values. It must not include a header with inline functions: the linker could keep the copy that
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

// ---- attention: queries of one key/value head, block by block of 32 positions ---------------------------------------

struct OnlineSoftmax {  // of one query, over the blocks so far
    float maximum, total, rescale;
    float weight[kv_block];
};

inline V load_kv(const float* p) { return load(p); }
inline V load_kv(const uint16_t* p) { return load_half(p); }

// The scores of Q queries in B blocks: one FMA chain per position, so few queries need several blocks to fill the FMA units.
// What will be read soon is prefetched meanwhile, if there is anything: 2B streams of as many bytes as the keys.
template <int Q, int B, class Kv>
inline void score_blocks(const float* const* q, const void* const* k_blocks, int64_t d, V scale, V (*score)[Q][2],
                         const char* const* soon = nullptr) {
    for (int b = 0; b < B; ++b)
        for (int j = 0; j < Q; ++j) score[b][j][0] = score[b][j][1] = zero();
    const Kv* k[B];
    for (int b = 0; b < B; ++b) k[b] = static_cast<const Kv*>(k_blocks[b]);
    constexpr int64_t bytes = kv_block * sizeof(Kv);  // of one feature's keys
    for (int64_t i = 0; i < d; ++i)
        for (int b = 0; b < B; ++b) {
            if (soon)
                for (int64_t line = i * bytes; line < (i + 1) * bytes; line += 64) {
                    prefetch(soon[b] + line);
                    prefetch(soon[B + b] + line);
                }
            const V low = load_kv(k[b] + i * kv_block), high = load_kv(k[b] + i * kv_block + 16);
            for (int j = 0; j < Q; ++j) {
                const V x = broadcast(q[j][i]);
                score[b][j][0] = fma(x, low, score[b][j][0]);
                score[b][j][1] = fma(x, high, score[b][j][1]);
            }
        }
    for (int b = 0; b < B; ++b)
        for (int j = 0; j < Q; ++j)
            for (V& part : score[b][j]) part = mul(part, scale);
}

// Takes in the scores of a block, of whose positions the first n are visible.
inline void update(OnlineSoftmax& state, V* score, int64_t n) {
    if (n < kv_block) {
        score[0] = minus_infinity_after(score[0], n);
        score[1] = minus_infinity_after(score[1], n - 16);
    }
    const float peak_here = reduce_max(max(score[0], score[1]));
    state.rescale = 1.0f;
    if (peak_here > state.maximum) {
        state.rescale = first_lane(exp_of(broadcast(state.maximum - peak_here)));
        state.maximum = peak_here;
    }
    const V peak = broadcast(state.maximum);
    const V low = exp_of(sub(score[0], peak)), high = exp_of(sub(score[1], peak));
    store(state.weight, low);
    store(state.weight + 16, high);
    state.total = fma_scalar(state.total, state.rescale, reduce(add(low, high)));
}

// out[j][0..16N) = out * rescale + sum over the visible positions n[j] of weight * v
template <int Q, int N, class Kv>
inline void accumulate_values(const OnlineSoftmax* state, const Kv* v, int64_t v_stride, const int64_t* n,
                              float (*out)[max_head], int64_t at) {
    V sum[Q][N];
    int64_t common = kv_block;
    for (int j = 0; j < Q; ++j) {
        if (n[j] < common) common = n[j];
        for (int c = 0; c < N; ++c) sum[j][c] = mul(load(out[j] + at + 16 * c), broadcast(state[j].rescale));
    }
    for (int64_t pos = 0; pos < common; ++pos) {
        V row[N];
        for (int c = 0; c < N; ++c) row[c] = load_kv(v + pos * v_stride + at + 16 * c);
        for (int j = 0; j < Q; ++j) {
            const V w = broadcast(state[j].weight[pos]);
            for (int c = 0; c < N; ++c) sum[j][c] = fma(w, row[c], sum[j][c]);
        }
    }
    for (int j = 0; j < Q; ++j) {
        for (int64_t pos = common; pos < n[j]; ++pos)
            for (int c = 0; c < N; ++c)
                sum[j][c] = fma(broadcast(state[j].weight[pos]), load_kv(v + pos * v_stride + at + 16 * c), sum[j][c]);
        for (int c = 0; c < N; ++c) store(out[j] + at + 16 * c, sum[j][c]);
    }
}

struct Walk {  // of all queries of a task
    OnlineSoftmax state[max_queries];
    float out[max_queries][max_head];
};

// Takes Q queries, from query `first` on, over B blocks. A block that a query does not see leaves it as it is.
template <int Q, int B, class Kv>
void attend_blocks(const AttentionTask& t, int64_t first, int64_t block, int64_t blocks, Walk& walk) {
    OnlineSoftmax* state = walk.state + first;
    V score[B][Q][2];
    const char* soon[2 * B];  // the values of these blocks and the keys of the next
    for (int b = 0; b < B; ++b) {
        soon[b] = static_cast<const char*>(t.v_blocks[block + b]);
        soon[B + b] = static_cast<const char*>(t.k_blocks[block + B + b < blocks ? block + B + b : block + b]);
    }
    score_blocks<Q, B, Kv>(t.q + first, t.k_blocks + block, t.d, broadcast(t.scale), score,
                           t.n_queries <= query_tile ? soon : nullptr);
    for (int b = 0; b < B; ++b) {
        int64_t n[Q];
        for (int j = 0; j < Q; ++j) {
            const int64_t left = t.visible[first + j] - (block + b) * kv_block;
            n[j] = left < 0 ? 0 : left < kv_block ? left : kv_block;
            update(state[j], score[b][j], n[j]);
        }
        const Kv* v = static_cast<const Kv*>(t.v_blocks[block + b]);
        int64_t at = 0;
        for (; at + 16 * value_columns <= t.d_padded; at += 16 * value_columns)
            accumulate_values<Q, value_columns>(state, v, t.d_padded, n, walk.out + first, at);
        for (; at < t.d_padded; at += 16) accumulate_values<Q, 1>(state, v, t.d_padded, n, walk.out + first, at);
    }
}

constexpr int blocks_at_once(int queries) { return 4 * queries <= score_tile ? 4 : 2 * queries <= score_tile ? 2 : 1; }

template <int Q, class Kv>
void attend_some(int64_t queries, const AttentionTask& t, int64_t first, int64_t block, int64_t end, Walk& walk) {
    if (queries != Q) {
        if constexpr (Q > 1) attend_some<Q - 1, Kv>(queries, t, first, block, end, walk);
        return;
    }
    constexpr int step = blocks_at_once(Q);
    for (; block + step <= end; block += step) attend_blocks<Q, step, Kv>(t, first, block, end, walk);
    for (; block < end; ++block) attend_blocks<Q, 1, Kv>(t, first, block, end, walk);
}

template <class Kv>
void attend_over(const AttentionTask& t) {
    Walk walk;
    int64_t most = 0;
    for (int64_t j = 0; j < t.n_queries; ++j) {
        walk.state[j].maximum = minus_infinity;
        walk.state[j].total = 0.0f;
        for (int64_t i = 0; i < t.d_padded; i += 16) store(walk.out[j] + i, zero());
        if (t.visible[j] > most) most = t.visible[j];
    }
    // A few blocks serve all queries, `query_tile` of them at a time, while they are in the L1 cache.
    const int64_t blocks = (most + kv_block - 1) / kv_block, step = t.n_queries > query_tile ? blocks_at_once(query_tile) : blocks;
    for (int64_t block = 0; block < blocks; block += step)
        for (int64_t first = 0; first < t.n_queries; first += query_tile) {
            const int64_t queries = t.n_queries - first < query_tile ? t.n_queries - first : query_tile;
            attend_some<query_tile, Kv>(queries, t, first, block, block + step < blocks ? block + step : blocks, walk);
        }
    for (int64_t j = 0; j < t.n_queries; ++j)
        for (int64_t i = 0; i < t.d; i += 16)
            store_some(t.out[j] + i, div(load(walk.out[j] + i), broadcast(walk.state[j].total)), t.d - i);
}

void attend(const AttentionTask& t) {
    if (t.kv_type == WeightType::f16) attend_over<uint16_t>(t);
    else attend_over<float>(t);
}

template <class Kv>
void score_over(const AttentionTask& t) {
    for (int64_t j = 0; j < t.n_queries; ++j)
        for (int64_t start = 0; start < t.visible[j]; start += kv_block) {
            V score[1][1][2];
            score_blocks<1, 1, Kv>(t.q + j, t.k_blocks + start / kv_block, t.d, broadcast(t.scale), score);
            const int64_t left = t.visible[j] - start;
            store_some(t.out[j] + start, score[0][0][0], left);
            if (left > 16) store_some(t.out[j] + start + 16, score[0][0][1], left - 16);
        }
}

void score(const AttentionTask& t) {
    if (t.kv_type == WeightType::f16) score_over<uint16_t>(t);
    else score_over<float>(t);
}
