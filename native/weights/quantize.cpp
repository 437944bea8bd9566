// Scales and integers of quantised weights. See quantize.h. Loops over integers where floats could be NaN, and over fixed
// lengths, so that compilers can use SIMD.
#include "weights/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/panels.h"

namespace pophood {
namespace {

// The largest magnitude of 32 weights; infinity or NaN if there is one.
float largest_magnitude(const float* w) {
    uint32_t bits[quant_group], largest = 0;
    std::memcpy(bits, w, sizeof bits);
    for (int64_t i = 0; i < quant_group; ++i) largest = std::max(largest, bits[i] & 0x7FFFFFFFu);
    return f32_from_bits(largest);
}

bool is_finite(float magnitude) { return magnitude <= 3.4028235e38f; }

// ---- IQ4_NL ----

// nearest_step[x + 128] is the index of the step nearest to the integer x.
struct NearestSteps {
    uint8_t index[256];
    constexpr NearestSteps() : index{} {
        for (int x = 0, step = 0; x < 256; ++x) {
            while (step < 15 && 2 * x > iq4_steps[step] + iq4_steps[step + 1]) ++step;
            index[x] = static_cast<uint8_t>(step);
        }
    }
};
constexpr NearestSteps nearest_steps;

// The steps for w * inverse, in `index`, and what they are worth: with q for the steps, the error |w - d q|^2 is smallest at
// d = wq / qq, and less by wq^2 / qq than |w|^2.
struct Fit {
    uint8_t index[quant_group];
    float wq = 0.0f, qq = 0.0f;

    Fit(const float* w, float inverse) {
        int32_t rounded[quant_group];
        for (int64_t i = 0; i < quant_group; ++i) {  // a NaN becomes -127: min and max return their first operand then
            const float bounded = std::min(113.0f, std::max(-127.0f, w[i] * inverse));
            rounded[i] = static_cast<int32_t>(bounded + 128.5f);
        }
        int32_t squares = 0;
        float parts[8] = {};
        for (int64_t i = 0; i < quant_group; ++i) {
            index[i] = nearest_steps.index[rounded[i]];
            const int32_t q = iq4_steps[index[i]] - 128;
            squares += q * q;
            parts[i % 8] += w[i] * static_cast<float>(q);
        }
        for (const float part : parts) wq += part;
        qq = static_cast<float>(squares);
    }
    float gain() const { return qq > 0.0f ? wq * wq / qq : 0.0f; }
};

}  // namespace

void quantize_to_q8_0(const float* w, uint8_t* block) {
    const float largest = largest_magnitude(w);
    const bool finite = is_finite(largest);
    const float scale = finite ? largest / 127.0f : not_a_number;
    const float inverse = scale > 3e-39f ? 1.0f / scale : 0.0f;  // an infinity for less, where the f16 scale is 0
    const uint16_t half = f32_to_f16(scale);
    std::memcpy(block, &half, 2);
    for (int64_t i = 0; i < quant_group; ++i) {
        const float exact = finite ? w[i] * inverse : 0.0f;
        const int32_t whole = static_cast<int32_t>(exact);
        const float rest = exact - static_cast<float>(whole);
        block[2 + i] = static_cast<uint8_t>(whole + (rest >= 0.5f) - (rest <= -0.5f));
    }
}

void quantize_to_iq4_nl(const float* w, uint8_t* block) {
    const float largest = largest_magnitude(w);
    float scale = is_finite(largest) ? 0.0f : not_a_number;
    if (is_finite(largest) && largest > 1e-30f) {
        // The largest weight at one of several places of the table, and the mirrored table: the steps are not symmetric.
        float best = 0.0f;
        for (const float sign : {1.0f, -1.0f})
            for (float at = 84.0f; at <= 148.0f; at += 8.0f) {
                const Fit fit(w, sign * at / largest);
                if (fit.gain() <= best) continue;
                best = fit.gain();
                scale = fit.wq / fit.qq;
            }
    }
    const uint16_t half = f32_to_f16(scale);
    const float stored = f16_to_f32(half);
    const Fit fit(w, stored != 0.0f && std::isfinite(stored) ? 1.0f / stored : 0.0f);
    std::memcpy(block, &half, 2);
    for (int64_t i = 0; i < quant_group / 2; ++i)
        block[2 + i] = static_cast<uint8_t>(fit.index[i] | fit.index[i + quant_group / 2] << 4);
}

}  // namespace pophood
