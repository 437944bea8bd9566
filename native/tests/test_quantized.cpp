// Quantised products: every instruction set gives the bits of kernels/scalar_quantized.cpp, which computes what quantized.h
// says.
#include <cmath>
#include <iterator>

#include "check.h"
#include "kernels/kernels.h"
#include "kernels/panels.h"
#include "platform/os.h"
#include "tables.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

constexpr WeightType types[] = {WeightType::q8_0, WeightType::q4_0, WeightType::q4_1, WeightType::q5_0, WeightType::q5_1,
                                WeightType::q4_k, WeightType::q5_k, WeightType::q6_k, WeightType::iq4_nl};

struct Rows {  // owns what a QuantizedRows points to
    std::vector<int8_t> values;
    std::vector<float> scales, offsets;
    std::vector<int32_t> sums, low_sums;
    QuantizedRows rows;

    Rows(int64_t m, int64_t groups, int64_t tile = 1)
        : values(static_cast<size_t>((m + tile - 1) / tile * tile * groups * quant_group), 99),
          scales(values.size() / quant_group, 99.0f),
          offsets(scales),
          sums(scales.size(), 99),
          low_sums(sums),
          rows{values.data(), scales.data(), sums.data(), low_sums.data(), offsets.data(), groups, tile} {}
};

uint16_t random_scale(Random& random) { return static_cast<uint16_t>(0x2000 + random.bits() % 0x1000); }  // 2^-7..2^-3

// One product with random weights, all of them at the extremes if `extreme`.
struct Case {
    WeightType type;
    int64_t m, groups, rows, first_group, panels;
    PanelParts parts;
    std::vector<uint8_t> weights;
    std::vector<float> x, bias;

    Case(Random& random, WeightType t, int64_t m_, int64_t groups_, int64_t rows_, int64_t first, bool extreme)
        : type(t), m(m_), groups(groups_), rows(rows_), first_group(first), panels((rows_ + 15) / 16),
          parts(parts_of(format_of(t), groups_)), weights(static_cast<size_t>(panels * parts.size + 8192)) {
        for (uint8_t& byte : weights) byte = extreme ? (random.bits() & 1 ? 255 : 0) : static_cast<uint8_t>(random.bits());
        for (int64_t panel = 0; panel < panels; ++panel)  // the scales and minima in f16, where any bits could be a NaN
            for (int64_t at = 0; at < parts.byte_scales; at += 2) {
                const uint16_t scale = random_scale(random);
                std::memcpy(weights.data() + panel * parts.size + at, &scale, 2);
            }
        x = random.values(m * groups * quant_group);
        if (extreme)
            for (float& value : x) value = value < 0.0f ? -1.0f : 1.0f;
        bias = random.values(panels * 16);
    }

    Rows quantized(const Kernels& kernels, int64_t tile = 1) const {
        Rows out(m, groups, tile);
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
        task.panel_bytes = parts.size;
        task.first_group = first_group;
        AlignedBuffer scratch(quantized_scratch);
        kernels.quantized->matmul(task, 0, cut, static_cast<uint8_t*>(scratch.get()));
        kernels.quantized->matmul(task, cut, panels, static_cast<uint8_t*>(scratch.get()));
        return out;
    }
};

}  // namespace

TEST(quantized_products_give_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables()) {
        Random random(21);
        for (int trial = 0; trial < (quick ? 200 : 10'000); ++trial) {
            const auto below = [&](uint64_t n) { return static_cast<int64_t>(random.bits() % n); };
            const WeightType type = types[static_cast<uint64_t>(trial) % std::size(types)];
            const int64_t groups = trial % 40 == 0 ? 72 + 8 * below(8)  // more than are expanded at a time
                                   : format_of(type).nested ? 8 * (1 + below(2)) : 1 + below(5);
            const Case one(random, type, 1 + below(trial % 3 == 0 ? 40 : 15), groups, 1 + below(70), below(static_cast<uint64_t>(groups)),
                           trial % 16 < 2);
            const Rows ours = one.quantized(*fast), theirs = one.quantized(scalar_kernels);
            CHECK(ours.values == theirs.values && ours.sums == theirs.sums && ours.low_sums == theirs.low_sums && same_bits(ours.scales, theirs.scales) &&
                      same_bits(ours.offsets, theirs.offsets),
                  "%s, trial %d: the activations", fast->name, trial);
            const auto expected = one.run(scalar_kernels, theirs, one.panels);
            const int64_t sizes[] = {1, fast->quantized->tile, 1 + below(20)};  // of a tile of activations
            for (const int64_t tile : sizes)
                CHECK(same_bits(one.run(*fast, one.quantized(*fast, tile), below(static_cast<uint64_t>(one.panels + 1))), expected),
                      "%s, trial %d: type %d m %d groups %d rows %d tile %d", fast->name, trial, static_cast<int>(one.type),
                      static_cast<int>(one.m), static_cast<int>(groups), static_cast<int>(one.rows), static_cast<int>(tile));
            const Rows tiled = one.quantized(scalar_kernels, sizes[2]);
            CHECK(same_bits(one.run(scalar_kernels, tiled, one.panels), expected) && one.quantized(*fast, sizes[2]).values == tiled.values,
                  "%s, trial %d: tile %d", fast->name, trial, static_cast<int>(sizes[2]));
        }
    }
}

TEST(quantized_products_are_close_to_the_products_of_the_decoded_numbers) {
    Random random(22);
    for (const WeightType type : types) {
        const Case one(random, type, 3, 8, 20, 0, false);
        const Rows a = one.quantized(scalar_kernels);
        const auto out = one.run(scalar_kernels, a, 1);
        for (int64_t m = 0; m < one.m; ++m)
            for (int64_t row = 0; row < one.rows; ++row) {
                const PanelRow w(type, one.groups, one.weights.data() + row / 16 * one.parts.size, row % 16);
                double sum = one.bias[static_cast<size_t>(row)];
                for (int64_t i = 0; i < one.groups * quant_group; ++i) {
                    const int64_t g = i / quant_group, at = i % quant_group;
                    double weight = static_cast<double>(w.scale(g, at)) * w.weight(g, at);
                    if (w.format.minimum) weight += w.minimum(g);
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
