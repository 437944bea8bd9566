// Where everything lies in a panel of a quantised type, one number at a time. A file that is compiled for one instruction set
// must not include this header: it has inline code.
#pragma once

#include "kernels/half.h"
#include "kernels/kernels.h"

namespace pophood {

inline constexpr bool is_quantized(WeightType type) { return type >= WeightType::q8_0; }
inline constexpr const QuantFormat& format_of(WeightType type) {
    return quant_formats[static_cast<int>(type) - static_cast<int>(WeightType::q8_0)];
}

// Offsets in bytes from the start of a panel, and the size of all of it, which is a whole number of cache lines.
struct PanelParts {
    int64_t minima, byte_scales, byte_minima, weights, size;
};

inline PanelParts parts_of(const QuantFormat& format, int64_t groups) {
    const int64_t halves = (format.nested ? groups / 8 : groups) * panel_rows * 2;
    const int64_t byte_scales = halves * (format.minimum ? 2 : 1);
    const int64_t byte_minima = byte_scales + (format.nested ? groups * format.scales * panel_rows : 0);
    const int64_t weights = byte_minima + (format.nested && format.minimum ? groups * panel_rows : 0);
    return {halves, byte_scales, byte_minima, weights, (weights + groups * format.group_bytes + 63) / 64 * 64};
}

// One row of a panel.
struct PanelRow {
    const QuantFormat& format;
    const PanelParts parts;
    const uint8_t* panel;
    int64_t lane;

    PanelRow(WeightType type, int64_t groups, const void* start, int64_t row)
        : format(format_of(type)), parts(parts_of(format, groups)), panel(static_cast<const uint8_t*>(start)), lane(row) {}

    // The integer of weight i of a group.
    int32_t weight(int64_t group, int64_t i) const {
        const uint8_t* planes = panel + parts.weights + group * format.group_bytes;
        const int64_t step = i / 4, at = lane * 4 + i % 4;
        if (format.bits == 8) return planes[step * 64 + at] - format.zero;
        int32_t q = planes[step % 4 * 64 + at] >> (step < 4 ? 0 : 4) & 15;
        if (format.high_bits == 1) q |= (planes[256 + at] >> step & 1) << 4;
        if (format.high_bits == 2) q |= (planes[256 + step / 4 * 64 + at] >> step % 4 * 2 & 3) << 4;
        return (format.steps ? iq4_steps[q] : q) - format.zero;
    }

    // The scale of weight i of a group. A product of an f16 and 8 bits is exact.
    float scale(int64_t group, int64_t i) const {
        if (!format.nested) return half(0, group);
        const uint8_t byte = panel[parts.byte_scales + (group * format.scales + i * format.scales / quant_group) * panel_rows + lane];
        return half(0, group / 8) * static_cast<float>(format.minimum ? byte : static_cast<int8_t>(byte));
    }

    float minimum(int64_t group) const {  // what is added to scale * integer
        if (!format.nested) return half(parts.minima, group);
        return -(half(parts.minima, group / 8) * static_cast<float>(panel[parts.byte_minima + group * panel_rows + lane]));
    }

   private:
    float half(int64_t start, int64_t index) const {
        return to_f32(WeightType::f16, panel + start + (index * panel_rows + lane) * 2);
    }
};

}  // namespace pophood
