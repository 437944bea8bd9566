"""Engine.summary: likeliest tokens, log-sum-exp, entropy, ranks and bitmasks against NumPy on whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.model.engine import Edit, Engine, instruction_sets
from pophood.sampling import measures, ranked
from tests.test_engine import Random, engine_of
from tests.tiny import tiny_config

IDS = [5, 1, 33, 7, 7, 20, 2]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of("gpt2", threads=2)


def rows_of(engine: Engine, ids: list[int] = IDS) -> NDArray[np.float32]:
    with engine.sequence() as sequence:
        return engine.logits([(sequence, ids)], rows="all")


@pytest.mark.parametrize("k", [0, 1, 7, "all"])
def test_it_describes_the_rows_of_logits(engine: Engine, k: int | str) -> None:
    logits, size = rows_of(engine), engine.config.vocab_size
    count = size if k == "all" else int(k)
    with engine.sequence() as sequence:
        summary = engine.summary([(sequence, IDS)], count, rows="all", targets=IDS)
    for i, row in enumerate(logits):
        order = ranked(row, size)
        assert np.array_equal(summary.ids[i], order[:count])
        assert np.array_equal(summary.logits[i], row[order[:count]])
        log_mass, entropy = measures(row)
        assert summary.log_mass[i] == pytest.approx(log_mass, abs=1e-6)
        assert summary.entropy[i] == pytest.approx(entropy, abs=1e-5)
        assert summary.target_ranks is not None
        assert summary.target_ranks[i] == 1 + order.tolist().index(IDS[i])
        assert summary.target_log_probabilities[i] == pytest.approx(row[IDS[i]] - log_mass, abs=1e-6)


def test_only_the_last_rows_are_described_by_default(engine: Engine) -> None:
    with engine.sequence() as one, engine.sequence() as two:
        summary = engine.summary([(one, IDS), (two, IDS[:3])], 2)
    logits = rows_of(engine)
    assert np.array_equal(summary.ids, np.stack([ranked(row, 2) for row in logits[[6, 2]]]))


def summary_of(engine: Engine, logits: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]) -> Any:
    """Summarise a row that takes the place of the model's."""
    bits = np.zeros(-(-len(logits) // 32) * 32, np.uint8)
    bits[: len(allowed)] = allowed
    mask = np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)[None]
    edits = [Edit("logits", "replace", logits)]
    with engine.sequence() as sequence:
        return engine._forward([(sequence, [1])], "summary", "last", k=k, allowed=mask, edits=edits).output


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_and_masks(data: st.DataObject) -> None:
    engine = _shared()
    size = engine.config.vocab_size
    values = data.draw(st.lists(st.sampled_from([-3.0, 0.0, 0.5, 2.0]), min_size=size, max_size=size))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    k = data.draw(st.integers(1, size))
    logits = np.array(values, np.float32)
    summary = summary_of(engine, logits, k, allowed)
    left = np.flatnonzero(allowed)
    order = sorted(left.tolist(), key=lambda token: (-logits[token], token))[:k]
    assert summary.ids[0].tolist() == order + [-1] * (k - len(order))
    assert (summary.logits[0][len(order) :] == -np.inf).all()
    if len(left):
        log_mass, entropy = measures(np.where(allowed, logits, -np.inf).astype(np.float32))
        assert summary.log_mass[0] == pytest.approx(log_mass, abs=1e-6)
        assert summary.entropy[0] == pytest.approx(entropy, abs=1e-5)
    else:
        assert summary.log_mass[0] == -np.inf


_ENGINES: list[Engine] = []


def _shared() -> Engine:
    if not _ENGINES:
        config = tiny_config("gpt2", vocab_size=75)
        _ENGINES.append(Engine(config, threads=1))
        _ENGINES[0].load(Random(config))
    return _ENGINES[0]


def test_bits_do_not_depend_on_threads_batch_chunks_or_instruction_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vocabulary of several blocks, and more rows than are held at once."""
    results = []
    ids = [(i * i + 3 * i) % 97 for i in range(90)]
    for isa in instruction_sets():
        monkeypatch.setenv("POPHOOD_ISA", isa)
        for threads, chunk in ((1, 512), (3, 7)):
            engine = engine_of("llama", threads=threads)
            with engine.sequence() as one, engine.sequence() as two:
                batch = [(one, ids), (two, ids[:40])]
                done = engine._forward(batch, "summary", "all", k=5, targets=[*ids, *ids[:40]], chunk=chunk)
            results.append(done.output)
    for result in results[1:]:
        for name in ("ids", "logits", "log_mass", "entropy", "target_logits", "target_ranks"):
            assert np.array_equal(getattr(result, name), getattr(results[0], name)), name
    first = results[0]
    assert np.array_equal(first.log_mass[:40], first.log_mass[90:])


def test_a_large_vocabulary_is_described(engine: Engine) -> None:
    config = tiny_config("gpt2", vocab_size=5_000)
    large = Engine(config, threads=2)
    large.load(Random(config))
    with large.sequence() as sequence:
        row = large.logits([(sequence, IDS)])[0]
    with large.sequence() as sequence:
        summary = large.summary([(sequence, IDS)], 50, targets=[4_999])
    assert np.array_equal(summary.ids[0], ranked(row, 50))
    assert summary.log_mass[0] == pytest.approx(measures(row)[0], abs=1e-6)
    assert summary.entropy[0] == pytest.approx(measures(row)[1], abs=1e-5)
    assert summary.target_ranks is not None
    assert summary.target_ranks[0] == 1 + int((row > row[4_999]).sum())


def test_wrong_requests_are_refused_and_change_nothing(engine: Engine) -> None:
    with engine.sequence() as sequence:
        with pytest.raises(BadInput, match="k must be 0"):
            engine.summary([(sequence, IDS)], engine.config.vocab_size + 1)
        with pytest.raises(BadInput, match="a target for each of 1 rows, got 2"):
            engine.summary([(sequence, IDS)], targets=[1, 2])
        with pytest.raises(BadInput, match="allowed must be uint32"):
            engine.summary([(sequence, IDS)], allowed=np.zeros((1, 1), np.int64))
        with pytest.raises(BadInput):
            engine.summary([(sequence, IDS)], targets=[10**6])
        assert engine.length(sequence) == 0
        with pytest.raises(BadInput, match="without targets"):
            _ = engine.summary([(sequence, IDS)]).target_log_probabilities
