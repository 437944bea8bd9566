// Packs weights. See weights.h.
#include "engine/weights.h"

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

}  // namespace

void Matrix::pack(const TensorView& source, int threads) {
    type_ = source.type;
    rows_ = source.shape[0];
    cols_ = source.shape[1];
    panels_ = AlignedBuffer();
    panels_ = AlignedBuffer(static_cast<size_t>(n_panels() * cols_ * panel_rows) * static_cast<size_t>(size_of(type_)));
    parallel_for(threads, n_panels(), 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t panel = begin; panel < end; ++panel) {
            const int64_t start = panel * cols_ * panel_rows;
            if (type_ == WeightType::f32) pack_panel(source, panel * panel_rows, panels_.floats() + start);
            else pack_panel(source, panel * panel_rows, static_cast<uint16_t*>(panels_.get()) + start);
        }
    });
}

void Matrix::row(int64_t index, float* out) const {
    const int64_t step = panel_rows * size_of(type_);
    const char* lane = static_cast<const char*>(panels_.get()) + index / panel_rows * cols_ * step +
                       index % panel_rows * size_of(type_);
    for (int64_t k = 0; k < cols_; ++k) out[k] = to_f32(type_, lane + k * step);
}

Matmul Matrix::times(const float* x, int64_t x_stride, int64_t m, const float* bias, float* out, int64_t out_stride) const {
    return {type_, panels_.get(), bias, x, x_stride, out, out_stride, m, cols_, rows_, cols_};
}

Matmul Matrix::times_columns(int64_t first, int64_t count, const float* x, int64_t x_stride, int64_t m, float* out,
                          int64_t out_stride) const {
    const char* panels = static_cast<const char*>(panels_.get()) + first * panel_rows * size_of(type_);
    return {type_, panels, nullptr, x, x_stride, out, out_stride, m, count, rows_, cols_};
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
