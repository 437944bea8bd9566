// Weights in the layout of the kernels: matrices in panels of 16 output rows, vectors as padded f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/panels.h"
#include "platform/os.h"

namespace pophood {

// A tensor of the caller, with any strides. It is read while it is packed and not kept. A quantised one is rows of GGUF's
// blocks: shape counts weights, stride[0] is the bytes of a row, stride[1] is unused.
struct TensorView {
    const void* data;
    WeightType type;
    int dimensions;      // 1 or 2
    int64_t shape[2];
    int64_t stride[2];   // in bytes
};

// Rows of floats in the forms that matrices of some types read: quantised, rounded to bfloat16, and many of them interleaved.
struct PreparedRows {
    QuantizedRows quantized{};
    RoundedRows rounded{};
    float* interleaved = nullptr;  // Matmul::interleaved

    // Whether all forms of `other` are here, in the same tiles.
    bool has(const PreparedRows& other) const {
        const auto held = [](const auto& own, const auto& its) { return !its.values || (own.values && own.tile == its.tile); };
        return held(quantized, other.quantized) && held(rounded, other.rounded) && (interleaved || !other.interleaved);
    }
    void add(const PreparedRows& other) {
        if (other.quantized.values) quantized = other.quantized;
        if (other.rounded.values) rounded = other.rounded;
        if (other.interleaved) interleaved = other.interleaved;
    }
};

// The input of a product: [m] rows of floats, and the same rows prepared where the matrix needs it.
struct Activations {
    const float* x;
    int64_t x_stride, m;
    PreparedRows prepared{};
};

// A matrix [rows][cols], packed as Matmul in kernels.h describes. Every type is kept, F16, BF16 and blocks included.
// Packing again with the same type and shape reuses the memory.
class Matrix {
   public:
    void pack(const TensorView& source, int threads);
    void pack_as(WeightType type, const TensorView& source, int threads);  // F32, F16 or BF16 to Q8_0 or IQ4_NL
    void pack_in_pairs(const TensorView& source, int threads);  // BF16, for kernels that multiply in it
    void row(int64_t index, float* out) const;  // one row in f32: a token's embedding
    bool empty() const { return panels_.bytes() == 0; }
    size_t bytes() const { return panels_.bytes(); }
    int64_t n_panels() const { return (rows_ + panel_rows - 1) / panel_rows; }
    int64_t rows() const { return rows_; }
    int64_t cols() const { return cols_; }
    WeightType type() const { return type_; }
    bool quantized() const { return is_quantized(type_); }
    // Reads nothing but PreparedRows; other matrices read floats, interleaved or not.
    bool prepares() const { return quantized() || type_ == WeightType::bf16_pairs; }
    Matmul times(const Activations& input, const float* bias, float* out, int64_t out_stride) const;
    // The product with inputs first..first+count-1 only, without a bias: one head's contribution to a projection. Of a
    // quantised matrix, `first` and `count` are whole groups; rows in bfloat16 lie one by one.
    Matmul times_columns(int64_t first, int64_t count, const Activations& input, float* out, int64_t out_stride) const;

   private:
    WeightType type_ = WeightType::f32;
    int64_t rows_ = 0, cols_ = 0;
    int64_t groups_ = 0;       // of a quantised matrix
    int64_t panel_bytes_ = 0;
    AlignedBuffer panels_;
    void reserve(WeightType type, const TensorView& source);
    uint8_t* panel(int64_t index) const { return static_cast<uint8_t*>(panels_.get()) + index * panel_bytes_; }
};

inline int64_t panels_of(const Matmul& product) { return (product.rows + panel_rows - 1) / panel_rows; }

// A gain, a bias, or the position embedding: f32, padded with zeros to a multiple of 16.
class Vector {
   public:
    void pack(const TensorView& source);
    const float* data() const { return values_.floats(); }  // null if the model has none
    bool empty() const { return values_.bytes() == 0; }
    size_t bytes() const { return values_.bytes(); }

   private:
    AlignedBuffer values_;
};

}  // namespace pophood
