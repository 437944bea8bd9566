// The layouts of blocks are drawn in src/pophood/formats/quant.py. See blocks.h.
//
// Weights are moved in words of four bytes, four inputs of one row: a group of 32 has eight.
#include "weights/blocks.h"

#include <cstring>

#include "kernels/panels.h"

namespace pophood {
namespace {

inline uint32_t word(const uint8_t* bytes, int64_t index) {
    uint32_t four;
    std::memcpy(&four, bytes + 4 * index, 4);
    return four;
}

// Bits 4 * index.. of a row of 32 bits, one per byte of the result.
inline uint32_t spread_bits(const uint8_t* row, int index) { return (word(row, 0) >> 4 * index & 15) * 0x00204081u & 0x01010101u; }

constexpr uint32_t low_nibbles = 0x0F0F0F0Fu;

// The integers of group `g` of a block with its high bits, as stored: q[s] holds those of inputs 4s..4s+3.
template <WeightType type>
inline void unpack(const uint8_t* block, int g, uint32_t (&q)[8]) {
    if constexpr (type == WeightType::q5_0 || type == WeightType::q5_1) {
        const uint8_t *bits = block + (type == WeightType::q5_0 ? 2 : 4), *nibbles = bits + 4;
        for (int j = 0; j < 4; ++j) {
            q[j] = (word(nibbles, j) & low_nibbles) | spread_bits(bits, j) << 4;
            q[4 + j] = (word(nibbles, j) >> 4 & low_nibbles) | spread_bits(bits, 4 + j) << 4;
        }
    } else if constexpr (type == WeightType::q4_k || type == WeightType::q5_k) {
        const uint8_t* nibbles = block + (type == WeightType::q4_k ? 16 : 48) + g / 2 * 32;
        for (int s = 0; s < 8; ++s) {
            q[s] = word(nibbles, s) >> g % 2 * 4 & low_nibbles;
            if (type == WeightType::q5_k) q[s] |= (word(block + 16, s) >> g & 0x01010101u) << 4;
        }
    } else {  // Q6_K: halves of 128 weights
        const uint8_t *low = block + g / 4 * 64 + g % 2 * 32, *high = block + 128 + g / 4 * 32;
        for (int s = 0; s < 8; ++s)
            q[s] = (word(low, s) >> g % 4 / 2 * 4 & low_nibbles) | (word(high, s) >> g % 4 * 2 & 0x03030303u) << 4;
    }
}

// Writes the integers of one row and group into the planes of a panel.
template <int high_bits>
inline void place(const uint32_t (&q)[8], uint8_t* planes, int64_t lane) {
    const auto store = [&](int64_t line, uint32_t four) { std::memcpy(planes + (line * panel_rows + lane) * 4, &four, 4); };
    for (int j = 0; j < 4; ++j) store(j, (q[j] & low_nibbles) | (q[4 + j] & low_nibbles) << 4);
    if (high_bits == 1) {
        uint32_t bits = 0;
        for (int s = 0; s < 8; ++s) bits |= (q[s] >> 4 & 0x01010101u) << s;
        store(4, bits);
    }
    if (high_bits == 2)
        for (int half = 0; half < 2; ++half) {
            uint32_t bits = 0;
            for (int j = 0; j < 4; ++j) bits |= (q[4 * half + j] >> 4 & 0x03030303u) << 2 * j;
            store(4 + half, bits);
        }
}

// The weights of one row and group.
template <WeightType type>
inline void pack_group(const uint8_t* block, int g, uint8_t* planes, int64_t lane) {
    constexpr QuantFormat format = quant_formats[static_cast<int>(type) - static_cast<int>(WeightType::q8_0)];
    if constexpr (format.high_bits == 0 && !format.nested) {  // a file's bytes, in its own order
        constexpr uint32_t flip = type == WeightType::q8_0 ? 0x80808080u : 0;  // 8-bit weights are stored as weight + 128
        constexpr int64_t words = format.bits, start = format.block_bytes - 4 * words;
        for (int64_t i = 0; i < words; ++i) {
            const uint32_t four = word(block + start, i) ^ flip;
            std::memcpy(planes + (i * panel_rows + lane) * 4, &four, 4);
        }
    } else {
        uint32_t q[8];
        unpack<type>(block, g, q);
        place<format.high_bits>(q, planes, lane);
    }
}

// The eight scales and minima of 6 bits in the 12 bytes of Q4_K and Q5_K; formats/quant.py draws them.
inline void unpack_six_bits(const uint8_t* packed, uint8_t (&scales)[8], uint8_t (&minima)[8]) {
    for (int i = 0; i < 4; ++i) {
        scales[i] = packed[i] & 63;
        minima[i] = packed[4 + i] & 63;
        scales[4 + i] = static_cast<uint8_t>((packed[8 + i] & 15) | (packed[i] >> 2 & 48));
        minima[4 + i] = static_cast<uint8_t>((packed[8 + i] >> 4) | (packed[4 + i] >> 2 & 48));
    }
}

template <WeightType type>
void pack_panel(const uint8_t* const* from, int64_t rows, int64_t groups, uint8_t* panel) {
    constexpr QuantFormat format = quant_formats[static_cast<int>(type) - static_cast<int>(WeightType::q8_0)];
    constexpr int64_t groups_in_block = format.block / quant_group;
    constexpr int64_t d = type == WeightType::q6_k ? 208 : 0;  // where the f16 scale is, and after it the minimum
    const PanelParts parts = parts_of(format, groups);
    for (int64_t index = 0; index < groups / groups_in_block; ++index)
        for (int64_t lane = 0; lane < rows; ++lane) {
            const uint8_t* block = from[lane] + index * format.block_bytes;
            std::memcpy(panel + (index * panel_rows + lane) * 2, block + d, 2);
            if (format.minimum) std::memcpy(panel + parts.minima + (index * panel_rows + lane) * 2, block + d + 2, 2);
            for (int64_t g = 0; g < groups_in_block; ++g)
                pack_group<type>(block, static_cast<int>(g),
                                 panel + parts.weights + (index * groups_in_block + g) * format.group_bytes, lane);
            if constexpr (type == WeightType::q6_k)
                for (int64_t half = 0; half < 16; ++half)
                    panel[parts.byte_scales + (index * 16 + half) * panel_rows + lane] = block[192 + half];
            else if constexpr (format.nested) {
                uint8_t scales[8], minima[8];
                unpack_six_bits(block + 4, scales, minima);
                for (int64_t g = 0; g < 8; ++g) {
                    panel[parts.byte_scales + (index * 8 + g) * panel_rows + lane] = scales[g];
                    panel[parts.byte_minima + (index * 8 + g) * panel_rows + lane] = minima[g];
                }
            }
        }
}

}  // namespace

void pack_blocks(WeightType type, const uint8_t* const* from, int64_t rows, int64_t groups, uint8_t* panel) {
    const auto pack = [=](auto packer) { packer(from, rows, groups, panel); };
    switch (type) {
        case WeightType::q8_0: return pack(pack_panel<WeightType::q8_0>);
        case WeightType::q4_0: return pack(pack_panel<WeightType::q4_0>);
        case WeightType::q4_1: return pack(pack_panel<WeightType::q4_1>);
        case WeightType::q5_0: return pack(pack_panel<WeightType::q5_0>);
        case WeightType::q5_1: return pack(pack_panel<WeightType::q5_1>);
        case WeightType::q4_k: return pack(pack_panel<WeightType::q4_k>);
        case WeightType::q5_k: return pack(pack_panel<WeightType::q5_k>);
        case WeightType::q6_k: return pack(pack_panel<WeightType::q6_k>);
        default: return pack(pack_panel<WeightType::iq4_nl>);
    }
}

}  // namespace pophood
