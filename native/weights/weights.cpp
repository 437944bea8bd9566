// Packs weights. See weights.h.
#include "weights/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/panels.h"
#include "platform/threads.h"
#include "weights/blocks.h"
#include "weights/quantize.h"

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

// The weights of one row and group of inputs; zeros after the end of the row.
void read_group(const TensorView& source, int64_t row, int64_t group, float* w) {
    const int64_t start = group * quant_group, count = std::min(quant_group, source.shape[1] - start);
    const char* values = static_cast<const char*>(source.data) + row * source.stride[0] + start * source.stride[1];
    std::fill(w + count, w + quant_group, 0.0f);
    if (source.type == WeightType::f32 && source.stride[1] == sizeof(float))
        std::memcpy(w, values, static_cast<size_t>(count) * sizeof(float));
    else
        for (int64_t i = 0; i < count; ++i) w[i] = to_f32(source.type, values + i * source.stride[1]);
}

// The sizes of a matrix's inputs relative to one another, [groups * 32], estimated from its weights: training gives an input
// that is large in every token, such as an outlier channel behind a norm, small weights. So the size is one over the root mean
// square of a column, relative to that of the matrix; at most 16, since a dead input has tiny weights too and must not decide
// the scales of its groups.
std::vector<float> estimate_inputs(const TensorView& source, int64_t groups, int threads) {
    std::vector<double> squares(static_cast<size_t>(groups * quant_group));  // sums over rows; those of f32 cannot overflow
    parallel_for(threads, groups, 16, [&](int64_t begin, int64_t end, int) {  // 2 KiB of a row in f32 at a time
        for (int64_t row = 0; row < source.shape[0]; ++row)
            for (int64_t group = begin; group < end; ++group) {
                float w[quant_group];
                read_group(source, row, group, w);
                for (int64_t i = 0; i < quant_group; ++i) {
                    const double value = std::isfinite(w[i]) ? static_cast<double>(w[i]) : 0.0;
                    squares[static_cast<size_t>(group * quant_group + i)] += value * value;
                }
            }
    });
    const double mean = std::accumulate(squares.begin(), squares.end(), 0.0) / static_cast<double>(source.shape[1]);
    std::vector<float> inputs(squares.size());  // zeros after the end of a row
    for (size_t k = 0; k < static_cast<size_t>(source.shape[1]); ++k)
        inputs[k] = static_cast<float>(std::min(16.0, std::sqrt(mean / squares[k])));
    return inputs;
}

}  // namespace

void Matrix::reserve(WeightType type, const TensorView& source) {
    if (!empty() && type == type_ && source.shape[0] == rows_ && source.shape[1] == cols_) return;
    type_ = type;
    rows_ = source.shape[0];
    cols_ = source.shape[1];
    groups_ = quantized() ? (cols_ + quant_group - 1) / quant_group : 0;
    const int64_t inputs = type == WeightType::bf16_pairs ? (cols_ + 1) / 2 * 2 : cols_;
    panel_bytes_ = quantized() ? parts_of(format_of(type), groups_).size : inputs * panel_rows * size_of(type);
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

void Matrix::pack_in_pairs(const TensorView& source, int threads) {
    reserve(WeightType::bf16_pairs, source);
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        std::vector<uint16_t> rows(static_cast<size_t>(cols_ * panel_rows));
        for (int64_t index = begin; index < end; ++index) {
            pack_panel(source, index * panel_rows, rows.data());
            auto* out = reinterpret_cast<uint16_t*>(panel(index));
            for (int64_t k = 0; k < cols_; ++k)
                for (int64_t lane = 0; lane < panel_rows; ++lane)
                    out[(k / 2 * panel_rows + lane) * 2 + k % 2] = rows[static_cast<size_t>(k * panel_rows + lane)];
        }
    });
}

void Matrix::pack_as(WeightType type, const TensorView& source, int threads) {
    reserve(type, source);
    std::vector<float> inputs;
    if (type == WeightType::iq4_nl) inputs = estimate_inputs(source, groups_, threads);
    const int64_t block_bytes = format_of(type).block_bytes, row_bytes = groups_ * block_bytes;
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        std::vector<uint8_t> blocks(static_cast<size_t>(panel_rows * row_bytes));
        const uint8_t* from[panel_rows];
        for (int64_t lane = 0; lane < panel_rows; ++lane) from[lane] = blocks.data() + lane * row_bytes;
        for (int64_t index = begin; index < end; ++index) {
            const int64_t row = index * panel_rows, rows = std::min(panel_rows, rows_ - row);
            for (int64_t group = 0; group < groups_; ++group)  // of 16 rows: in [inputs, outputs] they share cache lines
                for (int64_t lane = 0; lane < rows; ++lane) {
                    float w[quant_group];
                    read_group(source, row + lane, group, w);
                    uint8_t* block = blocks.data() + lane * row_bytes + group * block_bytes;
                    if (type == WeightType::q8_0) quantize_to_q8_0(w, block);
                    else quantize_to_iq4_nl(w, inputs.data() + group * quant_group, block);
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
        const bool pairs = type_ == WeightType::bf16_pairs;
        for (int64_t k = 0; k < cols_; ++k)
            out[k] = to_f32(type_, from + (pairs ? (k / 2 * panel_rows + lane) * 2 + k % 2 : k * panel_rows + lane) * size);
        return;
    }
    const PanelRow w(type_, groups_, from, lane);
    for (int64_t k = 0; k < cols_; ++k) {
        const int64_t group = k / quant_group, i = k % quant_group;
        out[k] = w.scale(group, i) * static_cast<float>(w.weight(group, i));
        if (w.format.minimum) out[k] += w.minimum(group);
    }
}

Matmul Matrix::times(const Activations& input, const float* bias, float* out, int64_t out_stride) const {
    const bool ready = quantized() ? input.prepared.quantized.values != nullptr : !prepares() || input.prepared.rounded.values;
    if (!ready && input.m > 0) throw std::logic_error("the rows of a product are not prepared for its matrix");
    const int64_t k = quantized() ? groups_ * quant_group : cols_;
    Matmul product{type_, panels_.get(), bias, input.x, input.x_stride, out, out_stride, input.m, k, rows_, k,
                   input.prepared.quantized, panel_bytes_, 0};
    product.rounded = input.prepared.rounded;
    product.interleaved = input.prepared.interleaved;
    return product;
}

Matmul Matrix::times_columns(int64_t first, int64_t count, const Activations& input, float* out, int64_t out_stride) const {
    Matmul product = times(input, nullptr, out, out_stride);
    product.k = count;
    if (quantized()) product.first_group = first / quant_group;
    else product.panels = static_cast<const char*>(panels_.get()) + first * panel_rows * size_of(type_);
    if (product.rounded.values) product.rounded.values += first;
    product.interleaved = nullptr;
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
