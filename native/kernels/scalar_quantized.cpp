// The specification of the quantised products. See quantized.h.
#include <cmath>

#include "kernels/fused.h"
#include "kernels/kernels.h"
#include "kernels/panels.h"

namespace pophood {
namespace {

constexpr float smallest_maximum = 1e-30f;  // a group of smaller values is zero: 127 / max|x| would overflow

// Where a group of a row lies.
int64_t place(const QuantizedRows& rows, int64_t row, int64_t group) {
    return (row / rows.tile * rows.groups + group) * rows.tile + row % rows.tile;
}

void quantize(const float* x, int64_t k, const QuantizedRows& out, int64_t row) {
    for (int64_t g = 0; g < out.groups; ++g) {
        const int64_t at = place(out, row, g);
        float value[quant_group], largest = 0.0f;
        bool finite = true;
        for (int64_t i = 0; i < quant_group; ++i) {
            const int64_t input = g * quant_group + i;
            value[i] = input < k ? x[input] : 0.0f;
            finite = finite && std::isfinite(value[i]);
            if (std::fabs(value[i]) > largest) largest = std::fabs(value[i]);
        }
        const bool zero = !finite || largest < smallest_maximum;
        const float inverse = zero ? 0.0f : 127.0f / largest;
        const float scale = !finite ? not_a_number : zero ? 0.0f : largest / 127.0f;
        int32_t sum = 0, low_sum = 0;
        for (int64_t i = 0; i < quant_group; ++i) {
            const int32_t q = zero ? 0 : static_cast<int32_t>(std::nearbyintf(value[i] * inverse));
            out.values[at * quant_group + i] = static_cast<int8_t>(q);
            sum += q;
            if (i < quant_group / 2) low_sum += q;
        }
        out.scales[at] = scale;
        out.sums[at] = sum;
        out.low_sums[at] = low_sum;
        out.offsets[at] = scale * static_cast<float>(sum);
    }
}

void matmul(const Matmul& t, int64_t first, int64_t last, uint8_t*) {
    const int64_t panel_groups = t.panel_k / quant_group, groups = t.k / quant_group;
    const QuantizedRows& a = t.quantized;
    for (int64_t row = first * panel_rows; row < last * panel_rows && row < t.rows; ++row) {
        const PanelRow w(t.type, panel_groups, static_cast<const uint8_t*>(t.panels) + row / panel_rows * t.panel_bytes,
                         row % panel_rows);
        const int64_t run = quant_group / w.format.scales;  // weights that share a scale
        for (int64_t m = 0; m < t.m; ++m) {
            float sum = t.bias ? t.bias[row] : 0.0f;
            for (int64_t g = t.first_group; g < t.first_group + groups; ++g) {
                const int64_t at = place(a, m, g);
                const int8_t* x = a.values + at * quant_group;
                for (int64_t start = 0; start < quant_group; start += run) {
                    int32_t dot = 0;
                    for (int64_t i = start; i < start + run; ++i) dot += w.weight(g, i) * x[i];
                    sum = fused(static_cast<float>(dot), w.scale(g, start) * a.scales[at], sum);
                }
                if (w.format.minimum) sum = fused(w.minimum(g), a.offsets[at], sum);
            }
            t.out[m * t.out_stride + row] = sum;
        }
    }
}

}  // namespace

extern const QuantizedKernels scalar_quantized = {quantize, matmul};

}  // namespace pophood
