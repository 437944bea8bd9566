// What a sequence keeps of the layers with an attention window, and from where it can go on. See kv_cache.h.
#include <algorithm>
#include <stdexcept>

#include "engine/kv_cache.h"

namespace pophood {

void KvCache::note(int64_t sequence, int64_t position, int64_t count, const int32_t* tokens) {
    Sequence& s = at(sequence);
    for (int64_t i = 0; i < count; ++i) {
        const int32_t token = tokens ? tokens[i] : -1;
        s.blocks[full][static_cast<size_t>((position + i) / kv_block)]->tokens[static_cast<size_t>((position + i) % kv_block)] = token;
        if (token < 0) s.unknown_from = std::min(s.unknown_from, position + i);
    }
}

void KvCache::keep_all(int64_t sequence) { at(sequence).unknown_from = 0; }

// The next position sees itself and window - 1 before it.
void KvCache::free_outside(int64_t sequence) {
    Sequence& s = at(sequence);
    const int64_t seen = std::min(s.length, s.unknown_from) + 1 - window_ - kv_slack;
    if (window_ == 0 || seen <= 0) return;
    for (; s.given_up < seen / kv_block; ++s.given_up) {
        Block*& block = s.blocks[windowed][static_cast<size_t>(s.given_up)];
        release(windowed, block);
        block = nullptr;
    }
}

void KvCache::forget_windows(int64_t sequence) {
    Sequence& s = at(sequence);
    if (s.unknown_from != all_known) return;
    for (Block*& block : s.blocks[windowed]) {
        release(windowed, block);
        block = nullptr;
    }
    s.given_up = static_cast<int64_t>(s.blocks[windowed].size());
}

int64_t KvCache::resumable(int64_t sequence, int64_t length) const {
    const Sequence& s = at(sequence);
    length = std::clamp<int64_t>(length, 0, s.length);
    if (window_ == 0) return length;
    for (;;) {
        const int64_t first = std::max<int64_t>(length + 1 - window_, 0) / kv_block;
        int64_t block = (length - 1 + kv_block) / kv_block - 1;  // that of the last position
        while (block >= first && s.blocks[windowed][static_cast<size_t>(block)]) --block;
        if (block < first) return length;
        length = block * kv_block;
    }
}

bool KvCache::whole(int64_t sequence) const {
    const auto& blocks = at(sequence).blocks[windowed];
    return std::all_of(blocks.begin(), blocks.end(), [](const Block* block) { return block != nullptr; });
}

std::vector<int32_t> KvCache::tokens(int64_t sequence, int64_t first, int64_t last) const {
    const Sequence& s = at(sequence);
    if (first < 0 || last > s.length) throw std::out_of_range("the sequence has no such positions");
    std::vector<int32_t> found;
    for (int64_t position = first; position < last; ++position)
        found.push_back(s.blocks[full][static_cast<size_t>(position / kv_block)]->tokens[static_cast<size_t>(position % kv_block)]);
    return found;
}

int64_t KvCache::windows_from(int64_t sequence, int64_t first, int64_t last) const {
    const Sequence& s = at(sequence);
    if (first < 0 || first > last || last > s.length) throw std::out_of_range("the sequence has no such positions");
    if (window_ == 0) return first;
    for (int64_t block = (last - 1 + kv_block) / kv_block - 1; block >= first / kv_block; --block)
        if (!s.blocks[windowed][static_cast<size_t>(block)]) return std::min((block + 1) * kv_block, last);
    return first;
}

void KvCache::replace(int64_t sequence, int64_t by) {
    Sequence& s = at(sequence);
    truncate(s, 0);
    s = std::move(at(by));
    sequences_.erase(by);
}

}  // namespace pophood
