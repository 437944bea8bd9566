// NEON with 8-bit matrix products (FEAT_I8MM): `usmmla` multiplies eight inputs of two rows, unsigned, with those of two tokens,
// signed; for one token `usdot`. Only the quantised products; everything else is in neon.cpp.
#include <arm_neon.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

constexpr int64_t quantized_tokens = tile_size<6>, quantized_panels = 1;  // 24 integer sums, 3 of inputs, 2 of weights
constexpr bool signed_bytes = false;

#include "neon_lanes.inl"
#include "lanes.inl"

template <class W>
constexpr bool expands = W::format.high_bits != 0 || W::format.nested || W::format.steps;

#include "quantized.inl"
#include "neon_lines.inl"

inline B steps_of(B nibbles) { EACH_B(vqtbl1q_u8(vld1q_u8(iq4_steps), nibbles.q[i])); }
template <int step>
inline I add_products(I sum, B weights, const int8_t* x) {
    const int8x16_t sixteen = vld1q_s8(x + step / 4 * 16);
    EACH_I(vreinterpretq_u32_s32(vusdotq_laneq_s32(vreinterpretq_s32_u32(sum.q[i]), weights.q[i], sixteen, step % 4)));
}

#include "byte_dots.inl"

// The sums of two tokens and sixteen rows: two rows in a register, both tokens of each.
struct Pair {
    int32x4_t q[8];
};

// Steps are taken in pairs, eight inputs of each row.
template <class W, int T, int P, int first, int index = 0>
POPHOOD_INLINE void add_pairs(const Group<P>& group, const uint8_t* panel, Pair (&sum)[(T + 1) / 2]) {
    constexpr int step = W::steps == 8 && W::format.bits == 4 ? index % 2 * 4 + index / 2 * 2 : first + 2 * index;
    const B even = weights_of<W, step>(panel), odd = weights_of<W, step + 1>(panel);
    int8x16_t x[(T + 1) / 2];
    for (int pair = 0; pair < (T + 1) / 2; ++pair) {
        const int8_t* token = group.x + 2 * pair * group.x_stride + 4 * step;
        x[pair] = vcombine_s8(vld1_s8(token), vld1_s8(2 * pair + 1 < T ? token + group.x_stride : token));
    }
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t a = vreinterpretq_u32_u8(even.q[i]), b = vreinterpretq_u32_u8(odd.q[i]);
        const uint8x16_t two = vreinterpretq_u8_u32(vzip1q_u32(a, b)), next = vreinterpretq_u8_u32(vzip2q_u32(a, b));
        for (int pair = 0; pair < (T + 1) / 2; ++pair) {
            sum[pair].q[2 * i] = vusmmlaq_s32(sum[pair].q[2 * i], two, x[pair]);
            sum[pair].q[2 * i + 1] = vusmmlaq_s32(sum[pair].q[2 * i + 1], next, x[pair]);
        }
    }
    if constexpr (2 * index + 2 < W::steps) add_pairs<W, T, P, first, index + 1>(group, panel, sum);
}

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    if constexpr (T == 1) return all_dots<W, T, P, first>(group, dot);
    for (int p = 0; p < P; ++p) {
        Pair sum[(T + 1) / 2];
        for (int pair = 0; pair < (T + 1) / 2; ++pair) {  // as in all_dots
            int32x4_t start = vdupq_n_s32(0);
            if constexpr (zero_of<W> != 0) {
                const int t = 2 * pair, next = t + 1 < T ? t + 1 : t;
                const int32x4_t one = vdupq_n_s32(group.sum(t, first, W::steps));
                start = negative_multiple(vsetq_lane_s32(group.sum(next, first, W::steps), vtrn1q_s32(one, one), 1), zero_of<W>);
                start = vreinterpretq_s32_s64(vdupq_laneq_s64(vreinterpretq_s64_s32(start), 0));
            }
            for (int i = 0; i < 8; ++i) sum[pair].q[i] = start;
        }
        add_pairs<W, T, P, first>(group, group.weights[p], sum);
        for (int t = 0; t < T; ++t)
            for (int i = 0; i < 4; ++i) {
                const int32x4_t a = sum[t / 2].q[2 * i], b = sum[t / 2].q[2 * i + 1];
                dot[t][p].q[i] = vreinterpretq_u32_s32(t % 2 == 0 ? vuzp1q_s32(a, b) : vuzp2q_s32(a, b));
            }
    }
}

}  // namespace

const QuantizedKernels i8mm_quantized = {quantize, quantized_matmul};

}  // namespace pophood
