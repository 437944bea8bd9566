// Allocation, sharing and copying of the KV cache's blocks. See kv_cache.h.
#include "engine/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/half.h"
#include "platform/os.h"

namespace pophood {
namespace {

constexpr size_t few_spares = 32;  // blocks: what a chunk of 512 positions takes and gives back, twice

}  // namespace

KvCache::KvCache(std::vector<KvGeometry> layers, const Kernels& kernels) : kernels_(kernels), layers_(std::move(layers)) {
    for (const KvGeometry& layer : layers_) window_ = std::max(window_, layer.window);
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
    block_bytes_[full] = block_bytes_[windowed] = 0;
    for (int64_t layer = 0; layer < static_cast<int64_t>(layers_.size()); ++layer) {
        int64_t& bytes = block_bytes_[kind_of(layer)];
        layer_offsets_.push_back(bytes);
        bytes += geometry(layer).kv_heads * 2 * values_offset(layer);
    }
}

int64_t KvCache::values_offset(int64_t layer) const {
    return scales_bytes(layer) + kv_block * geometry(layer).d_padded() * number_bytes();
}

void KvCache::free_spare_blocks() {
    for (const Kind kind : {full, windowed})
        while (!spare_[kind].empty()) free_spare_block(kind);
}

void KvCache::free_spare_block(Kind kind) {
    Block* block = spare_[kind].back();
    spare_[kind].pop_back();
    if (block->data) free_pages(block->data, static_cast<size_t>(block_bytes_[kind]));
    delete block;
    --n_blocks_[kind];
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
    for (const auto& blocks : copy.blocks)
        for (Block* block : blocks)
            if (block) ++block->owners;
    sequences_[next_sequence_] = std::move(copy);
    return next_sequence_++;
}

void KvCache::truncate(int64_t sequence, int64_t length) {
    Sequence& s = at(sequence);
    if (length < 0 || length > s.length)
        throw std::out_of_range("cannot truncate to " + std::to_string(length) + " positions: the sequence has " +
                                std::to_string(s.length));
    truncate(s, length);
}

void KvCache::truncate(Sequence& s, int64_t length) {
    const int64_t keep = (length + kv_block - 1) / kv_block;
    for (const Kind kind : {full, windowed})
        while (static_cast<int64_t>(s.blocks[kind].size()) > keep) {
            release(kind, s.blocks[kind].back());
            s.blocks[kind].pop_back();
        }
    s.length = length;
    s.given_up = std::min(s.given_up, keep);
    if (length <= s.unknown_from) s.unknown_from = all_known;
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
    const int64_t needed = (s.length + positions + kv_block - 1) / kv_block;
    for (size_t i = 0; i < kinds(); ++i) {
        const auto kind = static_cast<Kind>(i);
        auto& blocks = s.blocks[kind];
        if (positions > 0 && s.length % kv_block != 0 && blocks.back() && blocks.back()->owners > 1) {
            Block* own = take_block(kind);
            if (own->data) std::memcpy(own->data, blocks.back()->data, static_cast<size_t>(block_bytes_[kind]));
            own->tokens = blocks.back()->tokens;
            release(kind, blocks.back());
            blocks.back() = own;
        }
        while (static_cast<int64_t>(blocks.size()) < needed) blocks.push_back(take_block(kind));
    }
    s.length += positions;
}

void KvCache::write(int64_t sequence, int64_t layer, int64_t kv_head, int64_t position, int64_t count, const float* k,
                    const float* v, int64_t stride) {
    const auto& blocks = at(sequence).blocks[kind_of(layer)];
    for (int64_t done = 0, rows = 0; done < count; done += rows) {  // block by block
        const int64_t lane = (position + done) % kv_block;
        rows = std::min(count - done, kv_block - lane);
        char* head = blocks[static_cast<size_t>((position + done) / kv_block)]->data + head_offset(layer, kv_head);
        const float *key = k + done * stride, *value = v + done * stride;
        if (type_ == WeightType::f32) write_floats(geometry(layer), head, lane, rows, key, value, stride);
        else if (type_ == WeightType::f16) write_halves(geometry(layer), head, lane, rows, key, value, stride);
        else write_bytes(geometry(layer), head, lane, rows, key, value, stride);
    }
}

// Each writes `rows` positions of one head, from position `lane` of the block on.
void KvCache::write_floats(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v,
                           int64_t stride) {
    const int64_t d_padded = own.d_padded();
    float *block = reinterpret_cast<float*>(head), *keys = block + lane, *values = block + (kv_block + lane) * d_padded;
    for (int64_t i = 0; i < own.d; ++i)
        for (int64_t row = 0; row < rows; ++row) keys[i * kv_block + row] = k[row * stride + i];
    for (int64_t row = 0; row < rows; ++row)
        std::memcpy(values + row * d_padded, v + row * stride, static_cast<size_t>(own.d) * sizeof(float));
}

void KvCache::write_halves(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v,
                           int64_t stride) {
    const int64_t d_padded = own.d_padded();
    uint16_t *block = reinterpret_cast<uint16_t*>(head), *keys = block + lane, *values = block + (kv_block + lane) * d_padded;
    uint16_t half[kv_block][max_head];
    for (int64_t row = 0; row < rows; ++row) {
        kernels_.to_half(half[row], k + row * stride, own.d);
        kernels_.to_half(values + row * d_padded, v + row * stride, own.d);
    }
    for (int64_t i = 0; i < own.d; ++i)
        for (int64_t row = 0; row < rows; ++row) keys[i * kv_block + row] = half[row][i];
}

void KvCache::write_bytes(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v,
                          int64_t stride) {
    const int64_t groups = own.groups(), d_padded = own.d_padded(), scales = groups * kv_block * 2;
    constexpr int64_t most_groups = max_head / quant_group;
    int8_t numbers[kv_block][max_head];
    float scale[most_groups], offsets[most_groups];
    int32_t sums[most_groups], low_sums[most_groups];
    uint16_t half[most_groups];
    const auto quantize = [&](const float* x, int64_t row, uint16_t* to) {
        kernels_.quantized->quantize(x, own.d, {numbers[row], scale, sums, low_sums, offsets, groups}, 0);
        kernels_.to_half(half, scale, groups);
        for (int64_t group = 0; group < groups; ++group) to[group * kv_block] = half[group];
    };
    uint16_t* scales_of_keys = reinterpret_cast<uint16_t*>(head) + lane;
    for (int64_t row = 0; row < rows; ++row) quantize(k + row * stride, row, scales_of_keys + row);
    int8_t* keys = reinterpret_cast<int8_t*>(head + scales) + lane;
    for (int64_t i = 0; i < own.d; ++i)
        for (int64_t row = 0; row < rows; ++row) keys[i * kv_block + row] = numbers[row][i];
    head += scales + kv_block * d_padded;  // the values
    int8_t* values = reinterpret_cast<int8_t*>(head + scales) + lane * d_padded;
    for (int64_t row = 0; row < rows; ++row) {
        quantize(v + row * stride, row, reinterpret_cast<uint16_t*>(head) + lane + row);
        std::memcpy(values + row * d_padded, numbers[row], static_cast<size_t>(own.d));
    }
}

void KvCache::blocks(int64_t sequence, int64_t layer, int64_t kv_head, const void** k, const void** v, int64_t first,
                     int64_t last) const {
    const auto& all = at(sequence).blocks[kind_of(layer)];
    const int64_t offset = head_offset(layer, kv_head);
    last = std::min(last, static_cast<int64_t>(all.size()));
    for (int64_t i = first; i < last; ++i) {
        const Block* block = all[static_cast<size_t>(i)];
        k[i] = block ? block->data + offset : nullptr;
        v[i] = block ? block->data + offset + values_offset(layer) : nullptr;
    }
}

void KvCache::values_at(int64_t layer, const void* block, int64_t lane, float* out) const {
    const KvGeometry& own = geometry(layer);
    const char* numbers = static_cast<const char*>(block) + scales_bytes(layer) + lane * own.d_padded() * number_bytes();
    for (int64_t i = 0; i < own.d; ++i) {
        if (type_ != WeightType::q8_0) {
            out[i] = to_f32(type_, numbers + i * number_bytes());
            continue;
        }
        const char* scale = static_cast<const char*>(block) + (i / quant_group * kv_block + lane) * 2;
        out[i] = static_cast<float>(static_cast<int8_t>(numbers[i])) * to_f32(WeightType::f16, scale);
    }
}

// ---- export and import ----

// Calls copy(item in the block, its bytes, bytes between items, place in the array, number of items) for the numbers and
// the scales of every key and value; blocks that are given up are left out.
template <class Copy>
void KvCache::each_vector(const Sequence& sequence, int64_t first, int64_t last, int64_t windows_from, Copy copy) const {
    const int64_t size = number_bytes();
    int64_t place = 0;
    for (int64_t layer = 0; layer < static_cast<int64_t>(layers_.size()); ++layer) {
        const KvGeometry& own = geometry(layer);
        const auto& blocks = sequence.blocks[kind_of(layer)];
        for (const bool values : {false, true})
            for (int64_t head = 0; head < own.kv_heads; ++head)
                for (int64_t position = own.window > 0 ? windows_from : first; position < last; ++position) {
                    const int64_t numbers_place = place, scales_place = place + own.d * size;
                    place = scales_place + (type_ == WeightType::q8_0 ? own.groups() * 2 : 0);
                    const Block* block = blocks[static_cast<size_t>(position / kv_block)];
                    if (!block) continue;
                    char* data = block->data + head_offset(layer, head);
                    if (values) data += values_offset(layer);
                    char* numbers = data + scales_bytes(layer);
                    const int64_t lane = position % kv_block;
                    if (values) copy(numbers + lane * own.d_padded() * size, size, size, numbers_place, own.d);
                    else copy(numbers + lane * size, size, kv_block * size, numbers_place, own.d);
                    if (type_ == WeightType::q8_0) copy(data + lane * 2, 2, kv_block * 2, scales_place, own.groups());
                }
    }
}

int64_t KvCache::position_bytes(bool with_window) const {
    int64_t bytes = 0;
    for (const KvGeometry& layer : layers_)
        if ((layer.window > 0) == with_window)
            bytes += 2 * layer.kv_heads * (layer.d * number_bytes() + (type_ == WeightType::q8_0 ? layer.groups() * 2 : 0));
    return bytes;
}

void KvCache::export_from(int64_t sequence, int64_t first, int64_t positions, int64_t windows_from, void* out) const {
    const Sequence& s = at(sequence);
    if (first < 0 || positions < 0 || first > s.length || positions > s.length - first)
        throw std::out_of_range("cannot export " + std::to_string(positions) + " positions from " + std::to_string(first) +
                                " on: the sequence has " + std::to_string(s.length));
    if (windows_from < this->windows_from(sequence, first, first + positions) || windows_from > first + positions)
        throw std::out_of_range("keys and values in attention windows are not there from " + std::to_string(windows_from) + " on");
    each_vector(s, first, first + positions, windows_from,
                [&](const char* data, int64_t size, int64_t stride, int64_t place, int64_t count) {
                    char* to = static_cast<char*>(out) + place;
                    for (int64_t i = 0; i < count; ++i)
                        std::memcpy(to + i * size, data + i * stride, static_cast<size_t>(size));
                });
}

void KvCache::append(int64_t sequence, int64_t positions, int64_t windows_from, const int32_t* tokens, const void* data) {
    const int64_t first = length(sequence), last = first + positions;
    if (windows_from < first || windows_from > last) throw std::out_of_range("windows begin outside the positions to append");
    extend(sequence, positions);
    note(sequence, first, positions, tokens);
    Sequence& s = at(sequence);
    for (int64_t block = first / kv_block; window_ > 0 && windows_from > first && block * kv_block < windows_from; ++block) {
        Block*& missing = s.blocks[windowed][static_cast<size_t>(block)];
        release(windowed, missing);
        missing = nullptr;
    }
    each_vector(s, first, last, windows_from, [&](char* to, int64_t size, int64_t stride, int64_t place, int64_t count) {
        const char* from = static_cast<const char*>(data) + place;
        for (int64_t i = 0; i < count; ++i)
            std::memcpy(to + i * stride, from + i * size, static_cast<size_t>(size));
    });
}

int64_t KvCache::bytes() const {
    return n_blocks_[full] * block_bytes_[full] + n_blocks_[windowed] * block_bytes_[windowed];
}

KvCache::Block* KvCache::take_block(Kind kind) {
    if (!spare_[kind].empty()) {
        Block* block = spare_[kind].back();
        spare_[kind].pop_back();
        block->owners = 1;
        return block;
    }
    // Many spare blocks of the other kind make room, so that the peaks of both do not add up.
    const Kind other = kind == full ? windowed : full;
    for (int64_t freed = 0; freed < block_bytes_[kind] && spare_[other].size() > few_spares; freed += block_bytes_[other])
        free_spare_block(other);
    auto block = std::make_unique<Block>();
    const auto bytes = static_cast<size_t>(block_bytes_[kind]);
    block->data = bytes > 0 ? static_cast<char*>(allocate_pages(bytes)) : nullptr;
    block->owners = 1;
    ++n_blocks_[kind];
    return block.release();
}

void KvCache::release(Kind kind, Block* block) {
    if (block && --block->owners == 0) spare_[kind].push_back(block);
}

}  // namespace pophood
