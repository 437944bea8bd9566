// Everything in native/ that differs between operating systems (small: a contract): large zeroed memory, pauses,
// sleeping until a number changes, fork, features of Arm processors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pophood {

// Returns `bytes` of zeroed memory, 64-byte aligned, in huge pages where the system grants them. Throws std::bad_alloc.
void* allocate_pages(size_t bytes);
void free_pages(void* memory, size_t bytes) noexcept;

// Memory from allocate_pages that frees itself.
class AlignedBuffer {
   public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(size_t bytes);
    AlignedBuffer(AlignedBuffer&& other) noexcept;
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
    ~AlignedBuffer();
    float* floats() const { return static_cast<float*>(memory_); }
    void* get() const { return memory_; }
    size_t bytes() const { return bytes_; }

   private:
    void* memory_ = nullptr;
    size_t bytes_ = 0;
};

// Tells the processor that this is a spin loop.
void pause_briefly();

// Sleeps until wake_all is called for `value`, unless that is no longer `now`. May also return for no reason.
void sleep_while(const std::atomic<uint32_t>& value, uint32_t now);
void wake_all(std::atomic<uint32_t>& value);

// Calls `function` in every child process right after fork(). Does nothing on Windows.
void on_fork_in_child(void (*function)());

// Instructions that only some Arm processors have, as the operating system reports them: dot products of bytes (FEAT_DotProd)
// and their matrix products (FEAT_I8MM). None on other processors.
struct ArmFeatures {
    bool dotprod = false, i8mm = false;
};
ArmFeatures arm_features();

// Asks the operating system to save AMX's tile registers for this process and its children. Returns whether it does; on
// systems other than Linux it is not asked.
bool allow_tiles();

}  // namespace pophood
