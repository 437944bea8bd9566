// The fused multiply-add of the scalar kernels (small: one function): a * b + c, rounded once, on every platform.
#pragma once

#include <cmath>
#if defined(__MINGW32__)
#include <cstdint>
#include <cstring>
#endif

namespace pophood {

#if defined(__MINGW32__)

// mingw-w64's own fmaf rounds twice. Here the product is exact in double, the sum is rounded to odd (where it is not exact,
// its last bit becomes 1), and a number rounded to odd with more than two spare bits rounds to float as the exact one does.
inline float fused(float a, float b, float c) {
    const double product = static_cast<double>(a) * static_cast<double>(b), addend = c;
    double sum = product + addend;
    const double added = sum - product, error = (product - (sum - added)) + (addend - added);
    if (error > 0.0 || error < 0.0) {  // never where an infinity or a NaN takes part
        int64_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        if (bits % 2 == 0) bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
        std::memcpy(&sum, &bits, sizeof sum);
    }
    return static_cast<float>(sum);
}

#else

inline float fused(float a, float b, float c) { return std::fma(a, b, c); }

#endif

}  // namespace pophood
