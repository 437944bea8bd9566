"""Refusals, key by key and tensor by tensor, and that the message names the cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.families import config_from_gguf, config_from_hf
from pophood.families.keys import WantedError, plain, words
from pophood.families.standard import N_LAYER
from pophood.formats.tensors import Tensor
from tests.families.published import GPT2, LLAMA32, QWEN3, QWEN25, SMOLLM2
from tests.tiny import Values, tiny_config
from tests.tiny_gguf import gguf_entries

SCALED = LLAMA32["rope_scaling"]

NOT_COMPUTED: list[tuple[dict[str, Any], str, Any]] = [
    (GPT2, "scale_attn_weights", False),
    (GPT2, "scale_attn_by_inverse_layer_idx", True),
    (GPT2, "reorder_and_upcast_attn", True),
    (GPT2, "add_cross_attention", True),
    (GPT2, "activation_function", "relu"),
    (GPT2, "is_encoder_decoder", True),
    (GPT2, "pruned_heads", {"0": [1]}),
    (GPT2, "quantization_config", {"quant_method": "gptq", "bits": 4}),
    (GPT2, "auto_map", {"AutoModelForCausalLM": "modeling_evil.Evil"}),
    (GPT2, "_attn_implementation_internal", "owner/kernel"),
    (GPT2, "_attn_implementation", "owner/kernel"),
    (GPT2, "per_layer_config", {"0": {"n_head": 3}}),
    (GPT2, "a_key_from_tomorrow", 1),
    (GPT2, "rope_theta", 10_000.0),
    (GPT2, "model_type", "mixtral"),
    (GPT2, "model_type", "../gpt2"),
    (GPT2, "architectures", ["GPT2ForSequenceClassification"]),
    (SMOLLM2, "hidden_act", "gelu"),
    (SMOLLM2, "rope_scaling", {"rope_type": "mrope", "factor": 2.0}),
    (SMOLLM2, "rope_interleaved", True),
    (SMOLLM2, "layer_types", ["full_attention"] * 29 + ["sliding_attention"]),
    (SMOLLM2, "is_causal", False),
    (SMOLLM2, "use_bidirectional_attention", True),
    (SMOLLM2, "num_experts", 8),
    (SMOLLM2, "logits_scaling", 8.0),
    (SMOLLM2, "rope_scaling", {"rope_type": "yarn", "factor": 4.0, "low_freq_factor": 4.0}),
    (SMOLLM2, "rope_scaling", {"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}),
    (SMOLLM2, "rope_scaling", {"rope_type": "linear", "factor": 2.0, "low_freq_factor": 2.0}),
    (SMOLLM2, "rope_scaling", {"rope_type": "default", "factor": 2.0}),
    (SMOLLM2, "rope_parameters", {"full_attention": {"rope_theta": 1e4}}),
    (QWEN25, "attention_bias", False),
    (QWEN25, "use_mrope", True),
]

DAMAGED: list[tuple[dict[str, Any], str, Any]] = [
    (GPT2, "n_layer", 0),
    (GPT2, "n_layer", -12),
    (GPT2, "n_layer", 10**9),
    (GPT2, "n_layer", 12.0),
    (GPT2, "n_layer", "12"),
    (GPT2, "n_layer", True),
    (GPT2, "n_layer", [12]),
    (GPT2, "n_layer", None),
    (GPT2, "n_embd", 2**40),
    (GPT2, "n_head", 7),
    (GPT2, "n_head", 0),
    (GPT2, "vocab_size", 2**63),
    (GPT2, "n_positions", 10**30),
    (GPT2, "n_ctx", 512),
    (GPT2, "hidden_size", 769),
    (GPT2, "layer_norm_epsilon", -1e-5),
    (GPT2, "layer_norm_epsilon", float("nan")),
    (GPT2, "layer_norm_epsilon", float("inf")),
    (GPT2, "layer_norm_epsilon", "1e-5"),
    (GPT2, "tie_word_embeddings", "true"),
    (GPT2, "activation_function", 3),
    (GPT2, "architectures", "GPT2LMHeadModel"),
    (GPT2, "architectures", [1]),
    (SMOLLM2, "num_key_value_heads", 4),
    (SMOLLM2, "num_attention_heads", 10),
    (SMOLLM2, "head_dim", 63),
    (SMOLLM2, "rms_norm_eps", 2.0),
    (SMOLLM2, "rope_theta", 0),
    (SMOLLM2, "rope_theta", -1e4),
    (SMOLLM2, "rope_scaling", [1]),
    (SMOLLM2, "rope_scaling", {"rope_type": "linear"}),
    (SMOLLM2, "rope_scaling", {"rope_type": "linear", "factor": 0}),
    (SMOLLM2, "rope_scaling", {"rope_type": "linear", "type": "llama3", "factor": 2.0}),
    (SMOLLM2, "rope_scaling", SCALED | {"high_freq_factor": 1.0}),
    (SMOLLM2, "rope_scaling", {key: value for key, value in SCALED.items() if key != "low_freq_factor"}),
    (SMOLLM2, "rope_parameters", {"rope_theta": 5.0}),
    (SMOLLM2, "layer_types", "full_attention"),
    (SMOLLM2, "rope_scaling", {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}),
    (SMOLLM2, "rope_scaling", {"rope_type": "longrope", "long_factor": [0.0] * 32, "short_factor": [1.0]}),
    (SMOLLM2, "rope_scaling", {"rope_type": "yarn"}),
    (SMOLLM2, "partial_rotary_factor", 0.01),
    (SMOLLM2, "rope_parameters", {"rope_theta": 1e5, "partial_rotary_factor": 1.5}),
    (QWEN3, "num_hidden_layers", None),
]


@pytest.mark.parametrize(("base", "key", "value"), NOT_COMPUTED)
def test_what_is_not_computed_is_named(base: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(Unsupported) as error:
        config_from_hf(base | {key: value})
    assert named(key, value, str(error.value)), error.value


@pytest.mark.parametrize(("base", "key", "value"), DAMAGED)
def test_what_is_damaged_is_named(base: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(BadFile) as error:
        config_from_hf(base | {key: value})
    assert named(key, value, str(error.value)), error.value


def named(key: str, value: Any, message: str) -> bool:
    """Return whether a message names a key, or one inside it, or (for sizes that disagree) the number."""
    words = [key, *(value if isinstance(value, dict) else ())]
    words += [f"{value:,}"] if isinstance(value, int) else []
    words += ["rope parameters"] if key.startswith("rope_") else []
    assert len(message) < 400 and "\n" not in message
    return any(word in message for word in words)


@pytest.mark.parametrize("key", ["n_layer", "n_head", "n_embd", "vocab_size"])
def test_a_missing_size_is_named(key: str) -> None:
    said = {k: v for k, v in GPT2.items() if k != key}
    with pytest.raises(BadFile, match=f"{key} missing"):
        config_from_hf(said)


@pytest.mark.parametrize("base", [GPT2, SMOLLM2, QWEN3], ids=["gpt2", "llama", "qwen3"])
def test_keys_of_tomorrow(base: dict[str, Any]) -> None:
    assert config_from_hf(base | {"a_key_from_tomorrow": None, "another": None}) == config_from_hf(base)
    asking: tuple[object, ...] = (False, True, 0, "", [], {})
    for value in asking:  # in config.json false is a choice: the default may be true
        with pytest.raises(Unsupported, match="a_key_from_tomorrow"):
            config_from_hf(base | {"a_key_from_tomorrow": value})


def test_null_is_absence() -> None:
    assert config_from_hf(SMOLLM2 | {"hidden_act": None, "head_dim": None}) == config_from_hf(SMOLLM2)


def test_an_unknown_architecture_is_told_the_known_ones() -> None:
    with pytest.raises(Unsupported, match=r"'mamba'.*gpt2, llama, mistral, ministral, qwen2, qwen3"):
        config_from_hf({"model_type": "mamba", "architectures": ["MambaForCausalLM"]})
    with pytest.raises(Unsupported, match="None"):
        config_from_hf({})


def test_both_spellings_of_rope_must_agree() -> None:
    new = {"rope_parameters": SCALED | {"rope_theta": 500_000.0}}
    assert config_from_hf(LLAMA32 | {"rope_scaling": None} | new) == config_from_hf(LLAMA32)
    with pytest.raises(BadFile, match="rope_scaling and rope_parameters differ"):
        config_from_hf(LLAMA32 | new | {"rope_scaling": SCALED | {"factor": 8.0}})


# ---- GGUF metadata ----

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "model",
    "general.alignment": 32,
    "general.sampling.temp": 0.7,
    "llama.block_count": 2,
    "llama.context_length": 256,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": np.array([2, 2], np.uint32),
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "llama.rope.dimension_count": 16,
    "llama.rope.freq_base": 500_000.0,
    "tokenizer.ggml.model": "gpt2",
    "quantize.imatrix.file": "x",
    "split.count": 0,
}


def test_other_peoples_gguf_keys_are_left_alone() -> None:
    more = {
        "mradermacher.quantized_by": "someone",
        "x": [1],
        "general.quantized_by": "y",
        "split.tensors.count": 9,
    }
    assert config_from_gguf(METADATA | more, gguf_tensors()) == config_from_gguf(METADATA, gguf_tensors())


def gguf_tensors(**changes: Tensor | None) -> dict[str, Tensor]:
    """Return the tensors of a tiny Llama as in a GGUF file, with some changed or (None) removed."""
    config = tiny_config("llama")
    tensors = {}
    for entry in gguf_entries(config, Values(config), duplicate_output=False):
        data = entry.make().reshape(-1).view(np.uint8)
        tensors[entry.name] = Tensor(entry.name, "F32", entry.shape, data)
    return {name: t for name, t in (tensors | changes).items() if t is not None}


def test_gguf_metadata_means_what_it_says() -> None:
    config = config_from_gguf(METADATA, gguf_tensors())
    assert config.rope is not None
    assert config.rope.divisors is not None and len(config.rope.divisors) == 8
    wanted = tiny_config("llama")
    assert wanted.rope is not None
    assert config.rope.frequencies(16).tobytes() == wanted.rope.frequencies(16).tobytes()
    assert (config.n_kv_head, config.norm_eps, config.vocab_size, config.tied_output) == (2, 1e-5, 512, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "gemma3n"),
        ("general.architecture", "mistral"),
        ("general.architecture", 7),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("llama.expert_count", 8),
        ("llama.attention.causal", False),
        ("llama.attention.key_length_mla", 64),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.value_length", 32),
        ("llama.attention.head_count", np.array([4, 8], np.uint32)),
        ("llama.rope.scaling.type", "mrope"),
        ("llama.rope.scaling.factor", 4.0),  # beside rope_freqs.weight
        ("llama.rope.scaling.attn_factor", 0.5),
        ("llama.rope.dimension_sections", np.array([4, 4], np.int32)),
        ("llama.use_parallel_residual", True),
        ("llama.logit_scale", 2.0),
        ("llama.pooling_type", 1),
    ],
)
def test_gguf_metadata_that_is_not_computed_is_named(key: str, value: Any) -> None:
    with pytest.raises(Unsupported) as error:
        config_from_gguf(METADATA | {key: value}, gguf_tensors())
    assert key.removeprefix("llama.").removeprefix("attention.") in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 2**31),
        ("llama.block_count", 2.0),
        ("llama.block_count", None),
        ("llama.attention.head_count", np.zeros(5000, np.uint32)),
        ("llama.attention.head_count_kv", [np.zeros(3), np.zeros(3)]),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", None),
        ("llama.rope.freq_base", 0.0),
        ("llama.embedding_length", "64"),
        ("llama.embedding_length", 65),
    ],
)
def test_damaged_gguf_metadata_is_named(key: str, value: Any) -> None:
    changed = {k: v for k, v in (METADATA | {key: value}).items() if v is not None}
    changed = {k: v for k, v in changed.items() if key != "llama.embedding_length" or "rope.dim" not in k}
    with pytest.raises(BadFile) as error:
        config_from_gguf(changed, gguf_tensors())
    assert named(key.removeprefix("llama."), value, str(error.value)), error.value


def tensor(name: str, values: np.ndarray[Any, Any]) -> Tensor:
    data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
    return Tensor(name, "F32", values.shape, data)


@pytest.mark.parametrize(
    "values",
    [np.ones(7), np.zeros(8), np.full(8, np.nan), np.full(8, -1.0), np.full(8, np.inf), np.ones(5000)],
)
def test_damaged_rope_divisors_are_refused(values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(BadFile, match=r"rope_freqs\.weight"):
        config_from_gguf(METADATA, gguf_tensors(**{"rope_freqs.weight": tensor("rope_freqs.weight", values)}))


def test_a_gguf_file_without_a_token_matrix_is_refused() -> None:
    for wrong in (None, tensor("token_embd.weight", np.ones(8))):
        with pytest.raises(PophoodError, match=r"token_embd\.weight"):
            config_from_gguf(METADATA, gguf_tensors(**{"token_embd.weight": wrong}))


def test_a_list_may_be_as_long_as_a_model_may_have_blocks() -> None:
    for entries in (1, 1_023, 1_024):
        assert N_LAYER.check(entries) == entries
        assert words(("a",))(["a"] * entries) == ("a",) * entries
        assert plain(np.zeros(entries)) == [0.0] * entries
    with pytest.raises(WantedError):
        N_LAYER.check(1_025)
    with pytest.raises(WantedError, match="one word for each block"):
        words(("a",))(["a"] * 1_025)
    assert plain(np.zeros(1_025)) == "a list of 1,025 numbers"
