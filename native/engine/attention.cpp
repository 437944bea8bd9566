// Attention of a forward pass: queries become tasks, and where there are few, ranges of positions do. See engine.h.
#include <algorithm>
#include <atomic>

#include "engine/engine.h"
#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t few_tasks = 16;  // per thread: up to so many are divided into ranges, for the sake of even shares

struct Pointers {  // to a head's keys and values, block by block
    std::vector<const void*> k, v;
    void take(const KvCache& cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t first, int64_t last) {
        k.resize(std::max(k.size(), static_cast<size_t>(last)));
        v.resize(k.size());
        cache.blocks(sequence, layer, kv_head, k.data(), v.data(), first, last);
    }
    void give(AttentionTask& task) const {
        task.k_blocks = k.data();
        task.v_blocks = v.data();
    }
};

int64_t blocks_of(int64_t positions) { return (positions + kv_block - 1) / kv_block; }

}  // namespace

// The first position that a position sees.
int64_t Engine::first_visible(int64_t layer, int64_t position) const {
    const int64_t window = config_.window(layer);
    return window > 0 ? std::max(position + 1 - window, int64_t{0}) : 0;
}

// z = softmax(q . k * scale, itself and earlier positions in its window only) . v, for every query head; one round for all
// sequences
void Engine::attend(int64_t layer, const Segments& segments) {
    const int64_t kv_heads = config_.n_kv_head, group = config_.n_head / kv_heads;
    std::vector<Queries> all;
    bool deep = false;
    for (const Segment& segment : segments)
        for (int64_t kv_head = 0; kv_head < kv_heads; ++kv_head)
            for (int64_t first = 0; first < segment.rows * group; first += max_queries) {
                const int64_t count = std::min(max_queries, segment.rows * group - first);
                const int64_t visible = segment.first_position + (first + count - 1) / group + 1;
                const int64_t first_range = first_visible(layer, segment.first_position + first / group) / kv_range;
                const int64_t ranges = (visible + kv_range - 1) / kv_range - first_range;
                all.push_back({&segment, kv_head, first, count, first_range, ranges});
                deep = deep || ranges > 1;
            }
    const auto tasks = static_cast<int64_t>(all.size());
    if (deep && threads_ > 1 && tasks <= few_tasks * threads_) return attend_in_ranges(layer, all);
    parallel_for(threads_, tasks, tasks > 64 * threads_ ? 4 : 1, [&](int64_t begin, int64_t end, int) {
        Pointers pointers;
        const Queries* before = nullptr;
        for (int64_t item = begin; item < end; ++item) {
            const Queries& queries = all[static_cast<size_t>(item)];
            const Segment& segment = *queries.segment;
            if (!before || before->segment != queries.segment || before->kv_head != queries.kv_head)
                pointers.take(cache_, layer, segment.sequence, queries.kv_head,
                              first_visible(layer, segment.first_position) / kv_block,
                              blocks_of(segment.first_position + segment.rows));
            before = &queries;
            AttentionTask task = attention_task(layer, queries);
            pointers.give(task);
            kernels_.attend(task);
        }
    });
}

// The same with a piece of work for every range. Whoever computes the last range of some queries adds up their parts.
void Engine::attend_in_ranges(int64_t layer, const std::vector<Queries>& all) {
    struct Piece {
        size_t queries;
        int64_t range;
    };
    std::vector<Piece> pieces;
    std::vector<int64_t> places;  // of the parts of each item: [ranges][count][part_size]
    const int64_t size = part_size(cache_.geometry(layer).d_padded());
    int64_t floats = 0;
    for (size_t i = 0; i < all.size(); ++i) {
        places.push_back(floats);
        floats += all[i].ranges * all[i].count * size;
        for (int64_t range = 0; range < all[i].ranges; ++range) pieces.push_back({i, all[i].first_range + range});
    }
    const auto bytes = static_cast<size_t>(floats) * sizeof(float);
    if (attention_parts_.bytes() < bytes) attention_parts_ = AlignedBuffer(bytes + bytes / 4);
    std::vector<std::atomic<int64_t>> done(all.size());
    parallel_for(threads_, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end, int) {
        thread_local Pointers pointers;
        for (int64_t item = begin; item < end; ++item) {
            const Piece piece = pieces[static_cast<size_t>(item)];
            const Queries& queries = all[piece.queries];
            const int64_t first = piece.range * (kv_range / kv_block);
            const int64_t soon = first + kv_range / kv_block + 4;  // the kernel reads the next range's first keys ahead
            pointers.take(cache_, layer, queries.segment->sequence, queries.kv_head, first,
                          std::min(soon, blocks_of(queries.segment->first_position + queries.segment->rows)));
            AttentionTask task = attention_task(layer, queries);
            pointers.give(task);
            float* parts = attention_parts_.floats() + places[piece.queries];
            kernels_.attend_range(task, piece.range, parts + (piece.range - queries.first_range) * queries.count * size);
            if (++done[piece.queries] < queries.ranges) continue;
            for (int64_t j = 0; j < queries.count; ++j) {
                const int64_t own = task.first[j] / kv_range, last = (task.visible[j] + kv_range - 1) / kv_range;
                kernels_.combine(parts + ((own - queries.first_range) * queries.count + j) * size, last - own,
                                 queries.count * size, task.out[j], task.d);
            }
        }
    });
}

// Everything but the pointers to keys and values.
AttentionTask Engine::attention_task(int64_t layer, const Queries& queries) const {
    const int64_t d = config_.head_dim, heads = config_.n_head, group = heads / config_.n_kv_head;
    const Segment& segment = *queries.segment;
    AttentionTask task{};
    task.n_queries = queries.count;
    for (int64_t j = 0; j < task.n_queries; ++j) {
        const int64_t row = (queries.first + j) / group, head = queries.kv_head * group + (queries.first + j) % group;
        const int64_t offset = ((segment.first_row + row) * heads + head) * d;
        task.q[j] = q_.floats() + offset;
        task.out[j] = z_.floats() + offset;
        task.visible[j] = segment.first_position + row + 1;
        task.first[j] = first_visible(layer, segment.first_position + row);
    }
    task.kv_type = cache_.type();
    task.d = d;
    task.d_padded = cache_.geometry(layer).d_padded();
    task.scale = attention_scale();
    task.cap = config_.score_cap;
    return task;
}

}  // namespace pophood
