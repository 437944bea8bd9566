// The engine: a transformer's forward pass over batches of sequences. It knows numbers only: no files, text, checkpoint
// names or sampling. engine.cpp has the forward pass; src/pophood/model/engine.py is the only caller.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/weights.h"

namespace pophood {

enum class Activation : int { gelu_tanh = 0, gelu = 1, silu = 2 };

// The sizes of ModelConfig in src/pophood/config.py, with the same letters.
struct Config {
    int64_t n_layer, n_head, n_kv_head, n_embd, head_dim, n_inner, vocab_size, n_positions;  // L H K C D F V, P
    bool rms_norm;
    float norm_eps;
    Activation activation;
    bool gated_mlp, qkv_bias, attn_out_bias, mlp_bias, qk_norm, tied_output;
    std::vector<float> frequencies;  // RoPE: radians per position of each pair [D/2]; empty: learned positions
};

enum class Output : int { none = 0, logits = 1, hidden = 2 };  // hidden: after the final norm
// The values that can be read, in order of execution. src/pophood/taps.py names them in the same order.
enum class Tap : int {
    embed_token, embed_position,
    resid_pre, ln_1_normalized, ln_1, q, k, v, rot_q, rot_k, scores, pattern, z, result, attn_out,
    resid_mid, ln_2_normalized, ln_2, mlp_pre, mlp_gate, mlp_up, mlp_post, mlp_out, resid_post,
    final_norm_normalized, final_norm, logits,
};

struct Reading {  // copies one tap's values of every row to [N][tap_width]
    Tap tap;
    int64_t layer;  // 0 outside the blocks
    float* out;
    int64_t keys = 0;  // scores and pattern: positions per row, no fewer than the longest row attends to
};

struct Request {
    const int32_t* tokens;      // [N]
    const int64_t* sequences;   // [N]; rows of one sequence are adjacent and continue it
    int64_t n;
    Output output;
    const int64_t* rows;        // the rows to output, ascending
    int64_t n_rows;
    float* out;                 // [n_rows][V] logits, or [n_rows][C] hidden
    std::vector<Reading> readings;
    std::function<bool()> stop;  // polled before every block; true ends the call
};

struct Stopped : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct NotFinite : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Engine {
   public:
    Engine(const Config& config, int threads, const Kernels& kernels);

    // Packs one tensor under its canonical name and keeps no reference to it. With `quantize`, a matrix becomes Q8_0.
    // Replacing a tensor drops all sequences.
    void set_tensor(const std::string& name, const TensorView& tensor, bool quantize = false);
    std::vector<std::string> missing_tensors() const;
    void set_threads(int threads);            // from the next call on; no result depends on it
    void set_kv_type(WeightType type);  // of the keys and values: f32 (the default) or f16; drops all sequences

    // LoRA: out += b (a x) for `matrix`, such as "blocks.0.attn.q"; a [r, in], b [out, r], which includes the scale.
    // Several adapters add up. Adding and clearing drop all sequences.
    void add_adapter(const std::string& matrix, const TensorView& a, const TensorView& b);
    void clear_adapters();

    // Appends tokens to their sequences and computes the requested output. After a stop, an error or a NaN every sequence
    // has its former length. A row's bits depend on that row's history only.
    void forward(const Request& request);

    int64_t create();
    int64_t fork(int64_t sequence);                       // shares all blocks, copies on write
    void truncate(int64_t sequence, int64_t length);      // keeps the first `length` positions
    void drop(int64_t sequence);
    int64_t length(int64_t sequence);
    int64_t cache_bytes();
    int64_t weight_bytes() const;
    int64_t tap_width(Tap tap, int64_t keys) const;       // floats per row

    const Config& config() const { return config_; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return threads_; }

   private:
    struct Norm { Vector weight, bias; };
    struct LoraPair { Matrix a, b; };
    struct Linear { Matrix weight; Vector bias; std::vector<LoraPair> lora; };
    struct Projection { const Linear* linear; float* out; };  // out [N, rows of the matrix]
    struct Block {
        Norm ln_1, ln_2;
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
    };

    void add_slot(const std::string& name, Matrix* matrix, Vector* vector, std::vector<int64_t> shape) {
        slots_[name] = {matrix, vector, std::move(shape)};
    }
    std::vector<Segment> plan(const Request& request) const;
    void reserve(int64_t rows);
    void compute(const Request& request, const std::vector<Segment>& segments);
    void embed(const Request& request, const std::vector<Segment>& segments);
    void norm(const Norm& norm, const float* x, float* out, int64_t rows);
    void project(const float* x, int64_t rows, const std::vector<Projection>& projections);
    void multiply(const Matrix& matrix, const float* x, int64_t rows, float* out);
    Activations quantized(Activations input, int64_t k);
    void matmul(const std::vector<Matmul>& products);
    void rope_and_store(const Block& block, int64_t layer, const std::vector<Segment>& segments);
    void attend(int64_t layer, const std::vector<Segment>& segments);
    void activate(int64_t rows);
    void add(float* x, const float* y, int64_t rows);
    void output(const Request& request);
    float attention_scale() const { return 1.0f / std::sqrt(static_cast<float>(config_.head_dim)); }

    // parameters.cpp
    void add_lora(const Linear& linear, const float* x, int64_t rows, float* out);

    // taps.cpp
    const Reading* find_reading(const Request& request, Tap tap, int64_t layer) const;
    void read(const Request& request, Tap tap, int64_t layer, const float* values) const;
    void read_normalized(const Request& request, Tap tap, int64_t layer, const float* x);
    void read_attention(const Request& request, int64_t layer, const std::vector<Segment>& segments);
    void softmax(const float* scores, float* weights, int64_t visible, int64_t keys) const;
    void read_result(const Request& request, int64_t layer);
    void read_quantized_result(const Matrix& matrix, const Activations& z, float* out);
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
    // Activations of the current call, [N][...]. Their buffers grow and are kept for the next call.
    int64_t capacity_ = 0;
    AlignedBuffer x_, h_, q_, k_, v_, z_, up_, gate_, scratch_;
    std::vector<float> lora_hidden_, lora_out_;
    std::vector<float> cosines_, sines_;
    AlignedBuffer quantized_values_, quantized_scales_, quantized_sums_, quantized_offsets_;
};

}  // namespace pophood
