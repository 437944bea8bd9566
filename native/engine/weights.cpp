// Packs weights. See weights.h.
#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

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

// Writes the blocks of up to 16 rows, which begin at `from`, as one panel in the layout of Matmul in kernels.h.
template <WeightType type>
void pack_blocks(const uint8_t* const* from, int64_t rows, int64_t groups, uint8_t* panel) {
    constexpr BlockLayout layout = layout_of(type);
    constexpr int64_t heads = layout.weights / 2;  // the scale, and in Q4_1 the minimum
    constexpr int64_t words = layout.group_bytes / panel_rows / 4;
    constexpr uint32_t flip = type == WeightType::q8_0 ? 0x80808080u : 0;  // 8-bit weights are stored as weight + 128
    uint8_t* out = panel + groups * heads * panel_rows * 2;
    for (int64_t group = 0; group < groups; ++group, out += layout.group_bytes)
        for (int64_t lane = 0; lane < rows; ++lane) {
            const uint8_t* block = from[lane] + group * layout.bytes;
            for (int64_t head = 0; head < heads; ++head)
                std::memcpy(panel + ((head * groups + group) * panel_rows + lane) * 2, block + 2 * head, 2);
            for (int64_t word = 0; word < words; ++word) {
                uint32_t four;
                std::memcpy(&four, block + layout.weights + 4 * word, 4);
                four ^= flip;
                std::memcpy(out + (word * panel_rows + lane) * 4, &four, 4);
            }
        }
}

void pack_blocks(WeightType type, const uint8_t* const* from, int64_t rows, int64_t groups, uint8_t* panel) {
    if (type == WeightType::q8_0) pack_blocks<WeightType::q8_0>(from, rows, groups, panel);
    else if (type == WeightType::q4_0) pack_blocks<WeightType::q4_0>(from, rows, groups, panel);
    else pack_blocks<WeightType::q4_1>(from, rows, groups, panel);
}

// Quantises 32 weights as ggml's Q8_0 does: the scale max|w| / 127 in f16, rounding halves away from zero. The loops are
// over integers where floats could be NaN, so that compilers can use SIMD.
void quantize_block(const float* w, uint8_t* block) {
    uint32_t bits[quant_group], largest_bits = 0;
    std::memcpy(bits, w, sizeof bits);
    for (int64_t i = 0; i < quant_group; ++i) largest_bits = std::max(largest_bits, bits[i] & 0x7FFFFFFFu);
    const bool finite = largest_bits < 0x7F800000u;
    const float scale = finite ? f32_from_bits(largest_bits) / 127.0f : not_a_number;
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

}  // namespace

void Matrix::reserve(WeightType type, const TensorView& source) {
    if (!empty() && type == type_ && source.shape[0] == rows_ && source.shape[1] == cols_) return;
    type_ = type;
    rows_ = source.shape[0];
    cols_ = source.shape[1];
    groups_ = quantized() ? (cols_ + quant_group - 1) / quant_group : 0;
    const BlockLayout layout = layout_of(type);
    const int64_t group_bytes = layout.group_bytes + panel_rows * layout.weights;
    panel_bytes_ = quantized() ? (groups_ * group_bytes + 63) / 64 * 64 : cols_ * panel_rows * size_of(type);
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
            else {
                const uint8_t* from[panel_rows];
                for (int64_t lane = 0; lane < rows; ++lane)
                    from[lane] = static_cast<const uint8_t*>(source.data) + (row + lane) * source.stride[0];
                pack_blocks(type_, from, rows, groups_, panel(index));
            }
        }
    });
}

void Matrix::pack_as_q8_0(const TensorView& source, int threads) {
    reserve(WeightType::q8_0, source);
    const int64_t row_bytes = groups_ * layout_of(WeightType::q8_0).bytes;
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        std::vector<uint8_t> blocks(static_cast<size_t>(panel_rows * row_bytes));
        const uint8_t* from[panel_rows];
        for (int64_t lane = 0; lane < panel_rows; ++lane) from[lane] = blocks.data() + lane * row_bytes;
        for (int64_t index = begin; index < end; ++index) {
            const int64_t row = index * panel_rows, rows = std::min(panel_rows, rows_ - row);
            for (int64_t group = 0; group < groups_; ++group)  // of 16 rows: in [inputs, outputs] they share cache lines
                for (int64_t lane = 0; lane < rows; ++lane) {
                    float w[quant_group] = {};
                    const int64_t count = std::min(quant_group, cols_ - group * quant_group);
                    const char* values = static_cast<const char*>(source.data) + (row + lane) * source.stride[0] +
                                         group * quant_group * source.stride[1];
                    if (source.type == WeightType::f32 && source.stride[1] == sizeof(float))
                        std::memcpy(w, values, static_cast<size_t>(count) * sizeof(float));
                    else
                        for (int64_t i = 0; i < count; ++i) w[i] = to_f32(source.type, values + i * source.stride[1]);
                    quantize_block(w, blocks.data() + lane * row_bytes + group * layout_of(type_).bytes);
                }
            pack_blocks(type_, from, rows, groups_, panel(index));
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
