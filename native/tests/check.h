// A minimal test framework: TEST defines a named test, and a failed CHECK prints its place and exits with 1.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace check {

struct Test {
    const char* name;
    void (*run)(bool quick);
};
std::vector<Test>& all();
struct Register {
    Register(const char* name, void (*run)(bool)) { all().push_back({name, run}); }
};

#define TEST(name)                                   \
    static void name(bool quick);                    \
    static const check::Register register_##name(#name, name); \
    static void name([[maybe_unused]] bool quick)

#define CHECK(condition, ...)                                         \
    do {                                                              \
        if (!(condition)) {                                           \
            std::printf("%s:%d: %s ", __FILE__, __LINE__, #condition); \
            __VA_OPT__(std::printf(__VA_ARGS__);)                     \
            std::printf("\n");                                        \
            std::exit(1);                                             \
        }                                                             \
    } while (0)

// Reproducible numbers of about unit variance (splitmix64, sum of four uniforms).
class Random {
   public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits() {
        uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    float value() {
        float sum = 0.0f;
        for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits() >> 40) / 16777216.0f - 0.5f;
        return sum * 1.7320508f;
    }
    std::vector<float> values(int64_t n, float scale = 1.0f) {
        std::vector<float> v(static_cast<size_t>(n));
        for (float& x : v) x = value() * scale;
        return v;
    }

   private:
    uint64_t state_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace check
