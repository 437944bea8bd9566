// The forward pass, in execution order, with the names of train/model/transformer.py. See engine.h.
#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "threads.h"

namespace pophood {
namespace {

constexpr int64_t small_batch = 4;  // up to so many rows, element-wise work stays on the calling thread

int64_t matmul_piece(int64_t panels, int64_t threads) { return std::max<int64_t>(1, panels / (threads * 6)); }

}  // namespace

// ---- one forward pass ------------------------------------------------------------------------------------------------

void Engine::compute(const Request& request, const std::vector<Run>& runs) {
    const int64_t n = request.n;
    float *x = x_.floats(), *h = h_.floats(), *q = q_.floats(), *k = k_.floats(), *v = v_.floats(), *z = z_.floats();
    float *up = up_.floats(), *gate = gate_.floats();

    embed(request, runs);                                                                       // x: [N, C]
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
        rotate_and_store(block, layer, runs);
        tap(Tap::rot_q, q);
        tap(Tap::rot_k, k);
        read_attention(request, layer, runs);
        attend(layer, runs);                                                                    // z: [N, H*D]
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
void Engine::embed(const Request& request, const std::vector<Run>& runs) {
    const int64_t c = config_.n_embd;
    float* x = x_.floats();
    for (int64_t row = 0; row < request.n; ++row) token_embedding_.row(request.tokens[row], x + row * c);
    read(request, Tap::embed_token, 0, x);
    if (config_.frequencies.empty()) {
        float* h = h_.floats();
        for (const Run& run : runs)
            std::memcpy(h + run.first_row * c, position_embedding_.data() + run.first_position * c,
                        static_cast<size_t>(run.rows * c) * sizeof(float));
        read(request, Tap::embed_position, 0, h);
        add(x, h, request.n);
        return;
    }
    // Rotary: the angle is position * frequency in f32, as the reference rounds it; sine and cosine are correctly
    // rounded from double, so libraries cannot differ.
    const size_t half = config_.frequencies.size();
    cosines_.resize(static_cast<size_t>(request.n) * half);
    sines_.resize(cosines_.size());
    for (const Run& run : runs)
        for (int64_t i = 0; i < run.rows; ++i)
            for (size_t pair = 0; pair < half; ++pair) {
                const float angle = static_cast<float>(run.first_position + i) * config_.frequencies[pair];
                const size_t at = static_cast<size_t>(run.first_row + i) * half + pair;
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

// out = x W^T + b of several layers that read the same x, with their adapters
void Engine::project(const float* x, int64_t rows, const std::vector<Product>& products) {
    std::vector<Matmul> all;
    for (const auto& [linear, out] : products)
        all.push_back(linear->weight.times(x, linear->weight.cols(), rows, linear->bias.data(), out, linear->weight.rows()));
    matmul(all);
    for (const auto& [linear, out] : products) detour(*linear, x, rows, out);
}

// Several products that can run side by side share one round of the pool: panels are dealt out over all of them.
void Engine::matmul(const std::vector<Matmul>& products) {
    int64_t panels = 0;
    for (const Matmul& product : products) panels += (product.rows + panel_rows - 1) / panel_rows;
    parallel_for(threads_, panels, matmul_piece(panels, threads_), [&](int64_t begin, int64_t end, int worker) {
        float* scratch = scratch_.floats() + worker * k_block * panel_rows;
        int64_t start = 0;
        for (const Matmul& product : products) {
            const int64_t here = (product.rows + panel_rows - 1) / panel_rows;
            const int64_t first = std::max(begin - start, int64_t{0}), last = std::min(end - start, here);
            if (first < last) kernels_.matmul(product, first, last, scratch);
            start += here;
        }
    });
}

// Queries and keys: optional norm per head, rotation by position; then keys and values go into the cache.
void Engine::rotate_and_store(const Block& block, int64_t layer, const std::vector<Run>& runs) {
    const int64_t d = config_.head_dim, heads = config_.n_head, kv_heads = config_.n_kv_head;
    const bool rotary = !config_.frequencies.empty();
    const auto prepare = [&](float* head, const Vector& gain, int64_t row) {
        if (config_.qk_norm) kernels_.norm(head, gain.data(), nullptr, config_.norm_eps, true, head, d);
        if (rotary) kernels_.rotate(head, cosines_.data() + row * d / 2, sines_.data() + row * d / 2, d);
    };
    for (const Run& run : runs)
        parallel_for(run.rows > small_batch ? threads_ : 1, run.rows, 16, [&](int64_t begin, int64_t end, int) {
            for (int64_t row = run.first_row + begin; row < run.first_row + end; ++row) {
                const int64_t position = run.first_position + row - run.first_row;
                for (int64_t head = 0; head < heads; ++head)
                    prepare(q_.floats() + (row * heads + head) * d, block.q_norm, row);
                for (int64_t head = 0; head < kv_heads; ++head) {
                    float* k = k_.floats() + (row * kv_heads + head) * d;
                    prepare(k, block.k_norm, row);
                    cache_.write(run.sequence, layer, head, position, k, v_.floats() + (row * kv_heads + head) * d);
                }
            }
        });
}

// z = softmax(q . k / sqrt(D), itself and earlier positions only) . v, for every query head
void Engine::attend(int64_t layer, const std::vector<Run>& runs) {
    const int64_t d = config_.head_dim, heads = config_.n_head, kv_heads = config_.n_kv_head, group = heads / kv_heads;
    const float scale = attention_scale();
    for (const Run& run : runs) {
        const int64_t queries = run.rows * group, tasks = (queries + max_queries - 1) / max_queries;
        const int64_t blocks = (run.first_position + run.rows + kv_block - 1) / kv_block;
        parallel_for(threads_, kv_heads * tasks, run.rows > small_batch ? 8 : 1, [&](int64_t begin, int64_t end, int) {
            std::vector<const float*> k(static_cast<size_t>(blocks)), v(static_cast<size_t>(blocks));
            for (int64_t item = begin, current = -1; item < end; ++item) {
                const int64_t kv_head = item / tasks, first = item % tasks * max_queries;
                if (kv_head != current) cache_.blocks(run.sequence, layer, current = kv_head, k.data(), v.data());
                Attend task{};
                task.n_queries = std::min(max_queries, queries - first);
                for (int64_t j = 0; j < task.n_queries; ++j) {
                    const int64_t row = (first + j) / group, head = kv_head * group + (first + j) % group;
                    const int64_t offset = ((run.first_row + row) * heads + head) * d;
                    task.q[j] = q_.floats() + offset;
                    task.out[j] = z_.floats() + offset;
                    task.visible[j] = run.first_position + row + 1;
                }
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

// The final norm of the rows that are asked for, then their logits.
void Engine::output(const Request& request) {
    const int64_t c = config_.n_embd;
    const float* x = x_.floats();
    if (!kernels_.all_finite(x, request.n * c))
        throw NotFinite("the residual stream is not finite (NaN or infinity)");
    read_normalized(request, Tap::final_norm_normalized, 0, x);
    if (const Reading* reading = wanted(request, Tap::final_norm, 0)) norm(final_norm_, x, reading->out, request.n);
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
    matmul({matrix.times(h, c, request.n_rows, nullptr, request.out, config_.vocab_size)});
    if (!kernels_.all_finite(request.out, request.n_rows * config_.vocab_size))
        throw NotFinite("the logits are not finite (NaN or infinity)");
}

// ---- the call around it ------------------------------------------------------------------------------------------------

void Engine::forward(const Request& request) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<Run> runs = plan(request);
    make_room(request.n);
    try {
        for (const Run& run : runs) cache_.extend(run.sequence, run.rows);
        compute(request, runs);
    } catch (...) {
        for (const Run& run : runs)
            if (cache_.length(run.sequence) > run.first_position) cache_.truncate(run.sequence, run.first_position);
        throw;
    }
}

// Checks a request before anything changes, and groups its rows by sequence.
std::vector<Engine::Run> Engine::plan(const Request& request) const {
    std::vector<Run> runs;
    std::set<int64_t> seen;
    for (int64_t row = 0; row < request.n; ++row) {
        if (request.tokens[row] < 0 || request.tokens[row] >= config_.vocab_size)
            throw std::invalid_argument("token id " + std::to_string(request.tokens[row]) + " is outside 0.." +
                                        std::to_string(config_.vocab_size - 1));
        const int64_t sequence = request.sequences[row];
        if (!runs.empty() && runs.back().sequence == sequence) {
            ++runs.back().rows;
            continue;
        }
        if (!seen.insert(sequence).second)
            throw std::invalid_argument("rows of sequence " + std::to_string(sequence) + " do not stand together");
        runs.push_back({sequence, row, 1, cache_.length(sequence)});
    }
    for (const Run& run : runs)
        if (run.first_position + run.rows > config_.n_positions)
            throw std::length_error("sequence would have " + std::to_string(run.first_position + run.rows) +
                                    " positions; the context window holds " + std::to_string(config_.n_positions));
    for (const Reading& reading : request.readings)
        for (const Run& run : runs)
            if ((reading.tap == Tap::scores || reading.tap == Tap::pattern) && reading.keys < run.first_position + run.rows)
                throw std::invalid_argument("a tap has room for too few keys");
    for (int64_t i = 0; i < request.n_rows; ++i)
        if (request.rows[i] < 0 || request.rows[i] >= request.n)
            throw std::invalid_argument("output row " + std::to_string(request.rows[i]) + " is outside the request");
    if (!complete_) throw std::logic_error("no weights for " + missing_tensors().front());
    return runs;
}

void Engine::make_room(int64_t rows) {
    if (rows <= room_) return;
    const auto sized = [&](Pages& pages, int64_t width) {
        pages = Pages();
        pages = Pages(static_cast<size_t>(rows * width) * sizeof(float));
    };
    room_ = 0;
    sized(x_, config_.n_embd);
    sized(h_, config_.n_embd);
    sized(q_, config_.n_head * config_.head_dim);
    sized(k_, config_.n_kv_head * config_.head_dim);
    sized(v_, config_.n_kv_head * config_.head_dim);
    sized(z_, config_.n_head * config_.head_dim);
    sized(up_, config_.n_inner);
    if (config_.gated_mlp) sized(gate_, config_.n_inner);
    room_ = rows;
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

// ---- construction ------------------------------------------------------------------------------------------------------

Engine::Engine(const Config& config, int threads, const Kernels& kernels)
    : config_(config),
      threads_(std::clamp(threads, 1, max_threads)),
      kernels_(kernels),
      cache_(config.n_layer, config.n_kv_head, config.head_dim),
      blocks_(static_cast<size_t>(config.n_layer)),
      scratch_(static_cast<size_t>(std::clamp(threads, 1, max_threads) * k_block * panel_rows) * sizeof(float)) {
    const int64_t c = config.n_embd, d = config.head_dim, f = config.n_inner;
    if (d > max_head) throw std::invalid_argument("head size " + std::to_string(d) + " is over " + std::to_string(max_head));
    if (config.n_head % config.n_kv_head != 0) throw std::invalid_argument("query heads do not divide over key/value heads");
    const auto linear = [&](const std::string& name, Linear& part, int64_t rows, int64_t cols, bool bias) {
        add_slot(name + ".weight", &part.weight, nullptr, {rows, cols});
        if (bias) add_slot(name + ".bias", nullptr, &part.bias, {rows});
        linears_[name] = &part;
    };
    const auto norm = [&](const std::string& name, Norm& part) {
        add_slot(name + ".weight", nullptr, &part.weight, {c});
        if (!config.rms_norm) add_slot(name + ".bias", nullptr, &part.bias, {c});
    };
    add_slot("embed.token", &token_embedding_, nullptr, {config.vocab_size, c});
    if (config.frequencies.empty()) add_slot("embed.position", nullptr, &position_embedding_, {config.n_positions, c});
    for (int64_t i = 0; i < config.n_layer; ++i) {
        const std::string name = "blocks." + std::to_string(i);
        Block& block = blocks_[static_cast<size_t>(i)];
        norm(name + ".ln_1", block.ln_1);
        linear(name + ".attn.q", block.q, config.n_head * d, c, config.qkv_bias);
        linear(name + ".attn.k", block.k, config.n_kv_head * d, c, config.qkv_bias);
        linear(name + ".attn.v", block.v, config.n_kv_head * d, c, config.qkv_bias);
        if (config.qk_norm) {
            add_slot(name + ".attn.q_norm.weight", nullptr, &block.q_norm, {d});
            add_slot(name + ".attn.k_norm.weight", nullptr, &block.k_norm, {d});
        }
        linear(name + ".attn.out", block.out, c, config.n_head * d, config.attn_out_bias);
        norm(name + ".ln_2", block.ln_2);
        if (config.gated_mlp) linear(name + ".mlp.gate", block.gate, f, c, config.mlp_bias);
        linear(name + ".mlp.up", block.up, f, c, config.mlp_bias);
        linear(name + ".mlp.down", block.down, c, f, config.mlp_bias);
    }
    norm("final_norm", final_norm_);
    if (!config.tied_output) add_slot("output.weight", &output_matrix_, nullptr, {config.vocab_size, c});
}

void Engine::set_tensor(const std::string& name, const TensorView& tensor) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = slots_.find(name);
    if (found == slots_.end()) throw std::invalid_argument("unknown tensor " + name);
    const Slot& slot = found->second;
    const std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.dimensions);
    if (shape != slot.shape) throw std::invalid_argument("wrong shape for " + name);
    const bool replaced = slot.matrix ? !slot.matrix->empty() : !slot.vector->empty();
    if (replaced) cache_.drop_all();
    if (slot.matrix) slot.matrix->pack(tensor, threads_);
    else slot.vector->pack(tensor);
    complete_ = missing_tensors().empty();
}

std::vector<std::string> Engine::missing_tensors() const {
    std::vector<std::string> missing;
    for (const auto& [name, slot] : slots_)
        if (slot.matrix ? slot.matrix->empty() : slot.vector->empty()) missing.push_back(name);
    return missing;
}

int64_t Engine::weight_bytes() const {
    size_t bytes = 0;
    for (const auto& [name, slot] : slots_) bytes += slot.matrix ? slot.matrix->bytes() : slot.vector->bytes();
    return static_cast<int64_t>(bytes);
}

}  // namespace pophood
