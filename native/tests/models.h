// Shared by the engine's tests: small models, a text for them, and its logits.
#pragma once

#include <functional>
#include <memory>

#include "engine/engine.h"
#include "check.h"

namespace pophood {

using check::Random;
using check::same_bits;

inline Config gpt2_like() {
    return {2, 3, 3, 48, 16, 100, 97, 128, false, 1e-5f, Activation::gelu_tanh, false, true, true, true, false, true, {}};
}
inline Config llama_like() {
    Config c = {2, 6, 2, 48, 12, 70, 97, 128, true, 1e-6f, Activation::silu, true, false, false, false, true, false, {}};
    c.rotaries = {{{1.0f, 0.5f, 0.25f, 0.1f, 0.05f, 0.01f}}};
    return c;
}

// Norms before and after, norms of heads, a window and a rotation of its own in the first block, caps, a multiplier.
inline Config gemma_like() {
    Config c = llama_like();
    c.activation = Activation::gelu_tanh;
    c.qk_norm = true;
    c.norm_places = NormPlaces::both;
    c.rotaries.push_back({{1.0f, 0.3f, 0.1f, 0.03f, 0.01f, 0.003f}});
    c.rotary_of = {1, 0};
    c.windows = {9, 0};
    c.score_cap = 3.0f, c.logit_cap = 5.0f, c.embedding_scale = 7.0f;
    return c;
}
// Norms after alone, norms of queries and keys over all heads, a block that does not rotate, scales everywhere.
inline Config olmo_like() {
    Config c = llama_like();
    c.qk_norm = c.qk_norm_whole = true;
    c.norm_places = NormPlaces::after;
    c.rotary_of = {0, -1};
    c.attention_scale = 0.1f, c.residual_scale = 0.4f, c.logit_scale = 0.3f;
    return c;
}
// Layer norms, a feed-forward beside attention, rotation of a part of each head, stretched.
inline Config neox_like() {
    Config c = gpt2_like();
    c.activation = Activation::gelu;
    c.parallel = true;
    c.rotaries = {{{1.0f, 0.1f, 0.01f}, 1.2f}};
    return c;
}
inline std::vector<Config> all_models() { return {gpt2_like(), llama_like(), gemma_like(), olmo_like(), neox_like()}; }

inline std::unique_ptr<Engine> make(const Config& config, int threads, const char* isa = nullptr, float scale = 0.2f) {
    auto engine = std::make_unique<Engine>(config, threads, *choose_kernels(isa));
    Random random(11);
    for (const std::string& name : engine->missing_tensors()) {
        // Tries all shapes, because the engine knows which one fits and the test need not repeat it.
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

inline std::vector<float> logits(Engine& engine, const std::vector<Row>& rows, std::vector<Reading> readings = {},
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

// Creates an adapter of one matrix; a: [rank, inputs], b: [outputs, rank].
inline int64_t add_adapter(Engine& engine, const std::string& matrix, const std::vector<float>& a, const std::vector<float>& b,
                           int64_t rank) {
    const int64_t inputs = static_cast<int64_t>(a.size()) / rank, outputs = static_cast<int64_t>(b.size()) / rank;
    const int64_t adapter = engine.create_adapter();
    engine.set_adapter_pair(adapter, matrix, {a.data(), WeightType::f32, 2, {rank, inputs}, {inputs * 4, 4}},
                            {b.data(), WeightType::f32, 2, {outputs, rank}, {rank * 4, 4}});
    return adapter;
}

inline std::vector<Row> text(int64_t sequence, int32_t n, int32_t seed = 3) {
    std::vector<Row> rows;
    for (int32_t i = 0; i < n; ++i) rows.push_back({sequence, (i * i * 7 + seed * 13 + i) % 97});
    return rows;
}

inline std::vector<float> in_chunks(Engine& engine, const std::vector<Row>& rows, size_t chunk) {
    std::vector<float> all;
    for (size_t start = 0; start < rows.size(); start += chunk) {
        const auto end = rows.begin() + static_cast<std::ptrdiff_t>(std::min(rows.size(), start + chunk));
        const auto part = logits(engine, {rows.begin() + static_cast<std::ptrdiff_t>(start), end});
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

}  // namespace pophood
