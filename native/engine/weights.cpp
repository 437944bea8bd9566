// Packs weights. See weights.h.
#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/half.h"
#include "platform/threads.h"

namespace pophood {
namespace {

// Writes 16 rows of `source`, from `row` on, as [k][16]. Files store [outputs, inputs] or, for GPT-2, [inputs, outputs],
// where 16 outputs are already adjacent.
template <class T>
void pack_panel(const TensorView& source, int64_t row, T* out) {
    const char* base = static_cast<const char*>(source.data) + row * source.stride[0];
    const int64_t rows = source.shape[0] - row < panel_rows ? source.shape[0] - row : panel_rows, cols = source.shape[1];
    if (source.stride[0] == static_cast<int64_t>(sizeof(T))) {
        for (int64_t k = 0; k < cols; ++k)
            std::memcpy(out + k * panel_rows, base + k * source.stride[1], static_cast<size_t>(rows) * sizeof(T));
        return;
    }
    constexpr int64_t strip = 64;  // inputs at a time: this part of `out` stays in the L1 cache
    for (int64_t start = 0; start < cols; start += strip) {
        const int64_t end = start + strip < cols ? start + strip : cols;
        for (int64_t lane = 0; lane < rows; ++lane) {
            const char* from = base + lane * source.stride[0];
            for (int64_t k = start; k < end; ++k) std::memcpy(out + k * panel_rows + lane, from + k * source.stride[1], sizeof(T));
        }
    }
}

// ---- quantised panels ----

struct BlockLayout {  // one of GGUF's blocks of 32 weights: an f16 scale, an f16 minimum or none, then the weights
    int64_t bytes, weights, group_bytes;
};
constexpr BlockLayout layout_of(WeightType type) {
    return type == WeightType::q8_0 ? BlockLayout{34, 2, 512} : type == WeightType::q4_0 ? BlockLayout{18, 2, 256}
                                                                                        : BlockLayout{20, 4, 256};
}

// Writes one block to its lane of a panel. `panel` has the layout of Matmul in kernels.h.
void put_block(WeightType type, const uint8_t* block, int64_t groups, int64_t group, int64_t lane, uint8_t* panel) {
    const BlockLayout layout = layout_of(type);
    const bool minimum = type == WeightType::q4_1;
    std::memcpy(panel + (group * panel_rows + lane) * 2, block, 2);
    if (minimum) std::memcpy(panel + ((groups + group) * panel_rows + lane) * 2, block + 2, 2);
    uint8_t* out = panel + groups * (minimum ? 64 : 32) + group * layout.group_bytes + lane * 4;
    for (int64_t j = 0; j < layout.group_bytes / 64; ++j) {
        uint32_t four;
        std::memcpy(&four, block + layout.weights + 4 * j, 4);
        if (type == WeightType::q8_0) four ^= 0x80808080u;  // stored as weight + 128
        std::memcpy(out + 64 * j, &four, 4);
    }
}

// Quantises 32 weights as ggml's Q8_0 does: the scale max|w| / 127 in f16, rounding halves away from zero.
void quantize_block(const float* w, uint8_t* block) {
    float largest = 0.0f;
    bool finite = true;
    for (int64_t i = 0; i < quant_group; ++i) {
        largest = std::max(largest, std::fabs(w[i]));
        finite = finite && std::isfinite(w[i]);
    }
    const float scale = finite ? largest / 127.0f : not_a_number, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const uint16_t bits = f32_to_f16(scale);
    std::memcpy(block, &bits, 2);
    for (int64_t i = 0; i < quant_group; ++i)
        block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(finite ? std::lround(w[i] * inverse) : 0));
}

}  // namespace

void Matrix::reserve(WeightType type, const TensorView& source) {
    type_ = type;
    rows_ = source.shape[0];
    cols_ = source.shape[1];
    groups_ = is_quantized(type) ? (cols_ + quant_group - 1) / quant_group : 0;
    const int64_t group = layout_of(type).group_bytes + (type == WeightType::q4_1 ? 64 : 32);
    panel_bytes_ = is_quantized(type) ? (groups_ * group + 63) / 64 * 64 : cols_ * panel_rows * size_of(type);
    panels_ = AlignedBuffer();  // frees the old memory first
    panels_ = AlignedBuffer(static_cast<size_t>(n_panels() * panel_bytes_));
}

void Matrix::pack(const TensorView& source, int threads) {
    reserve(source.type, source);
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t index = begin; index < end; ++index) {
            const int64_t row = index * panel_rows, rows = std::min(panel_rows, rows_ - row);
            if (type_ == WeightType::f32) pack_panel(source, row, reinterpret_cast<float*>(panel(index)));
            else if (!quantized()) pack_panel(source, row, reinterpret_cast<uint16_t*>(panel(index)));
            else
                for (int64_t group = 0; group < groups_; ++group)
                    for (int64_t lane = 0; lane < rows; ++lane)
                        put_block(type_, static_cast<const uint8_t*>(source.data) + (row + lane) * source.stride[0] +
                                             group * layout_of(type_).bytes,
                                  groups_, group, lane, panel(index));
        }
    });
}

void Matrix::pack_as_q8_0(const TensorView& source, int threads) {
    reserve(WeightType::q8_0, source);
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin * panel_rows; row < std::min(end * panel_rows, rows_); ++row)
            for (int64_t group = 0; group < groups_; ++group) {
                float w[quant_group] = {};
                uint8_t block[2 + quant_group];
                for (int64_t i = 0; i < std::min(quant_group, cols_ - group * quant_group); ++i)
                    w[i] = to_f32(source.type, static_cast<const char*>(source.data) + row * source.stride[0] +
                                                   (group * quant_group + i) * source.stride[1]);
                quantize_block(w, block);
                put_block(type_, block, groups_, group, row % panel_rows, panel(row / panel_rows));
            }
    });
}

void Matrix::row(int64_t index, float* out) const {
    const int64_t lane = index % panel_rows;
    const uint8_t* from = panel(index / panel_rows);
    if (!quantized()) {
        const int64_t size = size_of(type_);
        for (int64_t k = 0; k < cols_; ++k) out[k] = to_f32(type_, from + (k * panel_rows + lane) * size);
        return;
    }
    const bool minimum = type_ == WeightType::q4_1;
    const uint8_t* weights = from + groups_ * (minimum ? 64 : 32) + lane * 4;
    for (int64_t k = 0; k < cols_; ++k) {
        const int64_t group = k / quant_group, i = k % quant_group;
        const uint8_t* bytes = weights + group * layout_of(type_).group_bytes;
        const float scale = to_f32(WeightType::f16, from + (group * panel_rows + lane) * 2);
        if (type_ == WeightType::q8_0) {
            out[k] = scale * static_cast<float>(bytes[i / 4 * 64 + i % 4] - 128);
            continue;
        }
        const int nibble = bytes[i % 16 / 4 * 64 + i % 4] >> (i < 16 ? 0 : 4) & 15;
        out[k] = minimum ? scale * static_cast<float>(nibble) +
                               to_f32(WeightType::f16, from + ((groups_ + group) * panel_rows + lane) * 2)
                         : scale * static_cast<float>(nibble - 8);
    }
}

Matmul Matrix::times(const Activations& input, const float* bias, float* out, int64_t out_stride) const {
    const int64_t k = quantized() ? groups_ * quant_group : cols_;
    return {type_, panels_.get(), bias, input.x, input.x_stride, out, out_stride, input.m, k, rows_, k, input.quantized,
            panel_bytes_, 0};
}

Matmul Matrix::times_columns(int64_t first, int64_t count, const Activations& input, float* out, int64_t out_stride) const {
    Matmul product = times(input, nullptr, out, out_stride);
    product.k = count;
    if (quantized()) product.first_group = first / quant_group;
    else product.panels = static_cast<const char*>(panels_.get()) + first * panel_rows * size_of(type_);
    return product;
}

void Vector::pack(const TensorView& source) {
    const int64_t rows = source.shape[0], cols = source.dimensions == 2 ? source.shape[1] : 1;
    const int64_t count = rows * cols;
    values_ = AlignedBuffer();
    values_ = AlignedBuffer(static_cast<size_t>((count + 15) / 16 * 16) * sizeof(float));
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j)
            values_.floats()[i * cols + j] = to_f32(source.type, static_cast<const char*>(source.data) +
                                                                    i * source.stride[0] + j * source.stride[1]);
}

}  // namespace pophood
