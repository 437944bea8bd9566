// One thread pool for the whole process (small: a contract), shared by all engines. The caller is worker 0.
#pragma once

#include <cstdint>
#include <functional>

namespace pophood {

// Calls work(begin, end, worker) for chunks that cover 0..items-1, on at most `threads` workers, and returns when all are
// done. Every worker has a share of neighbouring chunks; one that is done with its own takes from the others', so a slow
// core does less. Results must not depend on the worker.
// `work` must not throw. Only one call at a time runs in parallel; a second caller works alone.
void parallel_for(int threads, int64_t items, int64_t chunk,
                  const std::function<void(int64_t begin, int64_t end, int worker)>& work);

// Idle workers spin for at most 50 microseconds before they sleep. Forbid it when threads outnumber processors.
void allow_spinning(bool allowed);

inline constexpr int max_threads = 256;

}  // namespace pophood
