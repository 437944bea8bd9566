// LoRA adapters: their matrices, and their products for the rows of the sequences that use them. See engine.h.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "engine/engine.h"
#include "kernels/half.h"
#include "platform/threads.h"

namespace pophood {
namespace {

constexpr int64_t rows_at_once = 48;  // of a x

float value_at(const TensorView& view, int64_t row, int64_t column) {
    return to_f32(view.type, static_cast<const char*>(view.data) + row * view.stride[0] + column * view.stride[1]);
}

bool fits_half(const TensorView& view) {
    for (int64_t i = 0; i < view.shape[0]; ++i)
        for (int64_t j = 0; j < view.shape[1]; ++j)
            if (!(std::fabs(value_at(view, i, j)) < 65504.0f)) return false;
    return true;
}

void pack_adapter(Matrix& matrix, const TensorView& view, bool half) {
    if (!half) return matrix.pack(view, 1);
    std::vector<uint16_t> values;
    for (int64_t i = 0; i < view.shape[0]; ++i)
        for (int64_t j = 0; j < view.shape[1]; ++j) values.push_back(f32_to_f16(value_at(view, i, j)));
    matrix.pack({values.data(), WeightType::f16, 2, {view.shape[0], view.shape[1]}, {view.shape[1] * 2, 2}}, 1);
}

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
    // Beside 8-bit activations the rounding to f16 is not noticeable, and half as many bytes are read.
    const bool half = linear->second->weight.quantized() && fits_half(a) && fits_half(b);
    pack_adapter(pair.a, a, half);
    pack_adapter(pair.b, b, half);
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

// Prepares the products of every pair that these layers have, for the rows whose sequences use it: a x in pieces of rows,
// so that threads can share it. Returns whether there are any.
bool Engine::prepare_lora(const float* x, const Segments& segments, const std::vector<Projection>& projections) {
    const int64_t k = projections.front().linear->weight.cols();
    std::vector<LoraPart>& parts = lora_parts_;
    parts.clear();
    int64_t size = 0;
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
            }
    }
    if (parts.empty()) return false;
    lora_hidden_.resize(static_cast<size_t>(size));
    LoraProducts& products = lora_;
    products.inner.clear();
    products.outer.clear();
    for (const LoraPart& part : parts) {
        const int64_t rank = part.pair->a.rows();
        float* hidden = lora_hidden_.data() + part.place;
        const LoraProduct outer{part.product, part.pair->b.times({hidden, rank, part.rows}, nullptr, nullptr, 0), part.first_row};
        for (int64_t row = 0; row < part.rows; row += rows_at_once) {
            const Activations input{x + (part.first_row + row) * k, k, std::min(rows_at_once, part.rows - row)};
            products.inner.push_back(part.pair->a.times(input, nullptr, hidden + row * rank, rank));
        }
        products.outer.push_back(outer);
    }
    return true;
}

// One round of the thread pool computes the products and a x of their adapters. With each piece of its work a thread takes a
// panel of a x, if one is left; when all are there, it adds b (a x) to the panels that it has computed: their sums go on.
void Engine::matmul_with_lora(const std::vector<Matmul>& products) {
    const LoraProducts& lora = lora_;
    int64_t panels = 0, inner_panels = 0;
    for (const Matmul& product : products) panels += panels_of(product);
    for (const Matmul& product : lora.inner) inner_panels += panels_of(product);
    std::atomic<int64_t> next{0}, missing{inner_panels};
    const auto compute_inner = [&](int worker) {
        if (next.load(std::memory_order_relaxed) >= inner_panels) return false;
        int64_t panel = next.fetch_add(1, std::memory_order_relaxed);
        if (panel >= inner_panels) return false;
        size_t i = 0;
        for (; panel >= panels_of(lora.inner[i]); ++i) panel -= panels_of(lora.inner[i]);
        multiply_panels(lora.inner[i], panel, panel + 1, worker);
        missing.fetch_sub(1, std::memory_order_acq_rel);
        return true;
    };
    lora_pieces_.resize(static_cast<size_t>(threads_));
    const auto add = [&](std::vector<LoraPiece>& own, int worker) {
        for (const LoraPiece& piece : own)
            for (const LoraProduct& pair : lora.outer) {
                if (pair.product != piece.product) continue;
                const Matmul& product = products[piece.product];
                Matmul part = pair.b;
                part.out = product.out + pair.first_row * product.out_stride;
                part.out_stride = product.out_stride;
                part.accumulate = true;
                multiply_panels(part, piece.first, piece.last, worker);
            }
        own.clear();
    };
    const int64_t chunk = matmul_chunk(panels, products.front());
    parallel_for(threads_, panels, chunk, [&](int64_t begin, int64_t end, int worker) {
        std::vector<LoraPiece>& own = lora_pieces_[static_cast<size_t>(worker)];
        compute_inner(worker);
        int64_t start = 0;
        for (size_t i = 0; i < products.size(); ++i) {
            const int64_t here = panels_of(products[i]);
            const int64_t first = std::max(begin - start, int64_t{0}), last = std::min(end - start, here);
            start += here;
            if (first >= last) continue;
            multiply_panels(products[i], first, last, worker);
            own.push_back({i, first, last});
        }
        if (missing.load(std::memory_order_acquire) == 0) add(own, worker);
    });
    while (compute_inner(0)) {
    }
    for (std::vector<LoraPiece>& own : lora_pieces_) add(own, 0);
}

}  // namespace pophood
