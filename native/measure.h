// What this machine's memory gives, for `doctor` and for the ceilings that benchmarks state.
#pragma once

#include <cstdint>

namespace pophood {

// The best of `rounds` sums over an array of `bytes` in huge pages, read by `threads` threads: bytes per second.
double read_bandwidth(int threads, int64_t bytes, int rounds);

}  // namespace pophood
