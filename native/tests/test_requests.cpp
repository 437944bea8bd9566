// What one call may ask for beside logits: adapters per sequence, summaries, edits, cancelled sequences, copied keys and values.
#include <algorithm>
#include <cmath>

#include "models.h"

using namespace pophood;

namespace {

std::vector<float> last_rows(const std::vector<float>& logits, const std::vector<size_t>& rows, size_t vocabulary) {
    std::vector<float> out;
    for (const size_t row : rows)
        out.insert(out.end(), logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary),
                   logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * vocabulary));
    return out;
}

std::vector<Row> joined(std::vector<Row> first, const std::vector<Row>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

struct Call {  // the arrays of a request for some rows
    std::vector<int32_t> tokens;
    std::vector<int64_t> sequences, wanted;
    explicit Call(const std::vector<Row>& rows) {
        for (const Row& row : rows) {
            wanted.push_back(static_cast<int64_t>(tokens.size()));
            tokens.push_back(row.token);
            sequences.push_back(row.sequence);
        }
    }
    Request request(Output output, float* out = nullptr) const {
        const auto n = static_cast<int64_t>(tokens.size());
        return {tokens.data(), sequences.data(), n, output, wanted.data(), n, out};
    }
};

}  // namespace

TEST(sequences_with_different_adapters_share_a_batch) {
    for (const Config& config : {gpt2_like(), llama_like()})
        for (const int threads : {1, 3}) {
            auto engine = make(config, threads);
            Random random(5);
            const int64_t width = config.n_head * config.head_dim, c = config.n_embd, f = config.n_inner;
            const auto pair = [&](const char* matrix, int64_t in, int64_t out, int64_t rank) {
                return add_adapter(*engine, matrix, random.values(rank * in, 0.3f), random.values(out * rank, 0.3f), rank);
            };
            const int64_t one = pair("blocks.0.attn.q", c, width, 3), two = pair("blocks.1.mlp.down", f, c, 20);
            const std::vector<std::vector<int64_t>> uses = {{one}, {}, {one, two}, {two}};
            std::vector<Row> rows;
            std::vector<float> alone;
            for (size_t i = 0; i < uses.size(); ++i) {
                const auto length = static_cast<int32_t>(3 + 5 * i);
                const auto own = logits(*engine, text(engine->create(uses[i]), length, static_cast<int32_t>(i)));
                alone.insert(alone.end(), own.begin(), own.end());
                rows = joined(rows, text(engine->create(uses[i]), length, static_cast<int32_t>(i)));
            }
            CHECK(same_bits(logits(*engine, rows), alone));
            engine->drop_adapter(one);
            bool refused = false;
            try {
                engine->create({one});
            } catch (const std::out_of_range&) {
                refused = true;
            }
            CHECK(refused);
        }
}

TEST(a_summary_is_that_of_the_logits) {
    const Config config = gpt2_like();
    const auto vocabulary = static_cast<size_t>(config.vocab_size);
    const int64_t n = 70, k = 9;  // more rows than a summary holds at once
    std::vector<double> first_mass;
    for (const int threads : {1, 2}) {
        auto engine = make(config, threads);
        const auto whole = logits(*engine, text(engine->create(), n));
        const Call call(text(engine->create(), n));
        std::vector<int32_t> ids(static_cast<size_t>(n * k)), targets(static_cast<size_t>(n), 11);
        std::vector<float> values(ids.size()), target_logits(targets.size());
        std::vector<double> mass(targets.size()), entropy(targets.size());
        std::vector<int64_t> ranks(targets.size());
        std::vector<uint32_t> allowed(static_cast<size_t>(n) * 4, 0xFFFFFFFFu);
        for (size_t row = 0; row < static_cast<size_t>(n); row += 2) allowed[row * 4] = 0xFFFF0F0Fu;  // without 4..7, 12..15
        Request request = call.request(Output::summary);
        request.summary = {k, ids.data(), values.data(), mass.data(), entropy.data(), allowed.data(), targets.data(),
                           target_logits.data(), ranks.data()};
        engine->forward(request);
        for (size_t row = 0; row < static_cast<size_t>(n); ++row) {
            std::vector<std::pair<float, int32_t>> order;
            double total = 0.0, weighted = 0.0;
            for (size_t i = 0; i < vocabulary; ++i) {
                if (row % 2 == 0 && i < 16 && i % 8 >= 4) continue;
                const float logit = whole[row * vocabulary + i];
                order.emplace_back(-logit, static_cast<int32_t>(i));
                total += std::exp(static_cast<double>(logit));
                weighted += std::exp(static_cast<double>(logit)) * static_cast<double>(logit);
            }
            std::sort(order.begin(), order.end());
            for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
                CHECK(ids[row * static_cast<size_t>(k) + i] == order[i].second);
                CHECK(values[row * static_cast<size_t>(k) + i] == -order[i].first);
            }
            CHECK(std::abs(mass[row] - std::log(total)) < 1e-5);
            CHECK(std::abs(entropy[row] - (std::log(total) - weighted / total)) < 1e-5);
            CHECK(target_logits[row] == whole[row * vocabulary + 11]);
            const auto place = std::find_if(order.begin(), order.end(), [](const auto& entry) { return entry.second == 11; });
            CHECK(ranks[row] == place - order.begin() + 1);
        }
        if (first_mass.empty()) first_mass = mass;
        CHECK(first_mass == mass);
    }
}

TEST(an_edit_changes_its_rows_and_head_alone) {
    for (const Config& config : {gpt2_like(), llama_like()}) {
        auto engine = make(config, 2);
        const auto width = static_cast<size_t>(config.vocab_size);
        const auto plain = logits(*engine, text(engine->create(), 12));
        std::vector<float> out(plain.size()), factor(64, 2.0f);
        for (const Tap tap : {Tap::q, Tap::k, Tap::v, Tap::z, Tap::scores, Tap::pattern, Tap::result}) {
            const Call own(text(engine->create(), 12));
            Request request = own.request(Output::logits, out.data());
            Edit edit{tap, 0, Edit::Kind::scale, 1, {5, 9}, factor.data(), 0, 12};
            CHECK(engine->edit_width(edit) <= 64);
            request.edits = {edit};
            engine->forward(request);
            for (size_t row = 0; row < 12; ++row) {
                const auto a = last_rows(out, {row}, width), b = last_rows(plain, {row}, width);
                CHECK(row >= 5 || same_bits(a, b), "tap %d row %zu", static_cast<int>(tap), row);
                if (row == 5 || row == 9) CHECK(!same_bits(a, b), "tap %d row %zu", static_cast<int>(tap), row);
            }
        }
        bool refused = false;
        try {
            engine->edit_width({Tap::resid_pre, 0, Edit::Kind::add, 0, {0}, factor.data(), 0});
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        CHECK(refused);
    }
}

TEST(a_cancelled_sequence_leaves_the_batch_between_blocks) {
    const Config config = llama_like();
    const auto vocabulary = static_cast<size_t>(config.vocab_size);
    for (int64_t block = 0; block <= config.n_layer; ++block)
        for (int64_t gone = 0; gone < 3; ++gone) {
            auto engine = make(config, 2);
            std::vector<Row> rows;
            std::vector<float> alone;
            for (int64_t i = 0; i < 3; ++i) {
                const auto own = logits(*engine, text(engine->create(), static_cast<int32_t>(4 + 9 * i)));
                alone.insert(alone.end(), own.begin(), own.end());
            }
            for (int64_t i = 0; i < 3; ++i) rows = joined(rows, text(engine->create(), static_cast<int32_t>(4 + 9 * i)));
            const Call call(rows);
            std::vector<float> out(alone.size());
            Request request = call.request(Output::logits, out.data());
            request.cancelled = [&, asked = int64_t{0}](int64_t sequence) mutable {
                return sequence == 3 + gone && asked++ >= block;
            };
            const auto cancelled = engine->forward(request);
            CHECK(cancelled == (block < config.n_layer ? std::vector<int64_t>{3 + gone} : std::vector<int64_t>{}));
            size_t row = 0;
            for (int64_t i = 0; i < 3; ++i)
                for (int64_t j = 0; j < 4 + 9 * i; ++j, ++row)
                    if (cancelled.empty() || i != gone)
                        CHECK(same_bits(last_rows(out, {row}, vocabulary), last_rows(alone, {row}, vocabulary)));
            CHECK(engine->length(3 + gone) == (cancelled.empty() ? 4 + 9 * gone : 0));
        }
}

TEST(copied_keys_and_values_continue_as_before) {
    for (const WeightType type : {WeightType::f32, WeightType::f16, WeightType::q8_0}) {
        auto engine = make(llama_like(), 2), other = make(llama_like(), 1);
        engine->set_kv_type(type);
        other->set_kv_type(type);
        const int64_t sequence = engine->create(), length = 45;
        logits(*engine, text(sequence, length));
        std::vector<char> data(static_cast<size_t>(length * engine->position_bytes(false)));
        engine->export_kv(sequence, 0, length, 0, data.data());
        const int64_t copy = other->create();
        other->append_kv(copy, length, 0, nullptr, data.data());
        CHECK(same_bits(logits(*other, text(copy, 20, 8)), logits(*engine, text(sequence, 20, 8))));
    }
}
