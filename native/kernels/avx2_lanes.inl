// Sixteen floats and sixteen integers in two 256-bit registers each: V and I with their operations, for simd.inl, training.inl
// and quantized.inl.

struct V {
    __m256 low, high;
};

inline V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}
inline void stream(float* p, V v) {  // p is aligned to a cache line
    _mm256_stream_ps(p, v.low);
    _mm256_stream_ps(p + 8, v.high);
}
inline void stream_fence() { _mm_sfence(); }
inline V load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_half(uint16_t* p, V a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256 bfloat_to_f32(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline V load_bfloat(const uint16_t* p) { return {bfloat_to_f32(p), bfloat_to_f32(p + 8)}; }
inline __m256 bytes_to_f32(__m128i eight_bytes, bool is_signed) {
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(eight_bytes) : _mm256_cvtepu8_epi32(eight_bytes));
}
inline V load_unsigned(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {bytes_to_f32(bytes, false), bytes_to_f32(_mm_unpackhi_epi64(bytes, bytes), false)};
}
inline V load_signed(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {bytes_to_f32(bytes, true), bytes_to_f32(_mm_unpackhi_epi64(bytes, bytes), true)};
}
// Four inputs of four or more rows as [4][rows].
inline void transpose(const float* x, int64_t x_stride, int64_t rows, float* out) {
    for (int64_t row = 0; row < rows; row += 4) {
        const int64_t first = row + 4 <= rows ? row : rows - 4;
        const float* from = x + first * x_stride;
        __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + x_stride);
        __m128 c = _mm_loadu_ps(from + 2 * x_stride), d = _mm_loadu_ps(from + 3 * x_stride);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(out + first, a);
        _mm_storeu_ps(out + rows + first, b);
        _mm_storeu_ps(out + 2 * rows + first, c);
        _mm_storeu_ps(out + 3 * rows + first, d);
    }
}
inline void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
inline void prefetch_l2(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)}; }
inline V add(V a, V b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline V sub(V a, V b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline V mul(V a, V b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline V div(V a, V b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline V max(V a, V b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline V min(V a, V b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline V negate(V a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}
inline V round_even(V a) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, nearest), _mm256_round_ps(a.high, nearest)};
}
inline __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline V power_of_two(V n) { return {power_of_two(n.low), power_of_two(n.high)}; }
inline V zero_where_less(V x, V bound, V y) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.low, bound.low, _CMP_LT_OQ), y.low),
            _mm256_andnot_ps(_mm256_cmp_ps(x.high, bound.high, _CMP_LT_OQ), y.high)};
}
inline __m256 lanes_from(int first, int64_t n) {  // all bits set in lanes with first + lane < n
    const int bound = n < 0 ? 0 : n > 16 ? 16 : static_cast<int>(n);
    const __m256i index = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), index));
}
inline V keep_first(V v, int64_t n) {
    if (n >= 16) return v;
    return {_mm256_and_ps(v.low, lanes_from(0, n)), _mm256_and_ps(v.high, lanes_from(8, n))};
}
inline V minus_infinity_after(V v, int64_t n) {
    const __m256 lowest = _mm256_set1_ps(minus_infinity);
    return {_mm256_blendv_ps(lowest, v.low, lanes_from(0, n)), _mm256_blendv_ps(lowest, v.high, lanes_from(8, n))};
}
inline float first_lane(V v) { return _mm256_cvtss_f32(v.low); }
inline float reduce(V v) {
    const __m256 eight = _mm256_add_ps(v.low, v.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(V v) {
    const __m256 eight = _mm256_max_ps(v.low, v.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
inline float fma_scalar(float a, float b, float c) {
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}

// ---- integers, for quantised products and for training ----

struct I {
    __m256i low, high;
};

inline __m256i all(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
inline __m256i bits_of(__m256 a) { return _mm256_castps_si256(a); }
inline V to_float(I a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline __m256i max_magnitude(V a) {  // bits without the sign are in the order of the numbers, infinities and NaNs last
    const __m256i magnitude = all(0x7FFFFFFF);
    return _mm256_max_epi32(_mm256_and_si256(bits_of(a.low), magnitude), _mm256_and_si256(bits_of(a.high), magnitude));
}
inline float largest_magnitude(V a, V b) {
    const __m256i eight = _mm256_max_epi32(max_magnitude(a), max_magnitude(b));
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1))));
}
inline int32_t sum_of(__m256i a, __m256i b) {
    const __m256i eight = _mm256_add_epi32(a, b);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline HalfSums store_rounded(int8_t* p, V low, V high) {
    const __m256i a = _mm256_cvtps_epi32(low.low), b = _mm256_cvtps_epi32(low.high);
    const __m256i c = _mm256_cvtps_epi32(high.low), d = _mm256_cvtps_epi32(high.high);
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));  // fours in a mixed order
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, order));
    return {sum_of(a, b), sum_of(c, d)};
}
inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m256i four_of(const int8_t* p) {  // four bytes in every lane
    int four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
