// native_tests [--quick | --kernels | --decode N [TYPE]] (small: the command line): tests the C++ part without Python, for
// sanitizers, emulators and other compilers, and counts instructions (decode.cpp).
#include "kernels/kernels.h"
#include "check.h"

std::vector<check::Test>& check::all() {
    static std::vector<Test> tests;
    return tests;
}

int decode(int tokens, const std::string& blocks);

int main(int argc, char** argv) {
    const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
    if (argc > 2 && std::strcmp(argv[1], "--decode") == 0) return decode(std::atoi(argv[2]), argc > 3 ? argv[3] : "");
    std::printf("kernels: %s\n", pophood::available_kernels());
    if (argc > 1 && std::strcmp(argv[1], "--kernels") == 0) return 0;
    for (const check::Test& test : check::all()) {
        std::printf("%s ...", test.name);
        std::fflush(stdout);
        test.run(quick);
        std::printf(" ok\n");
    }
    std::printf("%zu passed, 0 failed\n", check::all().size());
    return 0;
}
