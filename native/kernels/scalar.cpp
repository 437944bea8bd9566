// The specification of the kernels: plain loops, in the order that defines the bits of every result. Not meant to be fast.
#include <cmath>
#include <cstring>

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
    float r = std::fma(n, -0.693359375f, clamped);
    r = std::fma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = std::fma(p, r, 1.3981999507e-3f);
    p = std::fma(p, r, 8.3334519073e-3f);
    p = std::fma(p, r, 4.1665795894e-2f);
    p = std::fma(p, r, 1.6666665459e-1f);
    p = std::fma(p, r, 5.0000001201e-1f);
    const float y = std::fma(p, r * r, r) + 1.0f;
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
                sum = std::fma(t.x[m * t.x_stride + k], w, sum);
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
        lane[i % lanes] = std::fma(centred, centred, lane[i % lanes]);
    }
    const float variance = reduce(lane) / static_cast<float>(n);
    const float factor = 1.0f / std::sqrt(variance + eps);
    for (int64_t i = 0; i < n; ++i) {
        float y = (x[i] - mean) * factor;
        if (gain) y = bias ? std::fma(y, gain[i], bias[i]) : y * gain[i];
        out[i] = y;
    }
}

struct KvBlock {
    WeightType type;
    const void* data;
    float operator[](int64_t i) const { return to_f32(type, static_cast<const char*>(data) + i * size_of(type)); }
};

void attend(const AttentionTask& t) {
    for (int64_t query = 0; query < t.n_queries; ++query) {
        const float* q = t.q[query];
        float* out = t.out[query];
        float highest = minus_infinity, total = 0.0f;
        for (int64_t i = 0; i < t.d; ++i) out[i] = 0.0f;
        for (int64_t start = 0; start < t.visible[query]; start += kv_block) {
            const KvBlock k{t.kv_type, t.k_blocks[start / kv_block]}, v{t.kv_type, t.v_blocks[start / kv_block]};
            const int64_t n = t.visible[query] - start < kv_block ? t.visible[query] - start : kv_block;
            float weight[kv_block];
            float peak = highest;
            for (int64_t pos = 0; pos < kv_block; ++pos) {
                float score = 0.0f;
                for (int64_t i = 0; i < t.d; ++i) score = std::fma(q[i], k[i * kv_block + pos], score);
                weight[pos] = pos < n ? score * t.scale : minus_infinity;
                peak = weight[pos] > peak ? weight[pos] : peak;
            }
            const float rescale = exp_of(highest - peak);
            for (int64_t pos = 0; pos < kv_block; ++pos) weight[pos] = exp_of(weight[pos] - peak);
            float lane[lanes];
            for (int i = 0; i < lanes; ++i) lane[i] = weight[i] + weight[i + lanes];
            total = std::fma(total, rescale, reduce(lane));
            for (int64_t i = 0; i < t.d; ++i) {
                float sum = out[i] * rescale;
                for (int64_t pos = 0; pos < n; ++pos) sum = std::fma(weight[pos], v[pos * t.d_padded + i], sum);
                out[i] = sum;
            }
            highest = peak;
        }
        for (int64_t i = 0; i < t.d; ++i) out[i] = out[i] / total;
    }
}

void score(const AttentionTask& t) {
    for (int64_t query = 0; query < t.n_queries; ++query)
        for (int64_t pos = 0; pos < t.visible[query]; ++pos) {
            const KvBlock k{t.kv_type, t.k_blocks[pos / kv_block]};
            float sum = 0.0f;
            for (int64_t i = 0; i < t.d; ++i) sum = std::fma(t.q[query][i], k[i * kv_block + pos % kv_block], sum);
            t.out[query][pos] = sum * t.scale;
        }
}

void rope(float* head, const float* cosines, const float* sines, int64_t d) {
    const int64_t half = d / 2;
    for (int64_t i = 0; i < half; ++i) {
        const float a = head[i], b = head[i + half];
        head[i] = std::fma(a, cosines[i], -(b * sines[i]));
        head[i + half] = std::fma(b, cosines[i], a * sines[i]);
    }
}

float sigmoid_times(float x, float u) { return x / (1.0f + exp_of(-u)); }  // x * sigmoid(u)

void gelu_tanh(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float cubic = std::fma(x[i] * x[i], x[i] * 0.044715f, x[i]);
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

}  // namespace

void gelu_erf(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678118654752f));
}

extern const TrainingKernels scalar_training;
extern const QuantizedKernels scalar_quantized;

const Kernels scalar_kernels = {"scalar", 1,    matmul, norm,     attend, score, rope, gelu_tanh,
                                gelu_erf, silu, multiply, add, copy, to_half, all_finite, exponential, &scalar_training,
                                &scalar_quantized};

}  // namespace pophood
