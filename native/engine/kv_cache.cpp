// Allocation, sharing and copying of the KV cache's blocks. See kv_cache.h.
#include "engine/kv_cache.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/half.h"
#include "platform/os.h"

namespace pophood {

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t d, const Kernels& kernels)
    : kernels_(kernels), layers_(layers), kv_heads_(kv_heads), d_(d), d_padded_((d + 15) / 16 * 16) {
    set_type(WeightType::f32);
}

KvCache::~KvCache() {
    drop_all();
    free_spare_blocks();
}

void KvCache::set_type(WeightType type) {
    drop_all();
    free_spare_blocks();
    type_ = type;
    head_bytes_ = kv_block * (d_padded_ + d_padded_) * size_of(type);
    block_bytes_ = layers_ * kv_heads_ * head_bytes_;
}

void KvCache::free_spare_blocks() {
    for (Block* block : spare_) {
        free_pages(block->data, static_cast<size_t>(block_bytes_));
        delete block;
    }
    n_blocks_ -= static_cast<int64_t>(spare_.size());
    spare_.clear();
}

KvCache::Sequence& KvCache::at(int64_t sequence) {
    const auto entry = sequences_.find(sequence);
    if (entry == sequences_.end())
        throw std::out_of_range("sequence " + std::to_string(sequence) + " does not exist (dropped, or of another engine)");
    return entry->second;
}

const KvCache::Sequence& KvCache::at(int64_t sequence) const { return const_cast<KvCache*>(this)->at(sequence); }

int64_t KvCache::create() {
    sequences_[next_sequence_] = {};
    return next_sequence_++;
}

int64_t KvCache::fork(int64_t sequence) {
    Sequence copy = at(sequence);
    for (Block* block : copy.blocks) ++block->owners;
    sequences_[next_sequence_] = std::move(copy);
    return next_sequence_++;
}

void KvCache::truncate(int64_t sequence, int64_t length) {
    Sequence& s = at(sequence);
    if (length < 0 || length > s.length)
        throw std::out_of_range("cannot truncate to " + std::to_string(length) + " positions: the sequence has " +
                                std::to_string(s.length));
    const size_t keep = static_cast<size_t>((length + kv_block - 1) / kv_block);
    while (s.blocks.size() > keep) {
        release(s.blocks.back());
        s.blocks.pop_back();
    }
    s.length = length;
}

void KvCache::drop(int64_t sequence) {
    truncate(sequence, 0);
    sequences_.erase(sequence);
}

void KvCache::drop_all() {
    while (!sequences_.empty()) drop(sequences_.begin()->first);
}

int64_t KvCache::length(int64_t sequence) const { return at(sequence).length; }

void KvCache::extend(int64_t sequence, int64_t positions) {
    Sequence& s = at(sequence);
    if (positions > 0 && s.length % kv_block != 0 && s.blocks.back()->owners > 1) {
        Block* own = take_block();
        std::memcpy(own->data, s.blocks.back()->data, static_cast<size_t>(block_bytes_));
        release(s.blocks.back());
        s.blocks.back() = own;
    }
    const int64_t needed = (s.length + positions + kv_block - 1) / kv_block;
    while (static_cast<int64_t>(s.blocks.size()) < needed) s.blocks.push_back(take_block());
    s.length += positions;
}

void KvCache::write(int64_t sequence, int64_t layer, int64_t kv_head, int64_t position, const float* k, const float* v) {
    const Sequence& s = at(sequence);
    char* head = s.blocks[static_cast<size_t>(position / kv_block)]->data + head_offset(layer, kv_head);
    const int64_t lane = position % kv_block;
    if (type_ == WeightType::f32) {
        float *keys = reinterpret_cast<float*>(head), *values = keys + kv_block * d_padded_;
        for (int64_t i = 0; i < d_; ++i) keys[i * kv_block + lane] = k[i];
        std::memcpy(values + lane * d_padded_, v, static_cast<size_t>(d_) * sizeof(float));
        return;
    }
    uint16_t *keys = reinterpret_cast<uint16_t*>(head), *values = keys + kv_block * d_padded_, key[max_head];
    kernels_.to_half(key, k, d_);
    for (int64_t i = 0; i < d_; ++i) keys[i * kv_block + lane] = key[i];
    kernels_.to_half(values + lane * d_padded_, v, d_);
}

void KvCache::blocks(int64_t sequence, int64_t layer, int64_t kv_head, const void** k, const void** v) const {
    const Sequence& s = at(sequence);
    const int64_t offset = head_offset(layer, kv_head);
    for (size_t i = 0; i < s.blocks.size(); ++i) {
        const char* head = s.blocks[i]->data + offset;
        k[i] = head;
        v[i] = head + head_bytes_ / 2;
    }
}

int64_t KvCache::bytes() const { return n_blocks_ * block_bytes_; }

KvCache::Block* KvCache::take_block() {
    if (!spare_.empty()) {
        Block* block = spare_.back();
        spare_.pop_back();
        block->owners = 1;
        return block;
    }
    auto block = std::make_unique<Block>();
    block->data = static_cast<char*>(allocate_pages(static_cast<size_t>(block_bytes_)));
    block->owners = 1;
    ++n_blocks_;
    return block.release();
}

void KvCache::release(Block* block) {
    if (--block->owners == 0) spare_.push_back(block);
}

}  // namespace pophood
