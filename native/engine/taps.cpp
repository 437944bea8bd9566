// Taps: copies what the forward pass has just computed to the caller's arrays. Nothing here writes to the activations that
// later steps read, so reading changes no bit. src/pophood/taps.py has names and axes, docs/taps.md shows the places.
#include <algorithm>

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

const Reading* Engine::find_reading(const Request& request, Tap tap, int64_t layer) const {
    for (const Reading& reading : request.readings)
        if (reading.tap == tap && reading.layer == layer) return &reading;
    return nullptr;
}

void Engine::read(const Request& request, Tap tap, int64_t layer, const float* values) const {
    const Reading* reading = find_reading(request, tap, layer);
    if (!reading) return;
    const int64_t width = tap_width(tap, 0);
    // On all threads, because most of the time goes into writing to fresh pages.
    parallel_for(threads_, request.n, 32, [&](int64_t begin, int64_t end, int) {
        kernels_.copy(reading->out + begin * width, values + begin * width, (end - begin) * width);
    });
}

// x with mean 0 and variance 1 (RMS norm: with mean square 1), before gain and shift.
void Engine::read_normalized(const Request& request, Tap tap, int64_t layer, const float* x) {
    if (const Reading* reading = find_reading(request, tap, layer)) norm(Norm{}, x, reading->out, request.n);
}

// The engine never holds the scores or weights of a whole row (see attend in kernels.h), so they are computed again here:
// the same products in the same order, then a softmax in two passes.
void Engine::read_attention(const Request& request, int64_t layer, const std::vector<Segment>& segments) {
    const Reading *scores = find_reading(request, Tap::scores, layer), *pattern = find_reading(request, Tap::pattern, layer);
    if (!scores && !pattern) return;
    const int64_t d = config_.head_dim, heads = config_.n_head, group = heads / config_.n_kv_head;
    for (const Segment& segment : segments) {
        const int64_t blocks = (segment.first_position + segment.rows + kv_block - 1) / kv_block;
        parallel_for(threads_, heads, 1, [&](int64_t begin, int64_t end, int) {
            std::vector<const void*> k(static_cast<size_t>(blocks)), v(static_cast<size_t>(blocks));
            for (int64_t head = begin; head < end; ++head) {
                cache_.blocks(segment.sequence, layer, head / group, k.data(), v.data());
                for (int64_t row = segment.first_row; row < segment.first_row + segment.rows; ++row) {
                    const int64_t at = row * heads + head, visible = segment.first_position + row - segment.first_row + 1;
                    const Reading& first = scores ? *scores : *pattern;
                    float* raw = first.out + at * first.keys;
                    AttentionTask task{};
                    task.n_queries = 1;
                    task.q[0] = q_.floats() + at * d;
                    task.out[0] = raw;
                    task.visible[0] = visible;
                    task.kv_type = cache_.type();
                    task.k_blocks = k.data();
                    task.d = d;
                    task.scale = attention_scale();
                    kernels_.score(task);
                    std::fill(raw + visible, raw + first.keys, minus_infinity);
                    if (pattern) softmax(raw, pattern->out + at * pattern->keys, visible, pattern->keys);
                }
            }
        });
    }
}

// weights = softmax(scores) over the visible positions and exactly 0 at the masked ones. `weights` may be `scores`.
void Engine::softmax(const float* scores, float* weights, int64_t visible, int64_t keys) const {
    const float highest = *std::max_element(scores, scores + visible);
    for (int64_t i = 0; i < visible; ++i) weights[i] = scores[i] - highest;
    kernels_.exponential(weights, visible);
    float total = 0.0f;
    for (int64_t i = 0; i < visible; ++i) total += weights[i];
    for (int64_t i = 0; i < visible; ++i) weights[i] /= total;
    std::fill(weights + visible, weights + keys, 0.0f);
}

// Each head's contribution to attn.out: its z times its columns of the projection, without the bias. [N, H, C]
void Engine::read_result(const Request& request, int64_t layer) {
    const Reading* reading = find_reading(request, Tap::result, layer);
    if (!reading) return;
    const Linear& linear = blocks_[static_cast<size_t>(layer)].out;
    const int64_t c = config_.n_embd, d = config_.head_dim, heads = config_.n_head, n = request.n;
    const Activations input{z_.floats(), heads * d, n};
    const auto columns_of = [&](const Matrix& matrix, int64_t head, float* out, int64_t out_stride) {
        Activations part = input;
        part.x += head * d;
        return matrix.times_columns(head * d, d, part, out, out_stride);
    };
    if (linear.weight.quantized()) read_quantized_result(linear.weight, quantized(input, heads * d), reading->out);
    else {
        std::vector<Matmul> products;
        for (int64_t head = 0; head < heads; ++head)
            products.push_back(columns_of(linear.weight, head, reading->out + head * c, heads * c));
        matmul(products);
    }
    for (const LoraPair& pair : linear.lora)
        for (int64_t head = 0; head < heads; ++head) {
            const int64_t rank = pair.a.rows();
            lora_hidden_.resize(static_cast<size_t>(n * rank));
            lora_out_.resize(static_cast<size_t>(n * c));
            matmul({columns_of(pair.a, head, lora_hidden_.data(), rank)});
            multiply(pair.b, lora_hidden_.data(), n, lora_out_.data());
            for (int64_t row = 0; row < n; ++row)
                kernels_.add(reading->out + (row * heads + head) * c, lora_out_.data() + row * c, c);
        }
}

// A head's part of a quantised product: the groups that hold its features, with the integers of other heads set to zero.
void Engine::read_quantized_result(const Matrix& matrix, const Activations& z, float* out) {
    const int64_t c = config_.n_embd, d = config_.head_dim, heads = config_.n_head, groups = z.quantized.groups;
    std::vector<int8_t> values(static_cast<size_t>(z.m * groups * quant_group));
    std::vector<int32_t> sums(static_cast<size_t>(z.m * groups));
    std::vector<float> offsets(sums.size());
    for (int64_t head = 0; head < heads; ++head) {
        const int64_t begin = head * d, end = begin + d;
        const int64_t first = begin / quant_group, last = (end + quant_group - 1) / quant_group;
        for (int64_t row = 0; row < z.m; ++row)
            for (int64_t group = first; group < last; ++group) {
                const int64_t at = row * groups + group;
                int32_t sum = 0;
                for (int64_t i = 0; i < quant_group; ++i) {
                    const int64_t feature = group * quant_group + i;
                    const bool own = feature >= begin && feature < end;
                    sum += values[static_cast<size_t>(at * quant_group + i)] =
                        own ? z.quantized.values[at * quant_group + i] : int8_t{0};
                }
                sums[static_cast<size_t>(at)] = sum;
                offsets[static_cast<size_t>(at)] = z.quantized.scales[at] * static_cast<float>(sum);
            }
        Activations part = z;
        part.quantized = {values.data(), z.quantized.scales, sums.data(), offsets.data(), groups};
        matmul({matrix.times_columns(first * quant_group, (last - first) * quant_group, part, out + head * c, heads * c)});
    }
}

// The logits of every row, whatever rows and output the request has.
void Engine::read_logits(const Request& request, const float* x) {
    const Reading* reading = find_reading(request, Tap::logits, 0);
    if (!reading) return;
    const Matrix& matrix = config_.tied_output ? token_embedding_ : output_matrix_;
    norm(final_norm_, x, h_.floats(), request.n);
    multiply(matrix, h_.floats(), request.n, reading->out);
}

}  // namespace pophood
