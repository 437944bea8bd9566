// Quantised products: every instruction set gives the bits of kernels/scalar_quantized.cpp, which computes what quantized.h
// says.
#include <cmath>

#include "check.h"
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "tables.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

constexpr WeightType types[] = {WeightType::q8_0, WeightType::q4_0, WeightType::q4_1};

struct Rows {  // owns what a QuantizedRows points to
    std::vector<int8_t> values;
    std::vector<float> scales, offsets;
    std::vector<int32_t> sums;
    QuantizedRows rows;

    Rows(int64_t m, int64_t groups)
        : values(static_cast<size_t>(m * groups * quant_group), 99),
          scales(static_cast<size_t>(m * groups), 99.0f),
          offsets(scales),
          sums(scales.size(), 99),
          rows{values.data(), scales.data(), sums.data(), offsets.data(), groups} {}
};

uint16_t random_scale(Random& random) { return static_cast<uint16_t>(0x2000 + random.bits() % 0x1000); }  // 2^-7..2^-3

// One product with random weights, all of them at the extremes if `extreme`.
struct Case {
    WeightType type;
    int64_t m, groups, rows, first_group, panels, group_bytes, panel_bytes;
    std::vector<uint8_t> weights;
    std::vector<float> x, bias;

    Case(Random& random, WeightType t, int64_t m_, int64_t groups_, int64_t rows_, int64_t first, bool extreme)
        : type(t), m(m_), groups(groups_), rows(rows_), first_group(first), panels((rows_ + 15) / 16),
          group_bytes(t == WeightType::q8_0 ? 544 : t == WeightType::q4_0 ? 288 : 320),
          panel_bytes((groups_ * group_bytes + 63) / 64 * 64), weights(static_cast<size_t>(panels * panel_bytes + 8192)) {
        for (uint8_t& byte : weights) byte = extreme ? (random.bits() & 1 ? 255 : 0) : static_cast<uint8_t>(random.bits());
        for (int64_t panel = 0; panel < panels; ++panel)
            for (int64_t i = 0; i < groups * (type == WeightType::q4_1 ? 32 : 16); ++i) {
                const uint16_t scale = random_scale(random);
                std::memcpy(weights.data() + panel * panel_bytes + i * 2, &scale, 2);
            }
        x = random.values(m * groups * quant_group);
        if (extreme)
            for (float& value : x) value = value < 0.0f ? -1.0f : 1.0f;
        bias = random.values(panels * 16);
    }

    Rows quantized(const Kernels& kernels) const {
        Rows out(m, groups);
        for (int64_t row = 0; row < m; ++row)
            kernels.quantized->quantize(x.data() + row * groups * quant_group, groups * quant_group, out.rows, row);
        return out;
    }

    std::vector<float> run(const Kernels& kernels, const Rows& activations, int64_t cut) const {
        std::vector<float> out(static_cast<size_t>(m * (rows + 5)), 7.0f);
        Matmul task{};
        task.type = type;
        task.panels = weights.data();
        task.bias = bias.data();
        task.out = out.data();
        task.out_stride = rows + 5;
        task.m = m;
        task.k = (groups - first_group) * quant_group;
        task.rows = rows;
        task.panel_k = groups * quant_group;
        task.quantized = activations.rows;
        task.panel_bytes = panel_bytes;
        task.first_group = first_group;
        kernels.quantized->matmul(task, 0, cut);
        kernels.quantized->matmul(task, cut, panels);
        return out;
    }
};

}  // namespace

TEST(quantized_products_give_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables()) {
        Random random(21);
        for (int trial = 0; trial < (quick ? 200 : 10'000); ++trial) {
            const auto below = [&](uint64_t n) { return static_cast<int64_t>(random.bits() % n); };
            const int64_t groups = 1 + below(5);
            const Case one(random, types[below(3)], 1 + below(15), groups, 1 + below(70), below(static_cast<uint64_t>(groups)),
                           trial % 8 == 0);
            const Rows ours = one.quantized(*fast), theirs = one.quantized(scalar_kernels);
            CHECK(ours.values == theirs.values && ours.sums == theirs.sums && same_bits(ours.scales, theirs.scales) &&
                      same_bits(ours.offsets, theirs.offsets),
                  "%s, trial %d: the activations", fast->name, trial);
            CHECK(same_bits(one.run(*fast, theirs, below(static_cast<uint64_t>(one.panels + 1))),
                            one.run(scalar_kernels, theirs, one.panels)),
                  "%s, trial %d: type %d m %d groups %d rows %d", fast->name, trial, static_cast<int>(one.type),
                  static_cast<int>(one.m), static_cast<int>(groups), static_cast<int>(one.rows));
        }
    }
}

TEST(quantized_products_are_close_to_the_products_of_the_decoded_numbers) {
    Random random(22);
    for (const WeightType type : types) {
        const Case one(random, type, 3, 4, 20, 0, false);
        const Rows a = one.quantized(scalar_kernels);
        const auto out = one.run(scalar_kernels, a, 1);
        for (int64_t m = 0; m < one.m; ++m)
            for (int64_t row = 0; row < one.rows; ++row) {
                const uint8_t* panel = one.weights.data() + row / 16 * one.panel_bytes;
                double sum = one.bias[static_cast<size_t>(row)];
                for (int64_t i = 0; i < one.groups * quant_group; ++i) {
                    const int64_t g = i / quant_group, at = i % quant_group, lane = row % 16;
                    const uint8_t* group = panel + one.groups * (type == WeightType::q4_1 ? 64 : 32) +
                                           g * (type == WeightType::q8_0 ? 512 : 256);
                    const auto f16 = [&](int64_t index) { return to_f32(WeightType::f16, panel + index * 2); };
                    double weight;
                    if (type == WeightType::q8_0) weight = group[at / 4 * 64 + lane * 4 + at % 4] - 128;
                    else weight = group[at % 16 / 4 * 64 + lane * 4 + at % 4] >> (at < 16 ? 0 : 4) & 15;
                    if (type == WeightType::q4_0) weight -= 8;
                    weight *= f16(g * 16 + lane);
                    if (type == WeightType::q4_1) weight += f16((one.groups + g) * 16 + lane);
                    const auto index = static_cast<size_t>(m * one.groups + g);
                    sum += weight * a.values[index * quant_group + static_cast<size_t>(at)] * a.scales[index];
                }
                const double ours = out[static_cast<size_t>(m * (one.rows + 5) + row)];
                CHECK(std::abs(ours - sum) < 1e-4 * (1 + std::abs(sum)), "type %d: %g, wanted %g", static_cast<int>(type), ours, sum);
            }
    }
}

TEST(quantizing_rounds_to_nearest_and_passes_on_what_is_not_finite) {
    auto tables = fast_tables();
    tables.push_back(&scalar_kernels);
    for (const Kernels* table : tables) {
        std::vector<float> x(3 * quant_group - 5, 0.0f);
        x[0] = 127.0f, x[1] = 0.5f, x[2] = 1.5f, x[3] = -2.5f;  // ties go to the even neighbour
        x[40] = 1e-35f;                                        // too small to divide by
        Rows out(1, 3);
        table->quantized->quantize(x.data(), static_cast<int64_t>(x.size()), out.rows, 0);
        CHECK(out.values[0] == 127 && out.values[1] == 0 && out.values[2] == 2 && out.values[3] == -2, "%s", table->name);
        CHECK(out.scales[0] == 1.0f && out.sums[0] == 127 && out.offsets[0] == 127.0f);
        CHECK(out.scales[1] == 0.0f && out.values[40] == 0 && out.sums[1] == 0, "%s", table->name);
        for (const float poison : {not_a_number, -minus_infinity, minus_infinity}) {
            x[90] = poison;
            table->quantized->quantize(x.data(), static_cast<int64_t>(x.size()), out.rows, 0);
            CHECK(std::isnan(out.scales[2]) && out.values[90] == 0 && out.sums[2] == 0, "%s", table->name);
            CHECK(out.scales[0] == 1.0f, "%s: the other groups are as before", table->name);
        }
    }
}
