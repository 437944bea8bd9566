// Exact conversions of stored weights (F32, F16, BF16) to f32 (small: the only inline code). A file that is compiled for one
// instruction set must not include this header.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace pophood {

inline float f32_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float f16_to_f32(uint16_t half) {  // IEEE binary16; a NaN becomes quiet, as the hardware does it
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 31, mantissa = half & 1023;
    if (exponent == 31) return f32_from_bits(sign | 0x7F800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
    if (exponent != 0) return f32_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float tiny = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -tiny : tiny;
}

inline uint16_t f32_to_f16(float value) {  // rounds to nearest, ties to even; too large becomes infinity
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);
    if (magnitude >= 0x47800000) return static_cast<uint16_t>(sign | 0x7C00);
    if (magnitude < 0x38800000) {  // subnormal: the sum rounds at 2^-24, the last bit of such an f16
        const float rounded = f32_from_bits(magnitude) + 0.5f;
        std::memcpy(&bits, &rounded, sizeof bits);
        return static_cast<uint16_t>(sign | (bits - 0x3F000000));
    }
    const uint32_t even = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | ((even - 0x38000000) >> 13));
}

// Converts the value at `address`, which need not be aligned.
inline float to_f32(WeightType type, const void* address) {
    if (type == WeightType::f32) {
        float value;
        std::memcpy(&value, address, sizeof value);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, address, sizeof bits);
    return type == WeightType::f16 ? f16_to_f32(bits) : f32_from_bits(static_cast<uint32_t>(bits) << 16);
}

inline constexpr int64_t size_of(WeightType type) { return type == WeightType::f32 ? 4 : 2; }

}  // namespace pophood
