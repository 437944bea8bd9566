// What a forward pass returns: logits, hidden states, or a summary of every row's distribution. See request.h.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "engine/engine.h"
#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t rows_at_once = 64;  // rows of logits that a summary holds
constexpr int64_t block = 1024;       // tokens whose sums are added up by themselves, so that threads do not change a bit
constexpr int lanes = 8;

// One row of logits, and the tokens that take part.
struct Distribution {
    const float* logits;
    const uint32_t* allowed;  // null: all
    bool allows(int64_t token) const { return !allowed || (allowed[token / 32] >> (token % 32) & 1) != 0; }
    float operator[](int64_t token) const { return allows(token) ? logits[token] : minus_infinity; }
};

struct Sums {  // over a block, with e = exp(logit - largest logit)
    double mass = 0.0, weighted = 0.0;  // e, and e * (logit - largest logit)
    int64_t above = 0;                  // tokens that rank before the target
};

// A block of a row: without a mask if all of its tokens take part. `none` is true if not one of them does.
struct Part {
    Distribution row;
    bool none;
};

Part part_of(const Distribution& row, int64_t begin, int64_t end) {
    if (!row.allowed) return {row, false};
    bool all = true, none = true;
    for (int64_t i = begin; i < end; i += 32) {
        const uint32_t word = row.allowed[i / 32], full = end - i < 32 ? (1u << (end - i)) - 1u : ~0u;
        all = all && (word & full) == full;
        none = none && (word & full) == 0;
    }
    return {{row.logits, all ? nullptr : row.allowed}, none};
}

float largest_of(const Distribution& whole, int64_t begin, int64_t end) {
    const auto [row, none] = part_of(whole, begin, end);
    float largest = minus_infinity;
    if (none) return largest;
    if (row.allowed) {
        for (int64_t i = begin; i < end; ++i) largest = std::max(largest, row[i]);
        return largest;
    }
    float lane[lanes];
    std::fill(lane, lane + lanes, minus_infinity);
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes)
        for (int j = 0; j < lanes; ++j) lane[j] = lane[j] < row.logits[i + j] ? row.logits[i + j] : lane[j];
    for (; i < end; ++i) largest = std::max(largest, row.logits[i]);
    for (const float value : lane) largest = std::max(largest, value);
    return largest;
}

Sums added(const double* mass, const double* weighted) {
    Sums sums;
    for (int j = 0; j < lanes; ++j) {
        sums.mass += mass[j];
        sums.weighted += weighted[j];
    }
    return sums;
}

Sums sums_of(const Kernels& kernels, const Distribution& whole, float largest, int64_t begin, int64_t end, bool weighs) {
    const auto [row, none] = part_of(whole, begin, end);
    if (none) return {};
    double mass[lanes] = {}, weighted[lanes] = {};
    const int64_t count = end - begin;
    if (!row.allowed && !weighs) {
        kernels.exp_sums(row.logits + begin, largest, count, mass);
        return added(mass, weighted);
    }
    float shifted[block], e[block];
    const int64_t padded = (count + lanes - 1) / lanes * lanes;
    for (int64_t i = 0; i < count; ++i) e[i] = row.logits[begin + i] - largest;
    std::copy(e, e + count, shifted);
    kernels.exponential(e, count);
    for (int64_t i = count; i < padded; ++i) shifted[i] = e[i] = 0.0f;
    if (row.allowed)
        for (int64_t i = 0; i < count; ++i)
            if (!row.allows(begin + i)) shifted[i] = e[i] = 0.0f;
    for (int64_t i = 0; i < padded; i += lanes)
        for (int j = 0; j < lanes; ++j) mass[j] += static_cast<double>(e[i + j]);
    for (int64_t i = 0; weighs && i < padded; i += lanes)
        for (int j = 0; j < lanes; ++j) weighted[j] += static_cast<double>(e[i + j]) * static_cast<double>(shifted[i + j]);
    return added(mass, weighted);
}

int64_t count_before(const Distribution& row, int32_t target, int64_t begin, int64_t end) {
    const float value = row[target];
    int64_t above = 0;
    for (int64_t i = begin; i < end; ++i) above += row[i] > value || (row[i] == value && i < target);
    return above;
}

// Writes the k largest logits of a row and their tokens, the largest first, ties by ascending token. `maxima` [blocks]
// spares most of the row a second look.
void select_top(const Distribution& row, const std::vector<float>& maxima, int64_t size, int64_t k, int32_t* ids,
                float* logits) {
    struct Candidate {
        float logit;
        int32_t token;
        bool operator<(const Candidate& other) const {  // ranks before
            return logit > other.logit || (logit == other.logit && token < other.token);
        }
    };
    std::vector<Candidate> heap;  // its front ranks last
    heap.reserve(static_cast<size_t>(k));
    const auto full = [&] { return static_cast<int64_t>(heap.size()) == k; };
    for (int64_t index = 0; index < static_cast<int64_t>(maxima.size()) && k > 0; ++index) {
        // A later token that equals the last of k ranks after it.
        if (full() && maxima[static_cast<size_t>(index)] <= heap.front().logit) continue;
        for (int64_t token = index * block; token < std::min((index + 1) * block, size); ++token) {
            if (full() && row.logits[token] <= heap.front().logit) continue;
            if (!row.allows(token)) continue;
            if (full()) {
                std::pop_heap(heap.begin(), heap.end());
                heap.pop_back();
            }
            heap.push_back({row.logits[token], static_cast<int32_t>(token)});
            std::push_heap(heap.begin(), heap.end());
        }
    }
    std::sort_heap(heap.begin(), heap.end());
    for (int64_t i = 0; i < k; ++i) {
        const bool there = i < static_cast<int64_t>(heap.size());
        ids[i] = there ? heap[static_cast<size_t>(i)].token : -1;
        logits[i] = there ? heap[static_cast<size_t>(i)].logit : minus_infinity;
    }
}

}  // namespace

// Applies the final norm to the rows to output, or to all rows if something inside is read or edited, then computes logits.
void Engine::output(const Request& request) {
    const int64_t c = config_.n_embd;
    const float* x = x_.floats();
    float* h = h_.floats();
    if (!kernels_.all_finite(x, request.n * c))
        throw NotFinite("the residual stream is not finite (NaN or infinity)");
    if (!request.readings.empty() || !request.edits.empty()) {
        normalize(request, Tap::final_norm_normalized, 0, final_norm_, x, h);
        edit(request, Tap::final_norm, 0, h);
        read(request, Tap::final_norm, 0, h);
        read_logits(request, h);
        for (int64_t i = 0; i < request.n_rows; ++i)  // the rows ascend, so that none is overwritten before it is moved
            std::memmove(h + i * c, h + request.rows[i] * c, static_cast<size_t>(c) * sizeof(float));
    } else if (request.output != Output::none) {
        for (int64_t i = 0; i < request.n_rows; ++i)
            kernels_.norm(x + request.rows[i] * c, final_norm_.weight.data(), final_norm_.bias.data(), config_.norm_eps,
                          config_.rms_norm, h + i * c, c);
    }
    if (request.output == Output::hidden)
        std::memcpy(request.out, h, static_cast<size_t>(request.n_rows * c) * sizeof(float));
    if (request.output == Output::summary) summarize(request, h);
    if (request.output != Output::logits) return;
    logits_of(h, request.n_rows, request.out);
    edit_logits(request, 0, request.n_rows, request.out);
    if (!kernels_.all_finite(request.out, request.n_rows * config_.vocab_size))
        throw NotFinite("the logits are not finite (NaN or infinity)");
}

void Engine::unembed(const float* x, int64_t n, float* logits, const Summary& summary) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (filled_ != slots_.size()) throw std::logic_error("no weights for " + missing_tensors().front());
    reserve(n);
    norm(final_norm_, x, h_.floats(), n);
    Request request{};
    request.out = logits;
    request.n_rows = n;
    request.summary = summary;
    summarize(request, h_.floats());
}

// out [rows, V] = hidden W_O, with the multiplier and the cap that the model may have
void Engine::logits_of(const float* hidden, int64_t rows, float* out) {
    const int64_t count = rows * config_.vocab_size;
    multiply(output_matrix(), hidden, rows, out);
    if (config_.logit_scale != 1.0f) kernels_.scale(out, config_.logit_scale, count);
    if (config_.logit_cap > 0.0f) kernels_.cap(out, config_.logit_cap, count);
}

void Engine::summarize(const Request& request, const float* hidden) {
    const int64_t vocabulary = config_.vocab_size;
    for (int64_t first = 0; first < request.n_rows; first += rows_at_once) {
        const int64_t rows = std::min(rows_at_once, request.n_rows - first);
        const auto size = static_cast<size_t>(rows * vocabulary);
        if (output_logits_.size() < size) output_logits_.resize(size);
        float* logits = output_logits_.data();
        logits_of(hidden + first * config_.n_embd, rows, logits);
        edit_logits(request, first, rows, logits);
        if (request.out) copy_allowed(request.summary, first, rows, logits, request.out + first * vocabulary);
        summarize_rows(request.summary, first, rows, logits);
    }
}

// Copies rows of logits; a token that is not allowed has -infinity.
void Engine::copy_allowed(const Summary& summary, int64_t first, int64_t rows, const float* logits, float* out) const {
    const int64_t vocabulary = config_.vocab_size, words = (vocabulary + 31) / 32;
    if (!summary.allowed) {
        std::memcpy(out, logits, static_cast<size_t>(rows * vocabulary) * sizeof(float));
        return;
    }
    for (int64_t row = 0; row < rows; ++row) {
        const Distribution masked{logits + row * vocabulary, summary.allowed + (first + row) * words};
        for (int64_t i = 0; i < vocabulary; ++i) out[row * vocabulary + i] = masked[i];
    }
}

// Two rounds over blocks of all rows: their largest logits, then their sums, which are added up in order.
void Engine::summarize_rows(const Summary& summary, int64_t first, int64_t rows, const float* logits) const {
    const int64_t vocabulary = config_.vocab_size, blocks = (vocabulary + block - 1) / block;
    const auto row_at = [&](int64_t row) -> Distribution {
        const int64_t words = (vocabulary + 31) / 32;
        return {logits + row * vocabulary, summary.allowed ? summary.allowed + (first + row) * words : nullptr};
    };
    std::vector<std::vector<float>> maxima(static_cast<size_t>(rows), std::vector<float>(static_cast<size_t>(blocks)));
    std::vector<Sums> sums(static_cast<size_t>(rows * blocks));
    std::vector<float> largest(static_cast<size_t>(rows));
    const auto each_block = [&](const auto& work) {
        parallel_for(threads_, rows * blocks, 8, [&](int64_t begin, int64_t end, int) {
            for (int64_t item = begin; item < end; ++item) {
                const int64_t row = item / blocks, index = item % blocks;
                work(row, index, index * block, std::min((index + 1) * block, vocabulary));
            }
        });
    };
    std::atomic<bool> finite{true};
    each_block([&](int64_t row, int64_t index, int64_t begin, int64_t end) {
        if (!kernels_.all_finite(logits + row * vocabulary + begin, end - begin)) finite = false;
        maxima[static_cast<size_t>(row)][static_cast<size_t>(index)] = largest_of(row_at(row), begin, end);
    });
    if (!finite) throw NotFinite("the logits are not finite (NaN or infinity)");
    for (size_t row = 0; row < maxima.size(); ++row) largest[row] = *std::max_element(maxima[row].begin(), maxima[row].end());
    each_block([&](int64_t row, int64_t index, int64_t begin, int64_t end) {
        const float peak = largest[static_cast<size_t>(row)];
        Sums& own = sums[static_cast<size_t>(row * blocks + index)];
        if (peak > minus_infinity) own = sums_of(kernels_, row_at(row), peak, begin, end, summary.entropy != nullptr);
        if (summary.targets) own.above = count_before(row_at(row), summary.targets[first + row], begin, end);
    });
    parallel_for(threads_, rows, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t at = first + row;
            Sums total;
            for (int64_t index = 0; index < blocks; ++index) {
                const Sums& own = sums[static_cast<size_t>(row * blocks + index)];
                total.mass += own.mass;
                total.weighted += own.weighted;
                total.above += own.above;
            }
            const double peak = static_cast<double>(largest[static_cast<size_t>(row)]);
            summary.logsumexp[at] = peak + std::log(total.mass);
            if (summary.entropy) summary.entropy[at] = total.mass > 0 ? std::max(std::log(total.mass) - total.weighted / total.mass, 0.0) : 0.0;
            select_top(row_at(row), maxima[static_cast<size_t>(row)], vocabulary, summary.k, summary.ids + at * summary.k,
                       summary.logits + at * summary.k);
            if (!summary.targets) continue;
            summary.target_logits[at] = row_at(row)[summary.targets[at]];
            summary.target_ranks[at] = total.above + 1;
        }
    });
}

}  // namespace pophood
