// native_tests [--quick]: the C++ part without Python, for sanitizers, emulators and other compilers.
#include "../kernels.h"
#include "check.h"

std::vector<check::Test>& check::all() {
    static std::vector<Test> tests;
    return tests;
}

int main(int argc, char** argv) {
    const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
    std::printf("kernels: %s\n", pophood::available_kernels());
    for (const check::Test& test : check::all()) {
        std::printf("%s ...", test.name);
        std::fflush(stdout);
        test.run(quick);
        std::printf(" ok\n");
    }
    std::printf("%zu passed, 0 failed\n", check::all().size());
    return 0;
}
