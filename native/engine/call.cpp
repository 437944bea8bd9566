// The call around the forward pass: checks, memory, cancelled sequences, missing windows; and the sequences' lives. See
// engine.h.
#include <algorithm>
#include <cstring>

#include "engine/engine.h"

namespace pophood {
namespace {

constexpr int64_t refill_rows = 512;  // of a piece: enough for the full speed of the products

}  // namespace

std::vector<int64_t> Engine::forward(const Request& original) {
    std::lock_guard<std::mutex> lock(mutex_);
    const Segments segments = plan(original);
    const bool everything = std::any_of(original.edits.begin(), original.edits.end(), [&](const Edit& edit) {
        return (edit.tap == Tap::scores || edit.tap == Tap::pattern) && config_.window(edit.layer) > 0;
    });
    for (const Segment& segment : segments) {
        refill(segment, everything, original.stop);
        if (everything) cache_.keep_all(segment.sequence);
    }
    return run(original, segments);
}

std::vector<int64_t> Engine::run(const Request& original, const Segments& all, bool frees) {
    reserve(original.n);
    cancelled_.clear();
    const auto restore = [&](const Segment& segment) {
        if (cache_.length(segment.sequence) > segment.first_position)
            cache_.truncate(segment.sequence, segment.first_position);
    };
    try {
        for (const Segment& segment : all) {
            cache_.extend(segment.sequence, segment.rows);
            cache_.note(segment.sequence, segment.first_position, segment.rows,
                        original.edits.empty() ? original.tokens + segment.first_row : nullptr);
        }
        Request request = original;
        Segments segments = all;
        compute(request, segments);
    } catch (...) {
        for (const Segment& segment : all) restore(segment);
        throw;
    }
    for (const Segment& segment : all)
        if (cancelled_.count(segment.sequence)) restore(segment);
    const std::vector<int64_t> cancelled(cancelled_.begin(), cancelled_.end());
    for (const Segment& segment : all)
        if (frees) cache_.free_outside(segment.sequence);
    return cancelled;
}

// Computes keys and values again that the next position of a sequence sees in attention windows and that were freed, from the
// last place on where all are there; with `everything` those of every position, because an edit can make them visible.
void Engine::refill(const Segment& segment, bool everything, const std::function<bool()>& stop) {
    const int64_t sequence = segment.sequence, length = segment.first_position;
    const int64_t kept = !everything ? cache_.resumable(sequence, length) : cache_.whole(sequence) ? length : 0;
    if (kept == length) return;
    const std::vector<int32_t> tokens = cache_.tokens(sequence, kept, length);
    if (std::any_of(tokens.begin(), tokens.end(), [](int32_t token) { return token < 0; }))
        throw Forgotten("keys and values outside the attention windows were freed, and cannot be computed again after edits, "
                        "or without their tokens: use a new sequence");
    const int64_t before = cache_.fork(sequence);
    try {
        cache_.truncate(sequence, kept);
        for (int64_t done = 0, rows = 0; done < length - kept; done += rows) {
            rows = std::min<int64_t>(refill_rows, length - kept - done);
            const std::vector<int64_t> sequences(static_cast<size_t>(rows), sequence);
            Request request{tokens.data() + done, sequences.data(), rows, Output::none, nullptr, 0, nullptr};
            request.stop = stop;
            run(request, {{sequence, 0, rows, kept + done, segment.adapters}}, !everything);
        }
    } catch (...) {
        cache_.replace(sequence, before);
        throw;
    }
    cache_.drop(before);
}

// Moves the rows of x that go on over those of cancelled sequences; false if none goes on. Only x and the angles are live
// between two blocks.
bool Engine::drop_cancelled(Request& request, Segments& segments) {
    const size_t before = cancelled_.size();
    for (const Segment& segment : segments)
        if (!cancelled_.count(segment.sequence) && request.cancelled(segment.sequence)) cancelled_.insert(segment.sequence);
    if (std::all_of(segments.begin(), segments.end(), [&](const Segment& s) { return cancelled_.count(s.sequence) != 0; }))
        return false;
    const bool whole = std::any_of(request.readings.begin(), request.readings.end(), [](const Reading& r) { return r.rows.empty(); });
    if (cancelled_.size() == before || whole || !request.edits.empty()) return true;
    const auto move = [](float* values, int64_t width, int64_t from, int64_t to, int64_t rows) {
        std::memmove(values + to * width, values + from * width, static_cast<size_t>(rows * width) * sizeof(float));
    };
    std::vector<int64_t> place(static_cast<size_t>(request.n), 0);  // of every row; an output or reading of a cancelled one takes row 0
    Segments left;
    int64_t n = 0;
    for (Segment segment : segments) {
        if (cancelled_.count(segment.sequence)) continue;
        move(x_.floats(), config_.n_embd, segment.first_row, n, segment.rows);
        for (size_t table = 0; table < config_.rotaries.size(); ++table) {
            const auto half = static_cast<int64_t>(config_.rotaries[table].frequencies.size());
            move(cosines_[table].data(), half, segment.first_row, n, segment.rows);
            move(sines_[table].data(), half, segment.first_row, n, segment.rows);
        }
        for (int64_t i = 0; i < segment.rows; ++i) place[static_cast<size_t>(segment.first_row + i)] = n + i;
        segment.first_row = n;
        n += segment.rows;
        left.push_back(segment);
    }
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < request.n_rows; ++i) rows.push_back(place[static_cast<size_t>(request.rows[i])]);
    for (Reading& reading : request.readings)
        for (int64_t& row : reading.rows) row = place[static_cast<size_t>(row)];
    output_rows_ = std::move(rows);
    request.rows = output_rows_.data();
    request.n = n;
    segments = std::move(left);
    return true;
}

// Checks a request before anything changes and groups its rows by sequence.
Engine::Segments Engine::plan(const Request& request) const {
    Segments segments;
    std::set<int64_t> sequences;
    for (int64_t row = 0; row < request.n; ++row) {
        if (request.tokens[row] < 0 || request.tokens[row] >= config_.vocab_size)
            throw std::invalid_argument("token id " + std::to_string(request.tokens[row]) + " is outside 0.." +
                                        std::to_string(config_.vocab_size - 1));
        const int64_t sequence = request.sequences[row];
        if (!segments.empty() && segments.back().sequence == sequence) {
            ++segments.back().rows;
            continue;
        }
        if (!sequences.insert(sequence).second)
            throw std::invalid_argument("rows of sequence " + std::to_string(sequence) + " are not adjacent");
        const int64_t length = cache_.length(sequence);
        segments.push_back({sequence, row, 1, length, &sequence_adapters_.at(sequence)});
    }
    check(request, segments);
    return segments;
}

void Engine::check(const Request& request, const Segments& segments) const {
    int64_t longest = 0;
    for (const Segment& segment : segments) longest = std::max(longest, segment.first_position + segment.rows);
    if (longest > config_.n_positions)
        throw std::length_error("sequence would have " + std::to_string(longest) + " positions; the context window holds " +
                                std::to_string(config_.n_positions));
    const auto attention = [](Tap tap) { return tap == Tap::scores || tap == Tap::pattern; };
    for (const Reading& reading : request.readings) {
        if (attention(reading.tap) && reading.keys < longest) throw std::invalid_argument("a tap's array has too few keys");
        if (reading.head != -1 && (!attention(reading.tap) || reading.head < 0 || reading.head >= config_.n_head))
            throw std::invalid_argument("a tap has no such head");
        if (!reading.rows.empty() && !reads_rows(reading.tap)) throw std::invalid_argument("this tap is read of every row");
        for (const int64_t row : reading.rows)
            if (row < 0 || row >= request.n) throw std::invalid_argument("a reading's row is outside the request");
    }
    for (const Edit& edit : request.edits) {
        if (attention(edit.tap) && edit.keys < longest) throw std::invalid_argument("an edit's values have too few keys");
        for (const int64_t row : edit.rows)
            if (row < 0 || row >= request.n) throw std::invalid_argument("an edit's row is outside the request");
    }
    if (request.n_rows > request.n) throw std::invalid_argument("more output rows than rows");
    for (int64_t i = 0; i < request.n_rows; ++i) {
        if (request.rows[i] < 0 || request.rows[i] >= request.n)
            throw std::invalid_argument("output row " + std::to_string(request.rows[i]) + " is outside the request");
        const int32_t* target = request.summary.targets ? request.summary.targets + i : nullptr;
        if (target && (*target < 0 || *target >= config_.vocab_size))
            throw std::invalid_argument("token id " + std::to_string(*target) + " to score is outside the vocabulary");
    }
    if (filled_ != slots_.size()) throw std::logic_error("no weights for " + missing_tensors().front());
}

void Engine::reserve(int64_t rows) {
    if (rows <= capacity_) return;
    const auto resize = [&](AlignedBuffer& buffer, int64_t width) {
        buffer = AlignedBuffer();  // frees the old memory first
        buffer = AlignedBuffer(static_cast<size_t>(rows * width) * sizeof(float));
    };
    capacity_ = 0;
    resize(x_, config_.n_embd);
    resize(h_, config_.n_embd);
    if (config_.parallel) resize(side_, config_.n_embd);
    resize(q_, config_.n_head * config_.head_dim);
    resize(k_, config_.n_kv_head * config_.head_dim);
    resize(v_, config_.n_kv_head * config_.head_dim);
    resize(z_, config_.n_head * config_.head_dim);
    resize(up_, config_.n_inner);
    if (config_.gated_mlp) resize(gate_, config_.n_inner);
    capacity_ = rows;
}

int64_t Engine::create(const std::vector<int64_t>& adapters) {
    std::lock_guard<std::mutex> lock(mutex_);
    Adapters used = adapters_of(adapters);
    const int64_t sequence = cache_.create();
    sequence_adapters_[sequence] = std::move(used);
    return sequence;
}
int64_t Engine::fork(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    const int64_t copy = cache_.fork(sequence);
    sequence_adapters_[copy] = sequence_adapters_.at(sequence);
    return copy;
}
void Engine::append_kv(int64_t sequence, int64_t positions, int64_t windows_from, const int32_t* tokens, const void* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (positions < 0 || positions > config_.n_positions - cache_.length(sequence))
        throw std::length_error("the context window is shorter than that");
    cache_.append(sequence, positions, windows_from, tokens, data);
    cache_.free_outside(sequence);
}
void Engine::export_kv(int64_t sequence, int64_t first, int64_t positions, int64_t windows_from, void* out) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.export_from(sequence, first, positions, windows_from, out);
}
int64_t Engine::position_bytes(bool windowed) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.position_bytes(windowed);
}
int64_t Engine::windows_from(int64_t sequence, int64_t first, int64_t last) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.windows_from(sequence, first, last);
}
int64_t Engine::resumable(int64_t sequence, int64_t length) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.resumable(sequence, length);
}
void Engine::forget_windows(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.forget_windows(sequence);
}
std::vector<int32_t> Engine::tokens(int64_t sequence, int64_t first, int64_t last) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.tokens(sequence, first, last);
}
void Engine::truncate(int64_t sequence, int64_t length) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.truncate(sequence, length);
}
void Engine::drop(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.drop(sequence);
    sequence_adapters_.erase(sequence);
}
int64_t Engine::length(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.length(sequence);
}
int64_t Engine::cache_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.bytes();
}

}  // namespace pophood
