// Packed weights: what a row returns after packing, quantising, and packing again in the same memory.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "engine/weights.h"
#include "kernels/half.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

constexpr WeightType block_types[] = {WeightType::q8_0, WeightType::q4_0, WeightType::q4_1};

// Rows of random blocks as a file stores them, and the weights that they stand for.
struct Blocks {
    int64_t rows, groups, row_bytes;
    WeightType type;
    std::vector<uint8_t> bytes;

    Blocks(Random& random, WeightType t, int64_t rows_, int64_t groups_)
        : rows(rows_), groups(groups_), row_bytes(groups_ * layout_of(t).bytes), type(t),
          bytes(static_cast<size_t>(rows_ * row_bytes)) {
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
        for (int64_t block = 0; block < rows * groups; ++block)
            for (int64_t at = 0; at < layout_of(type).weights; at += 2) {
                const uint16_t scale = f32_to_f16(random.values(1)[0]);
                std::memcpy(bytes.data() + block * layout_of(type).bytes + at, &scale, 2);
            }
    }

    TensorView view() const { return {bytes.data(), type, 2, {rows, groups * quant_group}, {row_bytes, 1}}; }

    float value(int64_t row, int64_t k) const {
        const uint8_t* block = bytes.data() + row * row_bytes + k / quant_group * layout_of(type).bytes;
        const int64_t i = k % quant_group;
        const float scale = to_f32(WeightType::f16, block);
        if (type == WeightType::q8_0) return scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
        const int nibble = block[layout_of(type).weights + i % 16] >> (i < 16 ? 0 : 4) & 15;
        return type == WeightType::q4_0 ? scale * static_cast<float>(nibble - 8)
                                        : scale * static_cast<float>(nibble) + to_f32(WeightType::f16, block + 2);
    }
};

bool holds(const Matrix& matrix, const Blocks& blocks) {
    std::vector<float> row(static_cast<size_t>(matrix.cols())), expected(row);
    for (int64_t r = 0; r < matrix.rows(); ++r) {
        matrix.row(r, row.data());
        for (int64_t k = 0; k < matrix.cols(); ++k) expected[static_cast<size_t>(k)] = blocks.value(r, k);
        if (!same_bits(row, expected)) return false;
    }
    return matrix.rows() == blocks.rows;
}

}  // namespace

TEST(blocks_are_packed_as_stored_and_again_in_the_same_memory) {
    Random random(1);
    std::vector<Matrix> matrices(3);
    for (int round = 0; round < 2; ++round) {
        std::vector<Blocks> sources;
        for (size_t i = 0; i < 3; ++i) sources.emplace_back(random, block_types[i], 37 - static_cast<int64_t>(i), 5);
        for (size_t i = 0; i < 3; ++i) matrices[i].pack(sources[i].view(), 2);
        for (size_t i = 0; i < 3; ++i) CHECK(holds(matrices[i], sources[i]));
    }
    const Blocks other(random, WeightType::q4_0, 50, 7);
    matrices[0].pack(other.view(), 1);  // another type and shape
    CHECK(holds(matrices[0], other) && matrices[0].bytes() == 4 * 2048);
}

TEST(quantised_weights_are_those_of_ggml) {
    Random random(2);
    const int64_t rows = 21, cols = 3 * 32 + 7;
    auto values = random.values(rows * cols);
    for (int64_t k = 0; k < cols; ++k) values[static_cast<size_t>(2 * cols + k)] = static_cast<float>(k % 32) - 15.5f;
    for (int64_t k = 0; k < cols; ++k) values[static_cast<size_t>(3 * cols + k)] = 0.0f;
    for (int64_t k = 0; k < cols; ++k) values[static_cast<size_t>(4 * cols + k)] *= 1e-42f;  // 1 / scale is infinite
    std::vector<float> transposed(values.size());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t k = 0; k < cols; ++k) transposed[static_cast<size_t>(k * rows + r)] = values[static_cast<size_t>(r * cols + k)];
    Matrix plain, from_transposed;
    plain.pack_as_q8_0({values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    from_transposed.pack_as_q8_0({transposed.data(), WeightType::f32, 2, {rows, cols}, {4, rows * 4}}, 2);
    std::vector<float> row(static_cast<size_t>(cols)), other(row), expected(row);
    for (int64_t r = 0; r < rows; ++r) {
        const float* w = values.data() + r * cols;
        for (int64_t group = 0; group < cols; group += 32) {
            const int64_t end = std::min<int64_t>(group + 32, cols);
            float largest = 0.0f;
            for (int64_t k = group; k < end; ++k) largest = std::max(largest, std::fabs(w[k]));
            const float scale = largest / 127.0f, stored = f16_to_f32(f32_to_f16(scale));
            for (int64_t k = group; k < end; ++k)
                expected[static_cast<size_t>(k)] = stored > 0.0f ? stored * std::round(w[k] * (1.0f / scale)) : 0.0f;
        }
        plain.row(r, row.data());
        from_transposed.row(r, other.data());
        for (size_t k = 0; k < row.size(); ++k) CHECK(row[k] == expected[k]);  // -0 and 0 are both right
        CHECK(same_bits(row, other));
    }
    values[40] = std::numeric_limits<float>::infinity();
    plain.pack_as_q8_0({values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    plain.row(0, row.data());
    CHECK(std::isnan(row[32]) && std::isnan(row[63]) && !std::isnan(row[31]) && !std::isnan(row[64]));
}
