// The tables of kernels that can run here and are compared with the scalar one (small: two tests share it).
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "kernels/kernels.h"

inline std::vector<const pophood::Kernels*> fast_tables() {
    std::vector<const pophood::Kernels*> tables;
    std::istringstream names(pophood::available_kernels());
    for (std::string name; names >> name;)
        if (name != "scalar") tables.push_back(pophood::choose_kernels(name.c_str()));
    return tables;
}
