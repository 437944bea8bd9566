// Python <-> engine: arrays in, arrays out, nothing decided here. The only file that includes Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstring>
#include <optional>

#include "bindings.h"
#include "engine.h"
#include "measure.h"
#include "threads.h"

namespace nb = nanobind;
using namespace pophood;

namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Constants = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using TapArray = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Tensor = nb::ndarray<nb::ro, nb::device::cpu>;

// Set from any thread; the forward pass that was given it stops within one block.
struct CancelFlag {
    std::atomic<bool> set{false};
};

bool on_main_thread() {
    const nb::object threading = nb::module_::import_("threading");
    return threading.attr("current_thread")().is(threading.attr("main_thread")());
}

WeightType type_named(const std::string& type) {
    if (type == "F32") return WeightType::f32;
    if (type == "F16") return WeightType::f16;
    if (type == "BF16") return WeightType::bf16;
    throw nb::value_error("weights are F32, F16 or BF16");
}

void set_tensor(Engine& engine, const std::string& name, const Tensor& array, const std::string& type) {
    TensorView view{array.data(), type_named(type), static_cast<int>(array.ndim()), {1, 1}, {0, 0}};
    const size_t size = view.type == WeightType::f32 ? 4 : 2;
    if (array.itemsize() != size) throw nb::value_error("the array's items are not as wide as its type");
    if (view.dimensions < 1 || view.dimensions > 2) throw nb::value_error("a tensor has one or two dimensions");
    for (int i = 0; i < view.dimensions; ++i) {
        view.shape[i] = static_cast<int64_t>(array.shape(static_cast<size_t>(i)));
        view.stride[i] = array.stride(static_cast<size_t>(i)) * static_cast<int64_t>(size);
    }
    nb::gil_scoped_release released;
    engine.set_tensor(name, view);
}

void add_adapter(Engine& engine, const std::string& matrix, const Constants& a, const Constants& b) {
    const auto view = [](const Constants& array) -> TensorView {
        const auto rows = static_cast<int64_t>(array.shape(0)), cols = static_cast<int64_t>(array.shape(1));
        return {array.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}};
    };
    const TensorView view_a = view(a), view_b = view(b);
    nb::gil_scoped_release released;
    engine.add_adapter(matrix, view_a, view_b);
}

// readings: (tap number, layer, array [N, ...]) to fill; the last dimension of scores and pattern counts keys.
void forward(Engine& engine, const Ids& tokens, const Indices& sequences, int output, const Indices& rows,
             std::optional<Floats> out, const std::vector<nb::tuple>& readings, CancelFlag* cancel) {
    const auto n = static_cast<int64_t>(tokens.shape(0));
    if (static_cast<int64_t>(sequences.shape(0)) != n) throw nb::value_error("one sequence per token is needed");
    Request request{tokens.data(), sequences.data(), n, static_cast<Output>(output), rows.data(),
                    static_cast<int64_t>(rows.shape(0)), out ? out->data() : nullptr, {}, nullptr};
    const int64_t width = output == 1 ? engine.config().vocab_size : engine.config().n_embd;
    if (output != 0 && (!out || static_cast<int64_t>(out->shape(0)) != request.n_rows ||
                        static_cast<int64_t>(out->shape(1)) != width))
        throw nb::value_error("the output array has the wrong shape");
    for (const nb::tuple& reading : readings) {
        const auto values = nb::cast<TapArray>(reading[2]);
        const auto tap = static_cast<Tap>(nb::cast<int>(reading[0]));
        const int64_t keys = values.ndim() ? static_cast<int64_t>(values.shape(values.ndim() - 1)) : 0;
        if (static_cast<int64_t>(values.size()) != n * engine.tap_width(tap, keys))
            throw nb::value_error("a tap's array has the wrong shape");
        request.readings.push_back({tap, nb::cast<int64_t>(reading[1]), values.data(), keys});
    }
    const bool signals = on_main_thread();
    bool interrupted = false;
    request.stop = [&] {
        if (cancel && cancel->set.load(std::memory_order_relaxed)) return true;
        if (!signals) return false;
        nb::gil_scoped_acquire acquired;
        return interrupted = PyErr_CheckSignals() != 0;
    };
    try {
        nb::gil_scoped_release released;
        engine.forward(request);
    } catch (const Stopped&) {
        if (interrupted) throw nb::python_error();
        throw;
    }
}

nb::dict measured(const Engine& engine) {
    nb::dict d;
    d["isa"] = engine.kernels().name;
    d["threads"] = engine.threads();
    d["weight_bytes"] = engine.weight_bytes();
    return d;
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The engine in C++, whose one caller is pophood.model.engine, and what training computes outside torch.";
    nb::set_leak_warnings(false);

    nb::exception<Stopped>(m, "Stopped", PyExc_RuntimeError);
    nb::exception<NotFinite>(m, "NotFinite", PyExc_RuntimeError);

    nb::class_<CancelFlag>(m, "CancelFlag", "Stops a forward pass within one block when set from any thread; clear() makes it usable again.")
        .def(nb::init<>())
        .def("set", [](CancelFlag& flag) { flag.set = true; })
        .def("clear", [](CancelFlag& flag) { flag.set = false; })
        .def_prop_ro("is_set", [](const CancelFlag& flag) { return flag.set.load(); });

    nb::class_<Config>(m, "Config")
        .def("__init__",
             [](Config* self, int64_t n_layer, int64_t n_head, int64_t n_kv_head, int64_t n_embd, int64_t head_dim,
                int64_t n_inner, int64_t vocab_size, int64_t n_positions, bool rms_norm, float norm_eps, int activation,
                bool gated_mlp, bool qkv_bias, bool attn_out_bias, bool mlp_bias, bool qk_norm, bool tied_output,
                std::vector<float> frequencies) {
                 new (self) Config{n_layer, n_head, n_kv_head, n_embd, head_dim, n_inner, vocab_size, n_positions,
                                   rms_norm, norm_eps, static_cast<Activation>(activation), gated_mlp, qkv_bias,
                                   attn_out_bias, mlp_bias, qk_norm, tied_output, std::move(frequencies)};
             },
             nb::kw_only(), nb::arg("n_layer"), nb::arg("n_head"), nb::arg("n_kv_head"), nb::arg("n_embd"),
             nb::arg("head_dim"), nb::arg("n_inner"), nb::arg("vocab_size"), nb::arg("n_positions"), nb::arg("rms_norm"),
             nb::arg("norm_eps"), nb::arg("activation"), nb::arg("gated_mlp"), nb::arg("qkv_bias"),
             nb::arg("attn_out_bias"), nb::arg("mlp_bias"), nb::arg("qk_norm"), nb::arg("tied_output"),
             nb::arg("frequencies"));

    // Whoever waits for the engine lets go of the interpreter first: the running forward pass needs it for signals.
    const nb::call_guard<nb::gil_scoped_release> unlocked;
    nb::class_<Engine>(m, "Engine")
        .def("__init__",
             [](Engine* self, const Config& config, int threads, const std::string& isa) {
                 const Kernels* kernels = choose_kernels(isa.c_str());
                 if (!kernels) throw nb::value_error("this processor cannot run the instruction set that was asked for");
                 new (self) Engine(config, threads, *kernels);
             })
        .def("set_tensor", set_tensor)
        .def("missing_tensors", &Engine::missing_tensors)
        .def("add_adapter", add_adapter)
        .def("clear_adapters", &Engine::clear_adapters, unlocked)
        .def("forward", forward, nb::arg("tokens"), nb::arg("sequences"), nb::arg("output"), nb::arg("rows"),
             nb::arg("out").none(), nb::arg("readings"), nb::arg("cancel").none())
        .def("create", &Engine::create, unlocked)
        .def("fork", &Engine::fork, unlocked)
        .def("truncate", &Engine::truncate, unlocked)
        .def("drop", &Engine::drop, unlocked)
        .def("length", &Engine::length, unlocked)
        .def("cache_bytes", &Engine::cache_bytes, unlocked)
        .def_prop_ro("facts", measured);

    m.def("available_isa", [] { return std::string(available_kernels()); });
    m.def("allow_spinning", allow_spinning);
    m.def("read_bandwidth", read_bandwidth, nb::arg("threads"), nb::arg("bytes"), nb::arg("rounds"),
          nb::call_guard<nb::gil_scoped_release>());

    nb::module_ training = m.def_submodule("training");
    bind_training(training);
}
