// The engine's parameters: the slots for its tensors. See engine.h.
#include "engine/engine.h"

#include <algorithm>

#include "platform/threads.h"

namespace pophood {
namespace {

size_t scratch_bytes(int threads) { return static_cast<size_t>(threads * worker_scratch); }

std::vector<KvGeometry> geometry(const Config& config) {
    std::vector<KvGeometry> layers;
    for (int64_t layer = 0; layer < config.n_layer; ++layer)
        layers.push_back({config.n_kv_head, config.head_dim, config.window(layer)});
    return layers;
}

}  // namespace

Engine::Engine(const Config& config, int threads, const Kernels& kernels)
    : config_(config),
      threads_(std::clamp(threads, 1, max_threads)),
      kernels_(kernels),
      cache_(geometry(config), kernels),
      blocks_(static_cast<size_t>(config.n_layer)),
      scratch_(scratch_bytes(threads_)) {
    const int64_t c = config.n_embd, d = config.head_dim, f = config.n_inner;
    if (d > max_head) throw std::invalid_argument("head size " + std::to_string(d) + " is over " + std::to_string(max_head));
    for (const Rotary& rotary : config.rotaries)
        if (static_cast<int64_t>(rotary.frequencies.size()) > d / 2) throw std::invalid_argument("more pairs than a head has");
    if (config.n_head % config.n_kv_head != 0) throw std::invalid_argument("query heads do not divide over key/value heads");
    const auto linear = [&](const std::string& name, Linear& part, int64_t rows, int64_t cols, bool bias) {
        add_slot(name + ".weight", &part.weight, nullptr, {rows, cols});
        if (bias) add_slot(name + ".bias", nullptr, &part.bias, {rows});
        part.number = linears_.size();
        linears_[name] = &part;
    };
    const auto norm = [&](const std::string& name, Norm& part) {
        add_slot(name + ".weight", nullptr, &part.weight, {c});
        if (!config.rms_norm) add_slot(name + ".bias", nullptr, &part.bias, {c});
    };
    add_slot("embed.token", &token_embedding_, nullptr, {config.vocab_size, c});
    if (config.rotaries.empty()) add_slot("embed.position", nullptr, &position_embedding_, {config.n_positions, c});
    for (int64_t i = 0; i < config.n_layer; ++i) {
        const std::string name = "blocks." + std::to_string(i);
        Block& block = blocks_[static_cast<size_t>(i)];
        if (config.norms_before()) norm(name + ".ln_1", block.ln_1);
        linear(name + ".attn.q", block.q, config.n_head * d, c, config.qkv_bias);
        linear(name + ".attn.k", block.k, config.n_kv_head * d, c, config.qkv_bias);
        linear(name + ".attn.v", block.v, config.n_kv_head * d, c, config.qkv_bias);
        if (config.qk_norm) {
            const bool whole = config.qk_norm_whole;
            add_slot(name + ".attn.q_norm.weight", nullptr, &block.q_norm, {whole ? config.n_head * d : d});
            add_slot(name + ".attn.k_norm.weight", nullptr, &block.k_norm, {whole ? config.n_kv_head * d : d});
        }
        linear(name + ".attn.out", block.out, c, config.n_head * d, config.attn_out_bias);
        if (config.norms_before()) norm(name + ".ln_2", block.ln_2);
        if (config.gated_mlp) linear(name + ".mlp.gate", block.gate, f, c, config.mlp_bias);
        linear(name + ".mlp.up", block.up, f, c, config.mlp_bias);
        linear(name + ".mlp.down", block.down, c, f, config.mlp_bias);
        if (config.norms_after()) {
            norm(name + ".ln_1_post", block.ln_1_post);
            norm(name + ".ln_2_post", block.ln_2_post);
        }
    }
    norm("final_norm", final_norm_);
    if (!config.tied_output) add_slot("output.weight", &output_matrix_, nullptr, {config.vocab_size, c});
}

void Engine::set_tensor(const std::string& name, const TensorView& tensor, WeightType held) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = slots_.find(name);
    if (entry == slots_.end()) throw std::invalid_argument("unknown tensor " + name);
    const Slot& slot = entry->second;
    const std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.dimensions);
    if (shape != slot.shape) throw std::invalid_argument("wrong shape for " + name);
    const bool replaced = slot.matrix ? !slot.matrix->empty() : !slot.vector->empty();
    if (replaced) drop_all();
    if (is_quantized(tensor.type) && (!slot.matrix || tensor.shape[1] % quant_group != 0))
        throw std::invalid_argument(name + " cannot be stored in blocks of 32");
    if (!slot.matrix) slot.vector->pack(tensor);
    else if (is_quantized(held) && !is_quantized(tensor.type)) slot.matrix->pack_as(held, tensor, threads_);
    else if (held == WeightType::bf16_pairs && tensor.type == WeightType::bf16 && kernels_.bf16)
        slot.matrix->pack_in_pairs(tensor, threads_);
    else slot.matrix->pack(tensor, threads_);
    if (!replaced) ++filled_;
}

void Engine::set_kv_type(WeightType type) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (type != WeightType::f32 && type != WeightType::f16 && type != WeightType::q8_0)
        throw std::invalid_argument("keys and values are f32, f16 or q8_0");
    drop_all();
    cache_.set_type(type);
}

void Engine::set_threads(int threads) {
    const std::lock_guard lock(mutex_);
    threads_ = std::clamp(threads, 1, max_threads);
    scratch_ = AlignedBuffer(scratch_bytes(threads_));
}

void Engine::drop_all() {
    cache_.drop_all();
    sequence_adapters_.clear();
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
