// Attention: every SIMD kernel gives the bits of kernels/scalar.cpp for every type of keys and values and however the
// positions are divided, and the scalar kernels compute a softmax.
#include <algorithm>
#include <cmath>

#include "engine/kv_cache.h"
#include "models.h"
#include "tables.h"

using namespace pophood;

namespace {

constexpr WeightType kv_types[] = {WeightType::f32, WeightType::f16, WeightType::q8_0};

struct Rules {  // of scores
    int64_t window = 0;
    float cap = 0.0f;
    void give(AttentionTask& task, int64_t query, int64_t visible) const {
        task.cap = cap;
        task.visible[query] = visible;
        task.first[query] = window > 0 ? std::max(visible - window, int64_t{0}) : 0;
    }
};

// The attention of all queries, range by range from the last to the first.
std::vector<float> in_ranges(const Kernels& kernels, const std::vector<const void*>& k, const std::vector<const void*>& v,
                             WeightType type, int64_t d, const std::vector<float>& q, const std::vector<int64_t>& visible,
                             const Rules& rules = {}) {
    std::vector<float> out(static_cast<size_t>(max_queries * d), 7.0f);
    AttentionTask task{};
    task.n_queries = static_cast<int64_t>(visible.size());
    task.kv_type = type;
    task.k_blocks = k.data();
    task.v_blocks = v.data();
    task.d = d;
    task.d_padded = (d + 15) / 16 * 16;
    task.scale = 0.3f;
    for (size_t j = 0; j < visible.size(); ++j) {
        task.q[j] = q.data() + static_cast<int64_t>(j) * d;
        rules.give(task, static_cast<int64_t>(j), visible[j]);
    }
    const auto ranges = (static_cast<int64_t>(k.size()) * kv_block + kv_range - 1) / kv_range;
    const int64_t size = part_size(task.d_padded), stride = task.n_queries * size;
    std::vector<float> parts(static_cast<size_t>(ranges * stride));
    for (int64_t range = ranges; range-- > 0;) kernels.attend_range(task, range, parts.data() + range * stride);
    for (int64_t j = 0; j < task.n_queries; ++j) {
        const int64_t first = task.first[j] / kv_range, last = (task.visible[j] + kv_range - 1) / kv_range;
        kernels.combine(parts.data() + first * stride + j * size, last - first, stride, out.data() + j * d, d);
    }
    return out;
}

void compare_attention(const Kernels& fast, WeightType type, int64_t d, const std::vector<int64_t>& visible, uint64_t seed,
                       const Rules& rules = {}) {
    Random random(seed);
    const int64_t padded = (d + 15) / 16 * 16;
    const int64_t blocks = (*std::max_element(visible.begin(), visible.end()) + kv_block - 1) / kv_block;
    const auto q = random.values(max_queries * d);
    KvCache cache({{1, d}}, fast);
    cache.set_type(type);
    const int64_t sequence = cache.create(), positions = blocks * kv_block;
    const auto keys = random.values(positions * d), values = random.values(positions * d);
    cache.extend(sequence, positions);
    cache.write(sequence, 0, 0, 0, positions, keys.data(), values.data(), d);
    std::vector<const void*> k(static_cast<size_t>(blocks)), v(k.size());
    cache.blocks(sequence, 0, 0, k.data(), v.data());
    const auto run = [&](const Kernels& kernels, bool together) {
        std::vector<float> out(static_cast<size_t>(max_queries * d), 7.0f);
        AttentionTask task{};
        task.kv_type = type;
        task.k_blocks = k.data();
        task.v_blocks = v.data();
        task.d = d;
        task.d_padded = padded;
        task.scale = 0.3f;
        for (size_t j = 0; j < visible.size(); ++j) {
            const int64_t at = together ? static_cast<int64_t>(j) : 0;
            task.q[at] = q.data() + static_cast<int64_t>(j) * d;
            task.out[at] = out.data() + static_cast<int64_t>(j) * d;
            rules.give(task, at, visible[j]);
            task.n_queries = at + 1;
            if (!together) kernels.attend(task);
        }
        if (together) kernels.attend(task);
        return out;
    };
    const auto expected = run(scalar_kernels, false);
    CHECK(same_bits(run(fast, true), expected), "%s d %d", fast.name, static_cast<int>(d));
    CHECK(same_bits(run(fast, false), expected), "%s d %d, one by one", fast.name, static_cast<int>(d));
    CHECK(same_bits(in_ranges(fast, k, v, type, d, q, visible, rules), expected), "%s d %d, in ranges", fast.name, static_cast<int>(d));
    const auto scores = [&](const Kernels& kernels) {
        std::vector<float> out(static_cast<size_t>(max_queries * blocks * kv_block), 7.0f);
        AttentionTask task{};
        task.n_queries = static_cast<int64_t>(visible.size());
        task.kv_type = type;
        task.k_blocks = k.data();
        task.d = d;
        task.scale = 0.3f;
        for (size_t j = 0; j < visible.size(); ++j) {
            task.q[j] = q.data() + static_cast<int64_t>(j) * d;
            task.out[j] = out.data() + static_cast<int64_t>(j) * blocks * kv_block;
            rules.give(task, static_cast<int64_t>(j), visible[j]);
        }
        kernels.score(task);
        return out;
    };
    CHECK(same_bits(scores(fast), scores(scalar_kernels)), "%s d %d, scores", fast.name, static_cast<int>(d));
}

}  // namespace

TEST(attention_gives_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables())
        for (const WeightType type : {WeightType::f32, WeightType::f16, WeightType::q8_0})
            for (const int64_t d : quick ? std::vector<int64_t>{8, 40} : std::vector<int64_t>{2, 8, 16, 24, 32, 40, 64, 80, 128, 256}) {
                compare_attention(*fast, type, d, {1}, 1);
                compare_attention(*fast, type, d, {32, 33}, 2);
                compare_attention(*fast, type, d, {63, 64, 65}, 3);
                compare_attention(*fast, type, d, {157, 158, 159, 160}, 4);
                compare_attention(*fast, type, d, {7, 7, 7, 160}, 5);
                compare_attention(*fast, type, d, {160}, 5);
                compare_attention(*fast, type, d, {97, 130, 31, 64, 65, 66}, 5);
                compare_attention(*fast, type, d, {153, 154, 155, 156, 157, 158, 159, 160}, 5);
                compare_attention(*fast, type, d, {512, 513, 1100}, 6);  // ranges, of which some queries see the first alone
                compare_attention(*fast, type, d, {1030, 1030, 1030}, 7);
                for (const Rules rules : quick ? std::vector<Rules>{{5, 2.0f}, {600, 0.0f}}
                                               : std::vector<Rules>{{1, 0.0f}, {5, 2.0f}, {64, 0.0f}, {600, 0.5f}, {0, 3.0f}}) {
                    compare_attention(*fast, type, d, {1}, 8, rules);
                    compare_attention(*fast, type, d, {30, 31, 32, 33, 34, 35, 36, 37}, 9, rules);
                    compare_attention(*fast, type, d, {97, 130, 31, 64, 65, 66}, 10, rules);
                    compare_attention(*fast, type, d, {509, 512, 513, 516, 517, 518, 1100}, 11, rules);
                }
            }
}

TEST(attention_of_any_size_gives_the_bits_of_the_specification) {
    for (const Kernels* fast : fast_tables()) {
        Random random(24);
        for (int trial = 0; trial < (quick ? 100 : 10'000); ++trial) {
            const auto below = [&](uint64_t n) { return static_cast<int64_t>(random.bits() % n); };
            const int64_t first = 1 + below(below(4) == 0 ? 1200 : 120), step = below(3);  // neighbouring rows, or several heads of one row
            std::vector<int64_t> visible;
            for (int64_t j = 0, queries = 1 + below(max_queries); j < queries; ++j) visible.push_back(first + j * step / 2);
            const Rules rules{below(2) == 0 ? 0 : 1 + below(below(2) == 0 ? 700 : 70), below(2) == 0 ? 0.0f : 1.5f};
            compare_attention(*fast, kv_types[below(3)], 2 * (1 + below(24)), visible, random.bits(), rules);
        }
    }
}

TEST(attention_is_a_softmax_over_the_keys_and_values_that_were_written) {
    const int64_t d = 40, positions = 600;
    Random random(31);
    const auto keys = random.values(positions * d), values = random.values(positions * d), q = random.values(d);
    for (const Rules rules : {Rules{}, Rules{70, 0.0f}, Rules{540, 0.2f}}) {
        for (const WeightType type : kv_types) {
            std::vector<double> expected(static_cast<size_t>(d), 0.0);
            double total = 0.0;
            for (int64_t pos = rules.window > 0 ? positions - rules.window : 0; pos < positions; ++pos) {
                double dot = 0.0;
                for (int64_t i = 0; i < d; ++i) dot += q[static_cast<size_t>(i)] * keys[static_cast<size_t>(pos * d + i)];
                const double cap = rules.cap, score = cap > 0.0 ? cap * std::tanh(0.3 * dot / cap) : 0.3 * dot;
                total += std::exp(score);
                for (int64_t i = 0; i < d; ++i)
                    expected[static_cast<size_t>(i)] += std::exp(score) * values[static_cast<size_t>(pos * d + i)];
            }
            KvCache cache({{1, d}}, scalar_kernels);
            cache.set_type(type);
            const int64_t sequence = cache.create();
            cache.extend(sequence, positions);
            cache.write(sequence, 0, 0, 0, positions, keys.data(), values.data(), d);
            std::vector<const void*> k(19), v(19);
            cache.blocks(sequence, 0, 0, k.data(), v.data());
            const auto out = in_ranges(scalar_kernels, k, v, type, d, q, {positions}, rules);
            double largest = 0.0;
            for (int64_t i = 0; i < d; ++i)
                largest = std::max(largest, std::fabs(out[static_cast<size_t>(i)] - expected[static_cast<size_t>(i)] / total));
            const double bound = type == WeightType::f32 ? 1e-6 : type == WeightType::f16 ? 1e-3 : 1e-2;
            CHECK(largest < bound && (type == WeightType::f32 || largest > bound / 1000), "type %d: %g", static_cast<int>(type), largest);
        }
    }
}

TEST(eight_bit_keys_and_values_are_within_half_a_step) {
    const int64_t d = 72, positions = 45;  // groups of 32, 32 and 8
    Random random(32);
    auto keys = random.values(positions * d), values = random.values(positions * d, 20.0f);
    for (int64_t i = 0; i < d; ++i) values[static_cast<size_t>(7 * d + i)] = 0.0f;
    KvCache cache({{1, d}}, scalar_kernels);
    cache.set_type(WeightType::q8_0);
    const int64_t sequence = cache.create();
    cache.extend(sequence, positions);
    for (int64_t from = 0; from < positions; from += 15)
        cache.write(sequence, 0, 0, from, 15, keys.data() + from * d, values.data() + from * d, d);
    std::vector<const void*> k(2), v(2);
    cache.blocks(sequence, 0, 0, k.data(), v.data());
    for (int64_t pos = 0; pos < positions; ++pos) {
        std::vector<float> got(static_cast<size_t>(d));
        cache.values_at(0, v[static_cast<size_t>(pos / kv_block)], pos % kv_block, got.data());
        for (int64_t i = 0; i < d; ++i) {
            float largest = 0.0f;
            for (int64_t j = i / 32 * 32; j < d && j < i / 32 * 32 + 32; ++j)
                largest = std::max(largest, std::fabs(values[static_cast<size_t>(pos * d + j)]));
            const float error = std::fabs(got[static_cast<size_t>(i)] - values[static_cast<size_t>(pos * d + i)]);
            CHECK(error <= largest / 127.0f * 0.57f, "position %d, feature %d", static_cast<int>(pos), static_cast<int>(i));
        }
        AttentionTask task{};
        std::vector<float> unit(static_cast<size_t>(d)), scores(static_cast<size_t>(positions));
        unit[static_cast<size_t>(pos % d)] = 1.0f;  // the score is one feature of the key
        task.n_queries = 1;
        task.q[0] = unit.data();
        task.out[0] = scores.data();
        task.visible[0] = positions;
        task.kv_type = WeightType::q8_0;
        task.k_blocks = k.data();
        task.d = d;
        task.scale = 1.0f;
        scalar_kernels.score(task);
        CHECK(std::fabs(scores[static_cast<size_t>(pos)] - keys[static_cast<size_t>(pos * d + pos % d)]) < 0.02f);
    }
}

void compare_at_depth(int64_t window, float cap) {
    Config config = llama_like();
    config.n_positions = 1200;
    config.windows = {window, 0};
    config.score_cap = cap;
    const auto vocabulary = static_cast<size_t>(config.vocab_size);
    for (const WeightType type : kv_types) {
        const int32_t length = 1090;
        auto engine = make(config, 1);
        engine->set_kv_type(type);
        const auto expected = logits(*engine, text(engine->create(), length));
        std::vector<float> last(expected.end() - static_cast<int64_t>(3 * vocabulary), expected.end());
        for (const int threads : {2, 3}) {
            auto other = make(config, threads);
            other->set_kv_type(type);
            CHECK(same_bits(logits(*other, text(other->create(), length)), expected));
            const int64_t a = other->create(), b = other->create();
            const auto all = text(a, length);
            logits(*other, {all.begin(), all.begin() + 500});
            logits(*other, {all.begin() + 500, all.end() - 3});
            const int64_t fork = other->fork(a);
            std::vector<float> got;
            for (auto row = all.end() - 3; row != all.end(); ++row) {  // one by one, beside a short sequence
                const auto rows = logits(*other, {*row, {b, 5}});
                got.insert(got.end(), rows.begin(), rows.begin() + static_cast<int64_t>(vocabulary));
            }
            CHECK(same_bits(got, last), "type %d", static_cast<int>(type));
            std::vector<Row> rest;
            for (auto row = all.end() - 3; row != all.end(); ++row) rest.push_back({fork, row->token});
            CHECK(same_bits(logits(*other, rest), last), "type %d, a fork", static_cast<int>(type));
        }
    }
}

TEST(attention_at_depth_does_not_depend_on_threads_chunks_or_batch) {
    compare_at_depth(0, 0.0f);
    compare_at_depth(40, 2.0f);
    if (!quick) compare_at_depth(600, 0.0f);
}

TEST(a_value_that_is_not_finite_reaches_the_output) {
    for (const WeightType type : kv_types)
        for (const bool key : {false, true}) {
            if (key && type != WeightType::q8_0) continue;  // there, an infinite score is minus infinity or an error
            Random random(33);
            auto keys = random.values(64), values = random.values(64);
            (key ? keys : values)[17] = std::numeric_limits<float>::infinity();
            auto tables = fast_tables();
            tables.push_back(&scalar_kernels);
            for (const Kernels* table : tables) {
                KvCache cache({{1, 16}}, *table);
                cache.set_type(type);
                const int64_t sequence = cache.create();
                cache.extend(sequence, 4);
                cache.write(sequence, 0, 0, 0, 4, keys.data(), values.data(), 16);
                std::vector<const void*> k(1), v(1);
                cache.blocks(sequence, 0, 0, k.data(), v.data());
                const auto out = in_ranges(*table, k, v, type, 16, random.values(16), {4});
                const auto head = out.begin() + 16;
                CHECK(!std::all_of(out.begin(), head, [](float x) { return std::isfinite(x); }), "%s", table->name);
            }
        }
}
