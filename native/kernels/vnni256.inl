// The quantised products with `vpdpbusd` on registers of 256 bits. A file that includes it, inside an anonymous namespace, defines
// add_fours(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes), the intrinsic of its encoding.

constexpr int64_t quantized_tokens = tile_size<6>, quantized_panels = 1;  // 12 integer sums, 2 of weights, 1 of inputs: 15 of 16 registers

#include "avx2_lanes.inl"
#include "lanes.inl"

template <class W>
constexpr bool expands = W::format.high_bits != 0 || W::format.nested || W::format.steps;

#include "quantized.inl"

constexpr bool signed_bytes = false;

struct B {
    __m256i low, high;
};

inline B load_line(const uint8_t* p) { return {load_bytes(p), load_bytes(p + 32)}; }
inline void store_line(uint8_t* p, B a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.high);
}
inline B less_128(B a) {
    const __m256i highest = _mm256_set1_epi8(-128);
    return {_mm256_xor_si256(a.low, highest), _mm256_xor_si256(a.high, highest)};
}
inline B low_nibbles(B a) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
}
inline B high_nibbles(B a) { return low_nibbles({_mm256_srli_epi16(a.low, 4), _mm256_srli_epi16(a.high, 4)}); }
inline B steps_of(B nibbles) {
    const __m256i steps = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(iq4_steps)));
    return {_mm256_shuffle_epi8(steps, nibbles.low), _mm256_shuffle_epi8(steps, nibbles.high)};
}
// The shifts are over 16 bits; what crosses from one byte to the next is masked away.
template <int up, int mask>
inline __m256i with_bits(__m256i nibbles, __m256i plane) {
    const __m256i moved = up > 0 ? _mm256_slli_epi16(plane, up > 0 ? up : 0) : _mm256_srli_epi16(plane, up > 0 ? 0 : -up);
    return _mm256_or_si256(nibbles, _mm256_and_si256(moved, _mm256_set1_epi8(mask)));
}
template <int up, int mask>
inline B with_bits(B nibbles, B plane) {
    return {with_bits<up, mask>(nibbles.low, plane.low), with_bits<up, mask>(nibbles.high, plane.high)};
}
template <int step>
inline I add_products(I sum, B weights, const int8_t* x) {
    const __m256i four = four_of(x + 4 * step);
    return {add_fours(sum.low, weights.low, four), add_fours(sum.high, weights.high, four)};
}
constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }
template <int factor>
inline I all_lanes(int32_t a) {
    __m256i lanes = _mm256_setzero_si256();
    if constexpr (factor != 0) lanes = _mm256_sub_epi32(lanes, _mm256_slli_epi32(_mm256_set1_epi32(a), log2_of(-factor)));
    return {lanes, lanes};
}

#include "byte_dots.inl"

template <class W, int T, int P, int first>
POPHOOD_INLINE void dots(const Group<P>& group, I (&dot)[T][P]) {
    all_dots<W, T, P, first>(group, dot);
}
