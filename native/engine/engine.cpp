// The forward pass, in execution order, with the names used in src/pophood/train/model/transformer.py. See engine.h.
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t small_batch = 4;  // up to this many rows, element-wise work stays on the calling thread

}  // namespace

// ---- one forward pass -----------------------------------------------------------------------------------------------

void Engine::compute(Request& request, Segments& segments) {
    float *x = x_.floats(), *h = h_.floats(), *q = q_.floats(), *k = k_.floats(), *v = v_.floats(), *z = z_.floats();
    float *up = up_.floats(), *gate = gate_.floats();

    embed(request, segments);                                                                   // x: [N, C]
    for (int64_t layer = 0; layer < config_.n_layer; ++layer) {
        if (request.stop && request.stop()) throw Stopped("stopped by the caller");
        if (request.cancelled && !drop_cancelled(request, segments)) return;
        const int64_t n = request.n;
        const Block& block = blocks_[static_cast<size_t>(layer)];
        const auto tap = [&](Tap place, float* values) {
            edit(request, place, layer, values);
            read(request, place, layer, values);
        };

        tap(Tap::resid_pre, x);
        normalize(request, Tap::ln_1_normalized, layer, block.ln_1, x, h, &block.q.weight);     // h: [N, C]
        tap(Tap::ln_1, h);
        project(h, n, segments, {{&block.q, q}, {&block.k, k}, {&block.v, v}});                 // q: [N, H*D], k, v: [N, K*D]
        tap(Tap::q, q);
        tap(Tap::k, k);
        tap(Tap::v, v);
        rope(block, segments);
        tap(Tap::rot_q, q);
        tap(Tap::rot_k, k);
        store(layer, segments);
        read_attention(request, layer, segments);
        attend(layer, segments);                                                                // z: [N, H*D]
        edit_attention(request, layer, segments);
        tap(Tap::z, z);
        read_result(request, layer, segments);
        project(z, n, segments, {{&block.out, h}});                                             // h: [N, C]
        edit_result(request, layer, segments, h);
        tap(Tap::attn_out, h);
        add(x, h, n);                                                                           // x + attention

        tap(Tap::resid_mid, x);
        normalize(request, Tap::ln_2_normalized, layer, block.ln_2, x, h, &block.up.weight);    // h: [N, C]
        tap(Tap::ln_2, h);
        if (config_.gated_mlp) project(h, n, segments, {{&block.gate, gate}, {&block.up, up}});  // gate, up: [N, F]
        else project(h, n, segments, {{&block.up, up}});                                        // up: [N, F]
        tap(Tap::mlp_pre, config_.gated_mlp ? gate : up);
        tap(Tap::mlp_up, up);
        activate(request, layer);
        read(request, Tap::mlp_gate, layer, gate);
        tap(Tap::mlp_post, up);
        project(up, n, segments, {{&block.down, h}});                                           // h: [N, C]
        tap(Tap::mlp_out, h);
        add(x, h, n);                                                                           // x + feed-forward
        tap(Tap::resid_post, x);
    }
    output(request);                                                                            // [rows, V] or [rows, C]
}

// x = token row (+ position row)
void Engine::embed(const Request& request, const Segments& segments) {
    const int64_t c = config_.n_embd;
    float* x = x_.floats();
    const auto tap = [&](Tap place, float* values) {
        edit(request, place, 0, values);
        read(request, place, 0, values);
    };
    for (int64_t row = 0; row < request.n; ++row) token_embedding_.row(request.tokens[row], x + row * c);
    tap(Tap::embed_token, x);
    if (config_.frequencies.empty()) {
        float* h = h_.floats();
        for (const Segment& segment : segments)
            std::memcpy(h + segment.first_row * c, position_embedding_.data() + segment.first_position * c,
                        static_cast<size_t>(segment.rows * c) * sizeof(float));
        tap(Tap::embed_position, h);
        add(x, h, request.n);
        return;
    }
    // RoPE: the angle is position * frequency in f32, rounded as in the reference. Sine and cosine are computed in double
    // and rounded once, so different math libraries agree.
    const size_t half = config_.frequencies.size();
    cosines_.resize(static_cast<size_t>(request.n) * half);
    sines_.resize(cosines_.size());
    for (const Segment& segment : segments)
        for (int64_t i = 0; i < segment.rows; ++i)
            for (size_t pair = 0; pair < half; ++pair) {
                const float angle = static_cast<float>(segment.first_position + i) * config_.frequencies[pair];
                const size_t at = static_cast<size_t>(segment.first_row + i) * half + pair;
                cosines_[at] = static_cast<float>(std::cos(static_cast<double>(angle)));
                sines_[at] = static_cast<float>(std::sin(static_cast<double>(angle)));
            }
}

void Engine::norm(const Norm& norm, const float* x, float* out, int64_t rows, const Matrix* reader) {
    const int64_t c = config_.n_embd;
    const PreparedRows prepared = reader ? prepared_rows(*reader, rows, c) : PreparedRows{};
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            kernels_.norm(x + row * c, norm.weight.data(), norm.bias.data(), config_.norm_eps, config_.rms_norm,
                          out + row * c, c);
            prepare(prepared, out + row * c, c, row);
        }
    });
    prepared_already_ = {out, prepared};
}

// out = x W^T + b, plus LoRA, for several layers that read the same x
void Engine::project(const float* x, int64_t rows, const Segments& segments, const std::vector<Projection>& projections) {
    const int64_t k = projections.front().linear->weight.cols();
    Activations input{x, k, rows};
    for (const auto& [linear, out] : projections) prepare_for(linear->weight, input);
    std::vector<Matmul> products;
    for (const auto& [linear, out] : projections)
        products.push_back(linear->weight.times(input, linear->bias.data(), out, linear->weight.rows()));
    if (prepare_lora(x, segments, projections)) matmul_with_lora(products);
    else matmul(products);
}

// out [rows, matrix.rows()] = x W^T
void Engine::multiply(const Matrix& matrix, const float* x, int64_t rows, float* out) {
    Activations input{x, matrix.cols(), rows};
    prepare_for(matrix, input);
    matmul({matrix.times(input, nullptr, out, matrix.rows())});
}

// The buffers for rows of k features in the form that `reader` needs, if any, and in tiles if the kernels like that. Each form
// has buffers of its own, since matrices of several types may read one input. The next product reuses them.
PreparedRows Engine::prepared_rows(const Matrix& reader, int64_t rows, int64_t k, bool in_tiles) {
    if (!reader.prepares()) return {};
    const auto reserve = [](AlignedBuffer& buffer, int64_t bytes) {
        if (buffer.bytes() < static_cast<size_t>(bytes)) buffer = AlignedBuffer(static_cast<size_t>(bytes));
    };
    const int64_t best = reader.quantized() ? kernels_.quantized->tile : kernels_.bf16->tile;
    const int64_t tile = in_tiles && rows >= least_tiles * best ? best : 1;
    const int64_t groups = (k + quant_group - 1) / quant_group, n = (rows + tile - 1) / tile * tile * groups;
    if (!reader.quantized()) {
        reserve(rounded_values_, n * quant_group * 2);
        return {{}, {static_cast<uint16_t*>(rounded_values_.get()), groups, tile}};
    }
    reserve(quantized_values_, n * quant_group);
    reserve(quantized_scales_, n * 4);
    reserve(quantized_sums_, n * 4);
    reserve(quantized_low_sums_, n * 4);
    reserve(quantized_offsets_, n * 4);
    return {{static_cast<int8_t*>(quantized_values_.get()), quantized_scales_.floats(),
             static_cast<int32_t*>(quantized_sums_.get()), static_cast<int32_t*>(quantized_low_sums_.get()),
             quantized_offsets_.floats(), groups, tile},
            {}};
}

void Engine::prepare(const PreparedRows& prepared, const float* x, int64_t k, int64_t row) {
    if (prepared.quantized.values) kernels_.quantized->quantize(x, k, prepared.quantized, row);
    if (prepared.rounded.values) kernels_.bf16->round(x, k, prepared.rounded, row);
}

// Adds the rows that `matrix` reads to an input, unless it reads floats or they are there.
void Engine::prepare_for(const Matrix& matrix, Activations& input, bool in_tiles) {
    if (!matrix.prepares()) return;
    const auto [x, already] = std::exchange(prepared_already_, {});
    if (x == input.x) input.prepared.add(already);
    const int64_t k = matrix.cols();
    const PreparedRows rows = prepared_rows(matrix, input.m, k, in_tiles);
    if (input.prepared.has(rows)) return;
    parallel_for(input.m > small_batch ? threads_ : 1, input.m, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) prepare(rows, input.x + row * input.x_stride, k, row);
    });
    input.prepared.add(rows);
}

// Computes independent products in one round of the thread pool, which deals out the panels of all of them.
void Engine::matmul(const std::vector<Matmul>& products) {
    if (products.empty()) return;
    int64_t panels = 0;
    for (const Matmul& product : products) panels += panels_of(product);
    const int64_t chunk = matmul_chunk(panels, products.front().m);
    parallel_for(threads_, panels, chunk, [&](int64_t begin, int64_t end, int worker) {
        int64_t start = 0;
        for (const Matmul& product : products) {
            const int64_t here = panels_of(product);
            const int64_t first = std::max(begin - start, int64_t{0}), last = std::min(end - start, here);
            start += here;
            if (first < last) multiply_panels(product, first, last, worker);
        }
    });
}

// Panels in one piece of a product's work. A batch takes them in pairs, as the kernels do.
int64_t Engine::matmul_chunk(int64_t panels, int64_t rows) const {
    if (rows > 4 * small_batch) return 2;  // takes long enough, and the threads end together
    const int64_t chunk = std::max<int64_t>(1, panels / (threads_ * 6));
    return rows > 1 ? (chunk + 1) / 2 * 2 : chunk;
}

void Engine::multiply_panels(const Matmul& product, int64_t first, int64_t last, int worker) {
    uint8_t* scratch = static_cast<uint8_t*>(scratch_.get()) + worker * worker_scratch;
    if (is_quantized(product.type)) kernels_.quantized->matmul(product, first, last, scratch);
    else if (product.type == WeightType::bf16_pairs) kernels_.bf16->matmul(product, first, last);
    else kernels_.matmul(product, first, last, reinterpret_cast<float*>(scratch));
}

// Applies the norm per head (if the model has one) and RoPE to queries and keys.
void Engine::rope(const Block& block, const Segments& segments) {
    const int64_t d = config_.head_dim, heads = config_.n_head, kv_heads = config_.n_kv_head;
    const bool rotates = !config_.frequencies.empty();
    if (!rotates && !config_.qk_norm) return;
    const int64_t rows = segments.back().first_row + segments.back().rows;
    const auto prepare = [&](float* head, const Vector& gain, int64_t row) {
        if (config_.qk_norm) kernels_.norm(head, gain.data(), nullptr, config_.norm_eps, true, head, d);
        if (rotates) kernels_.rope(head, cosines_.data() + row * d / 2, sines_.data() + row * d / 2, d);
    };
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            for (int64_t head = 0; head < heads; ++head) prepare(q_.floats() + (row * heads + head) * d, block.q_norm, row);
            for (int64_t head = 0; head < kv_heads; ++head)
                prepare(k_.floats() + (row * kv_heads + head) * d, block.k_norm, row);
        }
    });
}

// Writes keys and values to the cache.
void Engine::store(int64_t layer, const Segments& segments) {
    const int64_t d = config_.head_dim, kv_heads = config_.n_kv_head;
    for (const Segment& segment : segments)
        parallel_for(segment.rows > small_batch ? threads_ : 1, segment.rows, kv_block, [&](int64_t begin, int64_t end, int) {
            for (int64_t head = 0; head < kv_heads; ++head) {
                const int64_t at = ((segment.first_row + begin) * kv_heads + head) * d;
                cache_.write(segment.sequence, layer, head, segment.first_position + begin, end - begin, k_.floats() + at,
                             v_.floats() + at, kv_heads * d);
            }
        });
}

// up = activation(up), or activation(gate) * up
void Engine::activate(int64_t rows, const Matrix* reader) {
    const auto function = config_.activation == Activation::gelu_tanh ? kernels_.gelu_tanh
                          : config_.activation == Activation::gelu    ? kernels_.gelu_erf
                                                                      : kernels_.silu;
    const int64_t f = config_.n_inner;
    const PreparedRows prepared = reader ? prepared_rows(*reader, rows, f) : PreparedRows{};
    parallel_for(rows > small_batch ? threads_ : 1, rows, 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            float* up = up_.floats() + row * f;
            function(config_.gated_mlp ? gate_.floats() + row * f : up, f);
            if (config_.gated_mlp) kernels_.multiply(up, gate_.floats() + row * f, f);
            prepare(prepared, up, f, row);
        }
    });
    prepared_already_ = {up_.floats(), prepared};
}

void Engine::add(float* x, const float* y, int64_t rows) {
    const int64_t c = config_.n_embd;
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        kernels_.add(x + begin * c, y + begin * c, (end - begin) * c);
    });
}

}  // namespace pophood
