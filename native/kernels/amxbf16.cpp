// AMX BF16: `tdpbf16ps` multiplies a tile of 16 tokens and 32 inputs by one of 32 inputs and 16 outputs. Only products with
// weights that are stored in bfloat16; their panels are such tiles already.
//
// For each output the instruction adds up 16 products of even inputs and 16 of odd ones, and then both to the sum. A sum goes
// on from one group of 32 inputs to the next, ascending, so no bit depends on the other tokens or on how inputs are divided
// into passes.
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

#include "amx_tiles.inl"

constexpr int64_t tile_tokens = 16, tile_inputs = 32, row_bytes = 64, weight_bytes = 1024;
constexpr int64_t block_tokens = 2 * tile_tokens;
constexpr int64_t pass_inputs = 512;  // the weights of a pass stay in the L1 cache, its activations in the L2 cache

// The tiles: 0 to 3 hold the sums of two tiles of tokens by two panels, 4 and 5 the activations, 6 and 7 the weights.
void use_tiles_for(int64_t tokens) {
    TileShapes shapes;
    for (int t = 0; t < 2; ++t) {
        const int64_t rows = tokens - t * tile_tokens;
        if (rows <= 0) continue;
        const int64_t own = rows < tile_tokens ? rows : tile_tokens;
        shapes.set(2 * t, own, row_bytes);
        shapes.set(2 * t + 1, own, row_bytes);
        shapes.set(4 + t, own, row_bytes);
    }
    for (int p = 0; p < 2; ++p) shapes.set(6 + p, tile_inputs / 2, row_bytes);
    use_tiles(shapes);
}

template <int sums, int x, int w>
POPHOOD_INLINE void add_products() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(x), "i"(w));
}

// The activations of a block from some input on: in bfloat16, `row` from a token to the next, `tile` from a tile of tokens to
// the next, `step` from a group of 32 inputs to the next.
struct Inputs {
    const uint16_t* x;
    int64_t row, tile, step;

    Inputs(const RoundedRows& rows, int64_t token, int64_t input)
        : x(rows.values + (token / rows.tile * rows.groups * rows.tile + token % rows.tile + input / tile_inputs * rows.tile) * tile_inputs),
          row(rows.tile == 1 ? rows.groups * tile_inputs : tile_inputs),
          tile(tile_tokens * rows.groups * tile_inputs),
          step(rows.tile * tile_inputs) {}
    Inputs(const uint16_t* copy) : x(copy), row(tile_inputs), tile(tile_tokens * tile_inputs), step(0) {}
};

// One group of 32 inputs of T tiles of tokens and P panels, whose weights lie `panel_bytes` apart.
template <int T, int P>
POPHOOD_INLINE void add_inputs(const Inputs& in, const uint8_t* w, int64_t panel_bytes) {
    load_tile<4>(in.x, in.row * 2);
    load_tile<6>(w, row_bytes);
    add_products<0, 4, 6>();
    if constexpr (P == 2) {
        load_tile<7>(w + panel_bytes, row_bytes);
        add_products<1, 4, 7>();
    }
    if constexpr (T == 2) {
        load_tile<5>(in.x + in.tile, in.row * 2);
        add_products<2, 5, 6>();
        if constexpr (P == 2) add_products<3, 5, 7>();
    }
}

// The last inputs, if fewer than 32, with zeros after them.
template <int T, int P>
void add_last_inputs(const Inputs& in, const uint8_t* w, int64_t panel_bytes, int64_t tokens, int64_t inputs) {
    alignas(64) uint16_t values[block_tokens][tile_inputs] = {};
    alignas(64) uint8_t weights[2][weight_bytes] = {};
    for (int64_t t = 0; t < tokens; ++t)
        memcpy(values[t], in.x + t / tile_tokens * in.tile + t % tile_tokens * in.row, static_cast<size_t>(inputs) * 2);
    for (int64_t p = 0; p < P; ++p)
        memcpy(weights[p], w + p * panel_bytes, static_cast<size_t>((inputs + 1) / 2 * row_bytes));
    add_inputs<T, P>(Inputs(values[0]), weights[0], weight_bytes);
}

// Where a tile of sums lies between two passes: in `out`, or in a copy where the panel has fewer than 16 rows.
struct Sums {
    float* out;
    int64_t stride, tokens, rows;
    alignas(64) float copy[tile_tokens * panel_rows];

    bool whole() const { return rows >= panel_rows; }
    float* place() { return whole() ? out : copy; }
    int64_t place_stride() const { return (whole() ? stride : panel_rows) * 4; }
    void read() {
        if (whole()) return;
        for (int64_t t = 0; t < tokens; ++t) memcpy(copy + t * panel_rows, out + t * stride, static_cast<size_t>(rows) * 4);
    }
    void write() const {
        if (whole()) return;
        for (int64_t t = 0; t < tokens; ++t) memcpy(out + t * stride, copy + t * panel_rows, static_cast<size_t>(rows) * 4);
    }
};

template <int tile>
POPHOOD_INLINE void begin_sums(const Matmul& m, bool first, Sums& sums, int64_t panel) {
    if (!first) {
        sums.read();
        load_tile<tile>(sums.place(), sums.place_stride());
    } else if (m.bias) load_tile<tile>(m.bias + panel * panel_rows, 0);  // the same row for every token
    else clear_tile<tile>();
}
template <int tile>
POPHOOD_INLINE void end_sums(Sums& sums) {
    store_tile<tile>(sums.place(), sums.place_stride());
    sums.write();
}

// Inputs first..last-1 of up to 32 tokens and P panels; the sums go on from `out`, or begin with the bias.
template <int T, int P>
void block(const Matmul& m, int64_t first, int64_t last, int64_t token, int64_t tokens, int64_t panel) {
    const int64_t panel_bytes = (m.panel_k + 1) / 2 * row_bytes;
    const uint8_t* w = static_cast<const uint8_t*>(m.panels) + panel * panel_bytes + first / 2 * row_bytes;
    Inputs in(m.rounded, token, first);
    Sums sums[2][2];
    for (int t = 0; t < T; ++t)
        for (int p = 0; p < P; ++p) {
            const int64_t rest = tokens - t * tile_tokens;
            sums[t][p].out = m.out + (token + t * tile_tokens) * m.out_stride + (panel + p) * panel_rows;
            sums[t][p].stride = m.out_stride;
            sums[t][p].tokens = rest < tile_tokens ? rest : tile_tokens;
            sums[t][p].rows = m.rows - (panel + p) * panel_rows;
        }
    begin_sums<0>(m, first == 0, sums[0][0], panel);
    if constexpr (P == 2) begin_sums<1>(m, first == 0, sums[0][1], panel + 1);
    if constexpr (T == 2) begin_sums<2>(m, first == 0, sums[1][0], panel);
    if constexpr (T == 2 && P == 2) begin_sums<3>(m, first == 0, sums[1][1], panel + 1);

    int64_t left = last - first;
    for (; left >= tile_inputs; left -= tile_inputs, in.x += in.step, w += weight_bytes) {
        if constexpr (T == 1)  // few tokens: the weights come from memory
            for (int p = 0; p < P; ++p)
                for (int64_t line = 0; line < weight_bytes; line += 64) __builtin_prefetch(w + p * panel_bytes + 4096 + line);
        add_inputs<T, P>(in, w, panel_bytes);
    }
    if (left > 0) add_last_inputs<T, P>(in, w, panel_bytes, tokens, left);

    end_sums<0>(sums[0][0]);
    if constexpr (P == 2) end_sums<1>(sums[0][1]);
    if constexpr (T == 2) end_sums<2>(sums[1][0]);
    if constexpr (T == 2 && P == 2) end_sums<3>(sums[1][1]);
}

// Tokens token..end-1, `at_once` at a time, which the tiles are shaped for.
template <int T>
void tokens_of(const Matmul& m, int64_t token, int64_t end, int64_t at_once, int64_t first_panel, int64_t last_panel) {
    if (token >= end) return;
    use_tiles_for(at_once);
    const int64_t passes = end - token > block_tokens ? (m.k + pass_inputs - 1) / pass_inputs : 1;
    const int64_t pass = (m.k + passes * tile_inputs - 1) / (passes * tile_inputs) * tile_inputs;
    for (int64_t first = 0; first < m.k; first += pass) {
        const int64_t last = first + pass < m.k ? first + pass : m.k;
        for (int64_t panel = first_panel; panel < last_panel; panel += 2)
            for (int64_t t = token; t < end; t += at_once) {
                if (panel + 2 <= last_panel) block<T, 2>(m, first, last, t, at_once, panel);
                else block<T, 1>(m, first, last, t, at_once, panel);
            }
    }
}

void matmul(const Matmul& m, int64_t first, int64_t last) {
    const int64_t rest = m.m % block_tokens, whole = m.m - rest;
    tokens_of<2>(m, 0, whole, block_tokens, first, last);
    if (rest > tile_tokens) tokens_of<2>(m, whole, m.m, rest, first, last);
    else tokens_of<1>(m, whole, m.m, rest, first, last);
    release_tiles();
}

void round_row(const float* x, int64_t k, const RoundedRows& out, int64_t row) { avx512bf16_kernels.round(x, k, out, row); }

}  // namespace

const Bf16Kernels amxbf16_kernels = {round_row, matmul, tile_tokens};

}  // namespace pophood
