// The Python module pophood._native: passes arrays to the engine and decides nothing. Only bindings/ includes Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "bindings/bindings.h"
#include "engine/engine.h"
#include "platform/measure.h"
#include "platform/threads.h"

namespace nb = nanobind;
using namespace pophood;

namespace {

using Constants = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tensor = nb::ndarray<nb::ro, nb::device::cpu>;
using Bytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstantBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::pair<const char*, WeightType> weight_types[] = {
    {"F32", WeightType::f32},   {"F16", WeightType::f16},   {"BF16", WeightType::bf16},
    {"BF16_PAIRS", WeightType::bf16_pairs},
    {"Q8_0", WeightType::q8_0}, {"Q4_0", WeightType::q4_0}, {"Q4_1", WeightType::q4_1},
    {"Q5_0", WeightType::q5_0}, {"Q5_1", WeightType::q5_1}, {"Q4_K", WeightType::q4_k},
    {"Q5_K", WeightType::q5_k}, {"Q6_K", WeightType::q6_k}, {"IQ4_NL", WeightType::iq4_nl},
};

WeightType type_named(const std::string& type) {
    for (const auto& [name, value] : weight_types)
        if (type == name) return value;
    throw nb::value_error(("the engine holds no weights of type " + type).c_str());
}

// A quantised tensor is an array of bytes [rows, bytes of a row's blocks].
void set_tensor(Engine& engine, const std::string& name, const Tensor& array, const std::string& type,
                const std::string& held) {
    TensorView view{array.data(), type_named(type), static_cast<int>(array.ndim()), {1, 1}, {0, 0}};
    const size_t size = is_quantized(view.type) ? 1 : view.type == WeightType::f32 ? 4 : 2;
    if (array.itemsize() != size) throw nb::value_error("the size of the array's items does not match its type");
    if (view.dimensions < 1 || view.dimensions > 2) throw nb::value_error("a tensor has one or two dimensions");
    for (int i = 0; i < view.dimensions; ++i) {
        view.shape[i] = static_cast<int64_t>(array.shape(static_cast<size_t>(i)));
        view.stride[i] = array.stride(static_cast<size_t>(i)) * static_cast<int64_t>(size);
    }
    if (is_quantized(view.type)) {
        const QuantFormat& format = format_of(view.type);
        if (view.dimensions != 2 || view.stride[1] != 1 || view.shape[1] % format.block_bytes != 0)
            throw nb::value_error("blocks are rows of adjacent bytes");
        view.shape[1] = view.shape[1] / format.block_bytes * format.block;
    }
    const WeightType as = held.empty() ? WeightType::f32 : type_named(held);
    nb::gil_scoped_release released;
    engine.set_tensor(name, view, as);
}

void set_adapter_pair(Engine& engine, int64_t adapter, const std::string& matrix, const Constants& a, const Constants& b) {
    const auto view = [](const Constants& array) -> TensorView {
        const auto rows = static_cast<int64_t>(array.shape(0)), cols = static_cast<int64_t>(array.shape(1));
        return {array.data(), WeightType::f32, 2, {rows, cols}, {cols * 4, 4}};
    };
    const TensorView view_a = view(a), view_b = view(b);
    nb::gil_scoped_release released;
    engine.set_adapter_pair(adapter, matrix, view_a, view_b);
}

// The keys and values of positions first..last-1, in the layout of kv_cache.h.
void export_kv(Engine& engine, int64_t sequence, int64_t first, int64_t last, int64_t windows_from, Bytes out) {
    nb::gil_scoped_release released;
    const int64_t bytes = (last - first) * engine.position_bytes(false) + (last - windows_from) * engine.position_bytes(true);
    if (first < 0 || windows_from < first || last < windows_from || static_cast<int64_t>(out.shape(0)) != bytes)
        throw std::invalid_argument("the array does not have the size of these positions");
    engine.export_kv(sequence, first, last - first, windows_from, out.data());
}

void append_kv(Engine& engine, int64_t sequence, const Tokens& tokens, int64_t windows_from, const ConstantBytes& data) {
    nb::gil_scoped_release released;
    const auto positions = static_cast<int64_t>(tokens.shape(0));
    const int64_t last = engine.length(sequence) + positions;
    const int64_t bytes = positions * engine.position_bytes(false) + (last - windows_from) * engine.position_bytes(true);
    if (windows_from > last || static_cast<int64_t>(data.shape(0)) != bytes)
        throw std::invalid_argument("the array does not have the size of these positions");
    engine.append_kv(sequence, positions, windows_from, tokens.data(), data.data());
}

nb::typed<nb::dict, nb::str, nb::any> facts(const Engine& engine) {
    nb::dict d;
    d["isa"] = engine.kernels().name;
    d["bf16_products"] = engine.kernels().bf16 != nullptr;
    d["threads"] = engine.threads();
    d["weight_bytes"] = engine.weight_bytes();
    return nb::typed<nb::dict, nb::str, nb::any>(d);
}

// Per block: `windows` (0: none), and `rotary_of`, the index of its frequencies (-1: none).
void set_attention(Config& config, const std::vector<std::vector<float>>& frequencies, const std::vector<float>& rotary_scales,
                   std::vector<int64_t> rotary_of, std::vector<int64_t> windows, float scale, float cap, bool qk_norm_whole) {
    const auto blocks = static_cast<size_t>(config.n_layer);
    if (frequencies.size() != rotary_scales.size() || rotary_of.size() != blocks || windows.size() != blocks)
        throw nb::value_error("a model has one scale per table, and one entry per block");
    for (const int64_t index : rotary_of)
        if (index < -1 || index >= static_cast<int64_t>(frequencies.size())) throw nb::value_error("no such table");
    config.rotaries.clear();
    for (size_t i = 0; i < frequencies.size(); ++i) config.rotaries.push_back({frequencies[i], rotary_scales[i]});
    config.rotary_of = std::move(rotary_of);
    config.windows = std::move(windows);
    config.attention_scale = scale;
    config.score_cap = cap;
    config.qk_norm_whole = qk_norm_whole;
}

void set_stream(Config& config, int norm_places, bool parallel, float embedding_scale, float residual_scale,
                float logit_scale, float logit_cap) {
    config.norm_places = static_cast<NormPlaces>(norm_places);
    config.parallel = parallel;
    config.embedding_scale = embedding_scale;
    config.residual_scale = residual_scale;
    config.logit_scale = logit_scale;
    config.logit_cap = logit_cap;
}

void bind_config(nb::module_& m) {
    nb::class_<Config>(m, "Config")
        .def("__init__",
             [](Config* self, int64_t n_layer, int64_t n_head, int64_t n_kv_head, int64_t n_embd, int64_t head_dim,
                int64_t n_inner, int64_t vocab_size, int64_t n_positions, bool rms_norm, float norm_eps, int activation,
                bool gated_mlp, bool qkv_bias, bool attn_out_bias, bool mlp_bias, bool qk_norm, bool tied_output) {
                 new (self) Config{n_layer, n_head, n_kv_head, n_embd, head_dim, n_inner, vocab_size, n_positions,
                                   rms_norm, norm_eps, static_cast<Activation>(activation), gated_mlp, qkv_bias,
                                   attn_out_bias, mlp_bias, qk_norm, tied_output, {}};
             },
             nb::kw_only(), nb::arg("n_layer"), nb::arg("n_head"), nb::arg("n_kv_head"), nb::arg("n_embd"),
             nb::arg("head_dim"), nb::arg("n_inner"), nb::arg("vocab_size"), nb::arg("n_positions"), nb::arg("rms_norm"),
             nb::arg("norm_eps"), nb::arg("activation"), nb::arg("gated_mlp"), nb::arg("qkv_bias"),
             nb::arg("attn_out_bias"), nb::arg("mlp_bias"), nb::arg("qk_norm"), nb::arg("tied_output"))
        .def("set_attention", set_attention, nb::kw_only(), nb::arg("frequencies"), nb::arg("rotary_scales"),
             nb::arg("rotary_of"), nb::arg("windows"), nb::arg("scale"), nb::arg("cap"), nb::arg("qk_norm_whole"))
        .def("set_stream", set_stream, nb::kw_only(), nb::arg("norm_places"), nb::arg("parallel"),
             nb::arg("embedding_scale"), nb::arg("residual_scale"), nb::arg("logit_scale"), nb::arg("logit_cap"));
}

void bind_engine(nb::module_& m) {
    // A call that waits for the engine's lock releases the GIL, which the running forward pass needs to check for signals.
    const nb::call_guard<nb::gil_scoped_release> unlocked;
    const auto sequence = nb::arg("sequence");
    nb::class_<Engine> engine_class(m, "Engine");
    engine_class
        .def("__init__",
             [](Engine* self, const Config& config, int threads, const std::string& isa) {
                 const Kernels* kernels = choose_kernels(isa.c_str());
                 if (!kernels) throw nb::value_error("this processor cannot run the requested instruction set");
                 new (self) Engine(config, threads, *kernels);
             },
             nb::arg("config"), nb::arg("threads"), nb::arg("isa"))
        .def("set_tensor", set_tensor, nb::arg("name"), nb::arg("array"), nb::arg("type"), nb::arg("held") = "",
             nb::sig("def set_tensor(self, name: str, array: numpy.typing.NDArray[typing.Any], type: str, "
                     "held: str = '') -> None"))
        .def("missing_tensors", &Engine::missing_tensors)
        .def("set_threads", &Engine::set_threads, nb::arg("threads"), unlocked)
        .def("set_kv_type", [](Engine& engine, const std::string& type) { engine.set_kv_type(type_named(type)); },
             nb::arg("type"))
        .def("create_adapter", &Engine::create_adapter, unlocked)
        .def("set_adapter_pair", set_adapter_pair, nb::arg("adapter"), nb::arg("matrix"), nb::arg("a"), nb::arg("b"))
        .def("drop_adapter", &Engine::drop_adapter, nb::arg("adapter"), unlocked)
        .def("create", &Engine::create, nb::arg("adapters"), unlocked)
        .def("export_kv", export_kv, sequence, nb::arg("first"), nb::arg("last"), nb::arg("windows_from"), nb::arg("out"))
        .def("append_kv", append_kv, sequence, nb::arg("tokens"), nb::arg("windows_from"), nb::arg("data"))
        .def("position_bytes", &Engine::position_bytes, nb::arg("windowed"), unlocked)
        .def("windows_from", &Engine::windows_from, sequence, nb::arg("first"), nb::arg("last"), unlocked)
        .def("resumable", &Engine::resumable, sequence, nb::arg("length"), unlocked)
        .def("forget_windows", &Engine::forget_windows, sequence, unlocked)
        .def("tokens", &Engine::tokens, sequence, nb::arg("first"), nb::arg("last"), unlocked)
        .def("fork", &Engine::fork, sequence, unlocked)
        .def("truncate", &Engine::truncate, sequence, nb::arg("length"), unlocked)
        .def("drop", &Engine::drop, sequence, unlocked)
        .def("length", &Engine::length, sequence, unlocked)
        .def("cache_bytes", &Engine::cache_bytes, unlocked)
        .def_prop_ro("facts", facts);
    bind_forward(m, engine_class);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The C++ engine, called by pophood.model.engine, and the training kernels, called by pophood.train.";
    nb::set_leak_warnings(false);

    nb::exception<Stopped>(m, "Stopped", PyExc_RuntimeError);
    nb::exception<Forgotten>(m, "Forgotten", PyExc_RuntimeError);
    nb::exception<NotFinite>(m, "NotFinite", PyExc_RuntimeError);

    bind_config(m);
    bind_engine(m);

    m.def("available_isa", [] { return std::string(available_kernels()); });
    m.def("allow_spinning", allow_spinning, nb::arg("allowed"));
    m.def("read_bandwidth", read_bandwidth, nb::arg("threads"), nb::arg("bytes"), nb::arg("rounds"),
          nb::call_guard<nb::gil_scoped_release>());
    m.def("multiply_rate",
          [](int threads, int rounds, const std::string& isa) {
              const Kernels* kernels = choose_kernels(isa.c_str());
              if (!kernels) throw nb::value_error("this processor cannot run the requested instruction set");
              nb::gil_scoped_release released;
              return multiply_rate(*kernels, threads, rounds);
          },
          nb::arg("threads"), nb::arg("rounds"), nb::arg("isa") = "");

    nb::module_ training = m.def_submodule("training");
    bind_training(training);
}
