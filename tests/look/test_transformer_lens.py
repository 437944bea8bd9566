"""TransformerLens' golden arrays against the taps of the same name, and the names themselves.

The arrays are written by golden/write_transformer_lens.py. A hook's name is an alias exactly where its array
equals ours: in every model that has it, within 1e-4 of the largest number of its position.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pophood.model.engine import Engine
from pophood.model.trace import Trace, trace
from pophood.taps import _ALIASES, _BLOCK_ALIASES, alias, match_taps, taps_of
from tests.look.golden.recipe import (
    CASES,
    PAIRS,
    Case,
    Floats,
    Golden,
    golden,
    places,
    position_axis,
    read_golden,
)
from tests.look.transformers_taps import InMemory

BAR = 1e-4
OURS_TOO = {"logits"}  # the model's return value has no hook
NOT_OURS = "hook_scale"  # the divisor of each norm; checked below, but not a tap


@pytest.fixture(scope="module", params=CASES)
def traced(request: pytest.FixtureRequest) -> Iterator[tuple[Case, dict[str, Golden], Trace]]:
    case = CASES[request.param]
    engine = Engine(case.config)
    engine.load(InMemory(case.values))
    yield case, read_golden(case), trace(engine, case.prompt)


def difference(hook: str, kept: Golden, array: Floats) -> float:
    """Return the largest difference of the stored values, relative to the largest of their position."""
    if array.shape != kept.shape:
        return float("inf")
    mine = golden(hook, array)
    position = places(hook, kept.shape)[position_axis(hook)]
    at_places = np.abs(mine.values - kept.values) / kept.largest[position]
    of_positions = np.abs(mine.largest - kept.largest) / kept.largest
    return float(max(at_places.max(), of_positions.max(), abs(mine.norm - kept.norm) / kept.norm))


def test_hooks_of_the_same_name_hold_the_same_numbers(traced: tuple[Case, dict[str, Golden], Trace]) -> None:
    case, kept, ours = traced
    differences = {
        hook: difference(hook, one, ours[hook]) for hook, one in kept.items() if not hook.endswith(NOT_OURS)
    }
    wrong = {hook: value for hook, value in differences.items() if not value <= BAR}
    assert not wrong, wrong
    worst = max(differences, key=differences.__getitem__)
    print(f"\n{case.name}, {len(differences)} hooks: worst {worst} {differences[worst]:.1e}")


def test_the_other_taps_have_no_hook(traced: tuple[Case, dict[str, Golden], Trace]) -> None:
    """The golden arrays cover every tap, except those for which TransformerLens has no hook."""
    case, kept, _ = traced
    reached = {alias(hook).split(".", 2)[-1] for hook in kept if not hook.endswith(NOT_OURS)}
    without = {name.split(".", 2)[-1] for name in taps_of(case.config)} - reached
    assert without == {"ln_1", "ln_2", "final_norm"} | ({"mlp.gate"} if case.config.gated_mlp else set())


def test_the_root_under_a_norm_is_what_divides(traced: tuple[Case, dict[str, Golden], Trace]) -> None:
    case, kept, ours = traced
    streams = {"ln1": ("resid_pre", "ln_1"), "ln2": ("resid_mid", "ln_2")}
    for i in range(case.config.n_layer):
        for theirs, (stream, norm) in streams.items():
            scale = kept[f"blocks.{i}.{theirs}.hook_scale"]
            given = ours[f"blocks.{i}.{stream}"].astype(np.float64)
            if case.config.norm == "layer":
                given -= given.mean(axis=1, keepdims=True)
            divided = given / scale.largest[:, None]
            assert np.abs(divided - ours[f"blocks.{i}.{norm}.normalized"]).max() <= 1e-4


def test_aliases_are_the_hooks_that_were_compared() -> None:
    compared = {hook for case in CASES.values() for hook in read_golden(case) if not hook.endswith(NOT_OURS)}
    inside = {hook.split(".", 2)[2] for hook in compared if hook.startswith("blocks.")}
    outside = {hook for hook in compared if not hook.startswith("blocks.")} - OURS_TOO
    assert set(_BLOCK_ALIASES) == inside
    assert set(_ALIASES) == outside
    assert len(set(_BLOCK_ALIASES.values())) == len(_BLOCK_ALIASES)


def test_aliases_work_wherever_a_name_does() -> None:
    config = CASES["qwen3"].config
    names = ["blocks.*.ln1.hook_normalized", "blocks.1.attn.hook_pattern", "hook_embed"]
    assert [tap.name for tap in match_taps(config, names)] == [
        *("embed.token", "blocks.0.ln_1.normalized"),
        *("blocks.1.ln_1.normalized", "blocks.1.attn.pattern"),
    ]
    assert alias("blocks.0.hook_nonsense") == "blocks.0.hook_nonsense"
    assert alias("blocks.0.ln1.hook_scale") == "blocks.0.ln1.hook_scale"


def test_the_comparison_sees_a_small_change(traced: tuple[Case, dict[str, Golden], Trace]) -> None:
    case, kept, ours = traced
    random = np.random.default_rng(0)
    for hook in ("blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern", "blocks.0.mlp.hook_post"):
        array = ours[hook]
        axis = position_axis(hook)
        noise = random.standard_normal(array.shape, np.float32) * np.abs(array).max() * np.float32(1e-3)
        assert difference(hook, kept[hook], array + noise) > BAR
        assert difference(hook, kept[hook], np.roll(array, 1, axis)) > BAR
        assert difference(hook, kept[hook], array[..., :-1]) == float("inf")
        if not hook.endswith(PAIRS):
            assert difference(hook, kept[hook], np.roll(array, 1, -1)) > BAR
    assert case.prompt[0] == case.prompt[-1]
