// Allocation, sharing and copying of the KV cache's blocks. See kv_cache.h.
#include "engine/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/half.h"
#include "platform/os.h"

namespace pophood {

KvCache::KvCache(std::vector<KvGeometry> layers, const Kernels& kernels) : kernels_(kernels), layers_(std::move(layers)) {
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
    layer_offsets_.clear();
    block_bytes_ = 0;
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
        layer_offsets_.push_back(block_bytes_);
        block_bytes_ += layers_[layer].kv_heads * 2 * values_offset(static_cast<int64_t>(layer));
    }
}

int64_t KvCache::values_offset(int64_t layer) const { return kv_block * geometry(layer).d_padded() * size_of(type_); }

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

void KvCache::write(int64_t sequence, int64_t layer, int64_t kv_head, int64_t position, int64_t count, const float* k,
                    const float* v, int64_t stride) {
    const Sequence& s = at(sequence);
    const int64_t d = geometry(layer).d, d_padded = geometry(layer).d_padded(), offset = head_offset(layer, kv_head);
    for (int64_t done = 0, rows = 0; done < count; done += rows) {  // block by block
        const int64_t lane = (position + done) % kv_block;
        rows = std::min(count - done, kv_block - lane);
        char* head = s.blocks[static_cast<size_t>((position + done) / kv_block)]->data + offset;
        const float *key = k + done * stride, *value = v + done * stride;
        if (type_ == WeightType::f32) {
            float *block = reinterpret_cast<float*>(head), *keys = block + lane, *values = block + (kv_block + lane) * d_padded;
            for (int64_t i = 0; i < d; ++i)
                for (int64_t row = 0; row < rows; ++row) keys[i * kv_block + row] = key[row * stride + i];
            for (int64_t row = 0; row < rows; ++row)
                std::memcpy(values + row * d_padded, value + row * stride, static_cast<size_t>(d) * sizeof(float));
            continue;
        }
        uint16_t *block = reinterpret_cast<uint16_t*>(head), *keys = block + lane, *values = block + (kv_block + lane) * d_padded;
        uint16_t half[kv_block][max_head];
        for (int64_t row = 0; row < rows; ++row) {
            kernels_.to_half(half[row], key + row * stride, d);
            kernels_.to_half(values + row * d_padded, value + row * stride, d);
        }
        for (int64_t i = 0; i < d; ++i)
            for (int64_t row = 0; row < rows; ++row) keys[i * kv_block + row] = half[row][i];
    }
}

void KvCache::blocks(int64_t sequence, int64_t layer, int64_t kv_head, const void** k, const void** v) const {
    const Sequence& s = at(sequence);
    const int64_t offset = head_offset(layer, kv_head);
    for (size_t i = 0; i < s.blocks.size(); ++i) {
        const char* head = s.blocks[i]->data + offset;
        k[i] = head;
        v[i] = head + values_offset(layer);
    }
}

// ---- export and import ----

// Calls copy(number in the block, stride between numbers, place in the array, count), all in bytes, for every key and value.
template <class Copy>
void KvCache::each_vector(const Sequence& sequence, int64_t positions, Copy copy) const {
    const int64_t size = size_of(type_);
    int64_t place = 0;
    for (int64_t layer = 0; layer < static_cast<int64_t>(layers_.size()); ++layer) {
        const KvGeometry& own = geometry(layer);
        for (const bool values : {false, true})
            for (int64_t head = 0; head < own.kv_heads; ++head)
                for (int64_t position = 0; position < positions; ++position, place += own.d * size) {
                    char* data = sequence.blocks[static_cast<size_t>(position / kv_block)]->data + head_offset(layer, head);
                    const int64_t lane = position % kv_block;
                    if (values) copy(data + values_offset(layer) + lane * own.d_padded() * size, size, place, own.d);
                    else copy(data + lane * size, kv_block * size, place, own.d);
                }
    }
}

int64_t KvCache::position_bytes() const {
    int64_t numbers = 0;
    for (const KvGeometry& layer : layers_) numbers += 2 * layer.kv_heads * layer.d;
    return numbers * size_of(type_);
}

void KvCache::export_from(int64_t sequence, int64_t positions, void* out) const {
    const Sequence& s = at(sequence);
    if (positions < 0 || positions > s.length)
        throw std::out_of_range("cannot export " + std::to_string(positions) + " positions: the sequence has " +
                                std::to_string(s.length));
    const int64_t size = size_of(type_);
    each_vector(s, positions, [&](const char* data, int64_t stride, int64_t place, int64_t count) {
        char* to = static_cast<char*>(out) + place;
        for (int64_t i = 0; i < count; ++i)
            std::memcpy(to + i * size, data + i * stride, static_cast<size_t>(size));
    });
}

void KvCache::import_to(int64_t sequence, int64_t positions, const void* data) {
    if (length(sequence) != 0) throw std::invalid_argument("keys and values are imported to an empty sequence");
    extend(sequence, positions);
    const int64_t size = size_of(type_);
    each_vector(at(sequence), positions, [&](char* to, int64_t stride, int64_t place, int64_t count) {
        const char* from = static_cast<const char*>(data) + place;
        for (int64_t i = 0; i < count; ++i)
            std::memcpy(to + i * stride, from + i * size, static_cast<size_t>(size));
    });
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
