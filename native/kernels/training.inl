// Training's kernels (training.h), written once over V and I, sixteen floats and sixteen integers in whatever
// registers the instruction set has. Included after lanes.inl, inside an anonymous namespace.

inline V load_some(const Bfloat* p, int64_t n) {
    if (n >= 16) return load_bfloat(p);
    Bfloat lane[16] = {};
    for (int64_t i = 0; i < n; ++i) lane[i] = p[i];
    return load_bfloat(lane);
}

inline void store_some(Bfloat* p, V v, int64_t n) {
    if (n >= 16) return store_bfloat(p, v);
    Bfloat lane[16];
    store_bfloat(lane, v);
    for (int64_t i = 0; i < n; ++i) p[i] = lane[i];
}

// ---- random bits: "lowbias32", a hash of 32 bits in which every bit of the input changes half of the output --------

inline uint32_t hashed(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

inline I hashed(I x) {
    x = xor_shifted(x, 16);
    x = xor_shifted(multiplied(x, 0x7feb352du), 15);
    return xor_shifted(multiplied(x, 0x846ca68bu), 16);
}

inline uint32_t key_of(uint32_t seed, int64_t row) { return hashed(seed ^ hashed(static_cast<uint32_t>(row))); }

inline V dropped(V x, const Dropout& d, uint32_t key, int64_t column) {
    const I random = hashed(counted_from(key + static_cast<uint32_t>(column)));
    return mul(keep_at_least(x, random, d.threshold), broadcast(d.scale));
}

// ---- the optimizer ---------------------------------------------------------------------------------------------------

struct Update {
    V factor, keep, step, root, beta2, fresh1, fresh2, epsilon;
    uint32_t key;
};

inline void update_sixteen(const Update& u, Bfloat* high, int16_t* low, const Bfloat* gradient, Bfloat* mean,
                           uint16_t* square, int64_t index) {
    const V g = mul(load_bfloat(gradient), u.factor);
    const V old = load_bfloat(mean);
    const V m = fma(u.fresh1, sub(g, old), old);
    const V v = fma(u.beta2, load_positive(square), mul(u.fresh2, mul(g, g)));
    const V change = div(m, add(div(root(v), u.root), u.epsilon));
    store_halves(high, low, sub(mul(load_halves(high, low), u.keep), mul(u.step, change)));
    store_bfloat(mean, m);
    store_positive(square, v, hashed(counted_from(u.key + static_cast<uint32_t>(index))));
}

void adamw(const AdamW& p, int64_t begin, int64_t end) {
    const Update u = {broadcast(p.factor),      broadcast(1.0f - p.rate * p.decay), broadcast(p.rate / p.correction1),
                      root(broadcast(p.correction2)), broadcast(p.beta2), broadcast(1.0f - p.beta1),
                      broadcast(1.0f - p.beta2), broadcast(p.epsilon), hashed(p.seed)};
    int64_t i = begin;
    for (; i + 16 <= end; i += 16)
        update_sixteen(u, p.high + i, p.low + i, p.gradient + i, p.mean + i, p.square + i, i);
    if (i == end) return;
    Bfloat high[16] = {}, gradient[16] = {}, mean[16] = {};
    int16_t low[16] = {};
    uint16_t square[16] = {};
    for (int64_t j = 0; i + j < end; ++j) {
        high[j] = p.high[i + j], low[j] = p.low[i + j], gradient[j] = p.gradient[i + j];
        mean[j] = p.mean[i + j], square[j] = p.square[i + j];
    }
    update_sixteen(u, high, low, gradient, mean, square, i);
    for (int64_t j = 0; i + j < end; ++j) {
        p.high[i + j] = high[j], p.low[i + j] = low[j];
        p.mean[i + j] = mean[j], p.square[i + j] = square[j];
    }
}

float sum_of_squares(const Bfloat* x, int64_t n) {
    V sum = zero();
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i);
        sum = fma(v, v, sum);
    }
    return reduce(sum);
}

// ---- the feed-forward's inside -----------------------------------------------------------------------------------------

inline V sigmoid(V x) { return div(broadcast(1.0f), add(broadcast(1.0f), exponential_of(negate(x)))); }

constexpr float gelu_slope = 1.59576912160573f;  // 2 sqrt(2/pi): 0.5 (1 + tanh(u / 2)) is sigmoid(u)
constexpr float gelu_cubic = 0.044715f;

inline V gelu_sigmoid(V x, V square) {
    return sigmoid(mul(mul(x, broadcast(gelu_slope)), fma(square, broadcast(gelu_cubic), broadcast(1.0f))));
}

void gelu(const Bfloat* x, Bfloat* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i);
        store_some(y + i, mul(v, gelu_sigmoid(v, mul(v, v))), n - i);
    }
}

void gelu_back(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i), square = mul(v, v);
        const V s = gelu_sigmoid(v, square);
        const V slope = mul(fma(square, broadcast(3.0f * gelu_cubic), broadcast(1.0f)), broadcast(gelu_slope));
        const V rise = fma(mul(v, slope), mul(s, sub(broadcast(1.0f), s)), s);
        store_some(d_x + i, mul(load_some(d_y + i, n - i), rise), n - i);
    }
}

void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V g = load_some(gate + i, n - i);
        store_some(y + i, mul(mul(g, sigmoid(g)), load_some(up + i, n - i)), n - i);
    }
}

void swiglu_back(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V g = load_some(gate + i, n - i), u = load_some(up + i, n - i), d = load_some(d_y + i, n - i);
        const V s = sigmoid(g), silu = mul(g, s);
        const V rise = fma(silu, sub(broadcast(1.0f), s), s);
        store_some(d_gate + i, mul(mul(d, u), rise), n - i);
        store_some(d_up + i, mul(d, silu), n - i);
    }
}

// ---- layer norm and RMS norm -------------------------------------------------------------------------------------------

struct Scale {
    V mean, factor;
};

inline Scale scale_of(const Norm& of, const Bfloat* x) {
    const float size = static_cast<float>(of.n);
    V mean = zero(), squares = zero();
    if (!of.rms) {
        V sum = zero();
        for (int64_t i = 0; i < of.n; i += 16) sum = add(sum, load_some(x + i, of.n - i));
        mean = broadcast(reduce(sum) / size);
    }
    for (int64_t i = 0; i < of.n; i += 16) {
        const V centred = keep_first(sub(load_some(x + i, of.n - i), mean), of.n - i);
        squares = fma(centred, centred, squares);
    }
    return {mean, div(broadcast(1.0f), root(broadcast(reduce(squares) / size + of.epsilon)))};
}

void norm(const Norm& of, int64_t row, Bfloat* y) {
    const Bfloat* x = of.x + row * of.n;
    const Scale scale = scale_of(of, x);
    for (int64_t i = 0; i < of.n; i += 16) {
        const int64_t n = of.n - i;
        const V v = mul(sub(load_some(x + i, n), scale.mean), scale.factor), gain = load_some(of.gain + i, n);
        store_some(y + row * of.n + i, of.bias ? fma(v, gain, load_some(of.bias + i, n)) : mul(v, gain), n);
    }
}

void norm_back(const Norm& of, int64_t row, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias) {
    const Bfloat* x = of.x + row * of.n;
    d_y += row * of.n, d_x += row * of.n;
    const Scale scale = scale_of(of, x);
    V sum = zero(), along = zero();
    for (int64_t i = 0; i < of.n; i += 16) {
        const int64_t n = of.n - i;
        const V d = load_some(d_y + i, n), v = mul(sub(load_some(x + i, n), scale.mean), scale.factor);
        const V d_v = mul(d, load_some(of.gain + i, n));
        sum = add(sum, d_v);
        along = fma(d_v, v, along);
        if (d_gain) store_some(d_gain + i, fma(d, v, load_some(d_gain + i, n)), n);
        if (d_bias) store_some(d_bias + i, add(d, load_some(d_bias + i, n)), n);
    }
    const float size = static_cast<float>(of.n);
    const V middle = broadcast(of.rms ? 0.0f : reduce(sum) / size), slope = negate(broadcast(reduce(along) / size));
    for (int64_t i = 0; i < of.n; i += 16) {
        const int64_t n = of.n - i;
        const V v = mul(sub(load_some(x + i, n), scale.mean), scale.factor);
        const V d_v = mul(load_some(d_y + i, n), load_some(of.gain + i, n));
        store_some(d_x + i, mul(fma(slope, v, sub(d_v, middle)), scale.factor), n);
    }
}

// ---- attention's inside: one row of scores ------------------------------------------------------------------------------

// exp(score - highest) of what the row sees, into `scratch`; 1 / their sum.
inline V exponentials(const Bfloat* score, int64_t seen, float* scratch) {
    V top = broadcast(minus_infinity), sum = zero();
    for (int64_t i = 0; i < seen; i += 16)
        top = maximum(top, minus_infinity_after(load_some(score + i, seen - i), seen - i));
    const V highest = broadcast(highest_of(top));
    for (int64_t i = 0; i < seen; i += 16) {
        const V e = keep_first(exponential_of(sub(load_some(score + i, seen - i), highest)), seen - i);
        store(scratch + i, e);
        sum = add(sum, e);
    }
    return broadcast(1.0f / reduce(sum));
}

inline int64_t seen_by(const Pattern& p, int64_t row) {
    const int64_t seen = p.first + row % p.queries + 1;
    return seen < p.keys ? seen : p.keys;
}

void soften(const Pattern& p, int64_t row, float* scratch) {
    Bfloat* score = p.score + row * p.keys;
    const int64_t seen = seen_by(p, row);
    const V share = exponentials(score, seen, scratch);
    const uint32_t key = key_of(p.dropout.seed, row);
    for (int64_t i = 0; i < seen; i += 16) {
        V weight = mul(load(scratch + i), share);
        if (p.dropout.threshold) weight = dropped(weight, p.dropout, key, i);
        store_some(score + i, weight, seen - i);
    }
    for (int64_t i = seen; i < p.keys; ++i) score[i] = 0;
}

void soften_back(const Pattern& p, int64_t row, Bfloat* d_pattern, float own, float* scratch) {
    Bfloat *score = p.score + row * p.keys, *d = d_pattern + row * p.keys;
    const int64_t seen = seen_by(p, row);
    const V share = exponentials(score, seen, scratch), mean = broadcast(own);
    const uint32_t key = key_of(p.dropout.seed, row);
    for (int64_t i = 0; i < seen; i += 16) {
        const V weight = mul(load(scratch + i), share);
        V kept = weight, d_weight = load_some(d + i, seen - i);
        if (p.dropout.threshold) {
            kept = dropped(weight, p.dropout, key, i);
            d_weight = dropped(d_weight, p.dropout, key, i);
        }
        store_some(d + i, mul(weight, sub(d_weight, mean)), seen - i);
        store_some(score + i, kept, seen - i);
    }
    for (int64_t i = seen; i < p.keys; ++i) score[i] = d[i] = 0;
}

void add_dropped(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t row, int64_t n, const Dropout& dropout) {
    const uint32_t key = key_of(dropout.seed, row);
    for (int64_t i = 0; i < n; i += 16) {
        V v = load_some(y + row * n + i, n - i);
        if (dropout.threshold) v = dropped(v, dropout, key, i);
        if (x) v = add(load_some(x + row * n + i, n - i), v);
        store_some(out + row * n + i, v, n - i);
    }
}

void turn(const Bfloat* x, const float* cosines, const float* sines, bool back, Bfloat* out, int64_t d) {
    const int64_t half = d / 2;
    for (int64_t i = 0; i < half; i += 16) {
        const int64_t n = half - i;
        const V a = load_some(x + i, n), b = load_some(x + half + i, n), c = load_some(cosines + i, n);
        const V s = back ? negate(load_some(sines + i, n)) : load_some(sines + i, n);
        store_some(out + i, fma(a, c, negate(mul(b, s))), n);
        store_some(out + half + i, fma(b, c, mul(a, s)), n);
    }
}

// ---- cross-entropy: columns of logits ----------------------------------------------------------------------------------

void column_sums(const Bfloat* logits, int64_t rows, int64_t columns, float* highest, float* sum) {
    for (int64_t c = 0; c < columns; ++c) highest[c] = minus_infinity, sum[c] = 0.0f;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            const int64_t n = columns - c;
            store_some(highest + c, maximum(load_some(logits + row * columns + c, n), load_some(highest + c, n)), n);
        }
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            const int64_t n = columns - c;
            const V e = exponential_of(sub(load_some(logits + row * columns + c, n), load_some(highest + c, n)));
            store_some(sum + c, add(load_some(sum + c, n), e), n);
        }
}

void column_softmax(Bfloat* logits, int64_t rows, int64_t columns, const float* mass, float scale) {
    const V factor = broadcast(scale);
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            Bfloat* at = logits + row * columns + c;
            const int64_t n = columns - c;
            store_some(at, mul(exponential_of(sub(load_some(at, n), load_some(mass + c, n))), factor), n);
        }
}

// ---- cross-entropy: a row of logits --------------------------------------------------------------------------------------

constexpr int64_t summed_in_float = 512;  // terms; their sums are added in double

double row_sum(const Bfloat* logits, int64_t n, float* highest) {
    V top = broadcast(minus_infinity);
    for (int64_t i = 0; i < n; i += 16)
        top = maximum(top, minus_infinity_after(load_some(logits + i, n - i), n - i));
    *highest = highest_of(top);
    const V most = broadcast(*highest);
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += summed_in_float) {
        const int64_t end = begin + summed_in_float < n ? begin + summed_in_float : n;
        V sum = zero();
        for (int64_t i = begin; i < end; i += 16)
            sum = add(sum, keep_first(exponential_of(sub(load_some(logits + i, end - i), most)), end - i));
        total += static_cast<double>(reduce(sum));
    }
    return total;
}

void row_softmax(Bfloat* logits, int64_t n, float mass, float scale) {
    const V shift = broadcast(mass), factor = broadcast(scale);
    for (int64_t i = 0; i < n; i += 16)
        store_some(logits + i, mul(exponential_of(sub(load_some(logits + i, n - i), shift)), factor), n - i);
}

constexpr TrainingKernels training = {adamw,     sum_of_squares, gelu,        gelu_back,   swiglu, swiglu_back, norm,
                                      norm_back, soften,         soften_back, add_dropped, turn,   column_sums, column_softmax,
                                      row_sum,   row_softmax};
