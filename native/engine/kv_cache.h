// The keys and values of every sequence, in reference-counted blocks of 32 positions that are allocated on demand.
//
// A block holds all layers that see everything, or all layers with an attention window; each layer has its own number of
// heads K and head size D: [K] x ( keys [D][32], values [32][d_padded] ). Keys are transposed so that one load serves 16
// positions. Numbers are f32, f16, or int8 with an f16 scale per position, head and group of 32 features (q8_0), which lie
// before the numbers as [groups][32]. fork() shares all blocks; a shared last block is copied before one of its owners
// writes to it.
//
// A sequence gives up the windowed blocks that its next positions do not see (kv_windows.cpp); other owners keep theirs.
// After truncate() some may be missing that the next position sees: resumable() says where the sequence can go on, and
// tokens() what has to be computed again from there.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "kernels/kernels.h"

namespace pophood {

inline constexpr int64_t kv_slack = 128;  // positions before the window that stay, so that a sequence can go back a little

struct KvGeometry {  // of one layer
    int64_t kv_heads, d;
    int64_t window = 0;  // positions that a position sees, itself included; 0: all
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

    // Windows. Positions from the first one on whose token is unknown (-1) keep all they see: they cannot be computed again.
    void note(int64_t sequence, int64_t position, int64_t count, const int32_t* tokens);  // null: unknown
    void keep_all(int64_t sequence);        // from now on, as if all tokens were unknown
    void free_outside(int64_t sequence);    // what no next position sees, but kv_slack positions
    void forget_windows(int64_t sequence);  // all windowed blocks, if every token is known
    int64_t resumable(int64_t sequence, int64_t length) const;  // the most positions, up to `length`, after which it can go on
    bool whole(int64_t sequence) const;     // no windowed block is missing
    std::vector<int32_t> tokens(int64_t sequence, int64_t first, int64_t last) const;
    int64_t windows_from(int64_t sequence, int64_t first, int64_t last) const;  // from there to `last` none is missing
    void replace(int64_t sequence, int64_t by);  // `by` takes its place and is no more
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
    // values [K][positions][D], in the cache's type; in q8_0 the scales of a vector follow its D numbers. Layers with a window
    // have the positions from `windows_from` on alone. append() adds the positions to a sequence; `tokens` may be null.
    void export_from(int64_t sequence, int64_t first, int64_t positions, int64_t windows_from, void* out) const;
    void append(int64_t sequence, int64_t positions, int64_t windows_from, const int32_t* tokens, const void* data);
    int64_t position_bytes(bool windowed) const;  // of one position in such an array, in the layers with a window or the others

    int64_t bytes() const;  // of all blocks, spare ones included
    const KvGeometry& geometry(int64_t layer) const { return layers_[static_cast<size_t>(layer)]; }
    WeightType type() const { return type_; }

   private:
    enum Kind : size_t { full, windowed };  // of layers, and of the blocks that hold them
    struct Block {
        char* data;
        int64_t owners;
        std::array<int32_t, kv_block> tokens;  // of a full one
    };
    struct Sequence {
        std::vector<Block*> blocks[2];    // by kind; null: given up
        int64_t length = 0;
        int64_t given_up = 0;             // all windowed blocks before this one are null
        int64_t unknown_from = all_known; // the first position whose token is unknown
    };
    static constexpr int64_t all_known = std::numeric_limits<int64_t>::max();
    Sequence& at(int64_t sequence);
    const Sequence& at(int64_t sequence) const;
    Block* take_block(Kind kind);
    void release(Kind kind, Block* block);
    void truncate(Sequence& sequence, int64_t length);
    Kind kind_of(int64_t layer) const { return geometry(layer).window > 0 ? windowed : full; }
    size_t kinds() const { return window_ > 0 ? 2 : 1; }
    void free_spare_blocks();
    void free_spare_block(Kind kind);
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
    void each_vector(const Sequence& sequence, int64_t first, int64_t last, int64_t windows_from, Copy copy) const;

    WeightType type_ = WeightType::f32;
    const Kernels& kernels_;
    const std::vector<KvGeometry> layers_;
    int64_t window_ = 0;                  // the widest; 0: no layer has one
    std::vector<int64_t> layer_offsets_;  // of each layer's first head in a block, in bytes
    int64_t next_sequence_ = 0;
    std::map<int64_t, Sequence> sequences_;
    // By kind:
    int64_t block_bytes_[2] = {0, 0};
    std::vector<Block*> spare_[2];
    int64_t n_blocks_[2] = {0, 0};
};

}  // namespace pophood
