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
constexpr int64_t large_input = 3 << 19;  // bytes that do not fit into a usual L2 cache beside weights

}  // namespace

// ---- one forward pass -----------------------------------------------------------------------------------------------

void Engine::compute(Request& request, Segments& segments) {
    float *x = x_.floats(), *h = h_.floats(), *q = q_.floats(), *k = k_.floats(), *v = v_.floats(), *z = z_.floats();
    float *up = up_.floats(), *gate = gate_.floats();
    float* m = config_.parallel ? side_.floats() : h;            // what the feed-forward reads
    const float *attention_input = config_.norms_before() ? h : x, *mlp_input = config_.norms_before() ? m : x;

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
        if (config_.norms_before()) {
            normalize(request, Tap::ln_1_normalized, layer, block.ln_1, x, h, &block.q.weight);  // h: [N, C]
            tap(Tap::ln_1, h);
        }
        project(attention_input, n, segments, {{&block.q, q}, {&block.k, k}, {&block.v, v}});                 // q: [N, H*D], k, v: [N, K*D]
        tap(Tap::q, q);
        tap(Tap::k, k);
        tap(Tap::v, v);
        rope(layer, segments);
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
        settle(block.ln_1_post, h, n);
        tap(Tap::attn_out, h);
        const auto normalize_again = [&] {
            if (!config_.norms_before()) return;
            normalize(request, Tap::ln_2_normalized, layer, block.ln_2, x, m, &block.up.weight);  // m: [N, C]
            tap(Tap::ln_2, m);
        };
        if (config_.parallel) normalize_again();                                                // of x before attention
        add(x, h, n);                                                                           // x + attention
        if (!config_.parallel) {
            tap(Tap::resid_mid, x);
            normalize_again();
        }
        if (config_.gated_mlp) project(mlp_input, n, segments, {{&block.gate, gate}, {&block.up, up}});  // gate, up: [N, F]
        else project(mlp_input, n, segments, {{&block.up, up}});                                // up: [N, F]
        tap(Tap::mlp_pre, config_.gated_mlp ? gate : up);
        tap(Tap::mlp_up, up);
        activate(request, layer);
        read(request, Tap::mlp_gate, layer, gate);
        tap(Tap::mlp_post, up);
        project(up, n, segments, {{&block.down, h}});                                           // h: [N, C]
        settle(block.ln_2_post, h, n);
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
    if (config_.embedding_scale != 1.0f) kernels_.scale(x, config_.embedding_scale, request.n * c);
    tap(Tap::embed_token, x);
    if (config_.rotaries.empty()) {
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
    cosines_.resize(config_.rotaries.size());
    sines_.resize(cosines_.size());
    for (size_t table = 0; table < cosines_.size(); ++table) {
        const Rotary& rotary = config_.rotaries[table];
        const size_t half = rotary.frequencies.size();
        std::vector<float>&cosines = cosines_[table], &sines = sines_[table];
        cosines.resize(static_cast<size_t>(request.n) * half);
        sines.resize(cosines.size());
        for (const Segment& segment : segments)
            for (int64_t i = 0; i < segment.rows; ++i)
                for (size_t pair = 0; pair < half; ++pair) {
                    const float angle = static_cast<float>(segment.first_position + i) * rotary.frequencies[pair];
                    const size_t at = static_cast<size_t>(segment.first_row + i) * half + pair;
                    cosines[at] = static_cast<float>(std::cos(static_cast<double>(angle))) * rotary.scale;
                    sines[at] = static_cast<float>(std::sin(static_cast<double>(angle))) * rotary.scale;
                }
    }
}

void Engine::norm(const Norm& norm, const float* x, float* out, int64_t rows, const Matrix* reader) {
    const int64_t c = config_.n_embd;
    const PreparedRows prepared = prepared_rows(reader, rows, c);
    prepare_each(prepared, {out, c, rows}, c, 16, [&](int64_t row) {
        kernels_.norm(x + row * c, norm.weight.data(), norm.bias.data(), config_.norm_eps, config_.rms_norm, out + row * c, c);
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
PreparedRows Engine::prepared_rows(const Matrix* reader, int64_t rows, int64_t k, bool in_tiles) {
    if (!reader) return {};
    const auto reserve = [](AlignedBuffer& buffer, int64_t bytes) {
        if (buffer.bytes() < static_cast<size_t>(bytes)) buffer = AlignedBuffer(static_cast<size_t>(bytes));
    };
    PreparedRows prepared;
    if (!reader->prepares()) {
        if (!in_tiles || !kernels_.interleave || rows <= kernels_.matmul_tokens) return {};
        reserve(interleaved_values_, rows * k * 4);
        prepared.interleaved = interleaved_values_.floats();
        return prepared;
    }
    const int64_t best = reader->quantized() ? kernels_.quantized->tile : kernels_.bf16->tile;
    const int64_t tile = in_tiles && rows >= least_tiles * best ? best : 1;
    const int64_t groups = (k + quant_group - 1) / quant_group, n = (rows + tile - 1) / tile * tile * groups;
    if (!reader->quantized()) {
        reserve(rounded_values_, n * quant_group * 2);
        prepared.rounded = {static_cast<uint16_t*>(rounded_values_.get()), groups, tile};
        return prepared;
    }
    reserve(quantized_values_, n * quant_group);
    reserve(quantized_scales_, n * 4);
    reserve(quantized_sums_, n * 4);
    reserve(quantized_low_sums_, n * 4);
    reserve(quantized_offsets_, n * 4);
    prepared.quantized = {static_cast<int8_t*>(quantized_values_.get()), quantized_scales_.floats(),
                          static_cast<int32_t*>(quantized_sums_.get()), static_cast<int32_t*>(quantized_low_sums_.get()),
                          quantized_offsets_.floats(), groups, tile};
    return prepared;
}

// Computes rows, `chunk` of them at a time, and prepares each while it is in the cache.
void Engine::prepare_each(const PreparedRows& prepared, const Activations& rows, int64_t k, int64_t chunk,
                          const std::function<void(int64_t row)>& compute) {
    const int threads = rows.m > small_batch ? threads_ : 1;
    const float* x = rows.x;
    if (prepared.interleaved) {
        const RowTiles tiles(rows.m, kernels_.matmul_tokens);
        return parallel_for(threads, tiles.count, 1, [&](int64_t begin, int64_t end, int) {
            for (int64_t tile = begin; tile < end; ++tile) {
                const int64_t first = tiles.first(tile), count = tiles.rows(tile);
                for (int64_t row = first; row < first + count; ++row) compute(row);
                kernels_.interleave(x + first * rows.x_stride, rows.x_stride, count, k, prepared.interleaved + first * k);
            }
        });
    }
    parallel_for(threads, rows.m, chunk, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            compute(row);
            if (prepared.quantized.values) kernels_.quantized->quantize(x + row * rows.x_stride, k, prepared.quantized, row);
            if (prepared.rounded.values) kernels_.bf16->round(x + row * rows.x_stride, k, prepared.rounded, row);
        }
    });
}

// Adds the rows that `matrix` reads to an input, unless it reads floats or they are there.
void Engine::prepare_for(const Matrix& matrix, Activations& input, bool in_tiles) {
    const auto [x, already] = std::exchange(prepared_already_, {});
    if (x == input.x) input.prepared.add(already);
    const PreparedRows rows = prepared_rows(&matrix, input.m, matrix.cols(), in_tiles);
    if (input.prepared.has(rows)) return;
    prepare_each(rows, input, matrix.cols(), 16, [](int64_t) {});
    input.prepared.add(rows);
}

// Computes independent products in one round of the thread pool, which deals out the panels of all of them.
void Engine::matmul(const std::vector<Matmul>& products) {
    if (products.empty()) return;
    int64_t panels = 0;
    for (const Matmul& product : products) panels += panels_of(product);
    const int64_t chunk = matmul_chunk(panels, products.front());
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

// Panels in one piece of a product's work. A batch takes them in pairs, as the kernels do; so that threads end together, in
// one pair, unless the inputs of many tokens do not fit into the L2 cache and are worth several pairs for each pass.
int64_t Engine::matmul_chunk(int64_t panels, const Matmul& first) const {
    const auto idle = [&](int64_t chunk) {  // panels that could be computed while some threads compute the last pieces
        const int64_t pieces = (panels + chunk - 1) / chunk;
        return (pieces + threads_ - 1) / threads_ * threads_ * chunk - panels;
    };
    if (first.interleaved && first.m * first.k * 4 > large_input)
        for (const int64_t chunk : {8, 6, 4})
            if (idle(chunk) * 32 <= panels) return chunk;
    if (first.m > 4 * small_batch) return 2;  // takes long enough
    const int64_t chunk = std::max<int64_t>(1, panels / (threads_ * 6));
    return first.m > 1 ? (chunk + 1) / 2 * 2 : chunk;
}

void Engine::multiply_panels(const Matmul& product, int64_t first, int64_t last, int worker) {
    uint8_t* scratch = static_cast<uint8_t*>(scratch_.get()) + worker * worker_scratch;
    if (is_quantized(product.type)) kernels_.quantized->matmul(product, first, last, scratch);
    else if (product.type == WeightType::bf16_pairs) kernels_.bf16->matmul(product, first, last);
    else kernels_.matmul(product, first, last, reinterpret_cast<float*>(scratch));
}

// What a block adds to the stream, after the norm and the multiplier that the model may have there.
void Engine::settle(const Norm& post, float* y, int64_t rows) {
    if (config_.norms_after()) norm(post, y, y, rows);
    if (config_.residual_scale != 1.0f) kernels_.scale(y, config_.residual_scale, rows * config_.n_embd);
}

// Applies the norm of queries and keys, per head or over all heads, and RoPE, where the model and the block have them.
void Engine::rope(int64_t layer, const Segments& segments) {
    const Block& block = blocks_[static_cast<size_t>(layer)];
    const int64_t d = config_.head_dim;
    const Rotary* rotary = config_.rotary(layer);
    if (!rotary && !config_.qk_norm) return;
    const int64_t rows = segments.back().first_row + segments.back().rows;
    const auto table = static_cast<size_t>(rotary ? rotary - config_.rotaries.data() : 0);
    const int64_t half = rotary ? static_cast<int64_t>(rotary->frequencies.size()) : 0;
    const auto prepare = [&](float* x, int64_t heads, const Vector& gain, int64_t row) {
        x += row * heads * d;
        if (config_.qk_norm_whole) kernels_.norm(x, gain.data(), nullptr, config_.norm_eps, true, x, heads * d);
        for (float* head = x; head < x + heads * d; head += d) {
            if (config_.qk_norm && !config_.qk_norm_whole)
                kernels_.norm(head, gain.data(), nullptr, config_.norm_eps, true, head, d);
            if (rotary) kernels_.rope(head, cosines_[table].data() + row * half, sines_[table].data() + row * half, 2 * half);
        }
    };
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            prepare(q_.floats(), config_.n_head, block.q_norm, row);
            prepare(k_.floats(), config_.n_kv_head, block.k_norm, row);
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
    const PreparedRows prepared = prepared_rows(reader, rows, f);
    prepare_each(prepared, {up_.floats(), f, rows}, f, 4, [&](int64_t row) {
        float* up = up_.floats() + row * f;
        function(config_.gated_mlp ? gate_.floats() + row * f : up, f);
        if (config_.gated_mlp) kernels_.multiply(up, gate_.floats() + row * f, f);
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
