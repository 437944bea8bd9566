// The keys and values of every sequence, in reference-counted blocks of 32 positions that are allocated on demand.
//
// A block holds all layers; each layer has its own number of heads K and head size D: [K] x ( keys [D][32], values
// [32][d_padded] ). Keys are transposed so that one load serves 16 positions. Numbers are f32 or f16. fork() shares all
// blocks; a shared last block is copied before one of its owners writes to it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernels/kernels.h"

namespace pophood {

struct KvGeometry {  // of one layer
    int64_t kv_heads, d;
    int64_t d_padded() const { return (d + 15) / 16 * 16; }
};

class KvCache {
   public:
    KvCache(std::vector<KvGeometry> layers, const Kernels& kernels);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    int64_t create();
    int64_t fork(int64_t sequence);
    void truncate(int64_t sequence, int64_t length);  // keeps the first `length` positions
    void drop(int64_t sequence);
    void drop_all();
    void set_type(WeightType type);  // f32 (the default) or f16; drops all sequences
    int64_t length(int64_t sequence) const;

    void extend(int64_t sequence, int64_t positions);  // adds positions, which write() must fill
    // Writes `count` positions from `position` on; their keys and values lie `stride` floats apart.
    void write(int64_t sequence, int64_t layer, int64_t kv_head, int64_t position, int64_t count, const float* k, const float* v,
               int64_t stride);

    // Writes pointers to one head's keys and values in each block, in the form of AttentionTask in kernels.h.
    void blocks(int64_t sequence, int64_t layer, int64_t kv_head, const void** k, const void** v) const;

    // Copies the keys and values of the first `positions` to or from one array: per layer keys [K][positions][D], then
    // values [K][positions][D], in the cache's type. import_to() continues an empty sequence.
    void export_from(int64_t sequence, int64_t positions, void* out) const;
    void import_to(int64_t sequence, int64_t positions, const void* data);
    int64_t position_bytes() const;  // of one position in such an array

    int64_t bytes() const;  // of all blocks, spare ones included
    const KvGeometry& geometry(int64_t layer) const { return layers_[static_cast<size_t>(layer)]; }
    WeightType type() const { return type_; }

   private:
    struct Block {
        char* data;
        int64_t owners;
    };
    struct Sequence {
        std::vector<Block*> blocks;
        int64_t length = 0;
    };
    Sequence& at(int64_t sequence);
    const Sequence& at(int64_t sequence) const;
    Block* take_block();
    void release(Block* block);
    void free_spare_blocks();
    int64_t values_offset(int64_t layer) const;  // from a head's keys to its values, in bytes
    int64_t head_offset(int64_t layer, int64_t kv_head) const {
        return layer_offsets_[static_cast<size_t>(layer)] + kv_head * 2 * values_offset(layer);
    }
    template <class Copy>
    void each_vector(const Sequence& sequence, int64_t positions, Copy copy) const;

    WeightType type_ = WeightType::f32;
    const Kernels& kernels_;
    const std::vector<KvGeometry> layers_;
    std::vector<int64_t> layer_offsets_;  // of each layer's first head in a block, in bytes
    int64_t block_bytes_ = 0;
    int64_t next_sequence_ = 0;
    std::map<int64_t, Sequence> sequences_;
    std::vector<Block*> spare_;
    int64_t n_blocks_ = 0;
};

}  // namespace pophood
