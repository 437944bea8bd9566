// GGUF's blocks, as files hold them, into panels (small: a contract).
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace pophood {

// Writes the blocks of up to 16 rows, which begin at `from`, as one panel in the layout of Matmul in kernels.h. The panel's
// memory is zero before.
void pack_blocks(WeightType type, const uint8_t* const* from, int64_t rows, int64_t groups, uint8_t* panel);

}  // namespace pophood
