// The specification of the kernels: plain loops, in the order that defines the bits of every result. Not meant to be fast.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/fused.h"
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "kernels/training_kernels.h"

namespace pophood {
namespace {

constexpr int lanes = 16;

float reduce(const float* lane) {
    float s[lanes];
    std::memcpy(s, lane, sizeof s);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) s[i] += s[i + width];
    return s[0];
}

// exp(x) = 2^n * exp(r), |r| <= ln(2)/2, with the polynomial of Cephes' expf. The result is zero below -87.3.
float exp_of(float x) {
    const float clamped = x > 88.37626f ? 88.37626f : (x < -87.33654f ? -87.33654f : x);
    const float n = std::nearbyintf(clamped * 1.44269504088896341f);
    float r = fused(n, -0.693359375f, clamped);
    r = fused(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fused(p, r, 1.3981999507e-3f);
    p = fused(p, r, 8.3334519073e-3f);
    p = fused(p, r, 4.1665795894e-2f);
    p = fused(p, r, 1.6666665459e-1f);
    p = fused(p, r, 5.0000001201e-1f);
    const float y = fused(p, r * r, r) + 1.0f;
    if (x != x) return x;
    const float power = f32_from_bits(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);  // 2^n
    return x < -87.33654f ? 0.0f : y * power;
}

void matmul(const Matmul& t, int64_t first, int64_t last, float*) {
    for (int64_t row = first * panel_rows; row < last * panel_rows && row < t.rows; ++row) {
        const int64_t panel = row / panel_rows, lane = row % panel_rows;
        for (int64_t m = 0; m < t.m; ++m) {
            float sum = t.accumulate ? t.out[m * t.out_stride + row] : t.bias ? t.bias[row] : 0.0f;
            for (int64_t k = 0; k < t.k; ++k) {
                const int64_t index = (panel * t.panel_k + k) * panel_rows + lane;
                const float w = to_f32(t.type, static_cast<const char*>(t.panels) + index * size_of(t.type));
                sum = fused(t.x[m * t.x_stride + k], w, sum);
            }
            t.out[m * t.out_stride + row] = sum;
        }
    }
}

void norm(const float* x, const float* gain, const float* bias, float eps, bool rms, float* out, int64_t n) {
    float lane[lanes] = {};
    float mean = 0.0f;
    if (!rms) {
        for (int64_t i = 0; i < n; ++i) lane[i % lanes] += x[i];
        mean = reduce(lane) / static_cast<float>(n);
        std::memset(lane, 0, sizeof lane);
    }
    for (int64_t i = 0; i < n; ++i) {
        const float centred = x[i] - mean;
        lane[i % lanes] = fused(centred, centred, lane[i % lanes]);
    }
    const float variance = reduce(lane) / static_cast<float>(n);
    const float factor = 1.0f / std::sqrt(variance + eps);
    for (int64_t i = 0; i < n; ++i) {
        float y = (x[i] - mean) * factor;
        if (gain) y = bias ? fused(y, gain[i], bias[i]) : y * gain[i];
        out[i] = y;
    }
}

struct KvBlock {  // of keys, or of values
    WeightType type;
    const char* data;
    int64_t d;
    float at(int64_t index) const {
        if (type != WeightType::q8_0) return to_f32(type, data + index * size_of(type));
        return static_cast<int8_t>(data[scales() + index]);
    }
    float scale(int64_t group, int64_t position) const {
        return to_f32(WeightType::f16, data + (group * kv_block + position) * 2);
    }
    int64_t scales() const { return (d + quant_group - 1) / quant_group * kv_block * 2; }
};

// tanh(u) = 1 - 2 / (1 + exp(2u))
float capped(float x, float cap) {
    const float u = x / cap;
    return cap * (1.0f - 2.0f / (1.0f + exp_of(u + u)));
}

float score_of(const AttentionTask& t, const float* q, int64_t position) {
    const KvBlock k{t.kv_type, static_cast<const char*>(t.k_blocks[position / kv_block]), t.d};
    const int64_t lane = position % kv_block;
    float sum = 0.0f;
    if (t.kv_type != WeightType::q8_0) {
        for (int64_t i = 0; i < t.d; ++i) sum = fused(q[i], k.at(i * kv_block + lane), sum);
        return t.cap > 0.0f ? capped(sum * t.scale, t.cap) : sum * t.scale;
    }
    for (int64_t first = 0; first < t.d; first += quant_group) {
        float part = 0.0f;
        for (int64_t i = first; i < t.d && i < first + quant_group; ++i) part = fused(q[i], k.at(i * kv_block + lane), part);
        sum = fused(part, k.scale(first / quant_group, lane), sum);
    }
    return t.cap > 0.0f ? capped(sum * t.scale, t.cap) : sum * t.scale;
}

void attend_range(const AttentionTask& t, int64_t range, float* parts) {
    const int64_t start = range * kv_range;
    for (int64_t query = 0; query < t.n_queries; ++query) {
        float *part = parts + query * part_size(t.d_padded), *out = part + 16;
        const int64_t n = t.visible[query] - start < kv_range ? t.visible[query] - start : kv_range;
        const int64_t hidden = t.first[query] > start ? t.first[query] - start : 0;
        if (n <= hidden) continue;
        float weight[kv_range], lane[lanes] = {};
        float peak = minus_infinity;
        for (int64_t i = hidden; i < n; ++i) {
            weight[i] = score_of(t, t.q[query], start + i);
            peak = weight[i] > peak ? weight[i] : peak;
        }
        for (int64_t i = hidden; i < n; ++i) {
            weight[i] = exp_of(weight[i] - peak);
            lane[i % lanes] += weight[i];
        }
        for (int64_t i = 0; i < t.d; ++i) {
            float sum = 0.0f;
            for (int64_t pos = start + hidden; pos < start + n; ++pos) {
                const KvBlock v{t.kv_type, static_cast<const char*>(t.v_blocks[pos / kv_block]), t.d};
                float w = weight[pos - start];
                if (t.kv_type == WeightType::q8_0) w *= v.scale(i / quant_group, pos % kv_block);
                sum = fused(w, v.at(pos % kv_block * t.d_padded + i), sum);
            }
            out[i] = sum;
        }
        part[0] = peak;
        part[1] = reduce(lane);
    }
}

void combine(float* parts, int64_t ranges, int64_t stride, float* out, int64_t d) {
    for (int64_t range = 1; range < ranges; ++range) {
        const float* part = parts + range * stride;
        const float highest = part[0] > parts[0] ? part[0] : parts[0];
        const float before = exp_of(parts[0] - highest), here = exp_of(part[0] - highest);
        parts[1] = fused(part[1], here, parts[1] * before);
        for (int64_t i = 16; i < 16 + d; ++i) parts[i] = fused(part[i], here, parts[i] * before);
        parts[0] = highest;
    }
    for (int64_t i = 0; i < d; ++i) out[i] = parts[16 + i] / parts[1];
}

void attend(const AttentionTask& t) {
    const int64_t size = part_size(t.d_padded);
    for (int64_t query = 0; query < t.n_queries; ++query) {
        AttentionTask one = t;
        one.n_queries = 1;
        one.q[0] = t.q[query];
        one.visible[0] = t.visible[query];
        one.first[0] = t.first[query];
        const int64_t lowest = t.first[query] / kv_range, ranges = (t.visible[query] + kv_range - 1) / kv_range - lowest;
        std::vector<float> parts(static_cast<size_t>(ranges * size));
        for (int64_t range = 0; range < ranges; ++range) attend_range(one, lowest + range, parts.data() + range * size);
        combine(parts.data(), ranges, size, t.out[query], t.d);
    }
}

void score(const AttentionTask& t) {
    for (int64_t query = 0; query < t.n_queries; ++query)
        for (int64_t pos = 0; pos < t.visible[query]; ++pos) t.out[query][pos] = score_of(t, t.q[query], pos);
}

void rope(float* head, const float* cosines, const float* sines, int64_t d) {
    const int64_t half = d / 2;
    for (int64_t i = 0; i < half; ++i) {
        const float a = head[i], b = head[i + half];
        head[i] = fused(a, cosines[i], -(b * sines[i]));
        head[i + half] = fused(b, cosines[i], a * sines[i]);
    }
}

float sigmoid_times(float x, float u) { return x / (1.0f + exp_of(-u)); }  // x * sigmoid(u)

void gelu_tanh(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float cubic = fused(x[i] * x[i], x[i] * 0.044715f, x[i]);
        x[i] = sigmoid_times(x[i], cubic * 1.59576912160573f);  // 2 sqrt(2/pi)
    }
}

void silu(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = sigmoid_times(x[i], x[i]);
}

void multiply(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] *= y[i];
}

void add(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void copy(float* out, const float* x, int64_t n) { std::memcpy(out, x, static_cast<size_t>(n) * sizeof(float)); }

void to_half(uint16_t* out, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = f32_to_f16(x[i]);
}

bool all_finite(const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if (!std::isfinite(x[i])) return false;
    return true;
}

void exponential(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = exp_of(x[i]);
}

void exp_sums(const float* x, float shift, int64_t n, double* sums) {
    for (int64_t i = 0; i < n; ++i) sums[i % 8] += static_cast<double>(exp_of(x[i] - shift));
}

void scale_by(float* x, float by, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] *= by;
}

void cap_to(float* x, float cap, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = capped(x[i], cap);
}

}  // namespace

void gelu_erf(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678118654752f));
}

extern const TrainingKernels scalar_training;
extern const QuantizedKernels scalar_quantized;

const Kernels scalar_kernels = {"scalar", 1,    matmul, nullptr, norm, attend, attend_range, combine, score, rope, gelu_tanh,
                                gelu_erf, silu, multiply, add, copy, to_half, all_finite, exponential, exp_sums, scale_by, cap_to,
                                &scalar_training,
                                &scalar_quantized};

}  // namespace pophood
