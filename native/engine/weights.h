// Weights in the layout of the kernels (small: a contract): matrices in panels of 16 output rows, vectors as padded f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/kernels.h"
#include "platform/os.h"

namespace pophood {

// A tensor of the caller, with any strides. It is read while it is packed and not kept.
struct TensorView {
    const void* data;
    WeightType type;
    int dimensions;      // 1 or 2
    int64_t shape[2];
    int64_t stride[2];   // in bytes
};

// A matrix [rows][cols], packed as Matmul in kernels.h describes. F16 and BF16 keep their type.
class Matrix {
   public:
    void pack(const TensorView& source, int threads);
    void row(int64_t index, float* out) const;  // one row in f32: a token's embedding
    bool empty() const { return panels_.bytes() == 0; }
    size_t bytes() const { return panels_.bytes(); }
    int64_t n_panels() const { return (rows_ + panel_rows - 1) / panel_rows; }
    int64_t rows() const { return rows_; }
    int64_t cols() const { return cols_; }
    // The product with inputs first..first+count-1 only, without a bias: one head's contribution to a projection.
    Matmul times_columns(int64_t first, int64_t count, const float* x, int64_t x_stride, int64_t m, float* out,
                      int64_t out_stride) const;
    Matmul times(const float* x, int64_t x_stride, int64_t m, const float* bias, float* out, int64_t out_stride) const;

   private:
    WeightType type_ = WeightType::f32;
    int64_t rows_ = 0, cols_ = 0;
    AlignedBuffer panels_;
};

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
