"""Published configurations of the families that differ from Llama: counts, and what each choice is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood as command
from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.families import config_from_hf, text_config, text_tensors
from pophood.formats.tensors import Tensor
from tests.families.published_later import (
    GEMMA2_2B,
    GEMMA3_4B,
    GEMMA3_270M,
    GRANITE_2B,
    LATER,
    OLMO2_1B,
    PHI4_MINI,
    PYTHIA_70M,
    SMOLLM3,
    TINYSTORIES,
)
from tests.made_families import made_folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LATER)
def test_counts_are_those_of_transformers(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said, n_params = deepcopy(LATER[name])  # transformers writes into the tables of rope_scaling
    config = config_from_hf(said)
    inner = {key: value for key, value in text_config(said).items() if key not in ("model_type", "auto_map")}
    theirs = AutoConfig.for_model(config.architecture, **inner)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(theirs)
    assert config.n_params == sum(parameter.numel() for parameter in model.parameters())
    assert n_params in (None, config.n_params)
    assert config.n_positions == theirs.max_position_embeddings
    assert config.limit is None


def test_what_the_choices_are() -> None:
    gemma = config_from_hf(GEMMA3_270M)
    windows = [block.window for block in gemma.block_attention]
    assert windows == [*[512] * 5, None] * 3
    assert [block.rope and block.rope.theta for block in gemma.block_attention[4:6]] == [1e4, 1e6]
    assert (gemma.embedding_scale, gemma.attention_scale, gemma.qk_norm) == (640**0.5, None, "head")
    large = config_from_hf(GEMMA3_4B)
    assert large.rope is not None and (large.rope.scaling, large.rope.factor) == ("linear", 8.0)
    local = large.block_attention[0].rope
    assert local is not None and (local.scaling, local.theta) == ("none", 1e4)
    gemma2 = config_from_hf(GEMMA2_2B)
    assert (gemma2.score_cap, gemma2.logit_cap, gemma2.norm_places) == (50.0, 30.0, "both")
    phi = config_from_hf(PHI4_MINI)
    assert phi.rope is not None and phi.attention == ()
    assert (phi.rope.rotated(phi.head_dim), phi.rope.original_context) == (96, 4096)
    assert phi.rope.magnitude == pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5)
    olmo = config_from_hf(OLMO2_1B)
    assert (olmo.norm_places, olmo.qk_norm) == ("after", "all")
    granite = config_from_hf(GRANITE_2B)
    assert (granite.embedding_scale, granite.residual_scale, granite.logit_divisor) == (12.0, 0.22, 8.0)
    assert granite.attention_scale == 0.015625
    rotates = [block.rope is not None for block in config_from_hf(SMOLLM3).block_attention]
    assert rotates == [True, True, True, False] * 9
    pythia = config_from_hf(PYTHIA_70M)
    assert pythia.rope is not None and pythia.parallel and pythia.rope.rotated(pythia.head_dim) == 16
    stories = config_from_hf(TINYSTORIES)
    assert [block.window for block in stories.block_attention] == [None, 256, None, 256]
    assert (stories.attention_scale, stories.rope, stories.qkv_bias) == (1.0, None, False)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (GEMMA3_4B | {"text_config": None}, BadFile, "text_config"),
        (GEMMA3_4B | {"text_config": {"model_type": "gemma3_text", "x": 1}}, Unsupported, "'x'"),
        (GEMMA3_270M | {"sliding_window_pattern": -1}, BadFile, "sliding_window_pattern"),
        (GEMMA3_270M | {"rope_local_base_freq": 0}, BadFile, "rope_local_base_freq"),
        (GEMMA3_270M | {"rope_parameters": {"full_attention": 3}}, BadFile, "rope_parameters"),
        (GEMMA3_270M | {"rope_parameters": {"full_attention": {}, "x": {}}}, Unsupported, "rope_parameters"),
        (GEMMA2_2B | {"attn_logit_softcapping": 0.0}, BadFile, "attn_logit_softcapping"),
        (GEMMA2_2B | {"query_pre_attn_scalar": 0}, BadFile, "query_pre_attn_scalar"),
        (GEMMA2_2B | {"layer_types": ["full_attention"] * 3}, BadFile, "layer_types has 3 entries"),
        (GRANITE_2B | {"residual_multiplier": "a"}, BadFile, "residual_multiplier"),
        (SMOLLM3 | {"no_rope_layers": [1, 0]}, BadFile, "no_rope_layers has 2 entries"),
        (SMOLLM3 | {"no_rope_layers": [2] * 36}, BadFile, "no_rope_layers"),
        (SMOLLM3 | {"no_rope_layer_interval": 0}, BadFile, "no_rope_layer_interval"),
        (PYTHIA_70M | {"rotary_pct": 0.02}, BadFile, "rotated in pairs"),
        (PYTHIA_70M | {"hidden_size": 513}, BadFile, "513"),
        (TINYSTORIES | {"attention_types": [[["global"], 3]]}, BadFile, "attention_types has 3 entries"),
        (TINYSTORIES | {"attention_types": [[["wide"], 4]]}, Unsupported, "attention_types"),
        (TINYSTORIES | {"attention_types": [["global", 4]]}, BadFile, "attention_types"),
        (TINYSTORIES | {"attention_layers": ["local"] * 4}, BadFile, "attention_layers and attention_types"),
        (PHI4_MINI | {"partial_rotary_factor": 0.5}, BadFile, "48 divisors"),
        (PHI4_MINI | {"lm_head_bias": True}, Unsupported, "lm_head_bias"),
    ],
)
def test_refusals_name_the_key(said: dict[str, Any], kind: type[PophoodError], words: str) -> None:
    with pytest.raises(kind) as caught:
        config_from_hf(said)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mixtral", "a mixture of experts"),
        ("qwen3_5", "recurrent blocks"),
        ("lfm2", "convolutions"),
        ("gpt_oss", "a mixture of experts"),
        ("gemma3n", "vectors per block"),
    ],
)
def test_what_stays_refused_says_why_and_the_way_out(tmp_path: Path, kind: str, words: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"no tensor is read")
    done = CliRunner().invoke(command, ["show", str(tmp_path)])
    assert done.exit_code != 0
    said = done.stderr
    assert (
        str(tmp_path) in said and kind in said and words in said and "choose a model of one of these" in said
    )


def test_vision_tensors_are_left_out_by_name() -> None:
    said = GEMMA3_4B
    one = np.zeros(4, np.uint8)
    names = ("language_model.model.norm.weight", "vision_tower.x.weight", "multi_modal_projector.y")
    kept, left = text_tensors(said, {name: Tensor(name, "F32", (1,), one) for name in names})
    assert list(kept) == ["model.norm.weight"] and left == [*names[1:]]
    kept, left = text_tensors(
        said, {name: Tensor(name, "F32", (1,), one) for name in ("model.norm.weight", "z")}
    )
    assert list(kept) == ["model.norm.weight", "z"] and left == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "lines"),
    [
        ("gemma3", ("Attention window: 16 tokens, but blocks 5 see everything", "base 10,000 in blocks")),
        ("gemma2", ("Cap of scores: 3", "Cap of logits: 5", "Embedding multiplied by: 8")),
        ("granite", ("Scale of scores: 0.1", "Logits divided by: 3", "What blocks add multiplied by: 0.4")),
        ("smollm3", ("none in blocks 3",)),
        (
            "phi3-long",
            ("75% of each head", "longrope with its long factors (the long ones beyond 64 tokens)"),
        ),
    ],
)
def test_show_names_windows_scaling_and_caps(tmp_path: Path, family: str, lines: tuple[str, ...]) -> None:
    done = CliRunner().invoke(command, ["show", str(made_folder(tmp_path / "m", family))])
    assert done.exit_code == 0, done.stderr
    for line in lines:
        assert line in done.stdout
