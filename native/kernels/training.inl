// The training kernels (training_kernels.h), written once over V and I: sixteen floats and sixteen integers, in whatever
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

// ---- random bits: the 32-bit hash "lowbias32", in which each input bit flips each output bit half of the time -------

inline uint32_t hash(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

inline I hash(I x) {
    x = xor_shifted(x, 16);
    x = xor_shifted(multiply_by(x, 0x7feb352du), 15);
    return xor_shifted(multiply_by(x, 0x846ca68bu), 16);
}

inline uint32_t row_key(uint32_t seed, int64_t row) { return hash(seed ^ hash(static_cast<uint32_t>(row))); }

inline V apply_dropout(V x, const Dropout& d, uint32_t key, int64_t column) {
    const I random = hash(iota_from(key + static_cast<uint32_t>(column)));
    return mul(zero_below(x, random, d.threshold), broadcast(d.scale));
}

// ---- the optimizer --------------------------------------------------------------------------------------------------

struct AdamWConstants {
    V gradient_scale, decay, step_size, sqrt_correction2, beta2, one_minus_beta1, one_minus_beta2, epsilon;
    uint32_t key;
};

inline void adamw_16(const AdamWConstants& c, Bfloat* weight, int16_t* remainder, const Bfloat* gradient, Bfloat* moment1,
                     uint16_t* moment2, int64_t index) {
    const V g = mul(load_bfloat(gradient), c.gradient_scale);
    const V old = load_bfloat(moment1);
    const V m = fma(c.one_minus_beta1, sub(g, old), old);
    const V v = fma(c.beta2, load_moment2(moment2), mul(c.one_minus_beta2, mul(g, g)));
    const V change = div(m, add(div(sqrt_of(v), c.sqrt_correction2), c.epsilon));
    store_master(weight, remainder, sub(mul(load_master(weight, remainder), c.decay), mul(c.step_size, change)));
    store_bfloat(moment1, m);
    store_moment2(moment2, v, hash(iota_from(c.key + static_cast<uint32_t>(index))));
}

void adamw(const AdamWStep& p, int64_t begin, int64_t end) {
    const AdamWConstants c = {broadcast(p.gradient_scale),
                              broadcast(1.0f - p.learning_rate * p.weight_decay),
                              broadcast(p.learning_rate / p.bias_correction1),
                              sqrt_of(broadcast(p.bias_correction2)),
                              broadcast(p.beta2),
                              broadcast(1.0f - p.beta1),
                              broadcast(1.0f - p.beta2),
                              broadcast(p.epsilon),
                              hash(p.seed)};
    int64_t i = begin;
    for (; i + 16 <= end; i += 16)
        adamw_16(c, p.weight + i, p.remainder + i, p.gradient + i, p.moment1 + i, p.moment2 + i, i);
    if (i == end) return;
    Bfloat weight[16] = {}, gradient[16] = {}, moment1[16] = {};
    int16_t remainder[16] = {};
    uint16_t moment2[16] = {};
    for (int64_t j = 0; i + j < end; ++j) {
        weight[j] = p.weight[i + j], remainder[j] = p.remainder[i + j], gradient[j] = p.gradient[i + j];
        moment1[j] = p.moment1[i + j], moment2[j] = p.moment2[i + j];
    }
    adamw_16(c, weight, remainder, gradient, moment1, moment2, i);
    for (int64_t j = 0; i + j < end; ++j) {
        p.weight[i + j] = weight[j], p.remainder[i + j] = remainder[j];
        p.moment1[i + j] = moment1[j], p.moment2[i + j] = moment2[j];
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

// ---- activations of the feed-forward --------------------------------------------------------------------------------

inline V sigmoid(V x) { return div(broadcast(1.0f), add(broadcast(1.0f), exp_of(negate(x)))); }

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

void gelu_backward(const Bfloat* x, const Bfloat* d_y, Bfloat* d_x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V v = load_some(x + i, n - i), square = mul(v, v);
        const V s = gelu_sigmoid(v, square);
        const V slope = mul(fma(square, broadcast(3.0f * gelu_cubic), broadcast(1.0f)), broadcast(gelu_slope));
        const V derivative = fma(mul(v, slope), mul(s, sub(broadcast(1.0f), s)), s);
        store_some(d_x + i, mul(load_some(d_y + i, n - i), derivative), n - i);
    }
}

void swiglu(const Bfloat* gate, const Bfloat* up, Bfloat* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V g = load_some(gate + i, n - i);
        store_some(y + i, mul(mul(g, sigmoid(g)), load_some(up + i, n - i)), n - i);
    }
}

void swiglu_backward(const Bfloat* gate, const Bfloat* up, const Bfloat* d_y, Bfloat* d_gate, Bfloat* d_up, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const V g = load_some(gate + i, n - i), u = load_some(up + i, n - i), d = load_some(d_y + i, n - i);
        const V s = sigmoid(g), silu = mul(g, s);
        const V derivative = fma(silu, sub(broadcast(1.0f), s), s);
        store_some(d_gate + i, mul(mul(d, u), derivative), n - i);
        store_some(d_up + i, mul(d, silu), n - i);
    }
}

// ---- layer norm and RMS norm ----------------------------------------------------------------------------------------

struct NormStatistics {
    V mean, rstd;  // rstd: 1 / standard deviation (RMS norm: 1 / root mean square)
};

inline NormStatistics norm_statistics(const NormInput& input, const Bfloat* x) {
    const float size = static_cast<float>(input.n);
    V mean = zero(), squares = zero();
    if (!input.rms) {
        V sum = zero();
        for (int64_t i = 0; i < input.n; i += 16) sum = add(sum, load_some(x + i, input.n - i));
        mean = broadcast(reduce(sum) / size);
    }
    for (int64_t i = 0; i < input.n; i += 16) {
        const V centred = keep_first(sub(load_some(x + i, input.n - i), mean), input.n - i);
        squares = fma(centred, centred, squares);
    }
    return {mean, div(broadcast(1.0f), sqrt_of(broadcast(reduce(squares) / size + input.epsilon)))};
}

void norm(const NormInput& input, int64_t row, Bfloat* y) {
    const Bfloat* x = input.x + row * input.n;
    const NormStatistics stats = norm_statistics(input, x);
    for (int64_t i = 0; i < input.n; i += 16) {
        const int64_t n = input.n - i;
        const V v = mul(sub(load_some(x + i, n), stats.mean), stats.rstd), gain = load_some(input.gain + i, n);
        store_some(y + row * input.n + i, input.bias ? fma(v, gain, load_some(input.bias + i, n)) : mul(v, gain), n);
    }
}

void norm_backward(const NormInput& input, int64_t row, const Bfloat* d_y, Bfloat* d_x, float* d_gain, float* d_bias) {
    const Bfloat* x = input.x + row * input.n;
    d_y += row * input.n, d_x += row * input.n;
    const NormStatistics stats = norm_statistics(input, x);
    V sum = zero(), dot = zero();
    for (int64_t i = 0; i < input.n; i += 16) {
        const int64_t n = input.n - i;
        const V d = load_some(d_y + i, n), v = mul(sub(load_some(x + i, n), stats.mean), stats.rstd);
        const V d_v = mul(d, load_some(input.gain + i, n));
        sum = add(sum, d_v);
        dot = fma(d_v, v, dot);
        if (d_gain) store_some(d_gain + i, fma(d, v, load_some(d_gain + i, n)), n);
        if (d_bias) store_some(d_bias + i, add(d, load_some(d_bias + i, n)), n);
    }
    const float size = static_cast<float>(input.n);
    const V mean_d_v = broadcast(input.rms ? 0.0f : reduce(sum) / size), slope = negate(broadcast(reduce(dot) / size));
    for (int64_t i = 0; i < input.n; i += 16) {
        const int64_t n = input.n - i;
        const V v = mul(sub(load_some(x + i, n), stats.mean), stats.rstd);
        const V d_v = mul(load_some(d_y + i, n), load_some(input.gain + i, n));
        store_some(d_x + i, mul(fma(slope, v, sub(d_v, mean_d_v)), stats.rstd), n);
    }
}

// ---- softmax of attention: one row of scores ------------------------------------------------------------------------

// Writes exp(score - maximum) of the visible scores to `scratch` and returns 1 / their sum.
inline V exponentials(const Bfloat* score, int64_t visible, float* scratch) {
    V top = broadcast(minus_infinity), sum = zero();
    for (int64_t i = 0; i < visible; i += 16)
        top = max(top, minus_infinity_after(load_some(score + i, visible - i), visible - i));
    const V maximum = broadcast(reduce_max(top));
    for (int64_t i = 0; i < visible; i += 16) {
        const V e = keep_first(exp_of(sub(load_some(score + i, visible - i), maximum)), visible - i);
        store(scratch + i, e);
        sum = add(sum, e);
    }
    return broadcast(1.0f / reduce(sum));
}

inline int64_t visible_keys(const CausalScores& p, int64_t row) {
    const int64_t visible = p.first + row % p.queries + 1;
    return visible < p.keys ? visible : p.keys;
}

void softmax(const CausalScores& p, int64_t row, float* scratch) {
    Bfloat* score = p.scores + row * p.keys;
    const int64_t visible = visible_keys(p, row);
    const V inverse_sum = exponentials(score, visible, scratch);
    const uint32_t key = row_key(p.dropout.seed, row);
    for (int64_t i = 0; i < visible; i += 16) {
        V weight = mul(load(scratch + i), inverse_sum);
        if (p.dropout.threshold) weight = apply_dropout(weight, p.dropout, key, i);
        store_some(score + i, weight, visible - i);
    }
    for (int64_t i = visible; i < p.keys; ++i) score[i] = 0;
}

void softmax_backward(const CausalScores& p, int64_t row, Bfloat* d_pattern, float row_dot, float* scratch) {
    Bfloat *score = p.scores + row * p.keys, *d = d_pattern + row * p.keys;
    const int64_t visible = visible_keys(p, row);
    const V inverse_sum = exponentials(score, visible, scratch), dot = broadcast(row_dot);
    const uint32_t key = row_key(p.dropout.seed, row);
    for (int64_t i = 0; i < visible; i += 16) {
        const V weight = mul(load(scratch + i), inverse_sum);
        V masked = weight, d_weight = load_some(d + i, visible - i);
        if (p.dropout.threshold) {
            masked = apply_dropout(weight, p.dropout, key, i);
            d_weight = apply_dropout(d_weight, p.dropout, key, i);
        }
        store_some(d + i, mul(weight, sub(d_weight, dot)), visible - i);
        store_some(score + i, masked, visible - i);
    }
    for (int64_t i = visible; i < p.keys; ++i) score[i] = d[i] = 0;
}

void dropout_add(const Bfloat* x, const Bfloat* y, Bfloat* out, int64_t row, int64_t n, const Dropout& dropout) {
    const uint32_t key = row_key(dropout.seed, row);
    for (int64_t i = 0; i < n; i += 16) {
        V v = load_some(y + row * n + i, n - i);
        if (dropout.threshold) v = apply_dropout(v, dropout, key, i);
        if (x) v = add(load_some(x + row * n + i, n - i), v);
        store_some(out + row * n + i, v, n - i);
    }
}

void rope(const Bfloat* x, const float* cosines, const float* sines, bool inverse, Bfloat* out, int64_t d) {
    const int64_t half = d / 2;
    for (int64_t i = 0; i < half; i += 16) {
        const int64_t n = half - i;
        const V a = load_some(x + i, n), b = load_some(x + half + i, n), c = load_some(cosines + i, n);
        const V s = inverse ? negate(load_some(sines + i, n)) : load_some(sines + i, n);
        store_some(out + i, fma(a, c, negate(mul(b, s))), n);
        store_some(out + half + i, fma(b, c, mul(a, s)), n);
    }
}

// ---- cross-entropy: columns of logits -------------------------------------------------------------------------------

void column_sum_exp(const Bfloat* logits, int64_t rows, int64_t columns, float* maximum, float* sum) {
    for (int64_t c = 0; c < columns; ++c) maximum[c] = minus_infinity, sum[c] = 0.0f;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            const int64_t n = columns - c;
            store_some(maximum + c, max(load_some(logits + row * columns + c, n), load_some(maximum + c, n)), n);
        }
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            const int64_t n = columns - c;
            const V e = exp_of(sub(load_some(logits + row * columns + c, n), load_some(maximum + c, n)));
            store_some(sum + c, add(load_some(sum + c, n), e), n);
        }
}

void column_softmax(Bfloat* logits, int64_t rows, int64_t columns, const float* logsumexp, float scale) {
    const V factor = broadcast(scale);
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < columns; c += 16) {
            Bfloat* at = logits + row * columns + c;
            const int64_t n = columns - c;
            store_some(at, mul(exp_of(sub(load_some(at, n), load_some(logsumexp + c, n))), factor), n);
        }
}

// ---- cross-entropy: a row of logits ---------------------------------------------------------------------------------

constexpr int64_t summed_in_float = 512;  // terms per partial sum; the partial sums are added in double

double row_sum_exp(const Bfloat* logits, int64_t n, float* maximum) {
    V top = broadcast(minus_infinity);
    for (int64_t i = 0; i < n; i += 16)
        top = max(top, minus_infinity_after(load_some(logits + i, n - i), n - i));
    *maximum = reduce_max(top);
    const V highest = broadcast(*maximum);
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += summed_in_float) {
        const int64_t end = begin + summed_in_float < n ? begin + summed_in_float : n;
        V sum = zero();
        for (int64_t i = begin; i < end; i += 16)
            sum = add(sum, keep_first(exp_of(sub(load_some(logits + i, end - i), highest)), end - i));
        total += static_cast<double>(reduce(sum));
    }
    return total;
}

void row_softmax(Bfloat* logits, int64_t n, float logsumexp, float scale) {
    const V shift = broadcast(logsumexp), factor = broadcast(scale);
    for (int64_t i = 0; i < n; i += 16)
        store_some(logits + i, mul(exp_of(sub(load_some(logits + i, n - i), shift)), factor), n - i);
}

constexpr TrainingKernels training = {adamw,       sum_of_squares, gelu,           gelu_backward,  swiglu,      swiglu_backward,
                                      norm,        norm_backward,  softmax,        softmax_backward, dropout_add, rope,
                                      column_sum_exp, column_softmax, row_sum_exp, row_softmax};
