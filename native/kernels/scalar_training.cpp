// The training kernels for any processor: sixteen lanes are an array.
#include <cmath>
#include <cstring>

#include "kernels/fused.h"
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

struct V {
    float lane[16];
};
struct I {
    uint32_t lane[16];
};

#define EACH(type, expression)                                   \
    type r;                                                      \
    for (int i = 0; i < 16; ++i) r.lane[i] = (expression);       \
    return r

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

V zero() { EACH(V, 0.0f); }
V broadcast(float x) { EACH(V, x); }
V load(const float* p) { EACH(V, p[i]); }
void store(float* p, V a) { std::memcpy(p, a.lane, sizeof a.lane); }
V load_bfloat(const uint16_t* p) { EACH(V, f32_from_bits(static_cast<uint32_t>(p[i]) << 16)); }
V fma(V a, V b, V c) { EACH(V, fused(a.lane[i], b.lane[i], c.lane[i])); }
V add(V a, V b) { EACH(V, a.lane[i] + b.lane[i]); }
V sub(V a, V b) { EACH(V, a.lane[i] - b.lane[i]); }
V mul(V a, V b) { EACH(V, a.lane[i] * b.lane[i]); }
V div(V a, V b) { EACH(V, a.lane[i] / b.lane[i]); }
V max(V a, V b) { EACH(V, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
V min(V a, V b) { EACH(V, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
V negate(V a) { EACH(V, -a.lane[i]); }
V round_even(V a) { EACH(V, std::nearbyintf(a.lane[i])); }
V power_of_two(V n) { EACH(V, f32_from_bits(static_cast<uint32_t>(static_cast<int32_t>(n.lane[i]) + 127) << 23)); }
V zero_where_less(V x, V bound, V y) { EACH(V, x.lane[i] < bound.lane[i] ? 0.0f : y.lane[i]); }
V keep_first(V a, int64_t n) { EACH(V, i < n ? a.lane[i] : 0.0f); }
V minus_infinity_after(V a, int64_t n) { EACH(V, i < n ? a.lane[i] : minus_infinity); }
V sqrt_of(V a) { EACH(V, std::sqrt(a.lane[i])); }
float reduce(V a) {
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) a.lane[i] += a.lane[i + width];
    return a.lane[0];
}
float reduce_max(V a) {
    float maximum = a.lane[0];
    for (float x : a.lane) maximum = x > maximum ? x : maximum;
    return maximum;
}

I iota_from(uint32_t first) { EACH(I, first + static_cast<uint32_t>(i)); }
I xor_shifted(I a, int n) { EACH(I, a.lane[i] ^ (a.lane[i] >> n)); }
I multiply_by(I a, uint32_t by) { EACH(I, a.lane[i] * by); }
V zero_below(V a, I random, uint32_t threshold) { EACH(V, (random.lane[i] >> 1) >= threshold ? a.lane[i] : 0.0f); }
void store_bfloat(uint16_t* p, V a) {  // rounds to nearest, ties to even
    for (int i = 0; i < 16; ++i) {
        const uint32_t bits = bits_of(a.lane[i]);
        p[i] = static_cast<uint16_t>((bits + ((bits >> 16) & 1u) + 0x7FFFu) >> 16);
    }
}
V load_master(const uint16_t* high, const int16_t* low) {
    EACH(V, f32_from_bits((static_cast<uint32_t>(high[i]) << 16) + static_cast<uint32_t>(static_cast<int32_t>(low[i]))));
}
void store_master(uint16_t* high, int16_t* low, V a) {
    for (int i = 0; i < 16; ++i) {
        const uint32_t bits = bits_of(a.lane[i]), upper = (bits + 0x8000u) >> 16;
        high[i] = static_cast<uint16_t>(upper);
        low[i] = static_cast<int16_t>(static_cast<uint16_t>(bits - (upper << 16)));
    }
}
V load_moment2(const uint16_t* p) { EACH(V, f32_from_bits(static_cast<uint32_t>(p[i]) << 15)); }
void store_moment2(uint16_t* p, V a, I random) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint16_t>((bits_of(a.lane[i]) + (random.lane[i] >> 17)) >> 15);
}

#include "lanes.inl"
#include "training.inl"

}  // namespace

extern const TrainingKernels scalar_training;
const TrainingKernels scalar_training = training;

}  // namespace pophood
