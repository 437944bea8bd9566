// A row's bits depend on its own history only: not on threads, batch, chunks, forks or taps. And nothing half done
// stays behind after an error.
#include <limits>
#include <memory>
#include <sstream>
#include <thread>

#include "../engine.h"
#include "../threads.h"
#include "check.h"

using namespace pophood;
using check::Random;
using check::same_bits;

namespace {

Config gpt2_like() {
    return {2, 3, 3, 48, 16, 100, 97, 128, false, 1e-5f, Activation::gelu_tanh, false, true, true, true, false, true, {}};
}
Config llama_like() {
    Config c = {2, 6, 2, 48, 12, 70, 97, 128, true, 1e-6f, Activation::silu, true, false, false, false, true, false, {}};
    c.frequencies = {1.0f, 0.5f, 0.25f, 0.1f, 0.05f, 0.01f};
    return c;
}

std::unique_ptr<Engine> make(const Config& config, int threads, const char* isa = nullptr, float scale = 0.2f) {
    auto engine = std::make_unique<Engine>(config, threads, *choose_kernels(isa));
    Random random(11);
    for (const std::string& name : engine->missing_tensors()) {
        // Shapes are found by trial: the engine knows them, the test does not repeat them.
        const int64_t sizes[] = {config.n_embd, config.head_dim, config.n_inner, config.vocab_size, config.n_positions,
                                 config.n_head * config.head_dim, config.n_kv_head * config.head_dim};
        const auto values = random.values(200 * 200, scale);
        bool set = false;
        for (const int64_t rows : sizes) {
            for (const int64_t cols : sizes) {
                for (const int dimensions : {1, 2}) {
                    if (set) continue;
                    const TensorView view{values.data(), WeightType::f32, dimensions, {rows, dimensions == 2 ? cols : 1},
                                          {dimensions == 2 ? cols * 4 : 4, 4}};
                    try {
                        engine->set_tensor(name, view);
                        set = true;
                    } catch (const std::invalid_argument&) {
                    }
                }
            }
        }
        CHECK(set, "%s", name.c_str());
    }
    return engine;
}

struct Row {
    int64_t sequence;
    int32_t token;
};

std::vector<float> logits(Engine& engine, const std::vector<Row>& rows, std::vector<Reading> readings = {},
                          std::function<bool()> stop = nullptr) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> sequences, wanted;
    for (const Row& row : rows) {
        wanted.push_back(static_cast<int64_t>(tokens.size()));
        tokens.push_back(row.token);
        sequences.push_back(row.sequence);
    }
    std::vector<float> out(rows.size() * static_cast<size_t>(engine.config().vocab_size));
    const auto n = static_cast<int64_t>(rows.size());
    engine.forward({tokens.data(), sequences.data(), n, Output::logits, wanted.data(), n, out.data(), std::move(readings),
                    std::move(stop)});
    return out;
}

std::vector<Row> text(int64_t sequence, int32_t n, int32_t seed = 3) {
    std::vector<Row> rows;
    for (int32_t i = 0; i < n; ++i) rows.push_back({sequence, (i * i * 7 + seed * 13 + i) % 97});
    return rows;
}

std::vector<float> in_chunks(Engine& engine, const std::vector<Row>& rows, size_t chunk) {
    std::vector<float> all;
    for (size_t start = 0; start < rows.size(); start += chunk) {
        const auto end = rows.begin() + static_cast<std::ptrdiff_t>(std::min(rows.size(), start + chunk));
        const auto part = logits(engine, {rows.begin() + static_cast<std::ptrdiff_t>(start), end});
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

template <class Error, class F>
void check_throws(F&& action) {
    bool thrown = false;
    try {
        action();
    } catch (const Error&) {
        thrown = true;
    }
    CHECK(thrown);
}

}  // namespace

TEST(bits_do_not_depend_on_threads_chunks_batches_or_instruction_sets) {
    for (const Config& config : {gpt2_like(), llama_like()}) {
        const int n = quick ? 35 : 100;
        auto reference = make(config, 1, "scalar");
        const auto expected = logits(*reference, text(reference->create(), n));
        std::istringstream names(available_kernels());
        for (std::string isa; names >> isa;)
            for (const int threads : quick ? std::vector<int>{2} : std::vector<int>{1, 2, 3}) {
                auto engine = make(config, threads, isa.c_str());
                for (const size_t chunk : quick ? std::vector<size_t>{7} : std::vector<size_t>{1, 7, 64, 512}) {
                    const int64_t sequence = engine->create();
                    CHECK(same_bits(in_chunks(*engine, text(sequence, n), chunk), expected), "%s threads %d chunk %d",
                          isa.c_str(), threads, static_cast<int>(chunk));
                    engine->drop(sequence);
                }
                std::vector<Row> batch;  // eight sequences side by side; the third is the reference
                for (int i = 0; i < (quick ? 3 : 8); ++i) {
                    const auto rows = text(engine->create(), n, i == 2 ? 3 : 20 + i);
                    batch.insert(batch.end(), rows.begin(), rows.end());
                }
                const auto all = logits(*engine, batch);
                const auto width = static_cast<std::ptrdiff_t>(expected.size());
                CHECK(same_bits({all.begin() + 2 * width, all.begin() + 3 * width}, expected), "batch");
            }
    }
}

TEST(forks_share_and_then_part) {
    auto engine = make(llama_like(), 2);
    for (const int32_t prefix : quick ? std::vector<int32_t>{33} : std::vector<int32_t>{5, 31, 32, 33, 64}) {
        const int64_t plain = engine->create(), shared = engine->create();
        const auto rows = text(plain, prefix + 20);
        const auto expected = logits(*engine, rows);
        auto begin = text(shared, prefix);
        logits(*engine, begin);
        const int64_t before = engine->cache_bytes();
        const int64_t left = engine->fork(shared), right = engine->fork(shared);
        CHECK(engine->cache_bytes() == before, "a fork takes no memory");
        auto rest = text(left, prefix + 20);
        logits(*engine, text(right, 20, 77));  // the sibling goes its own way first
        const auto got = logits(*engine, {rest.begin() + prefix, rest.end()});
        CHECK(same_bits(got, {expected.begin() + prefix * 97, expected.end()}), "prefix %d", prefix);
        engine->truncate(left, prefix / 2);
        CHECK(engine->length(left) == prefix / 2 && engine->length(shared) == prefix);
        rest.erase(rest.begin(), rest.begin() + prefix / 2);
        CHECK(same_bits(logits(*engine, rest), {expected.begin() + prefix / 2 * 97, expected.end()}), "truncated");
        for (const int64_t sequence : {plain, shared, left, right}) engine->drop(sequence);
    }
}

TEST(taps_read_without_changing_a_bit) {
    auto engine = make(gpt2_like(), 2);
    const auto rows = text(engine->create(), 20);
    const auto expected = logits(*engine, rows);
    std::vector<float> token(20 * 48), position(20 * 48), first(20 * 48), last(20 * 48), normed(20 * 48);
    const auto again = logits(*engine, text(engine->create(), 20),
                              {{Tap::embed_token, 0, token.data()}, {Tap::embed_position, 0, position.data()},
                               {Tap::resid_post, 0, first.data()}, {Tap::resid_post, 1, last.data()},
                               {Tap::final_norm, 0, normed.data()}});
    CHECK(same_bits(again, expected));
    for (const auto* values : {&token, &position, &first, &last, &normed}) CHECK((*values)[19 * 48 + 47] != 0.0f);
    CHECK(!same_bits(first, last) && !same_bits(last, normed));
}

TEST(an_error_leaves_every_sequence_as_it_was) {
    auto engine = make(gpt2_like(), 2);
    const int64_t a = engine->create(), b = engine->create();
    const auto expected = logits(*engine, text(a, 10));
    std::vector<Row> both = {{a, 1}, {a, 2}, {b, 3}};
    int asked = 0;
    check_throws<Stopped>([&] { logits(*engine, both, {}, [&] { return ++asked == 2; }); });
    check_throws<std::invalid_argument>([&] { logits(*engine, {{a, 1}, {b, 97}}); });
    check_throws<std::invalid_argument>([&] { logits(*engine, {{a, 1}, {b, 1}, {a, 1}}); });
    check_throws<std::length_error>([&] { logits(*engine, text(a, 119)); });
    check_throws<std::out_of_range>([&] { logits(*engine, {{a, 1}, {99, 1}}); });
    CHECK(engine->length(a) == 10 && engine->length(b) == 0);
    const auto more = text(a, 12);
    const auto got = logits(*engine, {more.begin() + 10, more.end()});
    const auto whole = logits(*engine, text(engine->create(), 12));
    CHECK(same_bits(got, {whole.begin() + 10 * 97, whole.end()}));
    check_throws<std::out_of_range>([&] { engine->truncate(a, 13); });
    check_throws<std::out_of_range>([&] { engine->length(1234); });
}

TEST(a_nan_is_an_error_and_leaves_no_trace) {
    auto engine = make(gpt2_like(), 1);
    const int64_t a = engine->create();
    logits(*engine, text(a, 3));
    auto poisoned = make(gpt2_like(), 1);
    std::vector<float> bias(48, 0.1f);
    bias[5] = std::numeric_limits<float>::quiet_NaN();
    poisoned->set_tensor("blocks.1.attn.v.bias", {bias.data(), WeightType::f32, 1, {48, 1}, {4, 0}});
    const int64_t p = poisoned->create();
    check_throws<NotFinite>([&] { logits(*poisoned, text(p, 3)); });
    CHECK(poisoned->length(p) == 0);
    bias[5] = 0.1f;
    poisoned->set_tensor("blocks.1.attn.v.bias", {bias.data(), WeightType::f32, 1, {48, 1}, {4, 0}});
    check_throws<std::out_of_range>([&] { poisoned->length(p); });  // new weights drop what the old ones computed
    logits(*poisoned, text(poisoned->create(), 3));                 // and the block that saw the NaN is clean again
}

TEST(two_engines_and_many_callers_share_the_pool) {
    auto one = make(gpt2_like(), 2), two = make(llama_like(), 3);
    const auto expected_one = logits(*one, text(one->create(), 30)), expected_two = logits(*two, text(two->create(), 30));
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
        callers.emplace_back([&, i] {
            for (int round = 0; round < (quick ? 2 : 10); ++round) {
                Engine& engine = i % 2 ? *two : *one;
                const int64_t sequence = engine.create();
                CHECK(same_bits(logits(engine, text(sequence, 30)), i % 2 ? expected_two : expected_one));
                engine.drop(sequence);
            }
        });
    for (auto& caller : callers) caller.join();
}

TEST(weights_of_any_strides_and_types_are_packed) {
    Random random(3);
    const int64_t rows = 19, cols = 70;
    const auto values = random.values(rows * cols);
    std::vector<float> transposed(values.size());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) transposed[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
    Matrix plain, turned;
    plain.pack({values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    turned.pack({transposed.data(), WeightType::f32, 2, {rows, cols}, {4, rows * 4}}, 2);
    std::vector<float> a(cols), b(cols);
    for (int64_t r = 0; r < rows; ++r) {
        plain.row(r, a.data());
        turned.row(r, b.data());
        CHECK(same_bits(a, {values.begin() + r * cols, values.begin() + (r + 1) * cols}) && same_bits(a, b));
    }
}

TEST(the_pool_covers_every_item_once) {
    for (const int threads : {1, 2, 5})
        for (const int64_t items : {0, 1, 2, 63, 1000}) {
            std::vector<int> seen(static_cast<size_t>(items), 0);
            parallel_for(threads, items, 7, [&](int64_t begin, int64_t end, int worker) {
                CHECK(worker >= 0 && worker < threads);
                for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
            });
            for (const int count : seen) CHECK(count == 1);
        }
}
