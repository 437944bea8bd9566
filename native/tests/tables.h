// The tables of kernels that can run here and are compared with the scalar one (small: two tests share it).
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "kernels/kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
namespace pophood {
extern const QuantizedKernels vnni256_evex_quantized;  // kernels/vnni256_evex.cpp
}
#endif

inline std::vector<const pophood::Kernels*> fast_tables() {
    std::vector<const pophood::Kernels*> tables;
    std::istringstream names(pophood::available_kernels());
    for (std::string name; names >> name;)
        if (name != "scalar") tables.push_back(pophood::choose_kernels(name.c_str()));
#if defined(__x86_64__) || defined(_M_X64)
    if (const pophood::Kernels* avx512vnni = pophood::choose_kernels("avx512vnni")) {
        static pophood::Kernels evex = *avx512vnni;
        evex.name = "vnni256_evex";
        evex.quantized = &pophood::vnni256_evex_quantized;
        tables.push_back(&evex);
    }
#endif
    return tables;
}
