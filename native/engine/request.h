// One call of the engine (a contract): tokens of several sequences in, outputs, readings and edits. engine.h has the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <vector>

namespace pophood {

// hidden: after the final norm; summary: what Summary asks for.
enum class Output : int { none = 0, logits = 1, hidden = 2, summary = 3 };
// The places that can be read and edited, in order of execution. src/pophood/taps.py names them in the same order.
enum class Tap : int {
    embed_token, embed_position,
    resid_pre, ln_1_normalized, ln_1, q, k, v, rot_q, rot_k, scores, pattern, z, result, attn_out,
    resid_mid, ln_2_normalized, ln_2, mlp_pre, mlp_gate, mlp_up, mlp_post, mlp_out, resid_post,
    final_norm_normalized, final_norm, logits,
};

struct Reading {  // copies one tap's values to [N][tap_width], or to [rows][tap_width]
    Tap tap;
    int64_t layer;  // 0 outside the blocks
    float* out;
    int64_t keys = 0;             // scores and pattern: positions per row, no fewer than the longest row attends to
    std::vector<int64_t> rows{};  // of the request; empty: every row. Not for normalized taps, result and logits
    int64_t head = -1;            // scores and pattern: one head, [rows][keys]; -1: all of them
};

// Changes one tap's values before later steps, and readings, see them. At logits it changes the rows that are output.
struct Edit {
    enum class Kind : int { add = 0, scale = 1, replace = 2 };
    Tap tap;
    int64_t layer;
    Kind kind;
    int64_t head;               // one head of q, k, v, rot_q, rot_k, scores, pattern, z or result; -1: the whole row
    std::vector<int64_t> rows;  // of the request
    const float* values;        // per row, [edit_width]
    int64_t stride;             // floats from one row's values to the next; 0: the same for every row
    int64_t keys = 0;           // scores and pattern: positions per row, no fewer than the longest row attends to
};

// The distribution of every output row, softmax(logits) over the allowed tokens.
struct Summary {
    int64_t k = 0;                      // likeliest tokens per row
    int32_t* ids = nullptr;             // [n_rows][k], the likeliest first, ties by ascending id; -1 if fewer are allowed
    float* logits = nullptr;            // [n_rows][k], of those ids; -infinity beside -1
    double* logsumexp = nullptr;        // [n_rows], in nats
    double* entropy = nullptr;          // [n_rows], in nats, or null
    const uint32_t* allowed = nullptr;  // [n_rows][ceil(V / 32)]: bit i % 32 of word i / 32; null: every token
    const int32_t* targets = nullptr;   // [n_rows]: a token to score per row, or null
    float* target_logits = nullptr;     // [n_rows]
    int64_t* target_ranks = nullptr;    // [n_rows]: 1 for the likeliest; ties by ascending id
};

struct Request {
    const int32_t* tokens;      // [N]
    const int64_t* sequences;   // [N]; rows of one sequence are adjacent and continue it
    int64_t n;
    Output output;
    const int64_t* rows;        // the rows to output, ascending
    int64_t n_rows;
    float* out;                 // [n_rows][V] logits, or [n_rows][C] hidden; with a summary the logits too, or null
    std::vector<Reading> readings{};
    std::function<bool()> stop{};  // polled before every block; true ends the call
    Summary summary{};
    std::vector<Edit> edits{};     // in the order in which they apply at a place
    // Polled per sequence before every block; true ends that sequence alone: it gets its former length back, and its
    // outputs and readings are undefined. Its rows are dropped at once, unless an edit or a reading refers to every row.
    std::function<bool(int64_t sequence)> cancelled{};
};

struct Stopped : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Forgotten : std::runtime_error {  // keys and values that cannot be computed again
    using std::runtime_error::runtime_error;
};
struct NotFinite : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace pophood
