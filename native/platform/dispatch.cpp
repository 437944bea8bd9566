// Dispatch: chooses the kernels, by the features of the processor and by the registers that the operating system saves.
// See kernels.h.
#include <cstring>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "platform/os.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pophood {
namespace {

// A table with other quantised products, and a name of its own.
[[maybe_unused]] Kernels with_quantized(Kernels table, const char* name, const QuantizedKernels& quantized) {
    table.name = name;
    table.quantized = &quantized;
    return table;
}

#if defined(__x86_64__) || defined(_M_X64)

void cpuid(unsigned leaf, unsigned r[4], unsigned subleaf = 0) {
#if defined(_MSC_VER) && defined(_M_X64)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    for (int i = 0; i < 4; ++i) r[i] = static_cast<unsigned>(out[i]);
#else
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
#endif
}

unsigned long long saved_registers() {  // XCR0: the registers that the operating system saves on a context switch
#if defined(_MSC_VER) && defined(_M_X64)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

bool bit(unsigned word, int n) { return (word >> n) & 1u; }

std::vector<const Kernels*> usable_tables() {
    std::vector<const Kernels*> tables = {&scalar_kernels};
    unsigned r[4];
    cpuid(0, r);
    if (r[0] < 7) return tables;
    cpuid(1, r);
    const bool fma = bit(r[2], 12), osxsave = bit(r[2], 27), avx = bit(r[2], 28), f16c = bit(r[2], 29);
    if (!osxsave) return tables;
    const auto state = saved_registers();
    const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xE6) == 0xE6;
    cpuid(7, r);
    const bool avx2 = bit(r[1], 5);
    if (!(avx && avx2 && fma && f16c && ymm)) return tables;
    tables.push_back(&avx2_kernels);
    static const Kernels avxvnni = with_quantized(avx2_kernels, "avxvnni", avxvnni_quantized);
    unsigned more[4] = {};
    if (r[0] >= 1) cpuid(7, more, 1);
    if (bit(more[0], 4)) tables.push_back(&avxvnni);
    if (!(bit(r[1], 16) && bit(r[1], 17) && bit(r[1], 30) && bit(r[1], 31) && zmm)) return tables;
    // Quantised products: those of avx2 without VNNI (Skylake-X), 512-bit ones with it.
    static const Kernels avx512 = with_quantized(avx512_kernels, "avx512", *avx2_kernels.quantized);
    static const Kernels avx512vnni = with_quantized(avx512_kernels, "avx512vnni", avx512vnni_quantized);
    static const Kernels avx512bf16 = [] {
        Kernels table = avx512vnni;
        table.name = "avx512bf16";
        table.bf16 = &avx512bf16_kernels;
        return table;
    }();
    tables.push_back(&avx512);
    if (!bit(r[2], 11)) return tables;
    tables.push_back(&avx512vnni);
    const bool tiles = bit(r[3], 22) && bit(r[3], 24) && bit(r[3], 25) && (state & 0x60000) == 0x60000;
    cpuid(7, r, 1);
    if (!bit(r[0], 5)) return tables;
    tables.push_back(&avx512bf16);
#if defined(POPHOOD_AMX)
    static const Kernels amx = [] {
        Kernels table = avx512bf16;
        table.name = "amx";
        table.quantized = &amxint8_quantized;
        table.bf16 = &amxbf16_kernels;
        return table;
    }();
    if (tiles && allow_tiles()) tables.push_back(&amx);
#else
    static_cast<void>(tiles);
#endif
    return tables;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

std::vector<const Kernels*> usable_tables() {
    static const Kernels dotprod = with_quantized(neon_kernels, "dotprod", dotprod_quantized);
    static const Kernels i8mm = with_quantized(neon_kernels, "i8mm", i8mm_quantized);
    std::vector<const Kernels*> tables = {&scalar_kernels, &neon_kernels};
    const ArmFeatures features = arm_features();
    if (features.dotprod) tables.push_back(&dotprod);
    if (features.dotprod && features.i8mm) tables.push_back(&i8mm);
    return tables;
}

#else

std::vector<const Kernels*> usable_tables() { return {&scalar_kernels}; }

#endif

}  // namespace

const Kernels* choose_kernels(const char* forced) {
    const auto tables = usable_tables();
    if (!forced || !*forced) return tables.back();
    for (const Kernels* table : tables)
        if (std::strcmp(table->name, forced) == 0) return table;
    return nullptr;
}

const char* available_kernels() {
    static const std::string names = [] {
        std::string all;
        for (const Kernels* table : usable_tables()) all += (all.empty() ? "" : " ") + std::string(table->name);
        return all;
    }();
    return names.c_str();
}

}  // namespace pophood
