// NEON with dot products (small: one instruction), FEAT_DotProd: `sdot` adds fours of products of signed bytes to four sums. Only
// the quantised products; everything else is in neon.cpp.
#include <arm_neon.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

constexpr int64_t quantized_tokens = tile_size<4>, quantized_panels = 1;  // 16 integer sums, 4 of weights, 8 of inputs: 28 of 32 registers
constexpr bool signed_bytes = true;

#include "neon_lanes.inl"
#include "lanes.inl"

template <class W>
constexpr bool expands = W::format.high_bits != 0 || W::format.nested;

#include "quantized.inl"
#include "neon_lines.inl"

inline B steps_of(B nibbles) {
    const uint8x16_t steps = veorq_u8(vld1q_u8(iq4_steps), vdupq_n_u8(0x80));
    EACH_B(vqtbl1q_u8(steps, nibbles.q[i]));
}
template <int step>
inline I add_products(I sum, B weights, const int8_t* x) {
    const int8x16_t sixteen = vld1q_s8(x + step / 4 * 16);
    EACH_I(vreinterpretq_u32_s32(vdotq_laneq_s32(vreinterpretq_s32_u32(sum.q[i]), vreinterpretq_s8_u8(weights.q[i]), sixteen,
                                                 step % 4)));
}

#include "byte_dots.inl"

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    all_dots<W, T, P, first>(group, dot);
}

}  // namespace

const QuantizedKernels dotprod_quantized = {quantize, quantized_matmul};

}  // namespace pophood
