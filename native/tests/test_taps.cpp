// Taps return the values that the forward pass computed, and reading them changes no bit.
#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "models.h"

using namespace pophood;

namespace {

constexpr int64_t n = 40;  // rows: more than one block of the cache

struct Place {
    Tap tap;
    int64_t layer;
    bool operator<(const Place& other) const { return tap != other.tap ? tap < other.tap : layer < other.layer; }
};
using Values = std::map<Place, std::vector<float>>;

std::vector<Place> places(const Config& config) {
    std::vector<Place> all;
    for (int tap = 0; tap <= static_cast<int>(Tap::logits); ++tap) {
        const auto place = static_cast<Tap>(tap);
        const bool rotary = !config.rotaries.empty();
        if (rotary && place == Tap::embed_position) continue;
        if (config.parallel && place == Tap::resid_mid) continue;
        const bool norm = place == Tap::ln_1_normalized || place == Tap::ln_1 || place == Tap::ln_2_normalized || place == Tap::ln_2;
        if (!config.norms_before() && norm) continue;
        if (!config.gated_mlp && (place == Tap::mlp_gate || place == Tap::mlp_up)) continue;
        const bool inside = place >= Tap::resid_pre && place <= Tap::resid_post;
        for (int64_t layer = 0; layer < (inside ? config.n_layer : 1); ++layer) all.push_back({place, layer});
    }
    return all;
}

// Reads every tap of a text of n tokens, chunk by chunk.
Values read_all(Engine& engine, size_t chunk) {
    Values values;
    const int64_t sequence = engine.create();
    const auto rows = text(sequence, n);
    for (const Place& place : places(engine.config()))
        values[place].assign(static_cast<size_t>(n * engine.tap_width(place.tap, n)), 7.0f);
    for (size_t start = 0; start < rows.size(); start += chunk) {
        const size_t end = std::min(rows.size(), start + chunk);
        std::vector<Reading> readings;
        for (auto& [place, array] : values) {
            const int64_t width = engine.tap_width(place.tap, n);
            readings.push_back({place.tap, place.layer, array.data() + static_cast<int64_t>(start) * width, n});
        }
        logits(engine, {rows.begin() + static_cast<std::ptrdiff_t>(start), rows.begin() + static_cast<std::ptrdiff_t>(end)}, readings);
    }
    engine.drop(sequence);
    return values;
}

float difference(const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 0.0f;
    for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
}

std::vector<float> sum(std::vector<float> a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
}

}  // namespace

TEST(reading_everything_changes_no_bit) {
    for (const Config& config : all_models()) {
        auto engine = make(config, 2);
        const auto expected = logits(*engine, text(engine->create(), n));
        const Values values = read_all(*engine, n);
        CHECK(same_bits(values.at({Tap::logits, 0}), expected));
        CHECK(same_bits(logits(*engine, text(engine->create(), n)), expected));
    }
}

TEST(taps_do_not_depend_on_threads_chunks_or_instruction_sets) {
    for (const Config& config : all_models()) {
        const Values expected = read_all(*make(config, 1, "scalar"), n);
        std::istringstream names(available_kernels());
        for (std::string isa; names >> isa;)
            for (const size_t chunk : quick ? std::vector<size_t>{7} : std::vector<size_t>{1, 7, n}) {
                const Values got = read_all(*make(config, 3, isa.c_str()), chunk);
                for (const auto& [place, values] : expected)
                    CHECK(same_bits(got.at(place), values), "%s tap %d layer %d chunk %d", isa.c_str(),
                          static_cast<int>(place.tap), static_cast<int>(place.layer), static_cast<int>(chunk));
            }
    }
}

TEST(taps_add_up) {
    for (const Config& config : {gpt2_like(), llama_like()}) {
        const int64_t heads = config.n_head, c = config.n_embd, d = config.head_dim, group = heads / config.n_kv_head;
        const Values values = read_all(*make(config, 2), n);
        for (int64_t layer = 0; layer < config.n_layer; ++layer) {
            const auto at = [&](Tap tap) -> const std::vector<float>& { return values.at({tap, layer}); };
            CHECK(same_bits(sum(at(Tap::resid_pre), at(Tap::attn_out)), at(Tap::resid_mid)));
            CHECK(same_bits(sum(at(Tap::resid_mid), at(Tap::mlp_out)), at(Tap::resid_post)));
            if (layer > 0) CHECK(same_bits(at(Tap::resid_pre), values.at({Tap::resid_post, layer - 1})));
            std::vector<float> mixed(static_cast<size_t>(n * heads * d), 0.0f);
            for (int64_t row = 0; row < n; ++row)
                for (int64_t head = 0; head < heads; ++head) {
                    const float* weights = at(Tap::pattern).data() + (row * heads + head) * n;
                    const float* scores = at(Tap::scores).data() + (row * heads + head) * n;
                    float total = 0.0f;
                    for (int64_t key = 0; key < n; ++key) {
                        total += weights[key];
                        CHECK(key <= row ? weights[key] > 0.0f && std::isfinite(scores[key])
                                         : weights[key] == 0.0f && scores[key] == minus_infinity);
                        const float* v = at(Tap::v).data() + (key * config.n_kv_head + head / group) * d;
                        for (int64_t i = 0; i < d; ++i) mixed[static_cast<size_t>((row * heads + head) * d + i)] += weights[key] * v[i];
                    }
                    CHECK(std::abs(total - 1.0f) < 1e-5f);
                }
            CHECK(difference(mixed, at(Tap::z)) < 1e-4f);
            if (config.attn_out_bias) continue;
            std::vector<float> results(static_cast<size_t>(n * c), 0.0f);
            for (int64_t row = 0; row < n; ++row)
                for (int64_t head = 0; head < heads; ++head)
                    for (int64_t i = 0; i < c; ++i)
                        results[static_cast<size_t>(row * c + i)] += at(Tap::result)[static_cast<size_t>((row * heads + head) * c + i)];
            CHECK(difference(results, at(Tap::attn_out)) < 1e-4f);
        }
    }
}

TEST(heads_parts_include_an_adapter_of_the_projection_alone) {  // no other adapter has made room for its products
    const Config config = llama_like();
    const int64_t heads = config.n_head, c = config.n_embd, inputs = heads * config.head_dim, rank = 3;
    Random random(9);
    const auto a = random.values(rank * inputs, 0.3f), b = random.values(c * rank, 0.3f);
    const Values plain = read_all(*make(config, 2), n);
    auto engine = make(config, 2);
    const int64_t adapter = add_adapter(*engine, "blocks.0.attn.out", a, b, rank);
    std::vector<float> parts(static_cast<size_t>(n * heads * c)), whole(static_cast<size_t>(n * c)), total(whole.size());
    logits(*engine, text(engine->create({adapter}), n), {{Tap::result, 0, parts.data()}, {Tap::attn_out, 0, whole.data()}});
    for (int64_t row = 0; row < n; ++row)
        for (int64_t head = 0; head < heads; ++head)
            for (int64_t i = 0; i < c; ++i)
                total[static_cast<size_t>(row * c + i)] += parts[static_cast<size_t>((row * heads + head) * c + i)];
    CHECK(difference(total, whole) < 1e-4f);
    CHECK(difference(whole, plain.at({Tap::attn_out, 0})) > 1e-3f);
}

TEST(a_tap_array_with_too_few_keys_is_refused) {
    auto engine = make(gpt2_like(), 1);
    std::vector<float> values(static_cast<size_t>(n * 3 * n));
    bool refused = false;
    try {
        logits(*engine, text(engine->create(), n), {{Tap::pattern, 0, values.data(), n - 1}});
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused);
}

TEST(chosen_rows_and_heads_have_the_values_of_all) {
    for (const Config& config : {gpt2_like(), llama_like()}) {
        auto engine = make(config, 2);
        const auto rows = [&] {  // of two sequences, the second one longer
            std::vector<Row> both = text(engine->create(), 5);
            for (const Row& row : text(engine->create(), n)) both.push_back(row);
            return both;
        };
        const std::vector<int64_t> chosen{4, 5, 30, n + 4};
        for (const Place& place : places(config)) {
            std::vector<float> all(static_cast<size_t>((n + 5) * engine->tap_width(place.tap, n)));
            const auto expected = logits(*engine, rows(), {{place.tap, place.layer, all.data(), n}});
            const bool attention = place.tap == Tap::scores || place.tap == Tap::pattern;
            for (int64_t head = -1; head < (attention ? config.n_head : 0); ++head) {
                const int64_t width = engine->tap_width(place.tap, n), own = head == -1 ? width : n;
                std::vector<float> some(chosen.size() * static_cast<size_t>(own));
                try {
                    CHECK(same_bits(logits(*engine, rows(), {{place.tap, place.layer, some.data(), n, chosen, head}}), expected));
                } catch (const std::invalid_argument&) {
                    continue;  // a tap that is read of every row
                }
                for (size_t i = 0; i < chosen.size(); ++i) {
                    const auto from = all.begin() + chosen[i] * width + std::max<int64_t>(head, 0) * own;
                    const auto to = some.begin() + static_cast<std::ptrdiff_t>(i) * own;
                    CHECK(same_bits({to, to + own}, {from, from + own}));
                }
            }
        }
    }
}

TEST(readings_of_rows_outlive_a_cancelled_sequence) {
    const Config config = llama_like();
    auto engine = make(config, 2);
    const auto width = static_cast<size_t>(config.n_embd);
    const int64_t last = config.n_layer - 1;
    std::vector<float> alone(width), stream(2 * width), weights(2 * n);
    logits(*engine, text(engine->create(), n), {{Tap::resid_post, last, alone.data(), 0, {n - 1}}});
    std::vector<Row> rows = text(engine->create(), 9);
    const int64_t gone = rows[0].sequence;
    for (const Row& row : text(engine->create(), n)) rows.push_back(row);
    std::vector<int32_t> tokens;
    std::vector<int64_t> sequences;
    for (const Row& row : rows) {
        tokens.push_back(row.token);
        sequences.push_back(row.sequence);
    }
    Request request{tokens.data(), sequences.data(), n + 9, Output::none, nullptr, 0, nullptr};
    request.readings = {{Tap::resid_post, last, stream.data(), 0, {8, n + 8}},
                        {Tap::pattern, last, weights.data(), n, {8, n + 8}, 1}};
    request.cancelled = [&](int64_t sequence) { return sequence == gone; };
    CHECK(engine->forward(request) == std::vector<int64_t>{gone});
    CHECK(same_bits({stream.begin() + static_cast<std::ptrdiff_t>(width), stream.end()}, alone));
}

TEST(the_stream_after_the_last_block_gives_the_summary_of_its_row) {
    for (const Config& config : {gpt2_like(), llama_like()}) {
        auto engine = make(config, 2);
        const auto vocabulary = static_cast<size_t>(config.vocab_size);
        std::vector<float> stream(static_cast<size_t>(n * config.n_embd));
        const auto expected = logits(*engine, text(engine->create(), n),
                                     {{Tap::resid_post, config.n_layer - 1, stream.data()}});
        std::vector<float> out(n * vocabulary), best(n);
        std::vector<int32_t> ids(n);
        std::vector<double> mass(n), entropy(n);
        Summary summary;
        summary.k = 1;
        summary.ids = ids.data();
        summary.logits = best.data();
        summary.logsumexp = mass.data();
        summary.entropy = entropy.data();
        engine->unembed(stream.data(), n, out.data(), summary);
        CHECK(same_bits(out, expected));
        for (size_t row = 0; row < n; ++row) {
            const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(row * vocabulary);
            const auto largest = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocabulary));
            CHECK(ids[row] == largest - begin && best[row] == *largest);
        }
    }
}
