// Helpers over V (small: what simd.inl and training.inl share): partial loads and stores, and exp.

// The end of an array whose length is not a multiple of 16: missing lanes are read as zero and not written.

inline V load_some(const float* p, int64_t n) {
    if (n >= 16) return load(p);
    float lane[16] = {};
    for (int64_t i = 0; i < n; ++i) lane[i] = p[i];
    return load(lane);
}

inline void store_some(float* p, V v, int64_t n) {
    if (n >= 16) return store(p, v);
    float lane[16];
    store(lane, v);
    for (int64_t i = 0; i < n; ++i) p[i] = lane[i];
}

inline V exp_of(V x) {  // see scalar.cpp; max and min return their second operand if it is NaN
    const V clamped = max(broadcast(-87.33654f), min(broadcast(88.37626f), x));
    const V n = round_even(mul(clamped, broadcast(1.44269504088896341f)));
    V r = fma(n, broadcast(-0.693359375f), clamped);
    r = fma(n, broadcast(2.12194440e-4f), r);
    V p = broadcast(1.9875691500e-4f);
    p = fma(p, r, broadcast(1.3981999507e-3f));
    p = fma(p, r, broadcast(8.3334519073e-3f));
    p = fma(p, r, broadcast(4.1665795894e-2f));
    p = fma(p, r, broadcast(1.6666665459e-1f));
    p = fma(p, r, broadcast(5.0000001201e-1f));
    const V y = add(fma(p, mul(r, r), r), broadcast(1.0f));
    return zero_where_less(x, broadcast(-87.33654f), mul(y, power_of_two(n)));
}
