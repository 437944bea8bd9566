// LoRA adapters: their matrices, and their products for the rows of the sequences that use them. See engine.h.
#include <algorithm>

#include "engine/engine.h"

namespace pophood {
namespace {

constexpr int64_t panels_at_once = 8;  // of an adapter's product: what is added next stays in the L2 cache

}  // namespace

int64_t Engine::create_adapter() {
    std::lock_guard<std::mutex> lock(mutex_);
    adapters_[next_adapter_] = std::make_shared<Adapter>(linears_.size());
    return next_adapter_++;
}

void Engine::set_adapter_pair(int64_t adapter, const std::string& matrix, const TensorView& a, const TensorView& b) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto linear = linears_.find(matrix);
    const auto entry = adapters_.find(adapter);
    if (linear == linears_.end()) throw std::invalid_argument("no matrix is called " + matrix);
    if (entry == adapters_.end()) throw std::out_of_range("adapter " + std::to_string(adapter) + " does not exist");
    if (entry->second.use_count() > 1) throw std::logic_error("sequences use this adapter already");
    const std::vector<int64_t>& shape = slots_.at(matrix + ".weight").shape;
    if (a.dimensions != 2 || b.dimensions != 2 || a.shape[0] != b.shape[1] || a.shape[1] != shape[1] || b.shape[0] != shape[0])
        throw std::invalid_argument("an adapter's matrices do not fit " + matrix);
    LoraPair& pair = (*entry->second)[linear->second->number];
    pair.a.pack(a, threads_);
    pair.b.pack(b, threads_);
}

void Engine::drop_adapter(int64_t adapter) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!adapters_.erase(adapter)) throw std::out_of_range("adapter " + std::to_string(adapter) + " does not exist");
}

Engine::Adapters Engine::adapters_of(const std::vector<int64_t>& numbers) const {
    Adapters adapters;
    for (const int64_t number : numbers) {
        const auto entry = adapters_.find(number);
        if (entry == adapters_.end()) throw std::out_of_range("adapter " + std::to_string(number) + " does not exist");
        adapters.push_back(entry->second);
    }
    return adapters;
}

// Computes a x of every pair that these layers have, in one round, for the rows whose sequences use it; b follows in the
// round of the layers' own matrices.
std::vector<Engine::LoraProduct> Engine::lora_products(const float* x, const Segments& segments,
                                                       const std::vector<Projection>& projections) {
    const int64_t k = projections.front().linear->weight.cols();
    struct Part {
        size_t product;
        const LoraPair* pair;
        int64_t first_row, rows, place;  // of a x in lora_hidden_
    };
    std::vector<Part> parts;
    int64_t size = 0, most_rows = 0;
    for (size_t first = 0, next = 0; first < segments.size(); first = next) {
        const Adapters& adapters = *segments[first].adapters;
        int64_t rows = 0;
        for (next = first; next < segments.size() && *segments[next].adapters == adapters; ++next) rows += segments[next].rows;
        for (const auto& adapter : adapters)
            for (size_t i = 0; i < projections.size(); ++i) {
                const LoraPair& pair = (*adapter)[projections[i].linear->number];
                if (pair.a.empty()) continue;
                parts.push_back({i, &pair, segments[first].first_row, rows, size});
                size += rows * pair.a.rows();
                most_rows = std::max(most_rows, rows);
            }
    }
    if (parts.empty()) return {};
    lora_hidden_.resize(static_cast<size_t>(size));
    lora_stride_ = most_rows * panels_at_once * panel_rows;
    lora_out_.resize(static_cast<size_t>(lora_stride_ * threads_));
    std::vector<Matmul> inner;
    std::vector<LoraProduct> outer;
    for (const Part& part : parts) {
        const int64_t rank = part.pair->a.rows();
        float* hidden = lora_hidden_.data() + part.place;
        inner.push_back(part.pair->a.times({x + part.first_row * k, k, part.rows}, nullptr, hidden, rank));
        outer.push_back({part.product, part.pair->b.times({hidden, rank, part.rows}, nullptr, nullptr, 0), part.first_row});
    }
    matmul(inner);
    return outer;
}

// Adds b (a x) to panels first..last-1 of a product that this thread has just computed.
void Engine::add_lora(const LoraProduct& lora, const Matmul& product, int64_t first, int64_t last, int worker) {
    float *scratch = scratch_.floats() + worker * k_block * panel_rows, *values = lora_out_.data() + worker * lora_stride_;
    for (int64_t panel = first; panel < last; panel += panels_at_once) {
        const int64_t panels = std::min(panels_at_once, last - panel), column = panel * panel_rows;
        Matmul part = lora.b;
        part.panels = static_cast<const float*>(part.panels) + column * part.panel_k;
        part.rows = std::min(panels * panel_rows, product.rows - column);
        part.out = values;
        part.out_stride = panels * panel_rows;
        kernels_.matmul(part, 0, panels, scratch);
        for (int64_t row = 0; row < part.m; ++row)
            kernels_.add(product.out + (lora.first_row + row) * product.out_stride + column, values + row * part.out_stride,
                         part.rows);
    }
}

}  // namespace pophood
