// The forward pass, in execution order, with the names used in src/pophood/train/model/transformer.py. See engine.h.
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t small_batch = 4;  // up to this many rows, element-wise work stays on the calling thread

int64_t matmul_chunk(int64_t panels, int64_t threads) { return std::max<int64_t>(1, panels / (threads * 6)); }

}  // namespace

// ---- one forward pass -----------------------------------------------------------------------------------------------

void Engine::compute(const Request& request, const std::vector<Segment>& segments) {
    const int64_t n = request.n;
    float *x = x_.floats(), *h = h_.floats(), *q = q_.floats(), *k = k_.floats(), *v = v_.floats(), *z = z_.floats();
    float *up = up_.floats(), *gate = gate_.floats();

    embed(request, segments);                                                                   // x: [N, C]
    for (int64_t layer = 0; layer < config_.n_layer; ++layer) {
        if (request.stop && request.stop()) throw Stopped("stopped by the caller");
        const Block& block = blocks_[static_cast<size_t>(layer)];
        const auto tap = [&](Tap place, const float* values) { read(request, place, layer, values); };

        tap(Tap::resid_pre, x);
        read_normalized(request, Tap::ln_1_normalized, layer, x);
        norm(block.ln_1, x, h, n);                                                              // h: [N, C]
        tap(Tap::ln_1, h);
        project(h, n, {{&block.q, q}, {&block.k, k}, {&block.v, v}});                           // q: [N, H*D], k, v: [N, K*D]
        tap(Tap::q, q);
        tap(Tap::k, k);
        tap(Tap::v, v);
        rope_and_store(block, layer, segments);
        tap(Tap::rot_q, q);
        tap(Tap::rot_k, k);
        read_attention(request, layer, segments);
        attend(layer, segments);                                                                // z: [N, H*D]
        tap(Tap::z, z);
        read_result(request, layer);
        project(z, n, {{&block.out, h}});                                                       // h: [N, C]
        tap(Tap::attn_out, h);
        add(x, h, n);                                                                           // x + attention

        tap(Tap::resid_mid, x);
        read_normalized(request, Tap::ln_2_normalized, layer, x);
        norm(block.ln_2, x, h, n);                                                              // h: [N, C]
        tap(Tap::ln_2, h);
        if (config_.gated_mlp) project(h, n, {{&block.gate, gate}, {&block.up, up}});           // gate, up: [N, F]
        else project(h, n, {{&block.up, up}});                                                  // up: [N, F]
        tap(Tap::mlp_pre, config_.gated_mlp ? gate : up);
        tap(Tap::mlp_up, up);
        activate(n);
        tap(Tap::mlp_gate, gate);
        tap(Tap::mlp_post, up);
        project(up, n, {{&block.down, h}});                                                     // h: [N, C]
        tap(Tap::mlp_out, h);
        add(x, h, n);                                                                           // x + feed-forward
        tap(Tap::resid_post, x);
    }
    output(request);                                                                            // [rows, V] or [rows, C]
}

// x = token row (+ position row)
void Engine::embed(const Request& request, const std::vector<Segment>& segments) {
    const int64_t c = config_.n_embd;
    float* x = x_.floats();
    for (int64_t row = 0; row < request.n; ++row) token_embedding_.row(request.tokens[row], x + row * c);
    read(request, Tap::embed_token, 0, x);
    if (config_.frequencies.empty()) {
        float* h = h_.floats();
        for (const Segment& segment : segments)
            std::memcpy(h + segment.first_row * c, position_embedding_.data() + segment.first_position * c,
                        static_cast<size_t>(segment.rows * c) * sizeof(float));
        read(request, Tap::embed_position, 0, h);
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

void Engine::norm(const Norm& norm, const float* x, float* out, int64_t rows) {
    const int64_t c = config_.n_embd;
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            kernels_.norm(x + row * c, norm.weight.data(), norm.bias.data(), config_.norm_eps, config_.rms_norm,
                          out + row * c, c);
    });
}

// out = x W^T + b, plus LoRA, for several layers that read the same x
void Engine::project(const float* x, int64_t rows, const std::vector<Projection>& projections) {
    const int64_t k = projections.front().linear->weight.cols();
    Activations input{x, k, rows};
    for (const auto& [linear, out] : projections)
        if (linear->weight.quantized() && !input.quantized.values) input = quantized(input, k);
    std::vector<Matmul> products;
    for (const auto& [linear, out] : projections)
        products.push_back(linear->weight.times(input, linear->bias.data(), out, linear->weight.rows()));
    matmul(products);
    for (const auto& [linear, out] : projections) add_lora(*linear, x, rows, out);
}

// out [rows, matrix.rows()] = x W^T
void Engine::multiply(const Matrix& matrix, const float* x, int64_t rows, float* out) {
    Activations input{x, matrix.cols(), rows};
    if (matrix.quantized()) input = quantized(input, matrix.cols());
    matmul({matrix.times(input, nullptr, out, matrix.rows())});
}

// Adds the quantised rows to an input of k features, in buffers that the next call reuses.
Activations Engine::quantized(Activations input, int64_t k) {
    const int64_t groups = (k + quant_group - 1) / quant_group, n = input.m * groups;
    const auto reserve = [](AlignedBuffer& buffer, int64_t bytes) {
        if (buffer.bytes() < static_cast<size_t>(bytes)) buffer = AlignedBuffer(static_cast<size_t>(bytes));
    };
    reserve(quantized_values_, n * quant_group);
    reserve(quantized_scales_, n * 4);
    reserve(quantized_sums_, n * 4);
    reserve(quantized_offsets_, n * 4);
    input.quantized = {static_cast<int8_t*>(quantized_values_.get()), quantized_scales_.floats(),
                       static_cast<int32_t*>(quantized_sums_.get()), quantized_offsets_.floats(), groups};
    parallel_for(input.m > small_batch ? threads_ : 1, input.m, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            kernels_.quantized->quantize(input.x + row * input.x_stride, k, input.quantized, row);
    });
    return input;
}

// Computes independent products in one round of the thread pool, which deals out the panels of all of them.
void Engine::matmul(const std::vector<Matmul>& products) {
    int64_t panels = 0;
    for (const Matmul& product : products) panels += (product.rows + panel_rows - 1) / panel_rows;
    parallel_for(threads_, panels, matmul_chunk(panels, threads_), [&](int64_t begin, int64_t end, int worker) {
        float* scratch = scratch_.floats() + worker * k_block * panel_rows;
        int64_t start = 0;
        for (const Matmul& product : products) {
            const int64_t here = (product.rows + panel_rows - 1) / panel_rows;
            const int64_t first = std::max(begin - start, int64_t{0}), last = std::min(end - start, here);
            start += here;
            if (first >= last) continue;
            if (is_quantized(product.type)) kernels_.quantized->matmul(product, first, last);
            else kernels_.matmul(product, first, last, scratch);
        }
    });
}

// Applies the norm per head (if the model has one) and RoPE to queries and keys, then writes keys and values to the cache.
void Engine::rope_and_store(const Block& block, int64_t layer, const std::vector<Segment>& segments) {
    const int64_t d = config_.head_dim, heads = config_.n_head, kv_heads = config_.n_kv_head;
    const bool rope = !config_.frequencies.empty();
    const auto prepare = [&](float* head, const Vector& gain, int64_t row) {
        if (config_.qk_norm) kernels_.norm(head, gain.data(), nullptr, config_.norm_eps, true, head, d);
        if (rope) kernels_.rope(head, cosines_.data() + row * d / 2, sines_.data() + row * d / 2, d);
    };
    for (const Segment& segment : segments)
        parallel_for(segment.rows > small_batch ? threads_ : 1, segment.rows, 16, [&](int64_t begin, int64_t end, int) {
            for (int64_t row = segment.first_row + begin; row < segment.first_row + end; ++row) {
                const int64_t position = segment.first_position + row - segment.first_row;
                for (int64_t head = 0; head < heads; ++head)
                    prepare(q_.floats() + (row * heads + head) * d, block.q_norm, row);
                for (int64_t head = 0; head < kv_heads; ++head) {
                    float* k = k_.floats() + (row * kv_heads + head) * d;
                    prepare(k, block.k_norm, row);
                    cache_.write(segment.sequence, layer, head, position, k, v_.floats() + (row * kv_heads + head) * d);
                }
            }
        });
}

// z = softmax(q . k / sqrt(D), itself and earlier positions only) . v, for every query head
void Engine::attend(int64_t layer, const std::vector<Segment>& segments) {
    const int64_t d = config_.head_dim, heads = config_.n_head, kv_heads = config_.n_kv_head, group = heads / kv_heads;
    const float scale = attention_scale();
    for (const Segment& segment : segments) {
        const int64_t queries = segment.rows * group, tasks = (queries + max_queries - 1) / max_queries;
        const int64_t blocks = (segment.first_position + segment.rows + kv_block - 1) / kv_block;
        parallel_for(threads_, kv_heads * tasks, segment.rows > small_batch ? 8 : 1, [&](int64_t begin, int64_t end, int) {
            std::vector<const void*> k(static_cast<size_t>(blocks)), v(static_cast<size_t>(blocks));
            for (int64_t item = begin, current = -1; item < end; ++item) {
                const int64_t kv_head = item / tasks, first = item % tasks * max_queries;
                if (kv_head != current) cache_.blocks(segment.sequence, layer, current = kv_head, k.data(), v.data());
                AttentionTask task{};
                task.n_queries = std::min(max_queries, queries - first);
                for (int64_t j = 0; j < task.n_queries; ++j) {
                    const int64_t row = (first + j) / group, head = kv_head * group + (first + j) % group;
                    const int64_t offset = ((segment.first_row + row) * heads + head) * d;
                    task.q[j] = q_.floats() + offset;
                    task.out[j] = z_.floats() + offset;
                    task.visible[j] = segment.first_position + row + 1;
                }
                task.kv_type = cache_.type();
                task.k_blocks = k.data();
                task.v_blocks = v.data();
                task.d = d;
                task.d_padded = cache_.d_padded();
                task.scale = scale;
                kernels_.attend(task);
            }
        });
    }
}

// up = activation(up), or activation(gate) * up
void Engine::activate(int64_t rows) {
    const auto function = config_.activation == Activation::gelu_tanh ? kernels_.gelu_tanh
                          : config_.activation == Activation::gelu    ? kernels_.gelu_erf
                                                                      : kernels_.silu;
    const int64_t f = config_.n_inner;
    parallel_for(rows > small_batch ? threads_ : 1, rows, 4, [&](int64_t begin, int64_t end, int) {
        const int64_t at = begin * f, count = (end - begin) * f;
        float* up = up_.floats() + at;
        function(config_.gated_mlp ? gate_.floats() + at : up, count);
        if (config_.gated_mlp) kernels_.multiply(up, gate_.floats() + at, count);
    });
}

void Engine::add(float* x, const float* y, int64_t rows) {
    const int64_t c = config_.n_embd;
    parallel_for(rows > small_batch ? threads_ : 1, rows, 16, [&](int64_t begin, int64_t end, int) {
        kernels_.add(x + begin * c, y + begin * c, (end - begin) * c);
    });
}

// Applies the final norm to the requested rows, then computes their logits.
void Engine::output(const Request& request) {
    const int64_t c = config_.n_embd;
    const float* x = x_.floats();
    if (!kernels_.all_finite(x, request.n * c))
        throw NotFinite("the residual stream is not finite (NaN or infinity)");
    read_normalized(request, Tap::final_norm_normalized, 0, x);
    if (const Reading* reading = find_reading(request, Tap::final_norm, 0)) norm(final_norm_, x, reading->out, request.n);
    read_logits(request, x);
    if (request.output == Output::none) return;
    float* h = h_.floats();
    for (int64_t i = 0; i < request.n_rows; ++i)
        kernels_.norm(x + request.rows[i] * c, final_norm_.weight.data(), final_norm_.bias.data(), config_.norm_eps,
                      config_.rms_norm, h + i * c, c);
    if (request.output == Output::hidden) {
        std::memcpy(request.out, h, static_cast<size_t>(request.n_rows * c) * sizeof(float));
        return;
    }
    const Matrix& matrix = config_.tied_output ? token_embedding_ : output_matrix_;
    multiply(matrix, h, request.n_rows, request.out);
    if (!kernels_.all_finite(request.out, request.n_rows * config_.vocab_size))
        throw NotFinite("the logits are not finite (NaN or infinity)");
}

// ---- the call around it ---------------------------------------------------------------------------------------------

void Engine::forward(const Request& request) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<Segment> segments = plan(request);
    reserve(request.n);
    try {
        for (const Segment& segment : segments) cache_.extend(segment.sequence, segment.rows);
        compute(request, segments);
    } catch (...) {
        for (const Segment& segment : segments)
            if (cache_.length(segment.sequence) > segment.first_position)
                cache_.truncate(segment.sequence, segment.first_position);
        throw;
    }
}

// Checks a request before anything changes and groups its rows by sequence.
std::vector<Engine::Segment> Engine::plan(const Request& request) const {
    std::vector<Segment> segments;
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
        segments.push_back({sequence, row, 1, cache_.length(sequence)});
    }
    for (const Segment& segment : segments)
        if (segment.first_position + segment.rows > config_.n_positions)
            throw std::length_error("sequence would have " + std::to_string(segment.first_position + segment.rows) +
                                    " positions; the context window holds " + std::to_string(config_.n_positions));
    for (const Reading& reading : request.readings)
        for (const Segment& segment : segments)
            if ((reading.tap == Tap::scores || reading.tap == Tap::pattern) && reading.keys < segment.first_position + segment.rows)
                throw std::invalid_argument("a tap's array has too few keys");
    for (int64_t i = 0; i < request.n_rows; ++i)
        if (request.rows[i] < 0 || request.rows[i] >= request.n)
            throw std::invalid_argument("output row " + std::to_string(request.rows[i]) + " is outside the request");
    if (filled_ != slots_.size()) throw std::logic_error("no weights for " + missing_tensors().front());
    return segments;
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
    resize(q_, config_.n_head * config_.head_dim);
    resize(k_, config_.n_kv_head * config_.head_dim);
    resize(v_, config_.n_kv_head * config_.head_dim);
    resize(z_, config_.n_head * config_.head_dim);
    resize(up_, config_.n_inner);
    if (config_.gated_mlp) resize(gate_, config_.n_inner);
    capacity_ = rows;
}

int64_t Engine::create() {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.create();
}
int64_t Engine::fork(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_.fork(sequence);
}
void Engine::truncate(int64_t sequence, int64_t length) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.truncate(sequence, length);
}
void Engine::drop(int64_t sequence) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_.drop(sequence);
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
