// The engine: a transformer's forward pass over batches of sequences. It knows numbers only: no files, text, checkpoint
// names or sampling. engine.cpp has the forward pass; src/pophood/model/engine.py is the only caller.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/request.h"
#include "weights/weights.h"

namespace pophood {

enum class Activation : int { gelu_tanh = 0, gelu = 1, silu = 2 };

// RoPE: radians per position of each pair that is rotated [R/2]; cosines and sines are multiplied by `scale`.
struct Rotary {
    std::vector<float> frequencies;
    float scale = 1.0f;
};

// Places of the norms: of what attention and feed-forward read, or of what they add to the stream.
enum class NormPlaces : int { before = 0, after = 1, both = 2 };

// The sizes of ModelConfig in src/pophood/config.py, with the same letters.
struct Config {
    int64_t n_layer, n_head, n_kv_head, n_embd, head_dim, n_inner, vocab_size, n_positions;  // L H K C D F V, P
    bool rms_norm;
    float norm_eps;
    Activation activation;
    bool gated_mlp, qkv_bias, attn_out_bias, mlp_bias, qk_norm, tied_output;
    std::vector<Rotary> rotaries;      // of the blocks; empty: learned positions
    std::vector<int64_t> rotary_of{};  // per block the index of its Rotary, or -1; empty: the first for every block
    std::vector<int64_t> windows{};    // per block the positions that a position sees, itself included; 0, or empty: all
    NormPlaces norm_places = NormPlaces::before;
    bool qk_norm_whole = false;        // of all heads together
    bool parallel = false;             // attention and feed-forward read the same stream
    float attention_scale = 0.0f;      // of scores; 0: 1 / sqrt(D)
    float score_cap = 0.0f, logit_cap = 0.0f;  // x = cap * tanh(x / cap); 0: none
    float embedding_scale = 1.0f, residual_scale = 1.0f, logit_scale = 1.0f;

    const Rotary* rotary(int64_t layer) const {
        if (rotaries.empty()) return nullptr;
        const int64_t index = rotary_of.empty() ? 0 : rotary_of[static_cast<size_t>(layer)];
        return index < 0 ? nullptr : &rotaries[static_cast<size_t>(index)];
    }
    int64_t window(int64_t layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
    bool norms_before() const { return norm_places != NormPlaces::after; }
    bool norms_after() const { return norm_places != NormPlaces::before; }
};

class Engine {
   public:
    Engine(const Config& config, int threads, const Kernels& kernels);

    // Packs one tensor under its canonical name and keeps no reference to it. With `held`, a matrix that is not in
    // blocks is held as Q8_0, IQ4_NL or, from BF16, as bf16_pairs. Replacing a tensor drops all sequences.
    void set_tensor(const std::string& name, const TensorView& tensor, WeightType held = WeightType::f32);
    std::vector<std::string> missing_tensors() const;
    void set_threads(int threads);            // from the next call on; no result depends on it
    void set_kv_type(WeightType type);  // of the keys and values: f32 (the default), f16 or q8_0; drops all sequences

    // A LoRA adapter: out += b (a x) for a matrix such as "blocks.0.attn.q"; a [r, in], b [out, r], which includes the
    // scale. It must be complete before a sequence is created with it. Sequences keep what they use after it is dropped.
    int64_t create_adapter();
    void set_adapter_pair(int64_t adapter, const std::string& matrix, const TensorView& a, const TensorView& b);
    void drop_adapter(int64_t adapter);

    // Appends tokens to their sequences and computes the requested output. After a stop, an error or a NaN every sequence
    // has its former length. A row's bits depend on that row's history only. Returns the sequences that were cancelled.
    std::vector<int64_t> forward(const Request& request);
    // Summarizes residual streams [n][C] as if the last block had put them out; logits [n][V] or null.
    void unembed(const float* x, int64_t n, float* logits, const Summary& summary);

    // A sequence is computed with its adapters, which add up in this order; sequences with different ones share a batch.
    int64_t create(const std::vector<int64_t>& adapters = {});
    int64_t fork(int64_t sequence);                       // shares all blocks, copies on write
    void truncate(int64_t sequence, int64_t length);      // keeps the first `length` positions
    void drop(int64_t sequence);
    int64_t length(int64_t sequence);
    // A sequence keeps of layers with a window what its next position sees and a little more; forward() computes again what
    // misses after truncate(). kv_cache.h has the layout of exported keys and values, and the meaning of these:
    void export_kv(int64_t sequence, int64_t first, int64_t positions, int64_t windows_from, void* out);
    void append_kv(int64_t sequence, int64_t positions, int64_t windows_from, const int32_t* tokens, const void* data);
    int64_t position_bytes(bool windowed);
    int64_t windows_from(int64_t sequence, int64_t first, int64_t last);
    int64_t resumable(int64_t sequence, int64_t length);
    void forget_windows(int64_t sequence);
    std::vector<int32_t> tokens(int64_t sequence, int64_t first, int64_t last);
    int64_t cache_bytes();
    int64_t weight_bytes() const;
    int64_t tap_width(Tap tap, int64_t keys) const;       // floats per row
    int64_t edit_width(const Edit& edit) const;           // floats per row that an edit changes

    const Config& config() const { return config_; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return threads_; }

   private:
    struct Norm { Vector weight, bias; };
    struct Linear { Matrix weight; Vector bias; size_t number = 0; };
    struct LoraPair { Matrix a, b; };
    using Adapter = std::vector<LoraPair>;  // by the number of a Linear; empty where it changes nothing
    using Adapters = std::vector<std::shared_ptr<const Adapter>>;
    struct Projection { const Linear* linear; float* out; };  // out [N, rows of the matrix]
    struct Block {
        Norm ln_1, ln_1_post, ln_2, ln_2_post;
        Linear q, k, v, out, gate, up, down;
        Vector q_norm, k_norm;
    };
    struct Slot {  // the place of one tensor: `matrix` or `vector`
        Matrix* matrix;
        Vector* vector;
        std::vector<int64_t> shape;
    };
    struct Segment {  // the rows of one sequence within a request
        int64_t sequence, first_row, rows, first_position;
        const Adapters* adapters;
    };
    struct LoraProduct {  // b (a x) of one pair for some rows, added to the product with the pair's matrix
        size_t product;       // index of that product in its round
        Matmul b;
        int64_t first_row;
    };
    struct LoraPart {         // the same before its matrices are known: `place` is that of a x in lora_hidden_
        size_t product;
        const LoraPair* pair;
        int64_t first_row, rows, place;
    };
    struct LoraPiece {        // panels of a product that wait for a x
        size_t product;
        int64_t first, last;
    };
    struct LoraProducts {     // of one round
        std::vector<Matmul> inner;  // a x
        std::vector<LoraProduct> outer;
    };

    void add_slot(const std::string& name, Matrix* matrix, Vector* vector, std::vector<int64_t> shape) {
        slots_[name] = {matrix, vector, std::move(shape)};
    }
    using Segments = std::vector<Segment>;
    Segments plan(const Request& request) const;
    void check(const Request& request, const Segments& segments) const;
    std::vector<int64_t> run(const Request& request, const Segments& segments, bool frees = true);
    void refill(const Segment& segment, bool everything, const std::function<bool()>& stop);
    void reserve(int64_t rows);
    void drop_all();
    void compute(Request& request, Segments& segments);
    void embed(const Request& request, const Segments& segments);
    bool drop_cancelled(Request& request, Segments& segments);
    // `reader` is the matrix that multiplies the result next: rows are prepared for it while they are in the cache.
    void norm(const Norm& norm, const float* x, float* out, int64_t rows, const Matrix* reader = nullptr);
    void project(const float* x, int64_t rows, const Segments& segments, const std::vector<Projection>& projections);
    void multiply(const Matrix& matrix, const float* x, int64_t rows, float* out);
    void prepare_for(const Matrix& matrix, Activations& input, bool in_tiles = true);
    PreparedRows prepared_rows(const Matrix* reader, int64_t rows, int64_t k, bool in_tiles = true);
    void prepare_each(const PreparedRows& prepared, const Activations& rows, int64_t k, int64_t chunk,
                      const std::function<void(int64_t row)>& compute);
    void matmul(const std::vector<Matmul>& products);
    int64_t matmul_chunk(int64_t panels, const Matmul& first) const;
    void multiply_panels(const Matmul& product, int64_t first, int64_t last, int worker);
    void settle(const Norm& post, float* y, int64_t rows);
    void rope(int64_t layer, const Segments& segments);
    void store(int64_t layer, const Segments& segments);

    // attention.cpp
    struct Queries {              // up to eight of one sequence and key/value head: those from `first` on of rows * group
        const Segment* segment;
        int64_t kv_head, first, count;
        int64_t first_range, ranges;  // of positions that some of them see
    };
    void attend(int64_t layer, const Segments& segments);
    void attend_in_ranges(int64_t layer, const std::vector<Queries>& all);
    AttentionTask attention_task(int64_t layer, const Queries& queries) const;
    void activate(int64_t rows, const Matrix* reader = nullptr);
    void add(float* x, const float* y, int64_t rows);

    // outputs.cpp
    void output(const Request& request);
    void summarize(const Request& request, const float* hidden);
    void summarize_rows(const Summary& summary, int64_t first, int64_t rows, const float* logits) const;
    void copy_allowed(const Summary& summary, int64_t first, int64_t rows, const float* logits, float* out) const;
    const Matrix& output_matrix() const { return config_.tied_output ? token_embedding_ : output_matrix_; }
    void logits_of(const float* hidden, int64_t rows, float* out);
    int64_t first_visible(int64_t layer, int64_t position) const;
    float attention_scale() const {
        return config_.attention_scale > 0.0f ? config_.attention_scale : 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    }

    // adapters.cpp
    Adapters adapters_of(const std::vector<int64_t>& numbers) const;
    bool prepare_lora(const float* x, const Segments& segments, const std::vector<Projection>& projections);
    void matmul_with_lora(const std::vector<Matmul>& products);

    // edits.cpp
    bool edited(const Request& request, Tap tap, int64_t layer) const;
    void edit(const Request& request, Tap tap, int64_t layer, float* values) const;
    void edit_logits(const Request& request, int64_t first, int64_t rows, float* values) const;
    void normalize(const Request& request, Tap tap, int64_t layer, const Norm& norm, const float* x, float* out,
                   const Matrix* reader = nullptr);
    void edit_attention(const Request& request, int64_t layer, const Segments& segments);
    void edit_result(const Request& request, int64_t layer, const Segments& segments, float* attn_out);
    void activate(const Request& request, int64_t layer);
    void edit_attention_row(const Request& request, Tap tap, int64_t layer, int64_t row, int64_t head, float* values,
                            int64_t visible) const;

    // taps.cpp
    static bool reads_rows(Tap tap);
    const Reading* find_reading(const Request& request, Tap tap, int64_t layer) const;
    void read(const Request& request, Tap tap, int64_t layer, const float* values) const;
    void read_normalized(const Request& request, Tap tap, int64_t layer, const float* x);
    void read_attention(const Request& request, int64_t layer, const Segments& segments);
    void read_attention_rows(const Request& request, const Reading& reading, const Segments& segments);
    static void write_attention(const Reading& reading, int64_t at, const float* scores, const float* pattern, int64_t visible);
    void attention_row(const Request& request, int64_t layer, const Segment& segment, int64_t row, int64_t head,
                       float* scores, float* pattern) const;
    void softmax(const float* scores, float* weights, int64_t visible) const;
    void read_result(const Request& request, int64_t layer, const Segments& segments);
    void results(int64_t layer, int64_t rows, const Segments& segments, float* out);
    void quantized_results(const Matrix& matrix, const Activations& z, float* out);
    void read_logits(const Request& request, const float* x);

    const Config config_;
    int threads_;
    const Kernels& kernels_;
    std::mutex mutex_;
    KvCache cache_;
    Matrix token_embedding_, output_matrix_;
    Vector position_embedding_;
    std::vector<Block> blocks_;
    Norm final_norm_;
    std::map<std::string, Slot> slots_;
    std::map<std::string, Linear*> linears_;
    size_t filled_ = 0;  // slots that have their tensor
    std::map<int64_t, std::shared_ptr<Adapter>> adapters_;
    std::map<int64_t, Adapters> sequence_adapters_;
    int64_t next_adapter_ = 0;
    std::set<int64_t> cancelled_;        // in the current call
    std::vector<int64_t> output_rows_;   // of the current call, after sequences were cancelled
    // Activations of the current call, [N][...]. Their buffers grow and are kept for the next call.
    int64_t capacity_ = 0;
    AlignedBuffer x_, h_, side_, q_, k_, v_, z_, up_, gate_, scratch_, attention_parts_;
    LoraProducts lora_;
    std::vector<LoraPart> lora_parts_;
    std::vector<std::vector<LoraPiece>> lora_pieces_;  // of each thread
    std::vector<float> lora_hidden_, lora_out_, output_logits_;
    std::vector<std::vector<float>> cosines_, sines_;  // of each Rotary, [N][R/2]
    AlignedBuffer quantized_values_, quantized_scales_, quantized_sums_, quantized_low_sums_, quantized_offsets_;
    AlignedBuffer rounded_values_, interleaved_values_;
    struct { const float* x; PreparedRows rows; } prepared_already_{};  // an input's rows, until a product takes them
};

}  // namespace pophood
