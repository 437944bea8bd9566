// The only file of native/ that asks which operating system it is compiled for. See os.h.
#include "platform/os.h"

#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
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
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
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

// Not std::atomic's own wait: mingw-w64's (GCC 12) tests the value before it locks, and a wake-up in between is lost.
void sleep_while(const std::atomic<uint32_t>& value, uint32_t now) {
    WaitOnAddress(const_cast<std::atomic<uint32_t>*>(&value), &now, sizeof now, INFINITE);
}
void wake_all(std::atomic<uint32_t>& value) { WakeByAddressAll(&value); }

#else

namespace {
constexpr size_t huge_page = size_t{2} << 20;

size_t round_to_pages(size_t bytes) { return bytes ? (bytes + 4095) / 4096 * 4096 : 4096; }

// Maps memory that starts on a huge page: more is mapped than needed, and head and tail are unmapped again.
char* map_pages(size_t size) {
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

#if defined(MADV_HUGEPAGE)
// Blocks of middle size lie next to each other in large regions. By themselves they would begin or end in pages of 4 KiB, like
// most matrices of a small model and the blocks of its KV cache, and reading those costs a tenth of decoding.
class SharedRegions {
   public:
    static bool take(size_t size) { return size >= smallest && size < region; }

    char* allocate(size_t size) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (regions_.empty() || current_->used + size > whole) {
            char* start = map_pages(whole);
            current_ = &regions_.emplace(start, Region{0, 0}).first->second;
            start_ = start;
        }
        char* memory = start_ + current_->used;
        current_->used += size;
        ++current_->blocks;
        return memory;
    }

    // The memory goes back to the system at once, the addresses with the last block of a region.
    void free(char* memory, size_t size) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto entry = std::prev(regions_.upper_bound(memory));
        Region& owner = entry->second;
        if (--owner.blocks == 0 && &owner != current_) {
            munmap(entry->first, whole);
            regions_.erase(entry);
            return;
        }
        madvise(memory, size, MADV_DONTNEED);  // reads as zeros from now on
        if (owner.blocks == 0) owner.used = 0;
    }

    static SharedRegions& instance() {
        static auto* regions = [] {
            pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); }, [] { instance().mutex_.unlock(); });
            return new SharedRegions;  // never destroyed: blocks may outlive static objects at exit
        }();
        return *regions;
    }

   private:
    static constexpr size_t smallest = 4 << 10, region = size_t{16} << 20, whole = 4 * region;
    struct Region {
        size_t used;     // bytes from the start on that were given out, and are not given out again while a block lives
        int64_t blocks;  // that are not freed
    };
    std::mutex mutex_;
    std::map<char*, Region> regions_;
    Region* current_ = nullptr;
    char* start_ = nullptr;
};
#endif
}  // namespace

void* allocate_pages(size_t bytes) {
    const size_t size = round_to_pages(bytes);
#if defined(MADV_HUGEPAGE)
    if (SharedRegions::take(size)) return SharedRegions::instance().allocate(size);
#endif
    return map_pages(size);
}
void free_pages(void* memory, size_t bytes) noexcept {
    if (!memory) return;
    const size_t size = round_to_pages(bytes);
#if defined(MADV_HUGEPAGE)
    if (SharedRegions::take(size)) return SharedRegions::instance().free(static_cast<char*>(memory), size);
#endif
    munmap(memory, size);
}
void on_fork_in_child(void (*function)()) { pthread_atfork(nullptr, nullptr, function); }
void sleep_while(const std::atomic<uint32_t>& value, uint32_t now) { value.wait(now, std::memory_order_acquire); }
void wake_all(std::atomic<uint32_t>& value) { value.notify_all(); }

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

#if defined(__APPLE__) && defined(__aarch64__)

ArmFeatures arm_features() {
    const auto has = [](const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    return {has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM")};
}

#elif defined(__linux__) && defined(__aarch64__)

ArmFeatures arm_features() {
    constexpr unsigned long dot_products = 1ul << 20, matrix_products = 1ul << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
    return {(getauxval(AT_HWCAP) & dot_products) != 0, (getauxval(AT_HWCAP2) & matrix_products) != 0};
}

#elif defined(_WIN32) && defined(_M_ARM64)

ArmFeatures arm_features() {
    constexpr DWORD dot_products = 43, matrix_products = 66;  // PF_ARM_V82_..._INSTRUCTIONS_AVAILABLE of newer headers
    return {IsProcessorFeaturePresent(dot_products) != 0, IsProcessorFeaturePresent(matrix_products) != 0};
}

#else

ArmFeatures arm_features() { return {}; }

#endif

#if defined(__linux__) && defined(__x86_64__)

bool allow_tiles() {
    static const bool allowed = [] {
        constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA, since Linux 5.16
        return syscall(SYS_arch_prctl, request, tile_data) == 0;
    }();
    return allowed;
}

#else

bool allow_tiles() { return false; }

#endif

void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    asm volatile("yield");
#endif
}

}  // namespace pophood
