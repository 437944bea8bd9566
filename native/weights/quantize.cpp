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

constexpr int32_t limit = 148;  // the largest magnitude of a weight, in steps, that is tried

// Entry x + limit belongs to the integer x: the index of the nearest step, that step, and, for a negative scale, the step
// nearest to -x.
struct NearestSteps {
    struct Pair {
        float plain, mirrored;
    };
    uint8_t index[2 * limit + 1];
    Pair step[2 * limit + 1];
    constexpr NearestSteps() : index{}, step{} {
        for (int x = -limit, nearest = 0; x <= limit; ++x) {
            while (nearest < 15 && 2 * (x + 128) > iq4_steps[nearest] + iq4_steps[nearest + 1]) ++nearest;
            index[limit + x] = static_cast<uint8_t>(nearest);
            step[limit + x].plain = step[limit - x].mirrored = static_cast<float>(iq4_steps[nearest] - 128);
        }
    }
};
constexpr NearestSteps nearest_steps;

// The index of the step nearest to x; of the lowest for a NaN, since min and max return their first operand then.
uint8_t nearest_index(float x) {
    constexpr float bound = static_cast<float>(limit);
    return nearest_steps.index[static_cast<int32_t>(std::min(bound, std::max(-bound, x)) + (bound + 0.5f))];
}

// 32 weights relative to the largest, and how much the square of each one's error counts. An error reaches the output times
// the input, hence input^2. The other factor, the square root of (w input)^2 plus its mean over the group, favours weights that
// contribute much: scales of least squared error shrink them. (llama.cpp weighs the errors of its K types by such a root.)
struct WeightedGroup {
    float w[quant_group];
    float weight[2 * quant_group], weighted[2 * quant_group];  // each twice, beside Pair; weighted: w * weight

    WeightedGroup(const float* values, const float* inputs, float largest) {
        float squares[quant_group], mean = 0.0f;
        for (int64_t i = 0; i < quant_group; ++i) {
            w[i] = values[i] / largest;
            squares[i] = (w[i] * inputs[i]) * (w[i] * inputs[i]);
        }
        for (const float square : squares) mean += square / static_cast<float>(quant_group);
        for (int64_t i = 0; i < quant_group; ++i) {
            weight[2 * i] = weight[2 * i + 1] = inputs[i] * inputs[i] * std::sqrt(squares[i] + mean);
            weighted[2 * i] = weighted[2 * i + 1] = w[i] * weight[2 * i];
        }
    }

    // The scale, relative to the largest weight, that leaves the smallest error of those that are tried: the largest weight at
    // one of several places of the table, and of the mirrored table, since the steps are not symmetric and the one nearest to
    // zero, 1, has a sign. With q for the steps, the sum of weight * (w - d q)^2 is smallest at d = wq / qq, and less by
    // wq^2 / qq than at d = 0.
    float best_scale() const {
        constexpr int32_t first = 84, apart = 8, places = (limit - first) / apart + 1;
        constexpr float half_up = static_cast<float>(limit) + 0.5f;
        NearestSteps::Pair q[places][quant_group];
        for (int32_t place = 0; place < places; ++place) {
            const float at = static_cast<float>(first + apart * place);
            int32_t entries[quant_group];
            for (int64_t i = 0; i < quant_group; ++i) entries[i] = static_cast<int32_t>(w[i] * at + half_up);
            for (int64_t i = 0; i < quant_group; ++i) q[place][i] = nearest_steps.step[entries[i]];
        }
        float scale = 0.0f, best = 0.0f;
        for (const auto& pairs : q) {
            float steps[2 * quant_group], wq[8] = {}, qq[8] = {};  // sums in a fixed order, those of pairs beside one another
            std::memcpy(steps, pairs, sizeof steps);
            for (int64_t start = 0; start < 2 * quant_group; start += 8)
                for (int64_t i = 0; i < 8; ++i) {
                    wq[i] += weighted[start + i] * steps[start + i];
                    qq[i] += weight[start + i] * (steps[start + i] * steps[start + i]);
                }
            for (int64_t sign = 0; sign < 2; ++sign) {
                const float sum = (wq[sign] + wq[sign + 2]) + (wq[sign + 4] + wq[sign + 6]);
                const float square = (qq[sign] + qq[sign + 2]) + (qq[sign + 4] + qq[sign + 6]);
                if (square > 0.0f && sum * sum > best * square) {
                    best = sum * sum / square;
                    scale = sum / square;
                }
            }
        }
        return scale;
    }
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

void quantize_to_iq4_nl(const float* w, const float* inputs, uint8_t* block) {
    const float largest = largest_magnitude(w);
    float scale = is_finite(largest) ? 0.0f : not_a_number;
    if (is_finite(largest) && largest > 1e-30f) scale = WeightedGroup(w, inputs, largest).best_scale() * largest;
    const uint16_t half = f32_to_f16(scale);
    const float stored = f16_to_f32(half), inverse = stored != 0.0f && std::isfinite(stored) ? 1.0f / stored : 0.0f;
    std::memcpy(block, &half, 2);
    for (int64_t i = 0; i < quant_group / 2; ++i)
        block[2 + i] = static_cast<uint8_t>(nearest_index(w[i] * inverse) | nearest_index(w[i + quant_group / 2] * inverse) << 4);
}

}  // namespace pophood
