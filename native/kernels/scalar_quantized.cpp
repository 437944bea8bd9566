// The specification of the quantised products. See quantized.h.
#include <cmath>

#include "kernels/half.h"
#include "kernels/kernels.h"

namespace pophood {
namespace {

constexpr float smallest_maximum = 1e-30f;  // a group of smaller values is zero: 127 / max|x| would overflow

void quantize(const float* x, int64_t k, const QuantizedRows& out, int64_t row) {
    for (int64_t g = 0; g < out.groups; ++g) {
        float value[quant_group], largest = 0.0f;
        bool finite = true;
        for (int64_t i = 0; i < quant_group; ++i) {
            const int64_t at = g * quant_group + i;
            value[i] = at < k ? x[at] : 0.0f;
            finite = finite && std::isfinite(value[i]);
            if (std::fabs(value[i]) > largest) largest = std::fabs(value[i]);
        }
        const bool zero = !finite || largest < smallest_maximum;
        const float inverse = zero ? 0.0f : 127.0f / largest;
        const float scale = !finite ? not_a_number : zero ? 0.0f : largest / 127.0f;
        int32_t sum = 0;
        for (int64_t i = 0; i < quant_group; ++i) {
            const int32_t q = zero ? 0 : static_cast<int32_t>(std::nearbyintf(value[i] * inverse));
            out.values[(row * out.groups + g) * quant_group + i] = static_cast<int8_t>(q);
            sum += q;
        }
        out.scales[row * out.groups + g] = scale;
        out.sums[row * out.groups + g] = sum;
        out.offsets[row * out.groups + g] = scale * static_cast<float>(sum);
    }
}

// The integer of one weight: -128..127, -8..7, or 0..15.
int32_t weight_at(WeightType type, const uint8_t* group, int64_t lane, int64_t i) {
    if (type == WeightType::q8_0) return group[i / 4 * 64 + lane * 4 + i % 4] - 128;
    const uint8_t byte = group[i % 16 / 4 * 64 + lane * 4 + i % 4];
    return (i < 16 ? byte & 15 : byte >> 4) - (type == WeightType::q4_0 ? 8 : 0);
}

void matmul(const Matmul& t, int64_t first, int64_t last) {
    const int64_t panel_groups = t.panel_k / quant_group, groups = t.k / quant_group;
    const int64_t group_bytes = t.type == WeightType::q8_0 ? 512 : 256;
    const QuantizedRows& a = t.quantized;
    for (int64_t row = first * panel_rows; row < last * panel_rows && row < t.rows; ++row) {
        const int64_t lane = row % panel_rows;
        const uint8_t* panel = static_cast<const uint8_t*>(t.panels) + row / panel_rows * t.panel_bytes;
        const uint8_t* minima = panel + panel_groups * 32;
        const uint8_t* weights = minima + (t.type == WeightType::q4_1 ? panel_groups * 32 : 0);
        for (int64_t m = 0; m < t.m; ++m) {
            float sum = t.bias ? t.bias[row] : 0.0f;
            for (int64_t g = t.first_group; g < t.first_group + groups; ++g) {
                const int8_t* x = a.values + (m * a.groups + g) * quant_group;
                int32_t dot = 0;
                for (int64_t i = 0; i < quant_group; ++i) dot += weight_at(t.type, weights + g * group_bytes, lane, i) * x[i];
                const float scale = to_f32(WeightType::f16, panel + (g * panel_rows + lane) * 2);
                sum = std::fma(static_cast<float>(dot), scale * a.scales[m * a.groups + g], sum);
                if (t.type == WeightType::q4_1)
                    sum = std::fma(to_f32(WeightType::f16, minima + (g * panel_rows + lane) * 2), a.offsets[m * a.groups + g], sum);
            }
            t.out[m * t.out_stride + row] = sum;
        }
    }
}

}  // namespace

extern const QuantizedKernels scalar_quantized = {quantize, matmul};

}  // namespace pophood
