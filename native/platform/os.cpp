// The only file of native/ that asks which operating system it is compiled for. See os.h.
#include "platform/os.h"

#include <new>
#include <utility>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace pophood {

#if defined(_WIN32)

void* allocate_pages(size_t bytes) {
    void* memory = VirtualAlloc(nullptr, bytes ? bytes : 1, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory) throw std::bad_alloc();
    return memory;
}
void free_pages(void* memory, size_t) noexcept {
    if (memory) VirtualFree(memory, 0, MEM_RELEASE);
}
void on_fork_in_child(void (*)()) {}

#else

namespace {
constexpr size_t huge_page = size_t{2} << 20;

size_t round_to_pages(size_t bytes) { return bytes ? (bytes + 4095) / 4096 * 4096 : 4096; }
}  // namespace

void* allocate_pages(size_t bytes) {
    const size_t size = round_to_pages(bytes);
    // A large block starts on a huge page: more is mapped than needed, and head and tail are unmapped again.
    const size_t slack = size >= huge_page ? huge_page : 0;
    void* raw = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) throw std::bad_alloc();
    char* start = static_cast<char*>(raw);
    if (slack) {
        const size_t head = (huge_page - reinterpret_cast<size_t>(start) % huge_page) % huge_page;
        if (head) munmap(start, head);
        if (slack > head) munmap(start + head + size, slack - head);
        start += head;
#if defined(MADV_HUGEPAGE)
        madvise(start, size, MADV_HUGEPAGE);
#endif
    }
    return start;
}
void free_pages(void* memory, size_t bytes) noexcept {
    if (memory) munmap(memory, round_to_pages(bytes));
}
void on_fork_in_child(void (*function)()) { pthread_atfork(nullptr, nullptr, function); }

#endif

AlignedBuffer::AlignedBuffer(size_t bytes) : memory_(allocate_pages(bytes)), bytes_(bytes) {}
AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
}
AlignedBuffer::~AlignedBuffer() {
    if (memory_) free_pages(memory_, bytes_);
}

void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    asm volatile("yield");
#endif
}

}  // namespace pophood
