// Attention over V: queries of one key/value head, range by range of 512 positions. See attend in scalar.cpp, whose bits
// these kernels give. A file that includes it defines the sizes of its register tiles: `query_tile` queries, `score_tile`
// pairs of a query and a block, and `value_columns` vectors of values.

// ---- keys and values as they are stored ----

struct Floats {
    using Number = float;
    static constexpr bool scaled = false;
    static V load_numbers(const float* p) { return load(p); }
};
struct Halves {
    using Number = uint16_t;
    static constexpr bool scaled = false;
    static V load_numbers(const uint16_t* p) { return load_half(p); }
};
struct Bytes {  // with an f16 scale per position and group of 32 features, before the numbers
    using Number = int8_t;
    static constexpr bool scaled = true;
    static V load_numbers(const int8_t* p) { return load_signed(p); }
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

template <class Kv>
inline const uint16_t* scales_of(const void* block, int64_t group) {
    return static_cast<const uint16_t*>(block) + group * kv_block;
}
template <class Kv>
inline const typename Kv::Number* numbers_of(const void* block, int64_t d) {
    const char* start = static_cast<const char*>(block);
    if (Kv::scaled) start += (d + quant_group - 1) / quant_group * kv_block * 2;
    return reinterpret_cast<const typename Kv::Number*>(start);
}

constexpr int64_t stride_ahead = 8;  // features, or positions, after which a piece of a later block is prefetched

template <class Kv>
constexpr int64_t blocks_ahead() {  // 8 KiB where D is 64
    return Kv::scaled ? 4 : 2;
}

constexpr int64_t most_in_l1 = 8 << 10;  // bytes of a block: several larger ones push each other out

// Prefetches a block while others are computed, a piece at a time: to the L1 cache, or to the L2 cache if it is large.
template <class Kv>
struct Ahead {
    const char* numbers = nullptr;  // null: there is nothing to prefetch
    int64_t bytes = 0;              // of a piece, whole cache lines
    bool large = false;

    Ahead() = default;
    Ahead(const void* block, int64_t d, int64_t width) {  // width: numbers of a feature, or of a position in a tile
        if (!block) return;
        large = d * kv_block * static_cast<int64_t>(sizeof(typename Kv::Number)) > most_in_l1;
        numbers = reinterpret_cast<const char*>(numbers_of<Kv>(block, d));
        bytes = stride_ahead * width * static_cast<int64_t>(sizeof(typename Kv::Number));
        for (const char* line = static_cast<const char*>(block); line < numbers; line += 64) prefetch(line);
    }
    void piece(int64_t number) const {
        if (!numbers) return;
        for (int64_t line = number * bytes; line < (number + 1) * bytes; line += 64)
            large ? prefetch_l2(numbers + line) : prefetch(numbers + line);
    }
};

// ---- scores ----

// Adds q . k over the features first..last-1 to the sums of Q queries and B blocks: one FMA chain per position, so few
// queries need several blocks to fill the FMA units.
template <int Q, int B, class Kv>
inline void add_features(const float* const* q, const typename Kv::Number* const* k, int64_t first, int64_t last,
                         V (&sum)[B][Q][2], const Ahead<Kv>* ahead) {
    for (int64_t start = first; start < last; start += stride_ahead) {
        for (int b = 0; b < B; ++b) ahead[b].piece(start / stride_ahead);
        const int64_t end = least(start + stride_ahead, last);
        for (int64_t i = start; i < end; ++i)
            for (int b = 0; b < B; ++b) {
                const V low = Kv::load_numbers(k[b] + i * kv_block), high = Kv::load_numbers(k[b] + i * kv_block + 16);
                for (int j = 0; j < Q; ++j) {
                    const V x = broadcast(q[j][i]);
                    sum[b][j][0] = fma(x, low, sum[b][j][0]);
                    sum[b][j][1] = fma(x, high, sum[b][j][1]);
                }
            }
    }
}

// The scores of Q queries in B blocks, to out[query] + 32 * block.
template <int Q, int B, class Kv>
inline void score_blocks(const float* const* q, const void* const* k_blocks, int64_t d, float scale, float* const* out,
                         const Ahead<Kv>* ahead) {
    const typename Kv::Number* k[B];
    V sum[B][Q][2];
    for (int b = 0; b < B; ++b) {
        k[b] = numbers_of<Kv>(k_blocks[b], d);
        for (int j = 0; j < Q; ++j) sum[b][j][0] = sum[b][j][1] = zero();
    }
    if constexpr (!Kv::scaled) {
        add_features<Q, B, Kv>(q, k, 0, d, sum, ahead);
    } else {
        for (int64_t first = 0; first < d; first += quant_group) {
            V part[B][Q][2];
            for (int b = 0; b < B; ++b)
                for (int j = 0; j < Q; ++j) part[b][j][0] = part[b][j][1] = zero();
            add_features<Q, B, Kv>(q, k, first, least(d, first + quant_group), part, ahead);
            for (int b = 0; b < B; ++b)
                for (int half = 0; half < 2; ++half) {
                    const V factor = load_half(scales_of<Kv>(k_blocks[b], first / quant_group) + 16 * half);
                    for (int j = 0; j < Q; ++j) sum[b][j][half] = fma(part[b][j][half], factor, sum[b][j][half]);
                }
        }
    }
    for (int b = 0; b < B; ++b)
        for (int j = 0; j < Q; ++j)
            for (int half = 0; half < 2; ++half)
                store(out[j] + b * kv_block + 16 * half, mul(sum[b][j][half], broadcast(scale)));
}

// ---- one range ----

struct Range {  // of all queries of a task
    int64_t first_block, blocks;  // blocks: that some query sees
    int64_t n[max_queries];       // the end of what each query sees, from the first block on; 0: it sees nothing
    int64_t hidden[max_queries];  // positions before its window
    float weight[max_queries][kv_range];  // the scores at first
};

constexpr int blocks_at_once(int queries) { return 4 * queries <= score_tile ? 4 : 2 * queries <= score_tile ? 2 : 1; }

// What is read next: a range's keys are followed by its values, and these by the keys of the next range; null where there
// is no such block.
inline const void* block_after_keys(const AttentionTask& t, const Range& range, int64_t block) {
    if (block < range.blocks) return t.k_blocks[range.first_block + block];
    block -= range.blocks;
    return block < range.blocks ? t.v_blocks[range.first_block + block] : nullptr;
}
inline const void* block_after_values(const AttentionTask& t, const Range& range, int64_t block) {
    if (block < range.blocks) return t.v_blocks[range.first_block + block];
    const int64_t next = range.first_block + block;
    return next * kv_block < t.visible[t.n_queries - 1] ? t.k_blocks[next] : nullptr;
}

template <int Q, int B, class Kv>
inline void score_some_blocks(const AttentionTask& t, int64_t first, int64_t block, Range& range) {
    constexpr int64_t distance = B > blocks_ahead<Kv>() ? B : blocks_ahead<Kv>();
    float* out[Q];
    Ahead<Kv> ahead[B];
    for (int j = 0; j < Q; ++j) out[j] = range.weight[first + j] + block * kv_block;
    for (int b = 0; b < B; ++b) ahead[b] = Ahead<Kv>(first == 0 ? block_after_keys(t, range, block + distance + b) : nullptr, t.d, kv_block);
    score_blocks<Q, B, Kv>(t.q + first, t.k_blocks + range.first_block + block, t.d, t.scale, out, ahead);
}

template <int Q, class Kv>
void score_queries(int64_t queries, const AttentionTask& t, int64_t first, int64_t block, int64_t end, Range& range) {
    if (queries != Q) {
        if constexpr (Q > 1) score_queries<Q - 1, Kv>(queries, t, first, block, end, range);
        return;
    }
    constexpr int step = blocks_at_once(Q);
    for (; block + step <= end; block += step) score_some_blocks<Q, step, Kv>(t, first, block, range);
    for (; block < end; ++block) score_some_blocks<Q, 1, Kv>(t, first, block, range);
}

// Scores become weights, exp(score - maximum); of `size` of them hidden..n-1 are visible.
inline void softmax_part(float* weight, int64_t size, int64_t hidden, int64_t n, float& maximum, float& total) {
    for (int64_t i = 0; i < hidden; ++i) weight[i] = minus_infinity;
    for (int64_t i = n / 16 * 16; i < size; i += 16) store(weight + i, minus_infinity_after(load(weight + i), n - i));
    V peak = load(weight), sum = zero();
    for (int64_t i = 16; i < size; i += 16) peak = max(peak, load(weight + i));
    maximum = reduce_max(peak);
    const V highest = broadcast(maximum);
    for (int64_t i = 0; i < size; i += 16) {
        const V w = exp_of(sub(load(weight + i), highest));
        store(weight + i, w);
        sum = add(sum, w);
    }
    total = reduce(sum);
}

// Adds weight * v of positions first..last-1 of a block; the weights of query j are w[j * stride..], for each group of 32
// features.
template <int Q, int N, int64_t stride, class Kv>
inline void add_positions(const float* w, const typename Kv::Number* v, int64_t d_padded, int64_t first, int64_t last,
                          V (&sum)[Q][N]) {
    for (int64_t pos = first; pos < last; ++pos) {
        V row[N];
        for (int c = 0; c < N; ++c) row[c] = Kv::load_numbers(v + pos * d_padded + 16 * c);
        for (int j = 0; j < Q; ++j)
            for (int c = 0; c < N; ++c)
                sum[j][c] = fma(broadcast(w[j * stride + (Kv::scaled ? c / 2 * kv_block : 0) + pos]), row[c], sum[j][c]);
    }
}

// out[j][at..at+16N) = the sum over the visible positions of weight * v, for Q queries; over blocks begin..end-1, after
// those before.
template <int Q, int N, class Kv>
inline void sum_values(const AttentionTask& t, const Range& range, int64_t first, int64_t at, int64_t begin, int64_t end,
                       float* const* out) {
    constexpr int G = Kv::scaled ? (N + 1) / 2 : 1;  // groups of 32 features
    constexpr int64_t stride = Kv::scaled ? G * kv_block : kv_range;
    V sum[Q][N];
    for (int j = 0; j < Q; ++j)
        for (int c = 0; c < N; ++c) sum[j][c] = begin == 0 ? zero() : load(out[j] + at + 16 * c);
    for (int64_t block = begin; block < end; ++block) {
        const void* data = t.v_blocks[range.first_block + block];
        const typename Kv::Number* v = numbers_of<Kv>(data, t.d) + at;
        const Ahead<Kv> ahead(first == 0 ? block_after_values(t, range, block + blocks_ahead<Kv>()) : nullptr, t.d, 16 * N);
        float scaled[Q * G * kv_block];
        int64_t common = kv_block;
        for (int j = 0; j < Q; ++j) common = least(common, range.n[first + j] - block * kv_block);
        const float* w = range.weight[first] + block * kv_block;
        if constexpr (Kv::scaled) {
            for (int g = 0; g < G; ++g)
                for (int half = 0; half < kv_block; half += 16) {
                    const V factor = load_half(scales_of<Kv>(data, at / quant_group + g) + half);
                    for (int j = 0; j < Q; ++j)
                        store(scaled + j * stride + g * kv_block + half, mul(load(w + j * kv_range + half), factor));
                }
            w = scaled;
        }
        for (int64_t pos = 0; pos < common; pos += stride_ahead) {
            ahead.piece((at / (16 * N) * kv_block + pos) / stride_ahead);  // each tile of columns its share
            add_positions<Q, N, stride, Kv>(w, v, t.d_padded, pos, least(pos + stride_ahead, common), sum);
        }
        if (common == kv_block) continue;
        for (int j = 0; j < Q; ++j) {
            V own[1][N];
            for (int c = 0; c < N; ++c) own[0][c] = sum[j][c];
            add_positions<1, N, stride, Kv>(w + j * stride, v, t.d_padded, common < 0 ? 0 : common,
                                            least(range.n[first + j] - block * kv_block, kv_block), own);
            for (int c = 0; c < N; ++c) sum[j][c] = own[0][c];
        }
    }
    for (int j = 0; j < Q; ++j)
        for (int c = 0; c < N; ++c) store(out[j] + at + 16 * c, sum[j][c]);
}

template <int Q, class Kv>
void sum_values_of(int64_t queries, const AttentionTask& t, const Range& range, int64_t first, float* const* out) {
    if (queries != Q) {
        if constexpr (Q > 1) sum_values_of<Q - 1, Kv>(queries, t, range, first, out);
        return;
    }
    // Where a head has more columns than a tile, they take turns block by block, while the block is in the L1 cache.
    const int64_t step = t.d_padded > 16 * value_columns ? 1 : range.blocks;
    for (int64_t block = 0; block < range.blocks; block += step) {
        int64_t at = 0;
        for (; at + 16 * value_columns <= t.d_padded; at += 16 * value_columns)
            sum_values<Q, value_columns, Kv>(t, range, first, at, block, block + step, out);
        for (; at < t.d_padded; at += 16) sum_values<Q, 1, Kv>(t, range, first, at, block, block + step, out);
    }
}

template <class Kv>
void attend_range_of(const AttentionTask& t, int64_t number, float* parts) {
    Range range;
    int64_t most = 0, hidden = kv_range;
    for (int64_t j = 0; j < t.n_queries; ++j) {
        const int64_t left = least(t.visible[j] - number * kv_range, kv_range);
        range.hidden[j] = most_of(t.first[j] - number * kv_range, 0);
        range.n[j] = left > range.hidden[j] ? left : 0;
        if (range.n[j] == 0) continue;
        most = most_of(most, left);
        hidden = least(hidden, range.hidden[j]);
    }
    const int64_t before = most > 0 ? hidden / kv_block : 0;  // blocks that no query sees
    for (int64_t j = 0; before > 0 && j < t.n_queries; ++j) {
        range.n[j] = most_of(range.n[j] - before * kv_block, 0);
        range.hidden[j] -= before * kv_block;
    }
    range.first_block = number * (kv_range / kv_block) + before;
    range.blocks = (most + kv_block - 1) / kv_block - before;
    // A few blocks serve all queries, `query_tile` of them at a time, while they are in the L1 cache.
    const int64_t step = t.n_queries <= query_tile ? range.blocks : blocks_at_once(query_tile);
    for (int64_t block = 0; block < range.blocks; block += step)
        for (int64_t first = 0; first < t.n_queries; first += query_tile)
            score_queries<query_tile, Kv>(least(t.n_queries - first, query_tile), t, first, block,
                                          least(block + step, range.blocks), range);
    float* out[max_queries];
    for (int64_t j = 0; j < t.n_queries; ++j) {
        float* part = parts + j * part_size(t.d_padded);
        out[j] = part + 16;
        if (range.n[j] == 0) continue;
        const int64_t size = range.blocks * kv_block;
        for (int64_t i = 0; t.cap > 0.0f && i < size; i += 16)
            store(range.weight[j] + i, capped(load(range.weight[j] + i), broadcast(t.cap)));
        softmax_part(range.weight[j], size, range.hidden[j], range.n[j], part[0], part[1]);
    }
    for (int64_t first = 0; first < t.n_queries; first += query_tile)
        sum_values_of<query_tile, Kv>(least(t.n_queries - first, query_tile), t, range, first, out + first);
}

void attend_range(const AttentionTask& t, int64_t number, float* parts) {
    if (t.kv_type == WeightType::q8_0) return attend_range_of<Bytes>(t, number, parts);
    if (t.kv_type == WeightType::f16) return attend_range_of<Halves>(t, number, parts);
    attend_range_of<Floats>(t, number, parts);
}

// ---- all ranges ----

// Adds a range to the ranges before it.
inline void merge(float* state, const float* part, int64_t d_padded) {
    const float highest = part[0] > state[0] ? part[0] : state[0];
    const float before = first_lane(exp_of(broadcast(state[0] - highest)));
    const float here = first_lane(exp_of(broadcast(part[0] - highest)));
    state[1] = fma_scalar(part[1], here, state[1] * before);
    for (int64_t i = 16; i < 16 + d_padded; i += 16)
        store(state + i, fma(load(part + i), broadcast(here), mul(load(state + i), broadcast(before))));
    state[0] = highest;
}

inline void finish(const float* state, float* out, int64_t d) {
    for (int64_t i = 0; i < d; i += 16)
        store_some(out + i, div(load(state + 16 + i), broadcast(state[1])), d - i);
}

void combine(float* parts, int64_t ranges, int64_t stride, float* out, int64_t d) {
    for (int64_t range = 1; range < ranges; ++range) merge(parts, parts + range * stride, (d + 15) / 16 * 16);
    finish(parts, out, d);
}

void attend(const AttentionTask& t) {
    float state[max_queries * part_size(max_head)], part[max_queries * part_size(max_head)];
    const int64_t size = part_size(t.d_padded);
    int64_t most = 0, lowest = t.first[0] / kv_range;
    for (int64_t j = 0; j < t.n_queries; ++j) {
        most = most_of(most, t.visible[j]);
        lowest = least(lowest, t.first[j] / kv_range);
    }
    for (int64_t number = lowest; number * kv_range < most; ++number) {
        attend_range(t, number, number == lowest ? state : part);
        for (int64_t j = 0; number > lowest && j < t.n_queries; ++j) {
            const int64_t own = t.first[j] / kv_range;  // its first range
            if (number < own || t.visible[j] <= number * kv_range) continue;
            if (number > own) merge(state + j * size, part + j * size, t.d_padded);
            else for (int64_t i = 0; i < size; i += 16) store(state + j * size + i, load(part + j * size + i));
        }
    }
    for (int64_t j = 0; j < t.n_queries; ++j) finish(state + j * size, t.out[j], t.d);
}

// ---- the scores alone ----

template <class Kv>
void score_over(const AttentionTask& t) {
    const Ahead<Kv> nothing[1];
    for (int64_t j = 0; j < t.n_queries; ++j)
        for (int64_t start = 0; start < t.visible[j]; start += kv_block) {
            float score[kv_block];
            float* out = score;
            score_blocks<1, 1, Kv>(t.q + j, t.k_blocks + start / kv_block, t.d, t.scale, &out, nothing);
            for (int64_t i = 0; t.cap > 0.0f && i < kv_block; i += 16)
                store(score + i, capped(load(score + i), broadcast(t.cap)));
            for (int64_t i = 0; i < least(t.visible[j] - start, kv_block); ++i) t.out[j][start + i] = score[i];
        }
}

void score(const AttentionTask& t) {
    if (t.kv_type == WeightType::q8_0) return score_over<Bytes>(t);
    if (t.kv_type == WeightType::f16) return score_over<Halves>(t);
    score_over<Floats>(t);
}
