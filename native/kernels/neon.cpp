// NEON (aarch64): sixteen floats are four registers. The kernels are in simd.inl and training.inl.
#include <arm_neon.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

constexpr int64_t tile_tokens = tile_size<6>;  // 24 sums, 4 of weights, 1 broadcast: 29 of 32 registers
constexpr int tile_panels = 1;
constexpr int64_t quantized_tokens = tile_size<4>, quantized_panels = 1;
constexpr int query_tile = 2, score_tile = 2, value_columns = 2;

#include "neon_lanes.inl"

// ---- for training: integers, square roots, and 16-bit storage ----

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

const Kernels neon_kernels = {"neon",   tile_tokens, matmul,   interleave, norm, attend, attend_range, combine, score, rope, gelu_tanh,
                              gelu_erf, silu,        multiply, add_to, copy, to_half, all_finite, exponential, exp_sums, scale_by, cap_to, &training,
                              &quantized};

}  // namespace pophood
