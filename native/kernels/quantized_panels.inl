// A panel of quantised weights, read with V (sixteen floats): quantized.inl and amxint8.cpp share it. A file that includes it
// defines V's operations, and load_unsigned and load_signed: sixteen integers of 8 bits as floats.

template <WeightType type>
struct Weights {
    static constexpr QuantFormat format = quant_formats[static_cast<int>(type) - static_cast<int>(WeightType::q8_0)];
    static constexpr int steps = 8 / format.scales;  // that share a scale
    // Bytes of a panel for each of its groups, scales included.
    static constexpr int64_t bytes =
        format.group_bytes + (format.nested ? 16 * (format.scales + format.minimum) + 4 * (1 + format.minimum)
                                            : 32 * (1 + format.minimum));
};

template <class W, int step = 0>
void expand(const uint8_t* group, uint8_t* to);  // lines of unsigned bytes, one per step from `step` on

// The scales of one panel.
template <class W>
struct Scales {
    const uint16_t* halves;
    const uint8_t* bytes;
    int64_t groups;

    void point_to(const uint8_t* panel, int64_t panel_groups) {
        halves = reinterpret_cast<const uint16_t*>(panel);
        bytes = panel + panel_groups / 8 * 32 * (1 + W::format.minimum);  // if nested
        groups = panel_groups;
    }
    V scale(int64_t g, int half) const {
        if constexpr (!W::format.nested) return load_half(halves + g * 16);
        const V d = load_half(halves + g / 8 * 16);
        if constexpr (W::format.minimum) return mul(d, load_unsigned(bytes + g * 16));
        return mul(d, load_signed(reinterpret_cast<const int8_t*>(bytes) + (g * W::format.scales + half) * 16));
    }
    V minimum(int64_t g) const {
        if constexpr (!W::format.nested) return load_half(halves + (groups + g) * 16);
        return negate(mul(load_half(halves + (groups + g) / 8 * 16), load_unsigned(bytes + (groups + g) * 16)));
    }
    const uint8_t* weights() const {
        if constexpr (!W::format.nested) return reinterpret_cast<const uint8_t*>(halves + groups * 16 * (1 + W::format.minimum));
        return bytes + groups * 16 * (W::format.scales + W::format.minimum);
    }
};

// Groups of a panel whose weights were expanded to bytes and whose scales to f32, for many tokens: per group the weights, the
// scales, the minimum.
template <class W>
struct Expanded {
    static constexpr QuantFormat format = {32, 0, 8, 0, W::format.zero, W::format.minimum, false, W::format.scales, false, 512};
    static constexpr int steps = W::steps;
    static constexpr int64_t bytes = 512 + 64 * (format.scales + format.minimum);
};
template <class W>
struct Scales<Expanded<W>> {
    const uint8_t* start;

    void point_to(const uint8_t* panel, int64_t) { start = panel; }
    const float* floats(int64_t g, int64_t index) const {
        return reinterpret_cast<const float*>(start + g * Expanded<W>::bytes + 512) + index * 16;
    }
    V scale(int64_t g, int half) const { return load(floats(g, half)); }
    V minimum(int64_t g) const { return load(floats(g, W::format.scales)); }
    const uint8_t* weights() const { return start; }
};
template <class W>
constexpr int64_t group_stride = W::format.group_bytes;
template <class W>
constexpr int64_t group_stride<Expanded<W>> = Expanded<W>::bytes;
