// AdamW over float32 masters that are kept as two halves. Numbers only; its one caller is train/optimizer.py.
#pragma once

#include <cstdint>

namespace pophood {

// master = (high << 16) + low: `high` is the bfloat16 that is multiplied, `low` the signed rest of the bits.
struct AdamW {
    uint16_t* high;
    int16_t* low;
    const uint16_t* gradient;  // bfloat16
    float* mean;
    float* square;
    int64_t n;
    float factor;   // the gradient is multiplied by it first (clipping)
    float rate, beta1, beta2, epsilon, decay;
    float correction1, correction2;  // 1 - beta^step
};

// One update (Loshchilov and Hutter 2019), as torch.optim.AdamW makes it. Element by element: the bits do not
// depend on the number of threads.
void update(const AdamW& parameter, int threads);

}  // namespace pophood
