// Lines of 64 bytes in four NEON registers (small: what neon_dotprod.cpp and neon_i8mm.cpp share), for byte_dots.inl.

struct B {
    uint8x16_t q[4];
};

#define EACH_B(expression) \
    B r;                   \
    for (int i = 0; i < 4; ++i) r.q[i] = (expression); \
    return r

inline B load_line(const uint8_t* p) { EACH_B(vld1q_u8(p + 16 * i)); }
inline void store_line(uint8_t* p, B a) {
    for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, a.q[i]);
}
inline B less_128(B a) { EACH_B(veorq_u8(a.q[i], vdupq_n_u8(0x80))); }
inline B low_nibbles(B a) { EACH_B(vandq_u8(a.q[i], vdupq_n_u8(15))); }
inline B high_nibbles(B a) { EACH_B(vshrq_n_u8(a.q[i], 4)); }

template <int up, int mask>
inline B with_bits(B nibbles, B plane) {
    const uint8x16_t m = vdupq_n_u8(mask);
    if constexpr (up > 0) {
        EACH_B(vorrq_u8(nibbles.q[i], vandq_u8(vshlq_n_u8(plane.q[i], up > 0 ? up : 0), m)));
    } else if constexpr (up == 0) {
        EACH_B(vorrq_u8(nibbles.q[i], vandq_u8(plane.q[i], m)));
    } else {
        EACH_B(vorrq_u8(nibbles.q[i], vandq_u8(vshrq_n_u8(plane.q[i], up < 0 ? -up : 1), m)));
    }
}

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }
inline int32x4_t negative_multiple(int32x4_t a, int power) { return vnegq_s32(vshlq_s32(a, vdupq_n_s32(log2_of(power)))); }
template <int factor>
inline I all_lanes(int32_t a) {
    int32x4_t lanes = vdupq_n_s32(0);
    if constexpr (factor != 0) lanes = negative_multiple(vdupq_n_s32(a), -factor);
    EACH_I(vreinterpretq_u32_s32(lanes));
}
