// Sixteen floats and sixteen integers in four registers each: V and I with their operations, for simd.inl, training.inl and
// quantized.inl.

struct V {
    float32x4_t q[4];
};

#define EACH(expression) \
    V r;                 \
    for (int i = 0; i < 4; ++i) r.q[i] = (expression); \
    return r

inline V zero() { EACH(vdupq_n_f32(0.0f)); }
inline V broadcast(float x) { EACH(vdupq_n_f32(x)); }
inline V load(const float* p) { EACH(vld1q_f32(p + 4 * i)); }
inline void store(float* p, V a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]);
}
inline void stream(float* p, V a) { store(p, a); }  // NEON has no intrinsic for a streaming store
inline void stream_fence() {}
inline V load_half(const uint16_t* p) { EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
inline void store_half(uint16_t* p, V a) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.q[i])));
}
inline V load_bfloat(const uint16_t* p) { EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }
inline V load_unsigned(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
             vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline V load_signed(const int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
// Four inputs of four or more rows as [4][rows].
inline void transpose(const float* x, int64_t x_stride, int64_t rows, float* out) {
    for (int64_t row = 0; row < rows; row += 4) {
        const int64_t first = row + 4 <= rows ? row : rows - 4;
        const float* from = x + first * x_stride;
        const float32x4x2_t ab = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + x_stride));
        const float32x4x2_t cd = vtrnq_f32(vld1q_f32(from + 2 * x_stride), vld1q_f32(from + 3 * x_stride));
        for (int i = 0; i < 2; ++i) {
            vst1q_f32(out + i * rows + first, vcombine_f32(vget_low_f32(ab.val[i]), vget_low_f32(cd.val[i])));
            vst1q_f32(out + (i + 2) * rows + first, vcombine_f32(vget_high_f32(ab.val[i]), vget_high_f32(cd.val[i])));
        }
    }
}
inline void prefetch(const char* p) { __builtin_prefetch(p); }
inline void prefetch_l2(const char* p) { __builtin_prefetch(p, 0, 2); }

inline V fma(V a, V b, V c) { EACH(vfmaq_f32(c.q[i], a.q[i], b.q[i])); }
inline V add(V a, V b) { EACH(vaddq_f32(a.q[i], b.q[i])); }
inline V sub(V a, V b) { EACH(vsubq_f32(a.q[i], b.q[i])); }
inline V mul(V a, V b) { EACH(vmulq_f32(a.q[i], b.q[i])); }
inline V div(V a, V b) { EACH(vdivq_f32(a.q[i], b.q[i])); }
inline V max(V a, V b) { EACH(vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
inline V min(V a, V b) { EACH(vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
inline V negate(V a) { EACH(vnegq_f32(a.q[i])); }
inline V round_even(V a) { EACH(vrndnq_f32(a.q[i])); }
inline V power_of_two(V n) {
    EACH(vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.q[i]), vdupq_n_s32(127)), 23)));
}
inline V zero_where_less(V x, V bound, V y) {
    EACH(vbslq_f32(vcltq_f32(x.q[i], bound.q[i]), vdupq_n_f32(0.0f), y.q[i]));
}
inline uint32x4_t lanes_below(int first, int64_t n) {
    static const int32_t count[4] = {0, 1, 2, 3};
    const int32_t bound = n < 0 ? 0 : n > 16 ? 16 : static_cast<int32_t>(n);
    return vcltq_s32(vaddq_s32(vld1q_s32(count), vdupq_n_s32(first)), vdupq_n_s32(bound));
}
inline V keep_first(V a, int64_t n) { EACH(vbslq_f32(lanes_below(4 * i, n), a.q[i], vdupq_n_f32(0.0f))); }
inline V minus_infinity_after(V a, int64_t n) {
    EACH(vbslq_f32(lanes_below(4 * i, n), a.q[i], vdupq_n_f32(minus_infinity)));
}
inline float first_lane(V a) { return vgetq_lane_f32(a.q[0], 0); }
inline float reduce(V a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float reduce_max(V a) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.q[0], a.q[2]), vmaxq_f32(a.q[1], a.q[3])));
}
inline float square_root(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }
inline float fma_scalar(float a, float b, float c) {
    return vget_lane_f32(vfma_f32(vdup_n_f32(c), vdup_n_f32(a), vdup_n_f32(b)), 0);
}

// ---- integers, for quantised products and for training ----

struct I {
    uint32x4_t q[4];
};

#define EACH_I(expression) \
    I r;                   \
    for (int i = 0; i < 4; ++i) r.q[i] = (expression); \
    return r

inline uint32x4_t bits_of(float32x4_t a) { return vreinterpretq_u32_f32(a); }

inline V to_float(const I& a) { EACH(vcvtq_f32_s32(vreinterpretq_s32_u32(a.q[i]))); }
inline uint32x4_t max_magnitude(V a) {  // bits without the sign are in the order of the numbers, infinities and NaNs last
    uint32x4_t most = vdupq_n_u32(0);
    for (int i = 0; i < 4; ++i) most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(a.q[i]), vdupq_n_u32(0x7FFFFFFF)));
    return most;
}
inline float largest_magnitude(V a, V b) {
    const uint32_t bits = vmaxvq_u32(vmaxq_u32(max_magnitude(a), max_magnitude(b)));
    return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(bits)), 0);
}
inline HalfSums store_rounded(int8_t* p, V low, V high) {
    int32_t sums[2] = {0, 0};
    const V halves[] = {low, high};
    for (int part = 0; part < 2; ++part, p += 16) {
        int16x4_t shorts[4];
        for (int i = 0; i < 4; ++i) {
            const int32x4_t rounded = vcvtnq_s32_f32(halves[part].q[i]);
            sums[part] += vaddvq_s32(rounded);
            shorts[i] = vmovn_s32(rounded);
        }
        vst1_s8(p, vmovn_s16(vcombine_s16(shorts[0], shorts[1])));
        vst1_s8(p + 8, vmovn_s16(vcombine_s16(shorts[2], shorts[3])));
    }
    return {sums[0], sums[1]};
}
