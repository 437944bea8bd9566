// The Python submodule _native.training: checks sizes and calls the functions of training.h. A bfloat16 array arrives as
// a contiguous int16 array.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings/bindings.h"
#include "training/training.h"

namespace nb = nanobind;
using namespace pophood;

namespace {

using Bfloats = nb::ndarray<int16_t, nb::c_contig, nb::device::cpu>;
using ConstantBfloats = nb::ndarray<const int16_t, nb::c_contig, nb::device::cpu>;
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
int64_t last_dimension(const Array& array) {
    if (array.ndim() == 0 || array.size() == 0) throw nb::value_error("an array is empty");
    return static_cast<int64_t>(array.shape(array.ndim() - 1));
}

template <class Array>
int64_t size(const Array& array) {
    return static_cast<int64_t>(array.size());
}

void require_equal_sizes(bool equal) {
    if (!equal) throw nb::value_error("arrays that belong together differ in size");
}

Dropout make_dropout(uint32_t seed, float rate) {
    if (rate <= 0.0f) return {};
    if (!(rate < 1.0f)) throw nb::value_error("a dropout is at least 0 and below 1");
    return {seed, static_cast<uint32_t>(static_cast<double>(rate) * 2147483648.0), 1.0f / (1.0f - rate)};
}

void py_adamw(const Bfloats& weight, const Bfloats& remainder, const ConstantBfloats& gradient, const Bfloats& moment1,
              const Bfloats& moment2, float gradient_scale, float learning_rate, float beta1, float beta2, float epsilon,
              float weight_decay, float bias_correction1, float bias_correction2, uint32_t seed, int threads) {
    const size_t n = weight.size();
    require_equal_sizes(remainder.size() == n && gradient.size() == n && moment1.size() == n && moment2.size() == n);
    const AdamWStep step{bits(weight), remainder.data(), bits(gradient), bits(moment1), bits(moment2),
                         size(weight), gradient_scale,   learning_rate,  beta1,         beta2,
                         epsilon,      weight_decay,     bias_correction1, bias_correction2, seed};
    nb::gil_scoped_release released;
    adamw(step, threads);
}

double py_sum_of_squares(const ConstantBfloats& x, int threads) {
    nb::gil_scoped_release released;
    return sum_of_squares(bits(x), size(x), threads);
}

void py_gelu(const ConstantBfloats& x, const Bfloats& y, int threads) {
    require_equal_sizes(x.size() == y.size());
    nb::gil_scoped_release released;
    gelu(bits(x), bits(y), size(x), threads);
}

void py_gelu_backward(const ConstantBfloats& x, const ConstantBfloats& d_y, const Bfloats& d_x, int threads) {
    require_equal_sizes(x.size() == d_y.size() && x.size() == d_x.size());
    nb::gil_scoped_release released;
    gelu_backward(bits(x), bits(d_y), bits(d_x), size(x), threads);
}

void py_swiglu(const ConstantBfloats& gate, const ConstantBfloats& up, const Bfloats& y, int threads) {
    require_equal_sizes(gate.size() == up.size() && gate.size() == y.size());
    nb::gil_scoped_release released;
    swiglu(bits(gate), bits(up), bits(y), size(gate), threads);
}

void py_swiglu_backward(const ConstantBfloats& gate, const ConstantBfloats& up, const ConstantBfloats& d_y,
                        const Bfloats& d_gate, const Bfloats& d_up, int threads) {
    require_equal_sizes(gate.size() == up.size() && gate.size() == d_y.size() && gate.size() == d_gate.size() &&
                        gate.size() == d_up.size());
    nb::gil_scoped_release released;
    swiglu_backward(bits(gate), bits(up), bits(d_y), bits(d_gate), bits(d_up), size(gate), threads);
}

NormInput norm_input(const ConstantBfloats& x, const ConstantBfloats& gain, const std::optional<ConstantBfloats>& bias,
                     float epsilon, bool rms) {
    const int64_t n = last_dimension(x);
    require_equal_sizes(n == size(gain) && (!bias || bias->size() == gain.size()));
    return {bits(x), bits(gain), bias ? bits(*bias) : nullptr, epsilon, rms, size(x) / n, n};
}

void py_norm(const ConstantBfloats& x, const ConstantBfloats& gain, const std::optional<ConstantBfloats>& bias, float epsilon,
             bool rms, const Bfloats& y, int threads) {
    require_equal_sizes(x.size() == y.size());
    const NormInput input = norm_input(x, gain, bias, epsilon, rms);
    nb::gil_scoped_release released;
    norm(input, bits(y), threads);
}

void py_norm_backward(const ConstantBfloats& x, const ConstantBfloats& gain, float epsilon, bool rms,
                      const ConstantBfloats& d_y, const Bfloats& d_x, const std::optional<Floats>& d_gain,
                      const std::optional<Floats>& d_bias, int threads) {
    require_equal_sizes(x.size() == d_y.size() && x.size() == d_x.size() && (!d_gain || d_gain->size() == gain.size()) &&
                        (!d_bias || (d_gain && d_bias->size() == gain.size())));
    const NormInput input = norm_input(x, gain, {}, epsilon, rms);
    nb::gil_scoped_release released;
    norm_backward(input, bits(d_y), bits(d_x), d_gain ? d_gain->data() : nullptr, d_bias ? d_bias->data() : nullptr, threads);
}

CausalScores causal_scores(const Bfloats& scores, int64_t first, uint32_t seed, float rate) {
    require_equal_sizes(scores.ndim() == 3 && first >= 0);
    return {bits(scores), static_cast<int64_t>(scores.shape(0)), static_cast<int64_t>(scores.shape(1)), last_dimension(scores),
            first, make_dropout(seed, rate)};
}

void py_softmax(const Bfloats& scores, int64_t first, uint32_t seed, float rate, int threads) {
    const CausalScores causal = causal_scores(scores, first, seed, rate);
    nb::gil_scoped_release released;
    softmax(causal, threads);
}

void py_softmax_backward(const Bfloats& scores, int64_t first, uint32_t seed, float rate, const Bfloats& d_pattern,
                         const ConstantFloats& row_dot, int threads) {
    const CausalScores causal = causal_scores(scores, first, seed, rate);
    require_equal_sizes(scores.size() == d_pattern.size() && size(row_dot) == causal.matrices * causal.queries);
    nb::gil_scoped_release released;
    softmax_backward(causal, bits(d_pattern), row_dot.data(), threads);
}

void py_dropout_add(const std::optional<ConstantBfloats>& x, const ConstantBfloats& y, const Bfloats& out, uint32_t seed,
                    float rate, int threads) {
    require_equal_sizes(y.size() == out.size() && (!x || x->size() == y.size()));
    const int64_t n = last_dimension(y), rows = size(y) / n;
    const Dropout dropout = make_dropout(seed, rate);
    nb::gil_scoped_release released;
    dropout_add(x ? bits(*x) : nullptr, bits(y), bits(out), rows, n, dropout, threads);
}

void py_rope(const ConstantBfloats& x, const ConstantFloats& cosines, const ConstantFloats& sines, bool inverse,
             const Bfloats& out, int threads) {
    const int64_t d = last_dimension(x), heads = x.ndim() < 2 ? 1 : static_cast<int64_t>(x.shape(x.ndim() - 2));
    const int64_t tokens = size(x) / d / heads;
    require_equal_sizes(d % 2 == 0 && x.size() == out.size() && size(cosines) == tokens * (d / 2) &&
                        cosines.size() == sines.size());
    nb::gil_scoped_release released;
    rope(bits(x), cosines.data(), sines.data(), inverse, bits(out), tokens, heads, d, threads);
}

void py_cross_entropy(const Bfloats& logits, const Targets& targets, float scale, const Floats& loss, bool columns,
                      int threads) {
    const size_t token_axis = columns ? 1 : 0;
    require_equal_sizes(logits.ndim() == 2 && logits.shape(token_axis) == targets.size() && loss.size() == targets.size());
    const auto vocabulary = static_cast<int64_t>(logits.shape(1 - token_axis));
    for (int64_t c = 0; c < size(targets); ++c)
        if (targets.data()[c] < 0 || targets.data()[c] >= vocabulary) throw nb::index_error("a target is outside the vocabulary");
    nb::gil_scoped_release released;
    if (columns)
        column_cross_entropy(bits(logits), targets.data(), vocabulary, size(targets), scale, loss.data(), threads);
    else
        row_cross_entropy(bits(logits), targets.data(), size(targets), vocabulary, scale, loss.data(), threads);
}

}  // namespace

void bind_training(nb::module_& m) {
    m.doc() = "Everything that training computes between two matrix products; a bfloat16 array is passed as int16.";
    const auto x = nb::arg("x"), y = nb::arg("y"), d_y = nb::arg("d_y"), d_x = nb::arg("d_x"), gate = nb::arg("gate"),
               up = nb::arg("up"), gain = nb::arg("gain"), epsilon = nb::arg("epsilon"), rms = nb::arg("rms"),
               scores = nb::arg("scores"), first = nb::arg("first"), out = nb::arg("out"), seed = nb::arg("seed"),
               rate = nb::arg("rate"), threads = nb::arg("threads");
    m.def("use_openmp_threads", [](uintptr_t region) { use_openmp_threads(reinterpret_cast<ParallelRegion>(region)); },
          nb::arg("region"));
    m.def("adamw", py_adamw, nb::arg("weight"), nb::arg("remainder"), nb::arg("gradient"), nb::arg("moment1"),
          nb::arg("moment2"), nb::kw_only(), nb::arg("gradient_scale"), nb::arg("learning_rate"), nb::arg("beta1"),
          nb::arg("beta2"), epsilon, nb::arg("weight_decay"), nb::arg("bias_correction1"), nb::arg("bias_correction2"),
          seed, threads);
    m.def("sum_of_squares", py_sum_of_squares, x, threads);
    m.def("gelu", py_gelu, x, y, threads);
    m.def("gelu_backward", py_gelu_backward, x, d_y, d_x, threads);
    m.def("swiglu", py_swiglu, gate, up, y, threads);
    m.def("swiglu_backward", py_swiglu_backward, gate, up, d_y, nb::arg("d_gate"), nb::arg("d_up"), threads);
    m.def("norm", py_norm, x, gain, nb::arg("bias").none(), epsilon, rms, y, threads);
    m.def("norm_backward", py_norm_backward, x, gain, epsilon, rms, d_y, d_x, nb::arg("d_gain").none(),
          nb::arg("d_bias").none(), threads);
    m.def("softmax", py_softmax, scores, first, seed, rate, threads);
    m.def("softmax_backward", py_softmax_backward, scores, first, seed, rate, nb::arg("d_pattern"), nb::arg("row_dot"),
          threads);
    m.def("dropout_add", py_dropout_add, nb::arg("x").none(), y, out, seed, rate, threads);
    m.def("rope", py_rope, x, nb::arg("cosines"), nb::arg("sines"), nb::arg("inverse"), out, threads);
    m.def("cross_entropy", py_cross_entropy, nb::arg("logits"), nb::arg("targets"), nb::arg("scale"), nb::arg("loss"),
          nb::arg("columns"), threads);
}
