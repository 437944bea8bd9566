// One pool of threads for the whole process, shared by all engines. The caller is worker 0.
#pragma once

#include <cstdint>
#include <functional>

namespace pophood {

// Calls work(begin, end, worker) for pieces that cover 0..items-1, on at most `threads` workers, and returns when
// all are done. Pieces are handed out as workers become free, so a slow core does less; results may not depend on
// who did what. `work` must not throw. One call at a time runs in parallel: a second caller works alone.
void parallel_for(int threads, int64_t items, int64_t piece,
                  const std::function<void(int64_t begin, int64_t end, int worker)>& work);

// Workers spin for at most 50 microseconds and then sleep; with more threads than processors they sleep at once.
void allow_spinning(bool allowed);

inline constexpr int max_threads = 256;

}  // namespace pophood
