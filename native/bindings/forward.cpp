// Engine.forward for Python: arrays become a Request, which request.h describes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <map>
#include <optional>

#include "bindings/bindings.h"
#include "engine/engine.h"

namespace nb = nanobind;
using namespace pophood;

namespace {

template <class T, size_t dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
using TapArray = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
// tap number, layer, array [rows, ...] to fill, rows (none: every row), head or -1
using ReadingTuple = nb::typed<nb::tuple, int, int64_t, TapArray, Array<const int64_t, 1>, int64_t>;
// tap number, layer, kind, head or -1, rows [R], values [R or 1, edit width], keys
using EditTuple = nb::typed<nb::tuple, int, int64_t, int, int64_t, Array<const int64_t, 1>, Array<const float, 2>, int64_t>;

// Any thread may set it; a forward pass that was given the flag stops within one block.
struct CancelFlag {
    std::atomic<bool> set{false};
};
using SequenceFlags = std::map<int64_t, CancelFlag*>;

// The arrays of a Summary in request.h, one row per output row.
struct SummaryArrays {
    Array<int32_t, 2> ids;
    Array<float, 2> logits;
    Array<double, 1> logsumexp, entropy;
    std::optional<Array<const uint32_t, 2>> allowed;
    std::optional<Array<const int32_t, 1>> targets;
    std::optional<Array<float, 1>> target_logits;
    std::optional<Array<int64_t, 1>> target_ranks;
};

bool on_main_thread() {
    const nb::object threading = nb::module_::import_("threading");
    return threading.attr("current_thread")().is(threading.attr("main_thread")());
}

Summary summary_of(const SummaryArrays& arrays, int64_t rows, int64_t vocabulary) {
    const auto same = [&](const auto& array) { return static_cast<int64_t>(array.shape(0)) == rows; };
    const auto absent_or_same = [&](const auto& array) { return !array || same(*array); };
    const bool targets = arrays.targets.has_value();
    if (!same(arrays.ids) || !same(arrays.logits) || !same(arrays.logsumexp) || !same(arrays.entropy) ||
        !absent_or_same(arrays.allowed) || !absent_or_same(arrays.targets) || !absent_or_same(arrays.target_logits) ||
        !absent_or_same(arrays.target_ranks) || arrays.ids.shape(1) != arrays.logits.shape(1) ||
        targets != arrays.target_logits.has_value() || targets != arrays.target_ranks.has_value() ||
        (arrays.allowed && static_cast<int64_t>(arrays.allowed->shape(1)) != (vocabulary + 31) / 32))
        throw nb::value_error("an array of the summary has the wrong shape");
    Summary summary;
    summary.k = static_cast<int64_t>(arrays.ids.shape(1));
    summary.ids = arrays.ids.data();
    summary.logits = arrays.logits.data();
    summary.logsumexp = arrays.logsumexp.data();
    summary.entropy = arrays.entropy.data();
    if (arrays.allowed) summary.allowed = arrays.allowed->data();
    if (!targets) return summary;
    summary.targets = arrays.targets->data();
    summary.target_logits = arrays.target_logits->data();
    summary.target_ranks = arrays.target_ranks->data();
    return summary;
}

// The last dimension of the arrays of scores and pattern is the number of keys.
Reading reading_of(const Engine& engine, const ReadingTuple& reading, int64_t n) {
    const auto values = nb::cast<TapArray>(reading[2]);
    const auto tap = static_cast<Tap>(nb::cast<int>(reading[0]));
    const auto rows = nb::cast<Array<const int64_t, 1>>(reading[3]);
    const auto head = nb::cast<int64_t>(reading[4]);
    const int64_t keys = values.ndim() ? static_cast<int64_t>(values.shape(values.ndim() - 1)) : 0;
    const int64_t width = head == -1 ? engine.tap_width(tap, keys) : keys;
    const int64_t read = rows.shape(0) ? static_cast<int64_t>(rows.shape(0)) : n;
    if (static_cast<int64_t>(values.size()) != read * width) throw nb::value_error("a tap's array has the wrong shape");
    return {tap, nb::cast<int64_t>(reading[1]), values.data(), keys, {rows.data(), rows.data() + rows.shape(0)}, head};
}

Edit edit_of(const Engine& engine, const EditTuple& tuple) {
    const auto rows = nb::cast<Array<const int64_t, 1>>(tuple[4]);
    const auto values = nb::cast<Array<const float, 2>>(tuple[5]);
    Edit edit{static_cast<Tap>(nb::cast<int>(tuple[0])), nb::cast<int64_t>(tuple[1]),
              static_cast<Edit::Kind>(nb::cast<int>(tuple[2])), nb::cast<int64_t>(tuple[3]),
              {rows.data(), rows.data() + rows.shape(0)}, values.data(), 0, nb::cast<int64_t>(tuple[6])};
    if (static_cast<int64_t>(values.shape(1)) != engine.edit_width(edit) ||
        (values.shape(0) != 1 && values.shape(0) != rows.shape(0)))
        throw nb::value_error("an edit's values have the wrong shape");
    if (values.shape(0) != 1) edit.stride = static_cast<int64_t>(values.shape(1));
    return edit;
}

std::vector<int64_t> forward(Engine& engine, const Array<const int32_t, 1>& tokens, const Array<const int64_t, 1>& sequences,
                             int output, const Array<const int64_t, 1>& rows, std::optional<Array<float, 2>> out,
                             const std::vector<ReadingTuple>& readings, CancelFlag* cancel,
                             const std::optional<SummaryArrays>& summary, const std::vector<EditTuple>& edits,
                             const SequenceFlags& flags) {
    const auto n = static_cast<int64_t>(tokens.shape(0));
    if (static_cast<int64_t>(sequences.shape(0)) != n) throw nb::value_error("one sequence per token is needed");
    Request request{tokens.data(), sequences.data(), n, static_cast<Output>(output), rows.data(),
                    static_cast<int64_t>(rows.shape(0)), out ? out->data() : nullptr, {}, nullptr, {}, {}, nullptr};
    const int64_t vocabulary = engine.config().vocab_size;
    const int64_t width = request.output == Output::hidden ? engine.config().n_embd : vocabulary;
    if (request.output == Output::logits || request.output == Output::hidden || out)
        if (!out || static_cast<int64_t>(out->shape(0)) != request.n_rows || static_cast<int64_t>(out->shape(1)) != width)
            throw nb::value_error("the output array has the wrong shape");
    if (request.output == Output::summary) {
        if (!summary) throw nb::value_error("a summary needs arrays");
        request.summary = summary_of(*summary, request.n_rows, vocabulary);
    }
    for (const ReadingTuple& reading : readings) request.readings.push_back(reading_of(engine, reading, n));
    for (const EditTuple& edit : edits) request.edits.push_back(edit_of(engine, edit));
    const bool signals = on_main_thread();
    bool interrupted = false;
    request.stop = [&] {
        if (cancel && cancel->set.load(std::memory_order_relaxed)) return true;
        if (!signals) return false;
        nb::gil_scoped_acquire acquired;
        return interrupted = PyErr_CheckSignals() != 0;
    };
    if (!flags.empty())
        request.cancelled = [&](int64_t sequence) {
            const auto flag = flags.find(sequence);
            return flag != flags.end() && flag->second->set.load(std::memory_order_relaxed);
        };
    try {
        nb::gil_scoped_release released;
        return engine.forward(request);
    } catch (const Stopped&) {
        if (interrupted) throw nb::python_error();
        throw;
    }
}

void unembed(Engine& engine, const Array<const float, 2>& hidden, std::optional<Array<float, 2>> logits,
             const SummaryArrays& arrays, bool entropy) {
    const auto n = static_cast<int64_t>(hidden.shape(0)), vocabulary = engine.config().vocab_size;
    if (static_cast<int64_t>(hidden.shape(1)) != engine.config().n_embd || !n ||
        (logits && (static_cast<int64_t>(logits->shape(0)) != n || static_cast<int64_t>(logits->shape(1)) != vocabulary)))
        throw nb::value_error("the hidden states or the logits have the wrong shape");
    Summary summary = summary_of(arrays, n, vocabulary);
    if (!entropy) summary.entropy = nullptr;
    nb::gil_scoped_release released;
    engine.unembed(hidden.data(), n, logits ? logits->data() : nullptr, summary);
}

}  // namespace

void bind_forward(nb::module_& m, nb::class_<Engine>& engine) {
    nb::class_<CancelFlag>(m, "CancelFlag", "Stops a forward pass within one block. Any thread may set it; clear() resets it.")
        .def(nb::init<>())
        .def("set", [](CancelFlag& flag) { flag.set = true; })
        .def("clear", [](CancelFlag& flag) { flag.set = false; })
        .def_prop_ro("is_set", [](const CancelFlag& flag) { return flag.set.load(); });

    nb::class_<SummaryArrays>(m, "Summary", "Arrays that a forward pass fills with the distribution of every output row.")
        .def(
            "__init__",
            [](SummaryArrays* self, Array<int32_t, 2> ids, Array<float, 2> logits, Array<double, 1> logsumexp,
               Array<double, 1> entropy, std::optional<Array<const uint32_t, 2>> allowed,
               std::optional<Array<const int32_t, 1>> targets, std::optional<Array<float, 1>> target_logits,
               std::optional<Array<int64_t, 1>> target_ranks) {
                new (self) SummaryArrays{ids, logits, logsumexp, entropy, allowed, targets, target_logits, target_ranks};
            },
            nb::arg("ids"), nb::arg("logits"), nb::arg("logsumexp"), nb::arg("entropy"), nb::arg("allowed") = nb::none(),
            nb::arg("targets") = nb::none(), nb::arg("target_logits") = nb::none(), nb::arg("target_ranks") = nb::none());

    engine.def("forward", forward, nb::arg("tokens"), nb::arg("sequences"), nb::arg("output"), nb::arg("rows"),
               nb::arg("out").none(), nb::arg("readings"), nb::arg("cancel").none(), nb::arg("summary") = nb::none(),
               nb::arg("edits") = nb::list(), nb::arg("flags") = nb::dict());
    engine.def("unembed", unembed, nb::arg("hidden"), nb::arg("logits").none(), nb::arg("summary"),
               nb::arg("entropy"));
}
