// The keys and values of every sequence, in reference-counted blocks of 32 positions that are allocated on demand.
//
// A block holds all layers; each layer has its own number of heads K and head size D: [K] x ( keys [D][32], values
// [32][d_padded] ). Keys are transposed so that one load serves 16 positions. Numbers are f32, f16, or int8 with an f16
// scale per position, head and group of 32 features (q8_0), which lie before the numbers as [groups][32]. fork() shares
// all blocks; a shared last block is copied before one of its owners writes to it.
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
    int64_t groups() const { return (d + quant_group - 1) / quant_group; }  // that share a scale in q8_0
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
    void set_type(WeightType type);  // f32 (the default), f16 or q8_0; drops all sequences
    int64_t length(int64_t sequence) const;

    void extend(int64_t sequence, int64_t positions);  // adds positions, which write() must fill
    // Writes `count` positions from `position` on; their keys and values lie `stride` floats apart.
    void write(int64_t sequence, int64_t layer, int64_t kv_head, int64_t position, int64_t count, const float* k, const float* v,
               int64_t stride);

    // Writes pointers to one head's keys and values in blocks first..last-1 (as far as there are so many) to k[first..] and
    // v[first..], in the form of AttentionTask in kernels.h.
    void blocks(int64_t sequence, int64_t layer, int64_t kv_head, const void** k, const void** v, int64_t first = 0,
                int64_t last = std::numeric_limits<int64_t>::max()) const;

    // The values [D] of one position of a block of values.
    void values_at(int64_t layer, const void* block, int64_t lane, float* out) const;

    // Copies the keys and values of `positions` positions to or from one array: per layer keys [K][positions][D], then
    // values [K][positions][D], in the cache's type; in q8_0 the scales of a vector follow its D numbers. append() adds
    // the positions to a sequence.
    void export_from(int64_t sequence, int64_t first, int64_t positions, void* out) const;
    void append(int64_t sequence, int64_t positions, const void* data);
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
    int64_t number_bytes() const { return type_ == WeightType::f32 ? 4 : type_ == WeightType::f16 ? 2 : 1; }
    int64_t scales_bytes(int64_t layer) const { return type_ == WeightType::q8_0 ? geometry(layer).groups() * kv_block * 2 : 0; }
    void write_floats(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v, int64_t stride);
    void write_halves(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v, int64_t stride);
    void write_bytes(const KvGeometry& own, char* head, int64_t lane, int64_t rows, const float* k, const float* v, int64_t stride);
    int64_t values_offset(int64_t layer) const;  // from a head's keys to its values, in bytes
    int64_t head_offset(int64_t layer, int64_t kv_head) const {
        return layer_offsets_[static_cast<size_t>(layer)] + kv_head * 2 * values_offset(layer);
    }
    template <class Copy>
    void each_vector(const Sequence& sequence, int64_t first, int64_t positions, Copy copy) const;

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
