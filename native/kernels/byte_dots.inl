// The integer sums of quantized.inl for instruction sets that add fours of products of bytes: written once over B, a line of 64
// bytes (four inputs of sixteen rows; kernels.h draws the planes). A file that includes it, after quantized.inl, defines
//   B, load_line(const uint8_t*), store_line(uint8_t*, B), low_nibbles(B), high_nibbles(B), and steps_of(B): iq4_steps at these nibbles
//   with_bits<up, mask>(B nibbles, B plane): nibbles | (each byte of the plane moved `up` bits to the left, or right if `up` is
//     negative, & mask)
//   add_products<step>(I sum, B weights, const int8_t* x): adds the products of each row's four weights and x[4 * step]..
//   all_lanes<factor>(int32_t): factor times a number in every lane; the factor is 0 or a negative power of two
//   signed_bytes: whether add_products takes signed weights; then steps_of returns iq4_steps - 128, and
//   less_128(B): unsigned bytes less 128, as signed ones.

// What `weights_of` returns for the weight 0.
template <class W>
constexpr int zero_of = signed_bytes && W::format.zero == 128 ? 0 : W::format.zero;

// The weights of inputs 4 * step.. of 16 rows.
template <class W, int step>
POPHOOD_INLINE B weights_of(const uint8_t* group) {
    if constexpr (W::format.bits == 8) {
        const B line = load_line(group + 64 * step);
        if constexpr (zero_of<W> != W::format.zero) return less_128(line);
        else return line;
    } else {
        const B line = load_line(group + 64 * (step % 4));
        B nibbles;
        if constexpr (step < 4) nibbles = low_nibbles(line);
        else nibbles = high_nibbles(line);
        if constexpr (W::format.steps) return steps_of(nibbles);
        else if constexpr (W::format.high_bits == 1) return with_bits<4 - step, 0x10>(nibbles, load_line(group + 256));
        else if constexpr (W::format.high_bits == 2)
            return with_bits<4 - 2 * (step % 4), 0x30>(nibbles, load_line(group + 256 + step / 4 * 64));
        else return nibbles;
    }
}

template <class W, int step>
POPHOOD_INLINE void expand(const uint8_t* group, uint8_t* to) {
    static_assert(!signed_bytes || W::format.zero < 128, "expanded weights are unsigned");
    store_line(to + 64 * step, weights_of<W, step>(group));
    if constexpr (step < 7) expand<W, step + 1>(group, to);
}

// Steps are taken in the order 0, 4, 1, 5, ..., so that one load serves both nibbles, or in half a group in ascending order.
template <class W, int T, int P, int first, int index = 0>
POPHOOD_INLINE void add_steps(const Group<P>& group, I (&dot)[T][P]) {
    constexpr int step = W::steps == 8 && W::format.bits == 4 ? index % 2 * 4 + index / 2 : first + index;
    for (int p = 0; p < P; ++p) {
        const B w = weights_of<W, step>(group.weights[p]);
        for (int t = 0; t < T; ++t) dot[t][p] = add_products<step>(dot[t][p], w, group.x + t * group.x_stride);
    }
    if constexpr (index + 1 < W::steps) add_steps<W, T, P, first, index + 1>(group, dot);
}

template <class W, int T, int P, int first>
POPHOOD_INLINE void all_dots(const Group<P>& group, I (&dot)[T][P]) {
    for (int t = 0; t < T; ++t) {  // stored are weight + zero, so the sum starts at -zero times the sum of x
        const I start = all_lanes<-zero_of<W>>(zero_of<W> ? group.sum(t, first, W::steps) : 0);
        for (int p = 0; p < P; ++p) dot[t][p] = start;
    }
    add_steps<W, T, P, first>(group, dot);
}
