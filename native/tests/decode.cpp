// native_tests --decode N [q8_0 | iq4_nl] (small: one loop): generates N tokens on one thread, with a model of GPT-2 small's
// shape and a short vocabulary, at f32 or in blocks, for counting instructions. The difference between two values of N gives
// the cost of a token.
#include <algorithm>
#include <utility>

#include "engine/engine.h"
#include "check.h"

using namespace pophood;

int decode(int tokens, const std::string& blocks) {
    const WeightType type = blocks == "q8_0" ? WeightType::q8_0 : blocks == "iq4_nl" ? WeightType::iq4_nl : WeightType::f32;
    const Config config = {12,   12,   12,   768,  64,   3072, 5003, 1024,
                           false, 1e-5f, Activation::gelu_tanh, false, true, true, true, false, true, {}};
    Engine engine(config, 1, *choose_kernels(std::getenv("POPHOOD_ISA")));
    check::Random random(5);
    const auto values = random.values(4'000'000, 0.02f);
    const std::pair<int64_t, int64_t> shapes[] = {{5003, 768}, {1024, 768}, {768, 768}, {3072, 768}, {768, 3072}, {768, 0}, {3072, 0}};
    for (const std::string& name : engine.missing_tensors())
        for (const auto& [rows, cols] : shapes) try {  // the engine accepts the shape that fits
                const TensorView view{values.data(), WeightType::f32, cols ? 2 : 1, {rows, cols ? cols : 1}, {cols ? cols * 4 : 4, 4}};
                engine.set_tensor(name, view, cols && name != "embed.position" ? type : WeightType::f32);
                break;
            } catch (const std::invalid_argument&) {
            }
    const int64_t sequence = engine.create(), row = 0;
    std::vector<float> logits(static_cast<size_t>(config.vocab_size));
    int32_t token = 1;
    for (int i = 0; i < tokens; ++i) {
        engine.forward({&token, &sequence, 1, Output::logits, &row, 1, logits.data(), {}, nullptr});
        token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
    std::printf("%d tokens, the last %d\n", tokens, token);
    return 0;
}
