// Measures memory bandwidth (small: a contract), for `pophood doctor` and for the ceilings that benchmarks state.
#pragma once

#include <cstdint>

namespace pophood {

// Sums an array of `bytes` with `threads` threads, `rounds` times, and returns the best rate in bytes per second.
double read_bandwidth(int threads, int64_t bytes, int rounds);

}  // namespace pophood
