// Forks share blocks of keys and values until one of their owners writes. Every owner, the parent included, must then
// continue with the bits of a sequence that was never forked. With attention windows a sequence frees what its next positions
// do not see, computes it again after it went back, and has the bits of one that frees nothing.
#include <algorithm>
#include <map>

#include "models.h"

using namespace pophood;

namespace {

constexpr int64_t vocabulary = 97;

// A sequence, all of its tokens, and the logits at the positions that it computed after the fork.
struct Owner {
    int64_t sequence;
    std::vector<int32_t> tokens;
    std::map<size_t, std::vector<float>> got;
};

std::vector<Row> rows_of(int64_t sequence, const std::vector<int32_t>& tokens, size_t first = 0) {
    std::vector<Row> rows;
    for (size_t i = first; i < tokens.size(); ++i) rows.push_back({sequence, tokens[i]});
    return rows;
}

Owner begin(Engine& engine, int32_t length) {
    Owner owner{engine.create(), {}, {}};
    for (const Row& row : text(owner.sequence, length)) owner.tokens.push_back(row.token);
    if (length > 0) logits(engine, rows_of(owner.sequence, owner.tokens));
    return owner;
}

Owner forked(Engine& engine, const Owner& from) { return {engine.fork(from.sequence), from.tokens, {}}; }

void truncate(Engine& engine, Owner& owner, int64_t length) {
    engine.truncate(owner.sequence, length);
    owner.tokens.resize(static_cast<size_t>(length));
    owner.got.erase(owner.got.lower_bound(owner.tokens.size()), owner.got.end());
    CHECK(engine.length(owner.sequence) == length);
}

// All owners append their own tokens by turns; every second turn goes in reverse order.
void append_tokens(Engine& engine, std::vector<Owner>& owners, int turns) {
    for (int turn = 0; turn < turns; ++turn)
        for (size_t i = 0; i < owners.size(); ++i) {
            const size_t j = turn % 2 ? owners.size() - 1 - i : i;
            Owner& owner = owners[j];
            const size_t position = owner.tokens.size();
            const auto number = static_cast<int>(j);
            owner.tokens.push_back(static_cast<int32_t>((turn * 29 + number * 11 + turn * number + 7) % vocabulary));
            owner.got[position] = logits(engine, rows_of(owner.sequence, owner.tokens, position));
        }
}

// Checks that the owners' logits are those of unforked sequences with the same tokens, then drops the owners.
void check_and_drop(Engine& engine, const std::vector<Owner>& owners) {
    for (size_t i = 0; i < owners.size(); ++i) {
        const int64_t alone = engine.create();
        const auto whole = logits(engine, rows_of(alone, owners[i].tokens));
        engine.drop(alone);
        CHECK(!owners[i].got.empty());
        for (const auto& [position, got] : owners[i].got) {
            const auto row = whole.begin() + static_cast<int64_t>(position) * vocabulary;
            CHECK(same_bits(got, {row, row + vocabulary}), "owner %d of %d, position %d", static_cast<int>(i),
                  static_cast<int>(owners.size()), static_cast<int>(position));
        }
    }
    for (const Owner& owner : owners) engine.drop(owner.sequence);
}

Config windowed(std::vector<int64_t> windows) {
    Config config = llama_like();
    config.n_layer = static_cast<int64_t>(windows.size());
    config.n_positions = 700;
    config.windows = std::move(windows);
    return config;
}

std::vector<float> next(Engine& engine, int64_t sequence, int32_t token) { return logits(engine, {{sequence, token}}); }

// Scales the first row by 1, after which the sequence frees nothing.
int64_t whole(Engine& engine, int32_t length) {
    const int64_t sequence = engine.create();
    const std::vector<float> ones(48, 1.0f);
    for (const Row& row : text(sequence, length)) {
        Request request{&row.token, &sequence, 1, Output::none, nullptr, 0, nullptr};
        if (engine.length(sequence) == 0) request.edits = {{Tap::resid_pre, 0, Edit::Kind::scale, -1, {0}, ones.data(), 0}};
        engine.forward(request);
    }
    return sequence;
}

}  // namespace

TEST(every_owner_of_a_block_continues_independently) {
    for (const Config& config : {llama_like(), gpt2_like()}) {
        auto engine = make(config, 1);
        for (const int owners : quick ? std::vector<int>{3} : std::vector<int>{2, 3, 5})
            for (const int32_t prefix : quick ? std::vector<int32_t>{31} : std::vector<int32_t>{1, 17, 31, 32, 33, 63, 64})
                for (const bool chain : {false, true}) {  // fork the parent each time, or the previous fork
                    std::vector<Owner> all{begin(*engine, prefix)};
                    while (static_cast<int>(all.size()) < owners) all.push_back(forked(*engine, chain ? all.back() : all.front()));
                    append_tokens(*engine, all, quick ? 3 : 5);
                    check_and_drop(*engine, all);
                }
    }
}

TEST(a_waiting_owner_is_not_overwritten) {
    auto engine = make(llama_like(), 1);
    for (const int32_t prefix : quick ? std::vector<int32_t>{50} : std::vector<int32_t>{1, 31, 32, 50}) {
        std::vector<Owner> writers{begin(*engine, prefix)};
        std::vector<Owner> waiting{forked(*engine, writers.front()), forked(*engine, writers.front())};
        append_tokens(*engine, writers, 36);  // past the end of a block
        append_tokens(*engine, waiting, 3);
        check_and_drop(*engine, writers);
        append_tokens(*engine, waiting, 2);
        check_and_drop(*engine, {waiting.front()});
        waiting.erase(waiting.begin());
        append_tokens(*engine, waiting, 2);  // the only owner left
        check_and_drop(*engine, waiting);
    }
}

TEST(truncating_one_owner_does_not_change_the_others) {
    auto engine = make(llama_like(), 1);
    for (const int32_t prefix : quick ? std::vector<int32_t>{70} : std::vector<int32_t>{64, 70})
        for (const int32_t length : quick ? std::vector<int32_t>{32} : std::vector<int32_t>{0, 1, 31, 32, 33, 63, 64})
            for (const size_t cut : {0u, 1u, 2u}) {  // the parent, or a fork
                std::vector<Owner> all{begin(*engine, prefix)};
                all.push_back(forked(*engine, all.front()));
                all.push_back(forked(*engine, all.back()));
                truncate(*engine, all[cut], length);
                std::vector<Owner> one{all[cut]};
                append_tokens(*engine, one, quick ? 4 : 34);  // writes at the positions of the others' keys
                all[cut] = one.front();
                append_tokens(*engine, all, 2);
                check_and_drop(*engine, all);
            }
}

TEST(blocks_without_owners_are_reused) {
    auto engine = make(llama_like(), 1);
    const auto fill = [&] {
        std::vector<Owner> all{begin(*engine, 50)};
        while (all.size() < 4) all.push_back(forked(*engine, all.back()));
        append_tokens(*engine, all, 2);
        truncate(*engine, all.back(), 10);
        const int64_t bytes = engine->cache_bytes();
        for (const Owner& owner : all) engine->drop(owner.sequence);
        CHECK(engine->cache_bytes() == bytes, "spare blocks are kept");
        return bytes;
    };
    const int64_t first = fill();
    CHECK(first > 0 && fill() == first && fill() == first, "a block was lost");
}

TEST(windows_are_freed_and_computed_again) {
    for (const std::vector<int64_t>& windows : {std::vector<int64_t>{40, 0}, {33, 7}, {1, 0, 64}}) {
        auto engine = make(windowed(windows), quick ? 1 : 2);
        const int64_t sequence = engine->create(), other = whole(*engine, 500);
        logits(*engine, text(sequence, 500));
        CHECK(engine->windows_from(other, 0, 500) == 0);
        const int64_t widest = *std::max_element(windows.begin(), windows.end());
        CHECK(engine->windows_from(sequence, 0, 500) == (501 - widest - kv_slack) / kv_block * kv_block);
        for (const int64_t length : {499, 450, 301, 64, 32, 1, 0}) {
            const int64_t a = engine->fork(sequence), b = engine->fork(other);
            engine->truncate(a, length);
            engine->truncate(b, length);
            const auto want = next(*engine, b, 3);
            CHECK(same_bits(next(*engine, a, 3), want), "after %d", static_cast<int>(length));
            CHECK(same_bits(next(*engine, a, 4), next(*engine, b, 4)), "after %d", static_cast<int>(length));
            engine->drop(a);
            engine->drop(b);
        }
        CHECK(same_bits(next(*engine, sequence, 9), next(*engine, other, 9)));
    }
}

TEST(a_stop_while_windows_are_computed_again_changes_nothing) {
    auto engine = make(windowed({40, 0}), 1);
    const int64_t sequence = engine->create();
    logits(*engine, text(sequence, 500));
    engine->truncate(sequence, 250);
    int polls = 0;
    bool stopped = false;
    try {
        logits(*engine, {{sequence, 1}}, {}, [&] { return ++polls > 1; });
    } catch (const Stopped&) {
        stopped = true;
    }
    CHECK(stopped && engine->length(sequence) == 250 && engine->resumable(sequence, 250) < 250);
    const int64_t alone = engine->create();
    logits(*engine, text(alone, 250));
    CHECK(same_bits(next(*engine, sequence, 1), next(*engine, alone, 1)));
}

TEST(exported_windows_continue) {
    auto engine = make(windowed({40, 0}), 1);
    const int64_t sequence = engine->create(), copy = engine->create();
    logits(*engine, text(sequence, 401));
    const int64_t from = engine->windows_from(sequence, 0, 401);
    std::vector<char> data(static_cast<size_t>(401 * engine->position_bytes(false) + (401 - from) * engine->position_bytes(true)));
    engine->export_kv(sequence, 0, 401, from, data.data());
    engine->append_kv(copy, 401, from, engine->tokens(sequence, 0, 401).data(), data.data());
    for (const int64_t length : {401, 150}) {
        engine->truncate(sequence, length);
        engine->truncate(copy, length);
        CHECK(same_bits(next(*engine, sequence, 2), next(*engine, copy, 2)));
    }
}

TEST(memory_of_windows_is_bounded) {
    auto engine = make(windowed({40, 40, 40}), 1);
    const int64_t sequence = engine->create();
    int64_t before = 0;
    for (const Row& row : text(sequence, 600)) {
        logits(*engine, {row});
        if (engine->length(sequence) == 300) before = engine->cache_bytes();
    }
    CHECK(engine->cache_bytes() == before);
    engine->forget_windows(sequence);
    CHECK(engine->resumable(sequence, 600) == 0);
}
