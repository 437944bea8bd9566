// Every SIMD kernel gives the same bits as kernels/scalar.cpp on awkward sizes, and the scalar kernels are correct.
#include <cmath>
#include <limits>

#include "kernels/half.h"
#include "kernels/kernels.h"
#include "check.h"
#include "tables.h"
#include "weights/weights.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

uint16_t random_half(Random& random) {  // finite, subnormals included
    const auto bits = static_cast<uint16_t>(random.bits());
    return (bits & 0x7C00) == 0x7C00 ? static_cast<uint16_t>(bits & 0x83FF) : bits;
}
uint16_t random_bfloat(Random& random) {
    const float x = random.value();
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(bits >> 16);
}

void compare_matmul(const Kernels& fast, WeightType type, int64_t m, int64_t k, int64_t rows, bool bias, uint64_t seed) {
    Random random(seed);
    const int64_t panels = (rows + 15) / 16;
    std::vector<float> floats;
    std::vector<uint16_t> halves;
    if (type == WeightType::f32) floats = random.values(panels * k * 16);
    else
        for (int64_t i = 0; i < panels * k * 16; ++i)
            halves.push_back(type == WeightType::f16 ? random_half(random) : random_bfloat(random));
    const void* weights = type == WeightType::f32 ? static_cast<const void*>(floats.data()) : halves.data();
    const auto x = random.values(m * (k + 3)), b = random.values(panels * 16);
    std::vector<float> scratch(float_scratch / 4);
    const RowTiles tiles(m, fast.matmul_tokens);
    std::vector<float> interleaved(static_cast<size_t>(m * k + 1), 7.0f);
    for (int64_t i = 0; i < tiles.count; ++i)
        fast.interleave(x.data() + tiles.first(i) * (k + 3), k + 3, tiles.rows(i), k, interleaved.data() + tiles.first(i) * k);
    CHECK(interleaved.back() == 7.0f, "%s writes behind %d rows", fast.name, static_cast<int>(m));
    for (const bool accumulate : {false, true}) {
        const auto run = [&](const Kernels& kernels, bool tiled) {
            std::vector<float> out(static_cast<size_t>(m * (rows + 5)), 7.0f);
            Matmul task{type, weights, bias ? b.data() : nullptr, x.data(), k + 3, out.data(), rows + 5, m, k, rows, k};
            task.accumulate = accumulate;
            if (tiled) task.interleaved = interleaved.data();
            kernels.matmul(task, 0, panels / 2, scratch.data());
            kernels.matmul(task, panels / 2, panels, scratch.data());
            return out;
        };
        const std::vector<float> specified = run(scalar_kernels, false);
        for (const bool tiled : {false, true})
            CHECK(same_bits(run(fast, tiled), specified), "%s type %d m %d k %d rows %d accumulate %d tiled %d", fast.name,
                  static_cast<int>(type), static_cast<int>(m), static_cast<int>(k), static_cast<int>(rows), accumulate, tiled);
    }
}

template <class F>
void compare_elementwise(const Kernels& fast, F kernel, const char* name) {
    Random random(5);
    for (const int64_t n : {1, 3, 15, 16, 17, 31, 33, 100, 257}) {
        auto a = random.values(n, 4.0f), b = a;
        for (int64_t i = 0; i < n; i += 7) a[static_cast<size_t>(i)] = b[static_cast<size_t>(i)] *= 30.0f;  // large values too
        kernel(fast, a.data(), n);
        kernel(scalar_kernels, b.data(), n);
        CHECK(same_bits(a, b), "%s %s n %d", fast.name, name, static_cast<int>(n));
    }
}

}  // namespace

TEST(matmul_gives_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables())
        for (const WeightType type : {WeightType::f32, WeightType::f16, WeightType::bf16}) {
            for (const int64_t m : quick ? std::vector<int64_t>{1, 13, 15} : std::vector<int64_t>{1, 2, 3, 5, 6, 7, 13, 14, 15, 29, 53})
                for (const int64_t k : quick ? std::vector<int64_t>{13} : std::vector<int64_t>{1, 7, 8, 64, 65})
                    for (const int64_t rows : {1, 15, 16, 17, 40, 80}) compare_matmul(*fast, type, m, k, rows, m % 2 == 0, 1);
            if (!quick) {
                compare_matmul(*fast, type, 60, 2 * k_block + 100, 65, true, 2);  // several passes and pairs of panels
                compare_matmul(*fast, type, 1, 2 * k_block + 100, 33, false, 3);
            }
        }
}

TEST(elementwise_gives_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables()) {
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.exponential(x, n); }, "exp");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.scale(x, 0.37f, n); }, "scale");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.cap(x, 2.5f, n); }, "cap");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.gelu_tanh(x, n); }, "gelu_tanh");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.silu(x, n); }, "silu");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.multiply(x, x, n); }, "multiply");
        compare_elementwise(*fast, [](const Kernels& t, float* x, int64_t n) { t.add(x, x, n); }, "add");
        for (const bool rms : {false, true})
            compare_elementwise(
                *fast, [rms](const Kernels& t, float* x, int64_t n) { t.norm(x, nullptr, nullptr, 1e-5f, rms, x, n); }, "norm");
        Random random(8);
        const auto gain = random.values(300), bias = random.values(300), angle = random.values(300);
        compare_elementwise(
            *fast, [&](const Kernels& t, float* x, int64_t n) { t.norm(x, gain.data(), bias.data(), 1e-5f, false, x, n); }, "layer norm");
        compare_elementwise(
            *fast, [&](const Kernels& t, float* x, int64_t n) { t.norm(x, gain.data(), nullptr, 1e-5f, true, x, n); }, "rms norm");
        compare_elementwise(
            *fast, [&](const Kernels& t, float* x, int64_t n) { t.rope(x, angle.data(), gain.data(), n / 2 * 2); }, "rope");
    }
}

TEST(sums_of_exponentials_give_the_bits_of_the_specification) {
    Random random(9);
    const auto x = random.values(1024, 8.0f);
    for (const Kernels* fast : fast_tables())
        for (const int64_t n : {0, 1, 7, 8, 15, 16, 17, 1000, 1024}) {
            std::vector<double> ours(8, 0.5), theirs(8, 0.5);
            fast->exp_sums(x.data(), 3.0f, n, ours.data());
            scalar_kernels.exp_sums(x.data(), 3.0f, n, theirs.data());
            CHECK(std::memcmp(ours.data(), theirs.data(), 8 * sizeof(double)) == 0, "%s n %d", fast->name, static_cast<int>(n));
        }
}

TEST(conversion_to_f16_rounds_as_the_specification) {
    Random random(14);
    std::vector<float> x = random.values(1003, 100.0f);
    for (size_t i = 0; i < x.size(); i += 3) {  // any exponent, infinities included
        const auto bits = static_cast<uint32_t>(random.bits());
        if ((bits & 0x7F800000) != 0x7F800000 || (bits & 0x7FFFFF) == 0) std::memcpy(&x[i], &bits, 4);
    }
    x[1] = 65519.0f, x[2] = 65520.0f, x[4] = 5.9604645e-8f, x[5] = 2.9802322e-8f, x[7] = 2.9802326e-8f, x[8] = -0.0f;
    std::vector<uint16_t> ours(x.size()), theirs(x.size());
    scalar_kernels.to_half(theirs.data(), x.data(), static_cast<int64_t>(x.size()));
    CHECK(theirs[1] == 0x7BFF && theirs[2] == 0x7C00 && theirs[4] == 1 && theirs[5] == 0 && theirs[7] == 1 && theirs[8] == 0x8000);
    for (const Kernels* fast : fast_tables()) {
        fast->to_half(ours.data(), x.data(), static_cast<int64_t>(x.size()));
        CHECK(ours == theirs, "%s", fast->name);
    }
}

TEST(copy_works_at_every_alignment) {
    Random random(12);
    const auto values = random.values(300);
    for (const Kernels* fast : fast_tables())
        for (const int64_t begin : {0, 1, 15, 17})
            for (const int64_t n : {0, 1, 15, 16, 63, 200}) {
                std::vector<float> out(300, 7.0f), expected(300, 7.0f);
                std::copy(values.begin() + 3, values.begin() + 3 + n, expected.begin() + begin);
                fast->copy(out.data() + begin, values.data() + 3, n);
                CHECK(same_bits(out, expected), "%s begin %d n %d", fast->name, static_cast<int>(begin), static_cast<int>(n));
            }
}

TEST(non_finite_values_are_detected_and_propagated) {
    auto tables = fast_tables();
    tables.push_back(&scalar_kernels);
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    for (const Kernels* table : tables)
        for (const float poison : {nan, infinity, -infinity})
            for (const size_t at : {size_t{0}, size_t{16}, size_t{36}}) {
                std::vector<float> x(37, 1.0f);
                CHECK(table->all_finite(x.data(), 37));
                x[at] = poison;
                CHECK(!table->all_finite(x.data(), 37));
                table->norm(x.data(), nullptr, nullptr, 1e-5f, false, x.data(), 37);
                CHECK(!table->all_finite(x.data(), 37), "%s norm", table->name);
                std::vector<float> y(37, nan);
                table->exponential(y.data(), 37);
                table->silu(x.data(), 37);
                CHECK(!table->all_finite(y.data(), 37) && !table->all_finite(x.data(), 37), "%s", table->name);
            }
}

TEST(exponential_is_accurate) {
    double worst = 0.0;
    for (float x = -87.0f; x < 88.0f; x += quick ? 0.37f : 0.00137f) {
        float y = x;
        scalar_kernels.exponential(&y, 1);
        const double truth = std::exp(static_cast<double>(x));
        worst = std::max(worst, std::abs(y - truth) / truth);
    }
    CHECK(worst < 1.5e-7, "relative error %g", worst);
    float far[] = {-88.0f, -1e30f, -std::numeric_limits<float>::infinity(), 0.0f};
    scalar_kernels.exponential(far, 4);
    CHECK(far[0] == 0.0f && far[1] == 0.0f && far[2] == 0.0f && far[3] == 1.0f);
}

TEST(activations_are_close_to_their_definitions) {
    for (float x = -12.0f; x < 12.0f; x += 0.0317f) {
        float tanh_form = x, silu = x, erf_form = x, capped = x;
        scalar_kernels.cap(&capped, 3.0f, 1);
        CHECK(std::abs(capped - 3 * std::tanh(static_cast<double>(x) / 3)) < 1e-6, "cap(%g) = %g", x, capped);
        scalar_kernels.gelu_tanh(&tanh_form, 1);
        scalar_kernels.silu(&silu, 1);
        scalar_kernels.gelu_erf(&erf_form, 1);
        const double u = x, tanh_truth = 0.5 * u * (1 + std::tanh(std::sqrt(2 / 3.14159265358979324) * (u + 0.044715 * u * u * u)));
        CHECK(std::abs(tanh_form - tanh_truth) < 2e-6, "gelu_tanh(%g) = %g", x, tanh_form);
        CHECK(std::abs(silu - u / (1 + std::exp(-u))) < 2e-6, "silu(%g)", x);
        CHECK(std::abs(erf_form - 0.5 * u * (1 + std::erf(u * std::sqrt(0.5)))) < 2e-6, "gelu(%g)", x);
    }
}

TEST(bfloat16_products_are_near_the_exact_ones_and_the_same_in_any_batch) {
    for (const Kernels* table : fast_tables()) {
        if (!table->bf16) continue;
        Random random(31);
        for (int trial = 0; trial < (quick ? 20 : 300); ++trial) {
            const auto below = [&](uint64_t n) { return static_cast<int64_t>(random.bits() % n); };
            const int64_t m = 1 + below(40), k = trial % 5 == 0 ? 1024 + below(300) : 1 + below(80), rows = 1 + below(70);
            const auto w = random.values(rows * k), x = random.values(m * k), bias = random.values((rows + 15) / 16 * 16);
            std::vector<uint16_t> stored(w.size());
            for (size_t i = 0; i < w.size(); ++i) std::memcpy(&stored[i], reinterpret_cast<const char*>(&w[i]) + 2, 2);
            Matrix matrix;
            matrix.pack_in_pairs({stored.data(), WeightType::bf16, 2, {rows, k}, {k * 2, 2}}, 2);
            const int64_t groups = (k + 31) / 32, stride = groups * 32;
            std::vector<uint16_t> rounded(static_cast<size_t>(m * stride), 0xFFFF);
            std::vector<uint16_t> in_tiles(static_cast<size_t>((m + table->bf16->tile) * stride), 0xFFFF);  // the last tile may have free rows
            const RoundedRows tiled = {in_tiles.data(), groups, table->bf16->tile};
            for (int64_t row = 0; row < m; ++row) {
                table->bf16->round(x.data() + row * k, k, {rounded.data(), groups}, row);
                table->bf16->round(x.data() + row * k, k, tiled, row);
            }
            std::vector<float> out(static_cast<size_t>(m * rows)), alone(static_cast<size_t>(rows)), from_tiles(out);
            const auto input = [&](int64_t first, int64_t n) -> Activations {
                return {nullptr, k, n, {{}, {rounded.data() + first * stride, groups}}};
            };
            table->bf16->matmul(matrix.times(input(0, m), bias.data(), out.data(), rows), 0, matrix.n_panels());
            table->bf16->matmul(matrix.times({nullptr, k, m, {{}, tiled}}, bias.data(), from_tiles.data(), rows), 0, matrix.n_panels());
            CHECK(same_bits(out, from_tiles), "%s, m %d k %d rows %d in tiles", table->name, static_cast<int>(m), static_cast<int>(k),
                  static_cast<int>(rows));
            for (int64_t row = 0; row < m; ++row) {
                const Matmul one = matrix.times(input(row, 1), bias.data(), alone.data(), rows);
                table->bf16->matmul(one, 0, 1);
                table->bf16->matmul(one, 1, matrix.n_panels());
                CHECK(std::memcmp(alone.data(), out.data() + row * rows, alone.size() * 4) == 0, "row %d of %d", static_cast<int>(row),
                      static_cast<int>(m));
                for (int64_t r = 0; r < rows; ++r) {
                    double sum = bias[static_cast<size_t>(r)], size = std::abs(sum);
                    for (int64_t i = 0; i < k; ++i) {
                        const double product = static_cast<double>(to_f32(WeightType::bf16, &stored[static_cast<size_t>(r * k + i)])) *
                                               to_f32(WeightType::bf16, &rounded[static_cast<size_t>(row * stride + i)]);
                        sum += product;
                        size += std::abs(product);
                    }
                    CHECK(std::abs(alone[static_cast<size_t>(r)] - sum) < 1e-5 * size, "%g, wanted %g", alone[static_cast<size_t>(r)], sum);
                }
            }
            for (int64_t i = 0; i < k; ++i)  // half a unit in the last place of 8 bits
                CHECK(std::abs(to_f32(WeightType::bf16, &rounded[static_cast<size_t>(i)]) - x[static_cast<size_t>(i)]) <=
                      std::abs(x[static_cast<size_t>(i)]) / 256);
        }
    }
}
