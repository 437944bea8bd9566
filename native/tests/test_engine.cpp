// A row's bits depend on that row's history only, not on threads, batches, chunks, forks or taps; and an error leaves
// every sequence as it was.
#include <limits>
#include <sstream>
#include <thread>

#include "platform/threads.h"
#include "models.h"

using namespace pophood;

namespace {

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
    for (const Config& config : all_models()) {
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
                for (const int other : {threads + 2, 1}) {
                    engine->set_threads(other);
                    CHECK(same_bits(in_chunks(*engine, text(engine->create(), n), 64), expected), "%d threads later", other);
                }
            }
    }
}

TEST(forks_share_blocks_until_they_diverge) {
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
        logits(*engine, text(right, 20, 77));  // the sibling diverges first
        const auto got = logits(*engine, {rest.begin() + prefix, rest.end()});
        CHECK(same_bits(got, {expected.begin() + prefix * 97, expected.end()}), "prefix %d", prefix);
        engine->truncate(left, prefix / 2);
        CHECK(engine->length(left) == prefix / 2 && engine->length(shared) == prefix);
        rest.erase(rest.begin(), rest.begin() + prefix / 2);
        CHECK(same_bits(logits(*engine, rest), {expected.begin() + prefix / 2 * 97, expected.end()}), "truncated");
        for (const int64_t sequence : {plain, shared, left, right}) engine->drop(sequence);
    }
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

TEST(a_nan_is_an_error_and_changes_no_sequence) {
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
    check_throws<std::out_of_range>([&] { poisoned->length(p); });  // new weights drop the old sequences
    logits(*poisoned, text(poisoned->create(), 3));                 // and the block that held the NaN is clean again
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
    Matrix plain, from_transposed;
    plain.pack({values.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}}, 2);
    from_transposed.pack({transposed.data(), WeightType::f32, 2, {rows, cols}, {4, rows * 4}}, 2);
    std::vector<float> a(cols), b(cols);
    for (int64_t r = 0; r < rows; ++r) {
        plain.row(r, a.data());
        from_transposed.row(r, b.data());
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
