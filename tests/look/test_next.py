"""The talk's top-10 table, and columns of settings that equal the distributions of sampling itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.sampling import SamplingSettings, chain
from tests.look.seen import ODD, faults

PROMPT = "The capital of Spain is"


def test_the_talks_table(small: pophood.LM) -> None:
    view = look.next(small, PROMPT)
    table = view.top
    assert table.columns == ("token_id", "token_text", "logit", "probability") and len(table) == 10
    assert str(table) == str(small.next(PROMPT)), "one table, however one asks for it"
    assert table.bars == "probability"
    cells = table.cells(0)
    assert cells[2] == f"{table[0]['logit']:.2f}" and cells[3] == f"{table[0]['probability']:.4f}"
    logits = small.logits(PROMPT)[-1].astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert np.allclose(np.array(table.column("probability"), float), np.sort(probabilities)[::-1][:10])
    bits = float(-(probabilities * np.log2(probabilities)).sum())
    assert view.left[0].entropy == pytest.approx(bits, rel=1e-4)
    assert view.left[0].choices == pytest.approx(2**bits, rel=1e-3)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.one_of(st.just(0.0), st.floats(0.05, 3)),
        "top_k": st.integers(0, 60),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 0.9),
    },
).filter(bool)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES, seed=st.integers(0, 2**32))
def test_a_column_is_what_sampling_draws_from(smol: pophood.LM, values: dict[str, float], seed: int) -> None:
    """The probability that a draw reports is the number in its column, and no other token is drawn."""
    view = look.next(smol, PROMPT, k=60, **values)  # type: ignore[arg-type]
    whole = SamplingSettings(**({"temperature": 1.0, "top_k": 0} | values))  # type: ignore[arg-type]
    column = view.left[-1]
    ids = view.top.column("token_id")
    for sample in range(8):
        choice = chain(whole).choose(view.logits, (), seed=seed, sample=sample, position=5)
        assert choice.candidates == column.tokens
        if choice.id in ids:
            assert choice.final_probability == pytest.approx(
                column.probabilities[ids.index(choice.id)], rel=1e-4
            )
    assert sum(column.probabilities) <= 1 + 1e-5
    if column.tokens <= 60:
        assert sum(column.probabilities) == pytest.approx(1, rel=1e-4)
        assert sum(p > 0 for p in column.probabilities) <= column.tokens


def test_examples_and_what_was_asked_for(small: pophood.LM) -> None:
    bare = look.next(small, PROMPT)
    names = [one.setting for one in bare.left]
    assert names == ["raw", "temperature 0.8", "top_k 40", "top_p 0.9", "min_p 0.05", "together"]
    assert bare.left[-1].tokens == 40 and bare.left[0].kept == pytest.approx(1)
    one = look.next(small, PROMPT, top_k=3)
    assert [left.setting for left in one.left] == ["raw", "top_k 3"]
    assert one.left[1].tokens == 3 and one.left[1].kept == pytest.approx(
        sum(float(str(p)) for p in bare.top.column("probability")[:3]), rel=1e-4
    )
    two = look.next(small, PROMPT, temperature=2, min_p=0.1)
    assert [left.setting for left in two.left] == ["raw", "temperature 2", "min_p 0.1", "together"]
    greedy = look.next(small, PROMPT, temperature=0.00001).left[1]
    assert (greedy.tokens, greedy.probabilities[0], greedy.entropy, greedy.choices) == (1, 1.0, 0.0, 1.0)


def test_temperature_moves_the_entropy(small: pophood.LM) -> None:
    cold, hot = (look.next(small, PROMPT, temperature=t).left[1].entropy for t in (0.5, 2.0))
    raw = look.next(small, PROMPT, temperature=1).left
    assert cold < raw[0].entropy < hot <= math.log2(50_257)
    assert raw[1].probabilities == raw[0].probabilities


def test_tables_and_words(smol: pophood.LM) -> None:
    view = look.next(smol)
    assert view.title == f'After "{PROMPT}", {smol.name} expects " Madrid" with probability 0.3773'
    assert list(view.tables()) == ["top", "settings", "probabilities"]
    assert view.tables()["probabilities"].columns[:3] == ("token_id", "token_text", "raw")
    assert "like choosing among" in " ".join(view.notes)
    assert view.to_csv().splitlines()[1].startswith("28030, Madrid,")


def test_values_out_of_range_are_refused(small: pophood.LM) -> None:
    with pytest.raises(BadInput, match=r"top_p .* is 2; wanted a number from 0 to 1"):
        look.next(small, PROMPT, top_p=2)
    with pytest.raises(BadInput, match=r"k must be 1\.\.50,257, got 0"):
        look.next(small, PROMPT, k=0)
    with pytest.raises(BadInput, match="the text is empty"):
        look.next(small, "")


def test_p11_and_p12_greedy_and_almost_zero_temperature(smol: pophood.LM) -> None:
    """Ten runs at temperature 0.00001 give the same ten tokens, and the first is on top of the table."""
    made = smol.samples(PROMPT, 10, max_tokens=10, temperature=0.00001, seed=42)
    assert len({generation.text for generation in made}) == 1
    assert made[0].completion.startswith(" Madrid")
    first = look.next(smol, PROMPT).top[0]
    assert made[0].tokens[0].id == first["token_id"]
    drawn = smol.samples(PROMPT, 10, max_tokens=10, temperature=0.8, top_k=40, seed=42)
    assert len({generation.text for generation in drawn}) > 3


def test_the_picture_is_legible(small: pophood.LM) -> None:
    assert not faults(look.next(small, ODD, k=20).figure("dark"))
