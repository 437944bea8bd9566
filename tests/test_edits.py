"""Edits: putting back what was read changes nothing; other values have the effect that arithmetic gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.model.engine import Edit, Engine
from pophood.taps import PAIR, taps_of
from tests.test_engine import Random
from tests.test_sequences import engine_at
from tests.tiny import tiny_config

IDS = [5, 1, 33, 7, 7, 20, 2]
FAMILIES = ["gpt2", "llama"]


@pytest.fixture(
    scope="module", params=[(family, precision) for family in FAMILIES for precision in ("f32", "q8")]
)
def engine(request: pytest.FixtureRequest) -> Engine:
    family, precision = request.param
    return engine_at(precision, family, threads=2)


def run(engine: Engine, edits: list[Edit], taps: list[str] | None = None, ids: list[int] = IDS) -> Any:
    with engine.sequence() as sequence:
        return engine.forward([(sequence, ids)], rows="all", edits=edits, taps=taps or [])


def near(a: NDArray[Any], b: NDArray[Any], tolerance: float = 1e-5) -> bool:
    return bool(np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3))


def test_putting_back_what_was_read_changes_nothing(engine: Engine) -> None:
    plain = run(engine, [], ["*"])
    for name, tap in taps_of(engine.config).items():
        values = plain.taps[name]
        if tap.axes == PAIR:
            values = np.where(np.isfinite(values), values, 0)
        edited = run(engine, [Edit(name, "replace", values, positions=range(len(IDS)))], [name])
        assert near(edited.output, plain.output), name
        assert np.array_equal(np.nan_to_num(edited.taps[name]), np.nan_to_num(plain.taps[name])), name


def test_every_tap_has_an_effect_that_its_reading_shows(engine: Engine) -> None:
    plain = run(engine, [], ["*"])
    for name in taps_of(engine.config):
        if name == f"blocks.{engine.config.n_layer - 1}.attn.q":
            continue  # as effective as in other layers
        edited = run(engine, [Edit(name, "scale", 1.5, positions=[2, 3])], [name])
        assert np.array_equal(edited.output[:2], plain.output[:2]), name
        assert not np.array_equal(edited.output[2:4], plain.output[2:4]), name
        ours, before = edited.taps[name], plain.taps[name]
        shown = np.isfinite(before[2:4])
        if not name.endswith(("normalized",)):
            assert near(ours[2:4][shown], 1.5 * before[2:4][shown]), name
        assert np.array_equal(np.nan_to_num(ours[:2]), np.nan_to_num(before[:2])), name


def test_a_replaced_residual_stream_carries_another_prompt(engine: Engine) -> None:
    """Patching the whole stream of every position before a block gives the other prompt's logits."""
    other = [9, 8, 7, 6, 5, 4, 3]
    place = "blocks.1.resid_pre"
    stream = run(engine, [], [place], other).taps[place]
    patched = run(engine, [Edit(place, "replace", stream, positions=range(len(IDS)))])
    expected = run(engine, [], [], other).output
    assert np.array_equal(patched.output, expected)


def test_switching_a_head_off_is_zeroing_its_columns(engine: Engine) -> None:
    config, head = engine.config, 1
    changed = Random(config)
    name = "blocks.0.attn.out.weight"
    matrix = np.array(changed.stored(name)[1], np.float32)
    matrix[:, head * config.head_dim : (head + 1) * config.head_dim] = 0
    changed.replaced[name] = matrix
    other = Engine(config, engine.precision, threads=1)
    other.load(changed)
    expected = run(other, []).output
    tolerance = 1e-5 if engine.precision == "f32" else 0.03  # a group of 32 features has two heads
    for edit in (Edit("blocks.0.attn.z", head=head), Edit("blocks.0.attn.result", head=head)):
        assert near(run(engine, [edit]).output, expected, tolerance)
    assert near(run(engine, [Edit("blocks.0.attn.pattern", head=head)]).output, expected, tolerance)


def test_a_pattern_that_is_edited_mixes_the_values(engine: Engine) -> None:
    """Head 0 of the last token is made to attend to the first token alone: z is then that token's value."""
    last = len(IDS) - 1
    pattern = np.zeros(len(IDS), np.float32)
    pattern[0] = 1
    edit = Edit("blocks.0.attn.pattern", "replace", pattern, head=0, positions=[last])
    inside = run(engine, [edit], ["blocks.0.attn.z", "blocks.0.attn.v", "blocks.0.attn.pattern"]).taps
    value = inside["blocks.0.attn.v"][0, 0].astype(np.float32 if engine.kv == "f32" else np.float16)
    assert np.array_equal(inside["blocks.0.attn.z"][last, 0], value.astype(np.float32))
    assert np.array_equal(inside["blocks.0.attn.pattern"][last, 0], pattern)
    masked = Edit(
        "blocks.0.attn.scores", "replace", np.where(pattern > 0, 0, -1e30), head=0, positions=[last]
    )
    inside = run(engine, [masked], ["blocks.0.attn.pattern"]).taps
    assert np.array_equal(inside["blocks.0.attn.pattern"][last, 0], pattern)


def test_edits_apply_in_order_and_to_their_sequence_alone(engine: Engine) -> None:
    plain = run(engine, []).output
    two_steps = [Edit("blocks.1.resid_post", "replace", 2.0), Edit("blocks.1.resid_post", "add", 1.0)]
    assert np.array_equal(
        run(engine, two_steps).output, run(engine, [Edit("blocks.1.resid_post", "replace", 3.0)]).output
    )
    with engine.sequence() as one, engine.sequence() as two:
        edit = Edit("blocks.0.mlp.out", "scale", 3.0, sequence=two)
        together = engine.forward([(one, IDS), (two, IDS)], rows="all", edits=[edit]).output
    assert np.array_equal(together[: len(IDS)], plain)
    assert np.array_equal(together[len(IDS) :], run(engine, [Edit("blocks.0.mlp.out", "scale", 3.0)]).output)


def test_positions_count_from_the_beginning_and_chunks_change_nothing(engine: Engine) -> None:
    edit = Edit("blocks.0.resid_mid", "add", np.arange(engine.config.n_embd), positions=[1, 5])
    whole = run(engine, [edit]).output
    with engine.sequence() as sequence:
        first = engine.forward([(sequence, IDS[:4])], rows="all", edits=[edit]).output
        second = engine.forward([(sequence, IDS[4:])], rows="all", edits=[edit], chunk=2).output
    assert np.array_equal(np.concatenate([first, second]), whole)


def test_a_wildcard_edits_every_layer(engine: Engine) -> None:
    names = [f"blocks.{i}.attn.out" for i in range(engine.config.n_layer)]
    one_by_one = run(engine, [Edit(name) for name in names]).output
    assert np.array_equal(run(engine, [Edit("blocks.*.attn.out")]).output, one_by_one)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("blocks.0.nothing"), "no tap matches 'blocks.0.nothing'"),
        (Edit("blocks.0.resid_pre", head=0), "has no heads"),
        (Edit("blocks.0.attn.z", head=99), r"has heads 0\.\.\d+; got 99"),
        (Edit("blocks.0.resid_pre", value=np.zeros(3)), r"has shape \(3,\); wanted a number"),
        (Edit("blocks.0.resid_pre", kind="double"), "kind is 'double'; wanted one of add"),  # type: ignore[arg-type]
        (Edit("blocks.0.resid_pre", positions=[-1]), "wanted a list of numbers from 0 on"),
    ],
)
def test_wrong_edits_are_refused(engine: Engine, edit: Edit, message: str) -> None:
    with engine.sequence() as sequence:
        with pytest.raises(BadInput, match=message):
            engine.forward([(sequence, IDS)], edits=[edit])
        assert engine.length(sequence) == 0


def test_edits_work_where_blocks_are_computed_as_stored() -> None:
    config = tiny_config("gpt2", n_embd=64, n_head=4, n_kv_head=4, head_dim=16, n_inner=128)
    engine = Engine(config, precision="q8")
    engine.load(Random(config))
    plain = run(engine, [], ["blocks.0.attn.result", "blocks.0.attn.z"])
    off = run(engine, [Edit("blocks.0.attn.result", head=2)]).output
    assert not np.array_equal(off, plain.output)
    same = Edit(
        "blocks.0.attn.result", "replace", plain.taps["blocks.0.attn.result"], positions=range(len(IDS))
    )
    assert np.array_equal(run(engine, [same]).output, plain.output)
