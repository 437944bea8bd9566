// Sixteen floats in one AVX-512 register: V and its operations, for simd.inl, training.inl and quantized.inl.

struct V {
    __m512 v;
};

inline V zero() { return {_mm512_setzero_ps()}; }
inline V broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline void stream(float* p, V a) { _mm512_stream_ps(p, a.v); }  // p is aligned to a cache line
inline void stream_fence() { _mm_sfence(); }
inline V load_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(uint16_t* p, V a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline V load_bfloat(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline V load_unsigned(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline V load_signed(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
// Four inputs of 4 to 16 rows as [4][rows], and up to 12 numbers behind them. A lane of 128 bits takes four rows.
inline void transpose(const float* x, int64_t x_stride, int64_t rows, float* out) {
    __m512 q[4];
    for (int64_t i = 0; i < 4; ++i) {
        const auto four = [&](int64_t row) { return _mm_loadu_ps(x + (row < rows ? row : rows - 1) * x_stride); };
        q[i] = _mm512_insertf32x4(_mm512_castps128_ps512(four(i)), four(i + 4), 1);
        q[i] = _mm512_insertf32x4(_mm512_insertf32x4(q[i], four(i + 8), 2), four(i + 12), 3);
    }
    const __m512 a = _mm512_unpacklo_ps(q[0], q[1]), b = _mm512_unpacklo_ps(q[2], q[3]);
    const __m512 c = _mm512_unpackhi_ps(q[0], q[1]), d = _mm512_unpackhi_ps(q[2], q[3]);
    _mm512_storeu_ps(out, _mm512_shuffle_ps(a, b, 0x44));
    _mm512_storeu_ps(out + rows, _mm512_shuffle_ps(a, b, 0xEE));
    _mm512_storeu_ps(out + 2 * rows, _mm512_shuffle_ps(c, d, 0x44));
    _mm512_storeu_ps(out + 3 * rows, _mm512_shuffle_ps(c, d, 0xEE));
}
inline void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
inline void prefetch_l2(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V negate(V a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
inline V round_even(V a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline V power_of_two(V n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
inline V zero_where_less(V x, V bound, V y) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_NLT_UQ), y.v)};
}
inline __mmask16 first_lanes(int64_t n) {
    return n >= 16 ? static_cast<__mmask16>(0xFFFF) : n <= 0 ? static_cast<__mmask16>(0)
                                                            : static_cast<__mmask16>((1u << n) - 1u);
}
inline V keep_first(V a, int64_t n) { return {_mm512_maskz_mov_ps(first_lanes(n), a.v)}; }
inline V minus_infinity_after(V a, int64_t n) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(minus_infinity), first_lanes(n), a.v)};
}
inline float first_lane(V a) { return _mm512_cvtss_f32(a.v); }
inline __m256 upper_half(V a) { return _mm512_extractf32x8_ps(a.v, 1); }
inline float reduce(V a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), upper_half(a));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(V a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), upper_half(a));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
inline float fma_scalar(float a, float b, float c) {
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
