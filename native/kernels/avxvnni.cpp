// AVX-VNNI (small: one instruction): `vpdpbusd` in VEX encoding, for processors that have it without AVX-512. Only the quantised
// products; everything else is in avx2.cpp.
#include <immintrin.h>
#include <string.h>  // memcpy, without the inline functions of <cstring>

#include "kernels/kernels.h"

namespace pophood {
namespace {

inline __m256i add_fours(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
    return _mm256_dpbusd_avx_epi32(sum, unsigned_bytes, signed_bytes);
}

#include "vnni256.inl"

}  // namespace

const QuantizedKernels avxvnni_quantized = {quantize, quantized_matmul};

}  // namespace pophood
