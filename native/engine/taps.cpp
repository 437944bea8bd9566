// Taps: copies what the forward pass has just computed to the caller's arrays. Nothing here writes to the activations that
// later steps read, so reading changes no bit. src/pophood/taps.py has names and axes, docs/taps.md shows the places.
#include <algorithm>
#include <utility>

#include "engine/engine.h"
#include "platform/threads.h"

namespace pophood {

int64_t Engine::tap_width(Tap tap, int64_t keys) const {
    switch (tap) {
        case Tap::q: case Tap::rot_q: case Tap::z: return config_.n_head * config_.head_dim;
        case Tap::k: case Tap::v: case Tap::rot_k: return config_.n_kv_head * config_.head_dim;
        case Tap::scores: case Tap::pattern: return config_.n_head * keys;
        case Tap::result: return config_.n_head * config_.n_embd;
        case Tap::mlp_pre: case Tap::mlp_gate: case Tap::mlp_up: case Tap::mlp_post: return config_.n_inner;
        case Tap::logits: return config_.vocab_size;
        default: return config_.n_embd;
    }
}

// Values of chosen rows can be read where they are copied, or computed row by row.
bool Engine::reads_rows(Tap tap) {
    return tap != Tap::ln_1_normalized && tap != Tap::ln_2_normalized && tap != Tap::final_norm_normalized &&
           tap != Tap::result && tap != Tap::logits;
}

const Reading* Engine::find_reading(const Request& request, Tap tap, int64_t layer) const {
    for (const Reading& reading : request.readings)
        if (reading.tap == tap && reading.layer == layer) return &reading;
    return nullptr;
}

void Engine::read(const Request& request, Tap tap, int64_t layer, const float* values) const {
    for (const Reading& reading : request.readings) {
        if (reading.tap != tap || reading.layer != layer) continue;
        const int64_t width = tap_width(tap, 0);
        if (!reading.rows.empty()) {
            float* out = reading.out;
            for (const int64_t row : reading.rows) std::copy_n(values + row * width, width, std::exchange(out, out + width));
            continue;
        }
        // On all threads, because most of the time goes into writing to fresh pages.
        parallel_for(threads_, request.n, 32, [&](int64_t begin, int64_t end, int) {
            kernels_.copy(reading.out + begin * width, values + begin * width, (end - begin) * width);
        });
    }
}

// x with mean 0 and variance 1 (RMS norm: with mean square 1), before gain and shift.
void Engine::read_normalized(const Request& request, Tap tap, int64_t layer, const float* x) {
    if (const Reading* reading = find_reading(request, tap, layer)) norm(Norm{}, x, reading->out, request.n);
}

// The engine never holds the scores or weights of a whole row (see attend in kernels.h), so they are computed again here:
// the same products in the same order, then a softmax in two passes. scores and pattern: [visible], after edits.
void Engine::attention_row(const Request& request, int64_t layer, const Segment& segment, int64_t row, int64_t head,
                           float* scores, float* pattern) const {
    const int64_t d = config_.head_dim, heads = config_.n_head, visible = segment.first_position + row - segment.first_row + 1;
    const auto blocks = static_cast<size_t>((segment.first_position + segment.rows + kv_block - 1) / kv_block);
    const int64_t first_block = first_visible(layer, visible - 1) / kv_block;  // those before may be freed
    std::vector<const void*> k(blocks), v(blocks);
    cache_.blocks(segment.sequence, layer, head * config_.n_kv_head / heads, k.data(), v.data(), first_block);
    AttentionTask task{};
    task.n_queries = 1;
    task.q[0] = q_.floats() + (row * heads + head) * d;
    task.out[0] = scores + first_block * kv_block;
    task.visible[0] = visible - first_block * kv_block;
    task.kv_type = cache_.type();
    task.k_blocks = k.data() + first_block;
    task.d = d;
    task.scale = attention_scale();
    task.cap = config_.score_cap;
    kernels_.score(task);
    std::fill(scores, scores + first_visible(layer, visible - 1), minus_infinity);
    edit_attention_row(request, Tap::scores, layer, row, head, scores, visible);
    softmax(scores, pattern, visible);
    edit_attention_row(request, Tap::pattern, layer, row, head, pattern, visible);
}

void Engine::read_attention(const Request& request, int64_t layer, const Segments& segments) {
    const auto here = [&](const Reading& reading) {
        return reading.layer == layer && (reading.tap == Tap::scores || reading.tap == Tap::pattern);
    };
    std::vector<const Reading*> whole;
    for (const Reading& reading : request.readings) {
        if (here(reading) && !reading.rows.empty()) read_attention_rows(request, reading, segments);
        else if (here(reading)) whole.push_back(&reading);
    }
    if (whole.empty()) return;
    const int64_t heads = config_.n_head;
    for (const Segment& segment : segments)
        parallel_for(threads_, heads, 1, [&](int64_t begin, int64_t end, int) {
            std::vector<float> scores(static_cast<size_t>(segment.first_position + segment.rows)), pattern(scores.size());
            for (int64_t head = begin; head < end; ++head)
                for (int64_t i = 0; i < segment.rows; ++i) {
                    const int64_t row = segment.first_row + i, visible = segment.first_position + i + 1;
                    attention_row(request, layer, segment, row, head, scores.data(), pattern.data());
                    for (const Reading* reading : whole) {
                        if (reading->head != -1 && reading->head != head) continue;
                        const int64_t at = reading->head == -1 ? row * heads + head : row;
                        write_attention(*reading, at, scores.data(), pattern.data(), visible);
                    }
                }
        });
}

void Engine::read_attention_rows(const Request& request, const Reading& reading, const Segments& segments) {
    const bool all = reading.head == -1;
    const int64_t heads = all ? config_.n_head : 1;
    parallel_for(threads_, static_cast<int64_t>(reading.rows.size()) * heads, 1, [&](int64_t begin, int64_t end, int) {
        std::vector<float> scores(static_cast<size_t>(reading.keys)), pattern(scores.size());
        for (int64_t at = begin; at < end; ++at) {
            const int64_t row = reading.rows[static_cast<size_t>(at / heads)];
            const Segment& segment = *std::find_if(segments.begin(), segments.end(), [&](const Segment& one) {
                return row < one.first_row + one.rows;
            });
            const int64_t visible = segment.first_position + row - segment.first_row + 1;
            attention_row(request, reading.layer, segment, row, all ? at % heads : reading.head, scores.data(), pattern.data());
            write_attention(reading, at, scores.data(), pattern.data(), visible);
        }
    });
}

// Row `at` of a reading of scores or weights: [keys].
void Engine::write_attention(const Reading& reading, int64_t at, const float* scores, const float* pattern, int64_t visible) {
    const bool weights = reading.tap == Tap::pattern;
    float* out = reading.out + at * reading.keys;
    std::copy_n(weights ? pattern : scores, visible, out);
    std::fill(out + visible, out + reading.keys, weights ? 0.0f : minus_infinity);
}

// weights = softmax(scores) over the visible positions
void Engine::softmax(const float* scores, float* weights, int64_t visible) const {
    const float highest = *std::max_element(scores, scores + visible);
    for (int64_t i = 0; i < visible; ++i) weights[i] = scores[i] - highest;
    kernels_.exponential(weights, visible);
    float total = 0.0f;
    for (int64_t i = 0; i < visible; ++i) total += weights[i];
    for (int64_t i = 0; i < visible; ++i) weights[i] /= total;
}

void Engine::read_result(const Request& request, int64_t layer, const Segments& segments) {
    const Reading* reading = find_reading(request, Tap::result, layer);
    if (!reading) return;
    results(layer, request.n, segments, reading->out);
    edit(request, Tap::result, layer, reading->out);
}

// Each head's contribution to attn.out: its z times its columns of the projection, without the bias. [N, H, C]
void Engine::results(int64_t layer, int64_t n, const Segments& segments, float* out) {
    const Linear& linear = blocks_[static_cast<size_t>(layer)].out;
    const int64_t c = config_.n_embd, d = config_.head_dim, heads = config_.n_head;
    const auto columns_of = [&](const Matrix& matrix, Activations z, int64_t head, float* to, int64_t stride) {
        z.x += head * d;
        return matrix.times_columns(head * d, d, z, to, stride);
    };
    Activations input{z_.floats(), heads * d, n};
    prepare_for(linear.weight, input, false);
    if (linear.weight.quantized()) quantized_results(linear.weight, input, out);
    else {
        std::vector<Matmul> products;
        for (int64_t head = 0; head < heads; ++head)
            products.push_back(columns_of(linear.weight, input, head, out + head * c, heads * c));
        matmul(products);
    }
    for (const Segment& segment : segments)
        for (const auto& adapter : *segment.adapters) {
            const LoraPair& pair = (*adapter)[linear.number];
            if (pair.a.empty()) continue;
            const int64_t rank = pair.a.rows(), rows = segment.rows;
            lora_hidden_.resize(static_cast<size_t>(rows * rank));
            lora_out_.resize(static_cast<size_t>(rows * c));
            const Activations own{z_.floats() + segment.first_row * heads * d, heads * d, rows};
            for (int64_t head = 0; head < heads; ++head) {
                matmul({columns_of(pair.a, own, head, lora_hidden_.data(), rank)});
                multiply(pair.b, lora_hidden_.data(), rows, lora_out_.data());
                for (int64_t row = 0; row < rows; ++row)
                    kernels_.add(out + ((segment.first_row + row) * heads + head) * c, lora_out_.data() + row * c, c);
            }
        }
}

// A head's part of a quantised product: the groups that hold its features, with the integers of other heads set to zero.
void Engine::quantized_results(const Matrix& matrix, const Activations& z, float* out) {
    const int64_t c = config_.n_embd, d = config_.head_dim, heads = config_.n_head, groups = z.prepared.quantized.groups;
    std::vector<int8_t> values(static_cast<size_t>(z.m * groups * quant_group));
    std::vector<int32_t> sums(static_cast<size_t>(z.m * groups)), low_sums(sums);
    std::vector<float> offsets(sums.size());
    for (int64_t head = 0; head < heads; ++head) {
        const int64_t begin = head * d, end = begin + d;
        const int64_t first = begin / quant_group, last = (end + quant_group - 1) / quant_group;
        for (int64_t row = 0; row < z.m; ++row)
            for (int64_t group = first; group < last; ++group) {
                const int64_t at = row * groups + group;
                int32_t sum = 0, low_sum = 0;
                for (int64_t i = 0; i < quant_group; ++i) {
                    if (i == quant_group / 2) low_sum = sum;
                    const int64_t feature = group * quant_group + i;
                    const bool own = feature >= begin && feature < end;
                    sum += values[static_cast<size_t>(at * quant_group + i)] =
                        own ? z.prepared.quantized.values[at * quant_group + i] : int8_t{0};
                }
                sums[static_cast<size_t>(at)] = sum;
                low_sums[static_cast<size_t>(at)] = low_sum;
                offsets[static_cast<size_t>(at)] = z.prepared.quantized.scales[at] * static_cast<float>(sum);
            }
        Activations part = z;
        part.prepared.quantized = {values.data(), z.prepared.quantized.scales, sums.data(), low_sums.data(), offsets.data(), groups};
        matmul({matrix.times_columns(first * quant_group, (last - first) * quant_group, part, out + head * c, heads * c)});
    }
}

// The logits of every row, whatever rows and output the request has; h: [N, C] after the final norm.
void Engine::read_logits(const Request& request, const float* h) {
    const Reading* reading = find_reading(request, Tap::logits, 0);
    if (!reading) return;
    logits_of(h, request.n, reading->out);
    edit(request, Tap::logits, 0, reading->out);
}

}  // namespace pophood
