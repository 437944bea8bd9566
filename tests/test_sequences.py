"""Sequences: adapters of their own in one batch, exported keys and values, one cancelled beside others.

The Python of docs/kernels.md runs here too.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood.adapters.adapter import Adapter
from pophood.errors import BadInput
from pophood.generate import PrefixCache
from pophood.model.engine import CancelFlag, Engine
from tests.test_engine import Random
from tests.tiny import tiny_config
from tests.tiny_folder import tiny_folder

IDS = [5, 1, 33, 7, 7, 20, 2, 9, 11, 4]
PRECISIONS = ["f32", "q8"]


def engine_at(precision: str, family: str = "llama", **options: Any) -> Engine:
    sizes = {
        "n_embd": 64,
        "n_head": 4,
        "n_kv_head": 2 if family == "llama" else 4,
        "head_dim": 16,
        "n_inner": 96,
    }
    config = tiny_config(family, **sizes)
    engine = Engine(config, precision, **options)
    engine.load(Random(config))
    return engine


def adapter(engine: Engine, seed: int, rank: int = 3) -> Adapter:
    rng = np.random.default_rng(seed)
    c, f = engine.config.n_embd, engine.config.n_inner
    width = engine.config.n_head * engine.config.head_dim

    def pair(rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        a, b = rng.standard_normal((rank, columns)) * 0.1, rng.standard_normal((rows, rank)) * 0.1
        return a.astype(np.float32), b.astype(np.float32)

    shapes = {"attn.q": (width, c), "attn.out": (c, width), "mlp.up": (f, c), "mlp.down": (c, f)}
    targets = {
        f"blocks.{i}.{name}": pair(*shape)
        for i in range(engine.config.n_layer)
        for name, shape in shapes.items()
    }
    return Adapter(f"adapter-{seed}", rank, rank, 1.0, targets)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 3])
def test_three_adapters_in_one_batch_give_the_bits_of_each_alone(
    precision: str, family: str, threads: int
) -> None:
    engine = engine_at(precision, family, threads=threads)
    one, two = engine.add_adapter(adapter(engine, 1)), engine.add_adapter(adapter(engine, 2, rank=17), 0.5)
    uses: list[tuple[int, ...]] = [(), (one,), (two,), (one, two), (one,)]
    texts = [IDS, IDS[:4], IDS[2:], IDS[:1], IDS[::-1]]
    together = [engine.new_sequence(use) for use in uses]
    batch = list(zip(together, texts, strict=True))
    prefill = engine.logits(batch)
    decode = engine.logits([(sequence, [3]) for sequence in together])
    for place, (use, text) in enumerate(zip(uses, texts, strict=True)):
        with engine.sequence(use) as alone:
            assert np.array_equal(engine.logits([(alone, text)])[0], prefill[place])
            assert np.array_equal(engine.logits([(alone, [3])])[0], decode[place])
    differences = [np.abs(decode[0] - row).max() for row in decode[1:]]
    assert min(differences) > 1e-3
    names = [f"blocks.0.{name}" for name in ("attn.q", "attn.result", "attn.out", "mlp.pre")]
    forks = [engine.fork(sequence) for sequence in together]
    inside = engine.forward([(sequence, [4]) for sequence in forks], taps=names).taps
    for place, sequence in enumerate(together):
        alone_inside = engine.forward([(sequence, [4])], taps=names).taps
        for name in names:
            assert np.array_equal(inside[name][place], alone_inside[name][0]), name


def test_a_sequence_keeps_its_adapter_after_it_is_removed() -> None:
    engine = engine_at("f32")
    number = engine.add_adapter(adapter(engine, 1))
    kept, before = engine.new_sequence([number]), engine.new_sequence([number])
    expected = engine.logits([(before, IDS)])
    engine.remove_adapter(number)
    assert np.array_equal(engine.logits([(kept, IDS)]), expected)
    with pytest.raises(IndexError, match="adapter 0 does not exist"):
        engine.new_sequence([number])
    with pytest.raises(IndexError):
        engine.remove_adapter(number)


def test_a_prefix_that_another_adapter_computed_is_not_reused() -> None:
    engine = engine_at("f32")
    prefix = PrefixCache(engine)
    sequence = engine.new_sequence()
    engine.logits([(sequence, IDS)])
    prefix.keep(sequence, IDS)
    engine.use_adapters([(adapter(engine, 1), 1.0)])
    fresh = prefix.take(IDS)
    assert (fresh.length, engine.length(fresh.sequence)) == (0, 0)
    engine.logits([(fresh.sequence, IDS)])
    prefix.keep(fresh.sequence, IDS)
    assert prefix.take(IDS).length == len(IDS) - 1


# ---- export and import ----


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 70])
def test_exported_keys_and_values_continue_with_the_same_bits(precision: str, length: int) -> None:
    engine, other = engine_at(precision, threads=2), engine_at(precision, threads=1)
    ids = [(i * 7) % 97 for i in range(length)]
    sequence = engine.new_sequence()
    if ids:
        engine.logits([(sequence, ids)])
    state = engine.export_kv(sequence)
    assert state.positions == length
    for target in (engine, other):
        copy = target.import_kv(state)
        assert target.length(copy) == length
        fork = engine.fork(sequence)
        assert np.array_equal(target.logits([(copy, IDS)]), engine.logits([(fork, IDS)]))
        assert np.array_equal(target.export_kv(copy, length).data, state.data)


def test_the_first_positions_can_be_exported_alone() -> None:
    engine = engine_at("f32")
    sequence = engine.new_sequence()
    keys = engine.forward([(sequence, IDS)], taps=["blocks.0.attn.rot_k", "blocks.0.attn.v"]).taps
    state = engine.export_kv(sequence, 3)
    config = engine.config
    per_layer = 2 * config.n_kv_head * 3 * config.head_dim
    first = state.data.view(np.float32)[:per_layer].reshape(2, config.n_kv_head, 3, config.head_dim)
    assert np.array_equal(first[0], keys["blocks.0.attn.rot_k"][:3].transpose(1, 0, 2))
    assert np.array_equal(first[1], keys["blocks.0.attn.v"][:3].transpose(1, 0, 2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sequence_is_put_together_from_pieces_and_shares_its_beginning(precision: str) -> None:
    """The first piece ends inside a block of 32, which the fork that continues it has to copy."""
    engine = engine_at(precision)
    ids = [(i * 7) % 97 for i in range(70)]
    sequence = engine.new_sequence()
    engine.logits([(sequence, ids)])
    base = engine.import_kv(engine.export_kv(sequence, 40))
    rest = engine.fork(base)
    engine.append_kv(rest, engine.export_kv(sequence, first=40))
    assert np.array_equal(engine.export_kv(rest).data, engine.export_kv(sequence).data)
    assert engine.length(base) == 40
    fork = engine.fork(sequence)
    engine.truncate(fork, 40)
    assert np.array_equal(engine.logits([(base, IDS)]), engine.logits([(fork, IDS)]))
    assert np.array_equal(engine.logits([(rest, IDS)]), engine.logits([(sequence, IDS)]))
    with pytest.raises(BadInput, match="begin at position 0; the sequence ends at 80"):
        engine.append_kv(rest, engine.export_kv(sequence, 3))


def test_keys_and_values_of_another_engine_are_refused() -> None:
    engine = engine_at("f32")
    with engine.sequence() as sequence:
        engine.logits([(sequence, IDS)])
        state = engine.export_kv(sequence)
        with pytest.raises(BadInput, match="positions must be 0"):
            engine.export_kv(sequence, 99)
    with pytest.raises(BadInput, match=r"in f32; wanted at most [\d,]+ of .* in f16"):
        engine_at("q8").import_kv(state)
    with pytest.raises(BadInput, match="4 heads of 16"):
        engine_at("f32", "gpt2").import_kv(state)
    with pytest.raises(BadInput, match="10 positions of"):
        engine_at("f32", context=9).import_kv(state)
    torn = type(state)(state.geometry, state.positions, state.data[:-4])
    with pytest.raises(BadInput, match="do not have"):
        engine.import_kv(torn)


# ---- cancelling one sequence ----


@pytest.mark.parametrize("taps", [[], ["blocks.1.attn.z"]])
def test_one_sequence_is_cancelled_and_the_others_do_not_notice(taps: list[str]) -> None:
    engine = engine_at("f32", threads=2)
    texts = [IDS, IDS[1:], IDS[2:]]
    expected = []
    for text in texts:
        with engine.sequence() as alone:
            expected.append(engine.logits([(alone, text)], rows="all"))
    for gone in range(3):
        sequences = [engine.new_sequence() for _ in texts]
        engine.logits([(sequences[gone], [8, 8])])
        flag = CancelFlag()
        flag.set()
        batch = list(zip(sequences, texts, strict=True))
        result = engine.forward(batch, rows="all", cancels={sequences[gone]: flag}, taps=taps)
        assert result.cancelled == (sequences[gone],)
        rows = np.split(result.output, np.cumsum([len(text) for text in texts])[:-1])
        for place, sequence in enumerate(sequences):
            if place == gone:
                assert np.isnan(rows[place]).all()
                assert engine.length(sequence) == 2
            else:
                assert np.array_equal(rows[place], expected[place])
                assert engine.length(sequence) == len(texts[place])


def test_a_cancelled_sequence_ends_between_chunks_and_can_go_on_later() -> None:
    engine = engine_at("f32")
    flag = CancelFlag()
    flag.set()
    with engine.sequence() as one, engine.sequence() as two, engine.sequence() as alone:
        expected = engine.logits([(alone, IDS)], rows="all")
        result = engine.forward([(one, IDS), (two, IDS)], rows="all", cancels={one: flag}, chunk=3)
        assert np.array_equal(result.output[len(IDS) :], expected)
        assert (engine.length(one), engine.length(two)) == (0, len(IDS))
        both = engine.forward([(one, IDS)], rows="all", cancels={one: flag})
        assert both.cancelled == (one,)
        assert engine.length(one) == 0
        assert np.array_equal(engine.logits([(one, IDS)], rows="all"), expected)


def test_flags_that_are_set_meanwhile_leave_every_sequence_whole() -> None:
    """A thread sets flags at random moments of long prefills; whoever went on has the right bits."""
    engine = engine_at("f32", threads=2)
    texts = [[(i * step) % 97 for i in range(100)] for step in (3, 5, 7)]
    expected = []
    for text in texts:
        with engine.sequence() as alone:
            expected.append(engine.logits([(alone, text)])[0])
    cancelled = 0
    for turn in range(40):
        sequences = [engine.new_sequence() for _ in texts]
        flags = {sequence: CancelFlag() for sequence in sequences}
        timer = threading.Timer(0.0002 * (turn % 20), flags[sequences[turn % 3]].set)
        timer.start()
        result = engine.forward(list(zip(sequences, texts, strict=True)), cancels=flags)
        timer.join()
        cancelled += len(result.cancelled)
        for place, sequence in enumerate(sequences):
            if sequence in result.cancelled:
                assert engine.length(sequence) == 0
            else:
                assert np.array_equal(result.output[place], expected[place])
            engine.drop(sequence)
    assert cancelled < 40


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "model", "gpt2")
    lm = pophood.load(tmp_path / "model")
    page = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    values: dict[str, Any] = {"lm": lm}
    for block in code:
        exec(block, values)
    assert len(values["likeliest"]) == 3
    assert values["state"].positions == len(lm.tokenize("The capital of Spain is"))
    assert len(values["texts"]) == 3
