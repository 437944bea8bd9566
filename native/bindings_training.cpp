// Python <-> training's kernels: bfloat16 arrives as int16 arrays, contiguous; their sizes are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings.h"
#include "training.h"

namespace nb = nanobind;
using namespace pophood;

namespace {

using Halves = nb::ndarray<int16_t, nb::c_contig, nb::device::cpu>;
using Constant = nb::ndarray<const int16_t, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using ConstantFloats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Targets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class Array>
auto bits(const Array& array) {
    if constexpr (std::is_const_v<std::remove_pointer_t<decltype(array.data())>>)
        return reinterpret_cast<const Bfloat*>(array.data());
    else
        return reinterpret_cast<Bfloat*>(array.data());
}

template <class Array>
int64_t last(const Array& array) {
    if (array.ndim() == 0 || array.size() == 0) throw nb::value_error("an array has no element");
    return static_cast<int64_t>(array.shape(array.ndim() - 1));
}

template <class Array>
int64_t size(const Array& array) {
    return static_cast<int64_t>(array.size());
}

void need(bool alike) {
    if (!alike) throw nb::value_error("arrays that belong together differ in size");
}

Dropout dropout_of(uint32_t seed, float rate) {
    if (rate <= 0.0f) return {};
    if (!(rate < 1.0f)) throw nb::value_error("a dropout is at least 0 and below 1");
    return {seed, static_cast<uint32_t>(static_cast<double>(rate) * 2147483648.0), 1.0f / (1.0f - rate)};
}

void adamw(const Halves& high, const Halves& low, const Constant& gradient, const Halves& mean, const Halves& square,
           float factor, float rate, float beta1, float beta2, float epsilon, float decay, float correction1,
           float correction2, uint32_t seed, int threads) {
    need(low.size() == high.size() && gradient.size() == high.size() && mean.size() == high.size() &&
         square.size() == high.size());
    const AdamW parameter{bits(high),  low.data(), bits(gradient), bits(mean), bits(square),
                          size(high),  factor,     rate,           beta1,      beta2,
                          epsilon,     decay,      correction1,    correction2, seed};
    nb::gil_scoped_release released;
    update(parameter, threads);
}

double squares(const Constant& x, int threads) {
    nb::gil_scoped_release released;
    return sum_of_squares(bits(x), size(x), threads);
}

void gelu_forward(const Constant& x, const Halves& y, int threads) {
    need(x.size() == y.size());
    nb::gil_scoped_release released;
    gelu(bits(x), bits(y), size(x), threads);
}

void gelu_backward(const Constant& x, const Constant& d_y, const Halves& d_x, int threads) {
    need(x.size() == d_y.size() && x.size() == d_x.size());
    nb::gil_scoped_release released;
    gelu_back(bits(x), bits(d_y), bits(d_x), size(x), threads);
}

void swiglu_forward(const Constant& gate, const Constant& up, const Halves& y, int threads) {
    need(gate.size() == up.size() && gate.size() == y.size());
    nb::gil_scoped_release released;
    swiglu(bits(gate), bits(up), bits(y), size(gate), threads);
}

void swiglu_backward(const Constant& gate, const Constant& up, const Constant& d_y, const Halves& d_gate,
                     const Halves& d_up, int threads) {
    need(gate.size() == up.size() && gate.size() == d_y.size() && gate.size() == d_gate.size() &&
         gate.size() == d_up.size());
    nb::gil_scoped_release released;
    swiglu_back(bits(gate), bits(up), bits(d_y), bits(d_gate), bits(d_up), size(gate), threads);
}

Norm norm_of(const Constant& x, const Constant& gain, const std::optional<Constant>& bias, float epsilon, bool rms) {
    need(last(x) == size(gain) && (!bias || bias->size() == gain.size()));
    return {bits(x), bits(gain), bias ? bits(*bias) : nullptr, epsilon, rms, size(x) / last(x), last(x)};
}

void norm_forward(const Constant& x, const Constant& gain, const std::optional<Constant>& bias, float epsilon, bool rms,
                  const Halves& y, int threads) {
    need(x.size() == y.size());
    const Norm of = norm_of(x, gain, bias, epsilon, rms);
    nb::gil_scoped_release released;
    norm(of, bits(y), threads);
}

void norm_backward(const Constant& x, const Constant& gain, float epsilon, bool rms, const Constant& d_y,
                   const Halves& d_x, const std::optional<Floats>& d_gain, const std::optional<Floats>& d_bias,
                   int threads) {
    need(x.size() == d_y.size() && x.size() == d_x.size() && (!d_gain || d_gain->size() == gain.size()) &&
         (!d_bias || (d_gain && d_bias->size() == gain.size())));
    const Norm of = norm_of(x, gain, {}, epsilon, rms);
    nb::gil_scoped_release released;
    norm_back(of, bits(d_y), bits(d_x), d_gain ? d_gain->data() : nullptr, d_bias ? d_bias->data() : nullptr, threads);
}

Pattern pattern_of(const Halves& score, int64_t first, uint32_t seed, float rate) {
    need(score.ndim() == 3 && first >= 0);
    return {bits(score), static_cast<int64_t>(score.shape(0)), static_cast<int64_t>(score.shape(1)), last(score), first,
            dropout_of(seed, rate)};
}

void soften_forward(const Halves& score, int64_t first, uint32_t seed, float rate, int threads) {
    const Pattern pattern = pattern_of(score, first, seed, rate);
    nb::gil_scoped_release released;
    soften(pattern, threads);
}

void soften_backward(const Halves& score, int64_t first, uint32_t seed, float rate, const Halves& d_pattern,
                     const ConstantFloats& own, int threads) {
    const Pattern pattern = pattern_of(score, first, seed, rate);
    need(score.size() == d_pattern.size() && size(own) == pattern.matrices * pattern.queries);
    nb::gil_scoped_release released;
    soften_back(pattern, bits(d_pattern), own.data(), threads);
}

void add_dropped_rows(const std::optional<Constant>& x, const Constant& y, const Halves& out, uint32_t seed, float rate,
                      int threads) {
    need(y.size() == out.size() && (!x || x->size() == y.size()));
    const int64_t n = last(y), rows = size(y) / n;
    const Dropout dropout = dropout_of(seed, rate);
    nb::gil_scoped_release released;
    add_dropped(x ? bits(*x) : nullptr, bits(y), bits(out), rows, n, dropout, threads);
}

void turn_heads(const Constant& x, const ConstantFloats& cosines, const ConstantFloats& sines, bool back,
                const Halves& out, int threads) {
    const int64_t d = last(x), heads = x.ndim() < 2 ? 1 : static_cast<int64_t>(x.shape(x.ndim() - 2));
    const int64_t tokens = size(x) / d / heads;
    need(d % 2 == 0 && x.size() == out.size() && size(cosines) == tokens * (d / 2) && cosines.size() == sines.size());
    nb::gil_scoped_release released;
    turn(bits(x), cosines.data(), sines.data(), back, bits(out), tokens, heads, d, threads);
}

void cross_entropy(const Halves& logits, const Targets& targets, float scale, const Floats& loss, bool columns, int threads) {
    const size_t across = columns ? 1 : 0;  // the axis of the tokens
    need(logits.ndim() == 2 && logits.shape(across) == targets.size() && loss.size() == targets.size());
    const auto vocabulary = static_cast<int64_t>(logits.shape(1 - across));
    for (int64_t c = 0; c < size(targets); ++c)
        if (targets.data()[c] < 0 || targets.data()[c] >= vocabulary) throw nb::index_error("a target is no token");
    nb::gil_scoped_release released;
    if (columns)
        column_cross_entropy(bits(logits), targets.data(), vocabulary, size(targets), scale, loss.data(), threads);
    else
        row_cross_entropy(bits(logits), targets.data(), size(targets), vocabulary, scale, loss.data(), threads);
}

}  // namespace

void bind_training(nb::module_& m) {
    m.doc() = "What training computes between the products of matrices; its callers are in pophood.train.";
    const auto seed = nb::arg("seed"), rate = nb::arg("rate"), threads = nb::arg("threads");
    m.def("borrow_threads", [](uintptr_t region) { borrow_threads(reinterpret_cast<ParallelRegion>(region)); });
    m.def("adamw", adamw, nb::arg("high"), nb::arg("low"), nb::arg("gradient"), nb::arg("mean"), nb::arg("square"),
          nb::kw_only(), nb::arg("factor"), rate, nb::arg("beta1"), nb::arg("beta2"), nb::arg("epsilon"),
          nb::arg("decay"), nb::arg("correction1"), nb::arg("correction2"), seed, threads);
    m.def("sum_of_squares", squares);
    m.def("gelu", gelu_forward);
    m.def("gelu_back", gelu_backward);
    m.def("swiglu", swiglu_forward);
    m.def("swiglu_back", swiglu_backward);
    m.def("norm", norm_forward, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("norm_back", norm_backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg().none(), nb::arg().none(), nb::arg());
    m.def("soften", soften_forward);
    m.def("soften_back", soften_backward);
    m.def("add_dropped", add_dropped_rows, nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("turn", turn_heads);
    m.def("cross_entropy", cross_entropy);
}
