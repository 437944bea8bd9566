// Quantising 32 weights as one of GGUF's blocks (small: a contract), for `precision` q8 and q4.
#pragma once

#include <cstdint>

namespace pophood {

// Writes a block of Q8_0, as ggml does: the scale max|w| / 127 in f16, rounding halves away from zero.
void quantize_to_q8_0(const float* w, uint8_t* block);

// Writes a block of IQ4_NL with the scale, of those that are tried, that leaves the smallest sum of weighted squared errors.
// `inputs` estimates the sizes of the 32 inputs, relative to one another. A group with an infinity or a NaN gets the scale NaN.
void quantize_to_iq4_nl(const float* w, const float* inputs, uint8_t* block);

}  // namespace pophood
