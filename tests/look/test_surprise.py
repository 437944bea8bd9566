"""Surprise: probabilities are those of LM.score and of the logits; ranks; windows; files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.blocks import Coloured
from tests.look.seen import ODD, faults

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. "


def test_every_token_has_the_probability_of_its_logits(small: pophood.LM) -> None:
    view = look.surprise(small, TEXT)
    logits = small.logits(TEXT).astype(np.float64)
    ids = view.source.ids
    assert math.isnan(view.log_probabilities[0]) and view.ranks[0] == 0
    for i in range(1, len(ids)):
        row = logits[i - 1]
        wanted = row[ids[i]] - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert view.log_probabilities[i] == pytest.approx(wanted, abs=1e-4)
        assert view.ranks[i] == 1 + np.argsort(-row, kind="stable").tolist().index(ids[i])
    table = view.tables()["tokens"]
    assert table.columns == ("position", "token_id", "token_text", "probability", "bits", "rank")
    assert table[0]["probability"] is None and table[0]["bits"] is None and table[0]["rank"] is None
    assert table[3]["bits"] == pytest.approx(-math.log2(float(str(table[3]["probability"]))))
    assert "".join(str(text) for text in table.column("token_text")) == TEXT


@pytest.mark.parametrize("window", [None, 40, 7])
def test_windows_are_those_of_score(small: pophood.LM, window: int | None) -> None:
    """The text has more rows than one call of the engine, and more tokens than the context window."""
    text = TEXT * 20
    view, score = look.surprise(small, text, window=window), small.score(text, window=window)
    assert np.allclose(view.log_probabilities, score.log_probabilities, atol=1e-4, equal_nan=True)
    assert view.scored == score.scored
    assert view.perplexity == pytest.approx(score.perplexity, rel=1e-4)
    assert view.mean_bits == pytest.approx(score.mean_nll / math.log(2), rel=1e-4)
    assert "windows" in view.notes[-1] and f"{window or 128:,} tokens" in view.notes[-1]


def test_a_file_is_read_as_its_text(small: pophood.LM, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    assert look.surprise(small, path).bits.tobytes() == look.surprise(small, TEXT).bits.tobytes()
    path.write_bytes(b"caf\xe9")
    with pytest.raises(BadInput, match=r"text\.txt is not UTF-8: byte 0xE9 at offset 3"):
        look.surprise(small, path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="the text is empty"):
        look.surprise(small, path)


def test_one_token_surprises_nobody(small: pophood.LM) -> None:
    view = look.surprise(small, "The")
    assert view.scored == 0 and math.isnan(view.perplexity)
    assert "no surprisal" in view.title and "none" in view.alt
    assert view.tables()["summary"].column("value")[2] is None


@pytest.mark.parametrize("window", [1, 129])
def test_a_window_that_does_not_fit(small: pophood.LM, window: int) -> None:
    with pytest.raises(BadInput, match=rf"window must be 2\.\.128 tokens, got {window}"):
        look.surprise(small, TEXT, window=window)


def test_on_the_real_model(smol: pophood.LM) -> None:
    """A sentence has less surprisal than its words in disorder, and " is" less than " Spain" before it."""
    view = look.surprise(smol)
    assert view.source.tokens[3] == " Spain" and view.bits[4] < view.bits[3] < view.bits[1]
    disorder = look.surprise(smol, "Spain the of is capital The")
    assert disorder.mean_bits > view.mean_bits
    block = view.picture()[0]
    assert isinstance(block, Coloured) and (block.low, block.high) == (0.0, 12.0)
    assert [text for text, _ in block.pieces] == list(view.source.tokens)
    assert "bits" in block.scale and '" capital" 16.' in view.alt


@pytest.mark.parametrize("text", [ODD, TEXT * 12], ids=len)
def test_the_picture_is_legible(small: pophood.LM, text: str) -> None:
    assert not faults(look.surprise(small, text).figure("dark"))
