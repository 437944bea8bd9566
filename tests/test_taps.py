"""Taps: numbers that match the engine's, shapes that match the configuration, wildcards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pophood.errors import BadInput
from pophood.taps import alias, match_taps, taps_of
from tests.tiny import FAMILIES, tiny_config

ENGINE = Path(__file__).resolve().parents[1] / "native" / "engine" / "request.h"


def test_numbers_are_those_of_the_engine() -> None:
    listed = re.search(r"enum class Tap : int \{(.*?)\};", ENGINE.read_text(), re.DOTALL)
    assert listed is not None
    order = [name.strip() for name in listed[1].split(",") if name.strip()]
    ours: dict[int, str] = {}
    for family in FAMILIES:
        for tap in taps_of(tiny_config(family)).values():
            ours[tap.number] = re.sub(r"^blocks\.\d+\.(attn\.(?!out))?", "", tap.name).replace(".", "_")
    assert [ours[number] for number in sorted(ours)] == order
    assert sorted(ours) == list(range(len(order)))


def test_a_model_has_the_places_that_it_has() -> None:
    gpt2, llama = taps_of(tiny_config("gpt2")), taps_of(tiny_config("llama"))
    assert "embed.position" in gpt2 and "embed.position" not in llama
    assert "blocks.0.attn.rot_q" in llama and "blocks.0.attn.rot_q" not in gpt2
    assert "blocks.1.mlp.gate" in llama and "blocks.1.mlp.gate" not in gpt2
    assert next(iter(gpt2)) == "embed.token" and list(gpt2)[-1] == "logits"


def test_shapes_name_their_axes() -> None:
    config = tiny_config("llama")
    taps = taps_of(config)
    assert taps["blocks.0.attn.k"].shape(7, 9) == (7, config.n_kv_head, config.head_dim)
    assert taps["blocks.0.attn.pattern"].shape(7, 9) == (7, config.n_head, 9)
    assert taps["blocks.0.attn.result"].nbytes(7, 9) == 4 * 7 * config.n_head * config.n_embd
    assert taps["blocks.0.mlp.pre"].axes == ("token", "neuron")


def test_wildcards_choose_and_leave_out() -> None:
    config = tiny_config("gpt2")
    every = [tap.name for tap in match_taps(config, ["*"])]
    assert every == list(taps_of(config))
    some = [tap.name for tap in match_taps(config, ["!*.result", "blocks.0.attn.*"])]
    assert "blocks.0.attn.z" in some and "blocks.0.attn.result" not in some
    assert all(name.startswith("blocks.0.attn.") for name in some)
    assert [tap.name for tap in match_taps(config, ["blocks.*.hook_resid_mid"])] == [
        f"blocks.{i}.resid_mid" for i in range(config.n_layer)
    ]


@pytest.mark.parametrize("pattern", ["nothing", "blocks.99.ln_1", "!blocks.0.attn.rot_q", ""])
def test_what_matches_nothing_is_refused_with_what_exists(pattern: str) -> None:
    with pytest.raises(
        BadInput, match=r"no tap matches .*; there are: embed.token.*blocks.0 to blocks.1 with"
    ):
        match_taps(tiny_config("gpt2"), ["*", pattern])


def test_an_alias_of_nothing_is_itself() -> None:
    assert alias("blocks.x.hook_nothing") == "blocks.x.hook_nothing"
    assert alias("blocks.2.attn.hook_z") == "blocks.2.attn.z"
