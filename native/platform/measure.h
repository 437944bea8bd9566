// Measures this machine's two ceilings (small: a contract): memory bandwidth and the rate of 8-bit products.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace pophood {

// Sums an array of `bytes` with `threads` threads, `rounds` times, and returns the best rate in bytes per second.
double read_bandwidth(int threads, int64_t bytes, int rounds);

// Multiplies Q8_0 weights by many rows of activations that stay in the caches, `rounds` times, and returns the best rate in
// operations per second; one multiplication and one addition are two operations.
double multiply_rate(const Kernels& kernels, int threads, int rounds);

}  // namespace pophood
