// Packed weights: what a row returns after packing, quantising, and packing again in the same memory.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "check.h"
#include "weights/quantize.h"
#include "weights/weights.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

constexpr WeightType block_types[] = {WeightType::q8_0, WeightType::q4_0, WeightType::q4_1, WeightType::q5_0, WeightType::q5_1,
                                      WeightType::q4_k, WeightType::q5_k, WeightType::q6_k, WeightType::iq4_nl};

// One weight of a block, as ggml's dequantize_row functions compute it.
float weight_of_32(WeightType type, const uint8_t* block, int64_t i) {
    const auto half = [&](int64_t at) { return to_f32(WeightType::f16, block + at); };
    const auto nibble = [&](int64_t start) { return block[start + i % 16] >> (i < 16 ? 0 : 4) & 15; };
    const auto fifth = [&](int64_t start) { return (block[start + i / 8] >> i % 8 & 1) << 4; };
    const auto times = [&](int q) { return half(0) * static_cast<float>(q); };
    constexpr int steps[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    switch (type) {
        case WeightType::q8_0: return times(static_cast<int8_t>(block[2 + i]));
        case WeightType::q4_0: return times(nibble(2) - 8);
        case WeightType::q4_1: return times(nibble(4)) + half(2);
        case WeightType::q5_0: return times((nibble(6) | fifth(2)) - 16);
        case WeightType::q5_1: return times(nibble(8) | fifth(4)) + half(2);
        default: return times(steps[nibble(2)]);
    }
}

float weight_of_256(WeightType type, const uint8_t* block, int64_t i) {
    const auto half = [&](int64_t at) { return to_f32(WeightType::f16, block + at); };
    const int64_t group = i / 32, at = i % 32;
    if (type == WeightType::q6_k) {
        const int64_t low = i / 128 * 64 + i % 64, high = 128 + i / 128 * 32 + at;
        const int q = (block[low] >> (i % 128 < 64 ? 0 : 4) & 15) | (block[high] >> i % 128 / 32 * 2 & 3) << 4;
        return half(208) * static_cast<float>(static_cast<int8_t>(block[192 + i / 16])) * static_cast<float>(q - 32);
    }
    const uint8_t* six = block + 4;
    const int scale = group < 4 ? six[group] & 63 : (six[group + 4] & 15) | six[group - 4] >> 6 << 4;
    const int minimum = group < 4 ? six[group + 4] & 63 : six[group + 4] >> 4 | six[group] >> 6 << 4;
    int q = block[(type == WeightType::q4_k ? 16 : 48) + group / 2 * 32 + at] >> group % 2 * 4 & 15;
    if (type == WeightType::q5_k) q |= (block[16 + at] >> group & 1) << 4;
    return half(0) * static_cast<float>(scale) * static_cast<float>(q) - half(2) * static_cast<float>(minimum);
}

// Rows of random blocks as a file stores them, and the weights that they stand for.
struct Blocks {
    WeightType type;
    const QuantFormat& format;
    int64_t rows, cols, row_bytes;
    std::vector<uint8_t> bytes;

    Blocks(Random& random, WeightType t, int64_t rows_, int64_t blocks)
        : type(t), format(format_of(t)), rows(rows_), cols(blocks * format.block), row_bytes(blocks * format.block_bytes),
          bytes(static_cast<size_t>(rows_ * row_bytes)) {
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
        const int64_t first = type == WeightType::q6_k ? 208 : 0;
        for (int64_t block = 0; block < rows * blocks; ++block)
            for (int64_t at = first; at < first + (format.minimum ? 4 : 2); at += 2) {
                const uint16_t scale = f32_to_f16(random.values(1)[0]);
                std::memcpy(bytes.data() + block * format.block_bytes + at, &scale, 2);
            }
    }

    TensorView view() const { return {bytes.data(), type, 2, {rows, cols}, {row_bytes, 1}}; }

    float value(int64_t row, int64_t k) const {
        const uint8_t* block = bytes.data() + row * row_bytes + k / format.block * format.block_bytes;
        return format.block == 32 ? weight_of_32(type, block, k % 32) : weight_of_256(type, block, k % 256);
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

// A weight of 32 as llama.cpp's Q4_0 holds it, but for the rounding of the scale: the largest weight / -8.
float simple_weight(const float* w, int64_t i) {
    float largest = 0.0f;
    for (int64_t k = 0; k < quant_group; ++k) largest = std::fabs(w[k]) > std::fabs(largest) ? w[k] : largest;
    const float scale = largest / -8.0f;
    return scale * (static_cast<float>(std::min(15, static_cast<int>(w[i] / scale + 8.5f))) - 8.0f);
}

}  // namespace

TEST(blocks_are_packed_as_stored_and_again_in_the_same_memory) {
    Random random(1);
    constexpr size_t n = std::size(block_types);
    std::vector<Matrix> matrices(n);
    for (int round = 0; round < 2; ++round) {
        std::vector<Blocks> sources;
        for (size_t i = 0; i < n; ++i) sources.emplace_back(random, block_types[i], 37 - static_cast<int64_t>(i), 3);
        for (size_t i = 0; i < n; ++i) matrices[i].pack(sources[i].view(), 2);
        for (size_t i = 0; i < n; ++i) CHECK(holds(matrices[i], sources[i]), "type %d", static_cast<int>(block_types[i]));
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
    plain.pack_as(WeightType::q8_0, {values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    from_transposed.pack_as(WeightType::q8_0, {transposed.data(), WeightType::f32, 2, {rows, cols}, {4, rows * 4}}, 2);
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
    plain.pack_as(WeightType::q8_0, {values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    plain.row(0, row.data());
    CHECK(std::isnan(row[32]) && std::isnan(row[63]) && !std::isnan(row[31]) && !std::isnan(row[64]));
}

TEST(four_bits_lose_less_than_with_the_largest_weight_as_the_scale) {
    Random random(3);
    double ours = 0.0, simple = 0.0;
    uint8_t block[18];
    const std::vector<float> alike(quant_group, 1.0f);
    for (int group = 0; group < 500; ++group) {
        auto w = random.values(quant_group);
        if (group % 5 == 0) w[7] *= 6.0f;
        quantize_to_iq4_nl(w.data(), alike.data(), block);
        for (int64_t i = 0; i < quant_group; ++i) {
            const float value = w[static_cast<size_t>(i)];
            ours += std::pow(value - weight_of_32(WeightType::iq4_nl, block, i), 2.0);
            simple += std::pow(value - simple_weight(w.data(), i), 2.0);
        }
    }
    CHECK(ours < 0.85 * simple, "%g and %g", ours, simple);
    for (const float special : {0.0f, 1e-38f, 1e-44f}) {  // groups too small for an f16 scale become zero
        std::vector<float> w(quant_group, special);
        quantize_to_iq4_nl(w.data(), alike.data(), block);
        for (int64_t i = 0; i < quant_group; ++i) CHECK(std::fabs(weight_of_32(WeightType::iq4_nl, block, i)) <= special);
    }
    for (const float special : {std::numeric_limits<float>::infinity(), not_a_number}) {
        std::vector<float> w(quant_group, 1.0f);
        w[3] = special;
        quantize_to_iq4_nl(w.data(), alike.data(), block);
        CHECK(std::isnan(weight_of_32(WeightType::iq4_nl, block, 0)));
    }
}

TEST(four_bits_keep_the_small_weights_of_large_inputs) {
    Random random(4);
    const int64_t rows = 53, cols = 3 * quant_group - 7, dead = 40;
    auto values = random.values(rows * cols);
    std::vector<float> inputs(static_cast<size_t>(cols), 1.0f);
    for (const int64_t k : {5, 70}) inputs[static_cast<size_t>(k)] = 64.0f;
    inputs[dead] = 0.0f;
    for (int64_t r = 0; r < rows; ++r) {
        for (const int64_t k : {5, 70}) values[static_cast<size_t>(r * cols + k)] /= 64.0f;
        values[static_cast<size_t>(r * cols + dead)] *= 1e-6f;
    }
    std::vector<float> transposed(values.size());
    for (int64_t i = 0; i < rows * cols; ++i)
        transposed[static_cast<size_t>(i % cols * rows + i / cols)] = values[static_cast<size_t>(i)];
    Matrix plain, from_transposed;
    plain.pack_as(WeightType::iq4_nl, {values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    from_transposed.pack_as(WeightType::iq4_nl, {transposed.data(), WeightType::f32, 2, {rows, cols}, {4, rows * 4}}, 1);
    std::vector<float> row(static_cast<size_t>(cols)), other(row);
    double ours[3] = {}, simple[3] = {};  // errors times the inputs, in each group of inputs
    for (int64_t r = 0; r < rows; ++r) {
        plain.row(r, row.data());
        from_transposed.row(r, other.data());
        CHECK(same_bits(row, other));
        for (int64_t k = 0; k < cols; ++k) {
            const int64_t start = k / quant_group * quant_group;
            float w[quant_group] = {};
            std::copy_n(values.data() + r * cols + start, std::min(quant_group, cols - start), w);
            const float input = inputs[static_cast<size_t>(k)], exact = w[k - start];
            ours[k / quant_group] += std::pow((exact - row[static_cast<size_t>(k)]) * input, 2.0);
            simple[k / quant_group] += std::pow((exact - simple_weight(w, k - start)) * input, 2.0);
        }
    }
    CHECK(ours[0] < 0.6 * simple[0] && ours[2] < 0.6 * simple[2], "%g and %g, %g and %g", ours[0], simple[0], ours[2], simple[2]);
    CHECK(ours[1] < simple[1], "a dead input's group: %g and %g", ours[1], simple[1]);
    values[5] = std::numeric_limits<float>::infinity();  // one infinity spoils its own group only
    plain.pack_as(WeightType::iq4_nl, {values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    for (const int64_t r : {0, 1}) {
        plain.row(r, row.data());
        from_transposed.row(r, other.data());
        CHECK(std::isnan(row[0]) == (r == 0) && std::isnan(row[31]) == (r == 0));
        for (size_t k = 32; k < row.size(); ++k) CHECK(std::fabs(row[k] - other[k]) < 0.2f);
    }
}
