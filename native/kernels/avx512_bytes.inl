// One step of weights (four inputs of 16 rows) as bytes in AVX-512 (small: two files with quantized_panels.inl share it).

inline __m512i load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }

// What a plane of one or two more bits per weight adds to the nibbles of a step: the bits of each byte in 0x10 or 0x30. The
// shifts are over 16 bits; what crosses from one byte to the next is masked away.
template <class W, int step>
POPHOOD_INLINE __m512i with_high_bits(__m512i nibbles, __m512i plane) {
    constexpr int up = W::format.high_bits == 1 ? 4 - step : 4 - 2 * (step % 4);
    const __m512i mask = _mm512_set1_epi8(W::format.high_bits == 1 ? 0x10 : 0x30);
    const __m512i moved = up > 0 ? _mm512_slli_epi16(plane, up > 0 ? up : 0) : _mm512_srli_epi16(plane, up > 0 ? 0 : -up);
    return _mm512_ternarylogic_epi32(nibbles, moved, mask, 0xF8);  // nibbles | (moved & mask)
}

// The weights of inputs 4 * step.. of 16 rows, as unsigned bytes.
template <class W, int step>
POPHOOD_INLINE __m512i weights_of(const uint8_t* group) {
    if constexpr (W::format.bits == 8) return load_bytes(group + 64 * step);
    const __m512i line = load_bytes(group + 64 * (step % 4));
    const __m512i nibbles = _mm512_and_si512(step < 4 ? line : _mm512_srli_epi16(line, 4), _mm512_set1_epi8(15));
    if constexpr (W::format.steps)
        return _mm512_shuffle_epi8(
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(iq4_steps))), nibbles);
    if constexpr (W::format.high_bits == 0) return nibbles;
    return with_high_bits<W, step>(nibbles, load_bytes(group + 256 + (W::format.high_bits == 2 ? step / 4 * 64 : 0)));
}

template <class W, int step>
POPHOOD_INLINE void expand(const uint8_t* group, uint8_t* to) {
    _mm512_storeu_si512(to + 64 * step, weights_of<W, step>(group));
    if constexpr (step < 7) expand<W, step + 1>(group, to);
}
