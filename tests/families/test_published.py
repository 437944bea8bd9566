"""Published configurations mean the same to pophood as to transformers, with the published counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pophood.config import ModelConfig, Rope
from pophood.families import FAMILIES, config_from_hf
from pophood.families.keys import HARMLESS
from tests.families.published import GPT2, LLAMA2, LLAMA32, PUBLISHED, QWEN3, SMOLLM2
from tests.tiny import GPT2_SIZES, gpt2_config, hf_config


def transformers_config(config_json: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    said = dict(config_json)
    return AutoConfig.for_model(said.pop("model_type"), **said)


def inverse_frequencies(config: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the table of transformers' own rotary embedding for this config."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    table: np.ndarray[Any, np.dtype[np.float32]] = LlamaRotaryEmbedding(config).inv_freq.numpy()
    return table


def last_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    """Return the largest difference in units of the last place (float32)."""
    return int(np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32)).max())


@pytest.mark.parametrize("name", PUBLISHED)
def test_means_what_transformers_takes_it_to_mean(name: str) -> None:
    config_json, n_params = PUBLISHED[name]
    ours, theirs = config_from_hf(config_json), transformers_config(config_json)
    assert ours.n_params == n_params
    assert ours.architecture == theirs.model_type
    assert ours.n_layer == theirs.num_hidden_layers
    assert ours.n_head == theirs.num_attention_heads
    assert ours.n_embd == theirs.hidden_size
    assert ours.vocab_size == theirs.vocab_size
    assert ours.n_positions == theirs.max_position_embeddings
    assert ours.tied_output is theirs.tie_word_embeddings
    if ours.rope is None:
        assert ours.norm_eps == theirs.layer_norm_epsilon
        assert ours.n_inner == theirs.n_inner or (theirs.n_inner is None and ours.n_inner == 4 * ours.n_embd)
        return
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.n_inner == theirs.intermediate_size
    assert ours.n_kv_head == theirs.num_key_value_heads
    assert ours.head_dim == (
        getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    )
    assert last_bits(ours.rope.frequencies(ours.head_dim), inverse_frequencies(theirs)) <= 1


@pytest.mark.parametrize("size", GPT2_SIZES)
def test_the_four_sizes_of_gpt2(size: str) -> None:
    n_layer, n_head, n_embd, n_params = GPT2_SIZES[size]
    config = config_from_hf(GPT2 | {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd})
    assert config == gpt2_config(size)
    assert config.n_params == n_params


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("scaling", ["none", "linear", "llama3"])
def test_old_and_new_spellings_mean_the_same(scaling: Any, spelling: Any) -> None:
    rope = {
        "none": Rope(500_000.0),
        "linear": Rope(10_000.0, "linear", 4.0),
        "llama3": Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192),
    }[scaling]
    base = config_from_hf(LLAMA32)
    config = replace(base, rope=rope)
    assert config_from_hf(hf_config(config, "BF16", spelling)) == config


def test_transformers_own_defaults_are_read_back() -> None:
    """Return a config.json that transformers 5 writes, with every default spelled out."""
    for name, size in (
        ("gpt2", {}),
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": None}),
    ):
        theirs = transformers_config({"model_type": name} | size)
        said = json.loads(theirs.to_json_string(use_diff=False))
        ours = config_from_hf(said)
        assert ours.n_embd == theirs.hidden_size, name
        minimal: tuple[str, ...] = (
            "model_type",
            "num_hidden_layers",
            "n_layer",
            "num_attention_heads",
            "n_head",
            "hidden_size",
        )
        minimal += ("n_embd", "vocab_size", "intermediate_size", "num_key_value_heads", "sliding_window")
        assert config_from_hf({key: said[key] for key in minimal if key in said}) == ours, name


@pytest.mark.parametrize("theta", [10_000.0, 100_000.0, 130_000.0, 500_000.0, 1e6, 8e6])
@pytest.mark.parametrize("head_dim", [4, 24, 64, 80, 96, 128, 256])
def test_frequencies_are_within_one_bit_of_transformers(theta: float, head_dim: int) -> None:
    size = {"hidden_size": head_dim, "num_attention_heads": 1, "head_dim": head_dim}
    for table in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}):
        said = LLAMA2 | size | {"num_key_value_heads": 1, "rope_parameters": {"rope_theta": theta} | table}
        config = config_from_hf(said)
        assert config.rope is not None
        assert (
            last_bits(config.rope.frequencies(head_dim), inverse_frequencies(transformers_config(said))) <= 1
        )


@pytest.mark.parametrize("positions", [2048, 8192, 131_072])
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("original", [None, 1024, 8192])
def test_llama3_with_and_without_its_original_context(
    positions: int, spelling: str, original: int | None
) -> None:
    """Without the key, the original context is the whole one, as in transformers, not Llama 3.1's 8,192."""
    table = {key: value for key, value in LLAMA32["rope_scaling"].items() if not key.startswith("original")}
    table |= {} if original is None else {"original_max_position_embeddings": original}
    said = {key: value for key, value in LLAMA32.items() if key not in ("rope_scaling", "rope_theta")}
    said |= {spelling: table | ({"rope_theta": 500_000.0} if spelling == "rope_parameters" else {})}
    said |= {"max_position_embeddings": positions, "rope_theta": 500_000.0}
    rope = config_from_hf(said).rope
    assert rope is not None
    assert rope.original_context == (original or positions)
    theirs = inverse_frequencies(transformers_config(said))
    assert np.allclose(rope.frequencies(64), theirs, rtol=1e-6)
    other = replace(rope, original_context=rope.original_context * 2).frequencies(64)
    assert not np.allclose(other, theirs, rtol=1e-3)


def test_llama3_frequencies_as_numbers() -> None:
    """By hand: wavelengths below 2,048 are unchanged, above 8,192 divided by 8, blended in between."""
    rope = Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192)
    plain, scaled = Rope(500_000.0).frequencies(128), rope.frequencies(128)
    wavelengths = 2 * np.pi / plain.astype(np.float64)
    kept, divided = wavelengths < 2048, wavelengths > 8192
    assert kept.any() and divided.any() and not (kept | divided).all()
    assert np.array_equal(scaled[kept], plain[kept])
    assert np.array_equal(scaled[divided], plain[divided] / np.float32(8))
    turns = (8192 / wavelengths - 1) / 3
    blend = ((1 - turns) / 8 + turns) * plain
    between = ~(kept | divided)
    assert np.allclose(scaled[between], blend[between], rtol=1e-6)


def test_every_family_says_what_every_key_is() -> None:
    """All keys that transformers 5 writes are in the tables."""
    for name, family in FAMILIES.items():
        written = json.loads(transformers_config({"model_type": name}).to_json_string(use_diff=False))
        assert set(written) <= set(family.hf_keys), name


def test_what_transformers_takes_for_generation_settings_is_harmless() -> None:
    from transformers import GenerationConfig

    settings = set(GenerationConfig._get_default_generation_params())
    for family in FAMILIES.values():
        assert {key for key in settings if family.hf_keys.get(key) is not HARMLESS} == set()


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"n_inner": 1000}, "n_inner", 1000),
        ({"activation_function": "gelu"}, "activation", "gelu"),
        ({"activation_function": "gelu_pytorch_tanh"}, "activation", "gelu_tanh"),
        ({"tie_word_embeddings": False}, "tied_output", False),
        ({"n_layer": None, "num_hidden_layers": 3}, "n_layer", 3),
    ],
)
def test_keys_of_gpt2_that_are_used(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(config_from_hf(GPT2 | changes), field) == value


@pytest.mark.parametrize(
    ("base", "changes", "field", "value"),
    [
        (SMOLLM2, {"attention_bias": True}, "qkv_bias", True),
        (SMOLLM2, {"attention_bias": True}, "attn_out_bias", True),
        (SMOLLM2, {"mlp_bias": True}, "mlp_bias", True),
        (SMOLLM2, {"head_dim": 32}, "head_dim", 32),
        (QWEN3, {"attention_bias": True}, "attn_out_bias", True),
        (QWEN3, {"use_sliding_window": True, "sliding_window": 40960}, "n_layer", 28),
        (QWEN3, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 28}, "n_layer", 28),
    ],
)
def test_keys_of_llamas_that_are_used(
    base: dict[str, Any], changes: dict[str, Any], field: str, value: object
) -> None:
    assert getattr(config_from_hf(base | changes), field) == value


def test_a_model_without_model_type_is_known_by_its_class() -> None:
    old = {key: value for key, value in GPT2.items() if key != "model_type"}
    assert config_from_hf(old) == config_from_hf(GPT2)


def test_configs_are_hashable_data() -> None:
    config: ModelConfig = config_from_hf(LLAMA32)
    assert hash(config) == hash(config_from_hf(dict(reversed(LLAMA32.items()))))
