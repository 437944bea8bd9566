// Large memory (small: one subject): zeroed, aligned, and nobody else's, in whatever order blocks come and go.
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "check.h"
#include "platform/os.h"

using namespace pophood;

namespace {

// Allocates and frees blocks of 1 byte to 3 MiB at random; each is filled with a mark of its own and checked before it is freed.
void come_and_go(uint64_t seed, int steps) {
    check::Random random(seed);
    struct Held {
        AlignedBuffer buffer;
        uint8_t mark;
    };
    std::vector<Held> held;
    const auto all_are = [](const AlignedBuffer& buffer, uint8_t value) {
        const auto* bytes = static_cast<const uint8_t*>(buffer.get());
        return bytes[0] == value && std::memcmp(bytes, bytes + 1, buffer.bytes() - 1) == 0;
    };
    for (int step = 0; step < steps; ++step) {
        if (held.size() == 12 || (!held.empty() && random.bits() % 2 == 0)) {
            const size_t index = random.bits() % held.size();
            CHECK(all_are(held[index].buffer, held[index].mark), "somebody else wrote to it");
            held[index] = std::move(held.back());
            held.pop_back();
            continue;
        }
        AlignedBuffer buffer(1 + random.bits() % (size_t{1} << (10 + random.bits() % 12)));
        CHECK(reinterpret_cast<uintptr_t>(buffer.get()) % 64 == 0);
        CHECK(all_are(buffer, 0), "new memory is not zero");
        const auto mark = static_cast<uint8_t>(1 + random.bits() % 255);
        std::memset(buffer.get(), mark, buffer.bytes());
        held.push_back({std::move(buffer), mark});
    }
}

}  // namespace

TEST(blocks_of_memory_are_zeroed_and_belong_to_one_owner) {
    std::vector<std::thread> owners;
    for (uint64_t seed = 1; seed <= 3; ++seed) owners.emplace_back([&, seed] { come_and_go(seed, quick ? 200 : 3'000); });
    for (std::thread& owner : owners) owner.join();
}

TEST(one_block_at_a_time_takes_no_new_addresses) {
    std::set<uintptr_t> places;  // of 64 MiB
    for (int i = 0; i < 5'000; ++i) places.insert(reinterpret_cast<uintptr_t>(AlignedBuffer(100 << 10).get()) >> 26);
    CHECK(places.size() <= 4, "%zu places for one block after the other", places.size());
}
