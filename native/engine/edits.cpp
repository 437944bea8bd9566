// Edits: changes a tap's values before later steps see them. See Edit in request.h. A request without edits costs nothing.
#include <algorithm>
#include <cstring>

#include "engine/engine.h"
#include "kernels/fused.h"
#include "kernels/half.h"
#include "platform/threads.h"

namespace pophood {
namespace {

void change(const Edit& edit, const float* by, float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) switch (edit.kind) {
        case Edit::Kind::add: values[i] += by[i]; break;
        case Edit::Kind::scale: values[i] *= by[i]; break;
        case Edit::Kind::replace: values[i] = by[i]; break;
    }
}

}  // namespace

int64_t Engine::edit_width(const Edit& edit) const {
    const int64_t width = tap_width(edit.tap, edit.keys);
    if (edit.head < 0) return width;
    int64_t heads = 0;
    switch (edit.tap) {
        case Tap::k: case Tap::v: case Tap::rot_k: heads = config_.n_kv_head; break;
        case Tap::q: case Tap::rot_q: case Tap::z: case Tap::scores: case Tap::pattern: case Tap::result:
            heads = config_.n_head; break;
        default: throw std::invalid_argument("this tap has no heads");
    }
    if (edit.head >= heads) throw std::invalid_argument("head " + std::to_string(edit.head) + " does not exist");
    return width / heads;
}

bool Engine::edited(const Request& request, Tap tap, int64_t layer) const {
    return std::any_of(request.edits.begin(), request.edits.end(),
                       [&](const Edit& edit) { return edit.tap == tap && edit.layer == layer; });
}

// Changes values [N][tap_width]. (Scores, pattern, result and logits are not held as such: see below.)
void Engine::edit(const Request& request, Tap tap, int64_t layer, float* values) const {
    for (const Edit& edit : request.edits) {
        if (edit.tap != tap || edit.layer != layer) continue;
        const int64_t width = tap_width(tap, edit.keys), count = edit_width(edit);
        for (size_t i = 0; i < edit.rows.size(); ++i)
            change(edit, edit.values + static_cast<int64_t>(i) * edit.stride,
                   values + edit.rows[i] * width + std::max<int64_t>(edit.head, 0) * count, count);
    }
}

// Changes the logits of output rows first..first+rows-1.
void Engine::edit_logits(const Request& request, int64_t first, int64_t rows, float* values) const {
    for (const Edit& edit : request.edits) {
        if (edit.tap != Tap::logits) continue;
        for (size_t i = 0; i < edit.rows.size(); ++i)
            for (int64_t row = 0; row < rows; ++row)
                if (request.rows[first + row] == edit.rows[i])
                    change(edit, edit.values + static_cast<int64_t>(i) * edit.stride, values + row * config_.vocab_size,
                           config_.vocab_size);
    }
}

// out = norm(x). Where the normalised values are edited, gain and shift follow as the kernel would apply them.
void Engine::normalize(const Request& request, Tap tap, int64_t layer, const Norm& norm, const float* x, float* out,
                       const Matrix* reader) {
    if (!edited(request, tap, layer)) {
        read_normalized(request, tap, layer, x);
        return this->norm(norm, x, out, request.n, request.edits.empty() ? reader : nullptr);
    }
    this->norm(Norm{}, x, out, request.n);
    edit(request, tap, layer, out);
    read(request, tap, layer, out);
    const float *gain = norm.weight.data(), *bias = norm.bias.data();
    for (int64_t row = 0; row < request.n; ++row)
        for (int64_t i = 0; i < config_.n_embd; ++i) {
            float& value = out[row * config_.n_embd + i];
            value = bias ? fused(value, gain[i], bias[i]) : value * gain[i];
        }
}

// up = activation(up), or activation(gate) * up; the gate is edited in between.
void Engine::activate(const Request& request, int64_t layer) {
    if (!config_.gated_mlp || !edited(request, Tap::mlp_gate, layer))
        return activate(request.n, request.edits.empty() ? &blocks_[static_cast<size_t>(layer)].down.weight : nullptr);
    const int64_t count = request.n * config_.n_inner;
    const std::vector<float> before(up_.floats(), up_.floats() + count);
    activate(request.n);
    edit(request, Tap::mlp_gate, layer, gate_.floats());
    std::copy(before.begin(), before.end(), up_.floats());
    kernels_.multiply(up_.floats(), gate_.floats(), count);
}

// Changes one head's scores or pattern of one row, [visible].
void Engine::edit_attention_row(const Request& request, Tap tap, int64_t layer, int64_t row, int64_t head, float* values,
                                int64_t visible) const {
    for (const Edit& edit : request.edits) {
        if (edit.tap != tap || edit.layer != layer || (edit.head >= 0 && edit.head != head)) continue;
        const int64_t offset = edit.head < 0 ? head * edit.keys : 0;
        for (size_t i = 0; i < edit.rows.size(); ++i)
            if (edit.rows[i] == row)
                change(edit, edit.values + static_cast<int64_t>(i) * edit.stride + offset, values, visible);
    }
}

// z = pattern . v again for every row and head whose scores or pattern are edited.
void Engine::edit_attention(const Request& request, int64_t layer, const Segments& segments) {
    std::vector<char> rows(static_cast<size_t>(request.n * config_.n_head), 0);
    bool any = false;
    for (const Edit& edit : request.edits)
        if (edit.layer == layer && (edit.tap == Tap::scores || edit.tap == Tap::pattern))
            for (const int64_t row : edit.rows)
                for (int64_t head = 0; head < config_.n_head; ++head)
                    if (edit.head < 0 || edit.head == head) {
                        rows[static_cast<size_t>(row * config_.n_head + head)] = 1;
                        any = true;
                    }
    if (!any) return;
    const int64_t d = config_.head_dim, heads = config_.n_head, group = heads / config_.n_kv_head;
    for (const Segment& segment : segments)
        parallel_for(threads_, heads, 1, [&](int64_t begin, int64_t end, int) {
            const int64_t longest = segment.first_position + segment.rows;
            const auto blocks = static_cast<size_t>((longest + kv_block - 1) / kv_block);
            std::vector<const void*> k(blocks), v(blocks);
            std::vector<float> scores(static_cast<size_t>(longest)), pattern(scores.size()), value(static_cast<size_t>(d));
            for (int64_t head = begin; head < end; ++head) {
                cache_.blocks(segment.sequence, layer, head / group, k.data(), v.data());
                for (int64_t row = segment.first_row; row < segment.first_row + segment.rows; ++row) {
                    if (!rows[static_cast<size_t>(row * heads + head)]) continue;
                    attention_row(request, layer, segment, row, head, scores.data(), pattern.data());
                    float* z = z_.floats() + (row * heads + head) * d;
                    std::fill(z, z + d, 0.0f);
                    for (int64_t key = 0; key <= segment.first_position + row - segment.first_row; ++key) {
                        cache_.values_at(layer, v[static_cast<size_t>(key / kv_block)], key % kv_block, value.data());
                        for (int64_t i = 0; i < d; ++i)
                            z[i] = fused(pattern[static_cast<size_t>(key)], value[static_cast<size_t>(i)], z[i]);
                    }
                }
            }
        });
}

// attn_out += the change of each head's contribution to it.
void Engine::edit_result(const Request& request, int64_t layer, const Segments& segments, float* attn_out) {
    if (!edited(request, Tap::result, layer)) return;
    const int64_t c = config_.n_embd, heads = config_.n_head;
    std::vector<float> before(static_cast<size_t>(request.n * heads * c));
    results(layer, request.n, segments, before.data());
    std::vector<float> after = before;
    edit(request, Tap::result, layer, after.data());
    for (int64_t row = 0; row < request.n; ++row)
        for (int64_t head = 0; head < heads; ++head)
            for (int64_t i = 0; i < c; ++i) {
                const auto at = static_cast<size_t>((row * heads + head) * c + i);
                attn_out[row * c + i] += after[at] - before[at];
            }
}

}  // namespace pophood
