// What differs between operating systems, for native/: large zeroed memory, pauses, the process id.
#pragma once

#include <cstddef>

namespace pophood {

// `bytes` of zeroed memory, 64-byte aligned, in huge pages where the system grants them; throws std::bad_alloc.
void* allocate_pages(size_t bytes);
void free_pages(void* memory, size_t bytes) noexcept;

// Tells the processor that this is a spin loop.
void pause_briefly();

// Calls `function` in a child process right after fork(), where there is such a thing.
void on_fork_in_child(void (*function)());

}  // namespace pophood
