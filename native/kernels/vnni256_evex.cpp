// The source of avxvnni.cpp in EVEX encoding (small: one instruction), so that its products are also tested on processors that
// have AVX-512 VNNI alone. A part of native_tests, not of the library: with AVX-512 VNNI the kernels of 512 bits are faster.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

inline __m256i add_fours(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
    return _mm256_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
}

#include "vnni256.inl"

}  // namespace

extern const QuantizedKernels vnni256_evex_quantized = {quantize, quantized_matmul};

}  // namespace pophood
