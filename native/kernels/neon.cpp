// NEON (aarch64): sixteen floats are four registers. The kernels are in simd.inl and training.inl.
#include <arm_neon.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

constexpr int64_t tile_tokens = 6;  // 24 sums, 4 of weights, 1 broadcast: 29 of 32 registers
constexpr int query_tile = 2, score_tile = 2, value_columns = 2;

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
inline void prefetch(const char* p) { __builtin_prefetch(p); }

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

// ---- for training: integers, square roots, and 16-bit storage ----

struct I {
    uint32x4_t q[4];
};

#define EACH_I(expression) \
    I r;                   \
    for (int i = 0; i < 4; ++i) r.q[i] = (expression); \
    return r

inline I iota_from(uint32_t first) {
    static const uint32_t count[4] = {0, 1, 2, 3};
    EACH_I(vaddq_u32(vld1q_u32(count), vdupq_n_u32(first + 4 * static_cast<uint32_t>(i))));
}
inline I xor_shifted(I a, int n) { EACH_I(veorq_u32(a.q[i], vshlq_u32(a.q[i], vdupq_n_s32(-n)))); }
inline I multiply_by(I a, uint32_t by) { EACH_I(vmulq_n_u32(a.q[i], by)); }
inline V zero_below(V a, I random, uint32_t threshold) {  // compares 31 bits of `random`
    EACH(vbslq_f32(vcgeq_u32(vshrq_n_u32(random.q[i], 1), vdupq_n_u32(threshold)), a.q[i], vdupq_n_f32(0.0f)));
}
inline V sqrt_of(V a) { EACH(vsqrtq_f32(a.q[i])); }
inline uint32x4_t bits_of(float32x4_t a) { return vreinterpretq_u32_f32(a); }
inline void store_bfloat(uint16_t* p, V a) {  // rounds to nearest, ties to even
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t bits = bits_of(a.q[i]), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        vst1_u16(p + 4 * i, vshrn_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF))), 16));
    }
}
inline V load_master(const uint16_t* high, const int16_t* low) {
    EACH(vreinterpretq_f32_u32(vaddq_u32(vshll_n_u16(vld1_u16(high + 4 * i), 16),
                                         vreinterpretq_u32_s32(vmovl_s16(vld1_s16(low + 4 * i))))));
}
inline void store_master(uint16_t* high, int16_t* low, V a) {
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t bits = bits_of(a.q[i]), upper = vshrq_n_u32(vaddq_u32(bits, vdupq_n_u32(0x8000)), 16);
        vst1_u16(high + 4 * i, vmovn_u32(upper));
        vst1_s16(low + 4 * i, vreinterpret_s16_u16(vmovn_u32(vsubq_u32(bits, vshlq_n_u32(upper, 16)))));
    }
}
inline V load_moment2(const uint16_t* p) { EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 15))); }
inline void store_moment2(uint16_t* p, V a, I random) {
    for (int i = 0; i < 4; ++i)
        vst1_u16(p + 4 * i, vmovn_u32(vshrq_n_u32(vaddq_u32(bits_of(a.q[i]), vshrq_n_u32(random.q[i], 17)), 15)));
}

// ---- for quantised products ----

constexpr int64_t quantized_tokens = 4, quantized_panels = 1;

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

#include "simd.inl"
#include "attention.inl"
#include "training.inl"
template <class W>
constexpr bool expands = false;

#include "quantized.inl"

inline int32x4_t add_dot(int32x4_t sum, int8x16_t w, const int8_t* x) {  // four rows, four inputs of each
    int32_t four;
    memcpy(&four, x, sizeof four);
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four));
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
    const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(a)));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}

// The weights of step s of four rows.
template <class W>
POPHOOD_INLINE int8x16_t weights_of(const uint8_t* group, int s) {
    if constexpr (W::format.bits == 8) return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(group + 64 * s), vdupq_n_u8(0x80)));
    const uint8x16_t line = vld1q_u8(group + 64 * (s % 4));
    uint8x16_t q = s < 4 ? vandq_u8(line, vdupq_n_u8(15)) : vshrq_n_u8(line, 4);
    if constexpr (W::format.steps) return vreinterpretq_s8_u8(veorq_u8(vqtbl1q_u8(vld1q_u8(iq4_steps), q), vdupq_n_u8(0x80)));
    if constexpr (W::format.high_bits == 1)
        q = vorrq_u8(q, vandq_u8(vshlq_u8(vld1q_u8(group + 256), vdupq_n_s8(static_cast<int8_t>(4 - s))), vdupq_n_u8(0x10)));
    if constexpr (W::format.high_bits == 2)
        q = vorrq_u8(q, vandq_u8(vshlq_u8(vld1q_u8(group + 256 + s / 4 * 64), vdupq_n_s8(static_cast<int8_t>(4 - s % 4 * 2))),
                                 vdupq_n_u8(0x30)));
    return vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(W::format.zero));
}

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    for (int p = 0; p < P; ++p)
        for (int i = 0; i < 4; ++i) {
            int32x4_t sum[T];
            for (int t = 0; t < T; ++t) sum[t] = vdupq_n_s32(0);
            for (int s = first; s < first + W::steps; ++s) {
                const int8x16_t w = weights_of<W>(group.weights[p] + 16 * i, s);
                for (int t = 0; t < T; ++t) sum[t] = add_dot(sum[t], w, group.x + t * group.x_stride + 4 * s);
            }
            for (int t = 0; t < T; ++t) dot[t][p].q[i] = vreinterpretq_u32_s32(sum[t]);
        }
}

constexpr QuantizedKernels quantized = {quantize, quantized_matmul};

}  // namespace

const Kernels neon_kernels = {"neon",   tile_tokens, matmul,   norm, attend, attend_range, combine, score, rope, gelu_tanh,
                              gelu_erf, silu,        multiply, add_to, copy, to_half, all_finite, exponential, &training,
                              &quantized};

}  // namespace pophood
