"""Merging by score: the heap and the arrays against the definition, written out without either."""

from __future__ import annotations

import itertools
import random

import pytest

from pophood.errors import BadInput
from pophood.text import score_runs
from pophood.text.score_merges import LONG_RUN, merge_by_score
from pophood.text.score_runs import LongRuns
from pophood.text.tokenizer import load_tokenizer_gguf
from tests.text.vocabularies import pieces_metadata


def by_definition(symbols: list[str], ids: dict[str, int], scores: list[float]) -> list[str]:
    """Look at every pair, make the best union (the leftmost of equals), begin again."""
    while True:
        unions = [left + right for left, right in itertools.pairwise(symbols)]
        best = max(
            (place for place, union in enumerate(unions) if union in ids),
            key=lambda place: (scores[ids[unions[place]]], -place),
            default=None,
        )
        if best is None:
            return symbols
        symbols = [*symbols[:best], unions[best], *symbols[best + 2 :]]


def cases(seed: int) -> tuple[dict[str, int], list[float], str]:
    """A small vocabulary with scores in order or at random, many equal, and a text over its letters."""
    rng = random.Random(seed)
    alphabet = "abc"[: rng.randint(1, 3)]
    words = sorted({"".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 25))})
    rng.shuffle(words)
    scores = [float(rng.randint(0, 6)) if seed % 2 else float(-place) for place in range(len(words))]
    letters = alphabet + "x" * (seed % 3 == 0)  # "x" is in no token
    return dict(zip(words, range(len(words)), strict=True)), scores, "".join(rng.choices(letters, k=60))


@pytest.mark.parametrize("part", range(4))
def test_heap_and_arrays_merge_as_defined(part: int) -> None:
    for seed in range(part * 300, part * 300 + 300):
        ids, scores, text = cases(seed)
        expected = by_definition(list(text), ids, scores)
        assert merge_by_score(list(text), ids, scores) == expected, seed
        assert LongRuns(ids, scores).merge(text) == expected, seed


def test_arrays_that_are_interrupted_too_often_finish_on_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_runs, "MOST_INTERRUPTIONS", 1)
    finished_early = 0
    for seed in range(1, 400, 2):
        ids, scores, text = cases(seed)
        runs = LongRuns(ids, scores)
        assert runs.merge(text) == merge_by_score(list(text), ids, scores), seed
        finished_early += len(runs.merge(text)) < len(text)
    assert finished_early > 50


def test_a_long_run_gets_the_ids_that_it_gets_in_short() -> None:
    """Past LONG_RUN the arrays take over; the heap gives the same."""
    tokenizer = load_tokenizer_gguf(pieces_metadata())
    encoder = tokenizer._encoder
    text = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=LONG_RUN + 1))
    symbols = merge_by_score(list(text), encoder._ids, encoder._scores)  # type: ignore[attr-defined]
    ids = tokenizer.encode("\u2581" + text, add_start=False)[1:]
    assert [tokenizer.token_text(id_) for id_ in ids][-100:] == symbols[-100:]
    assert len(set(map(len, symbols))) > 2


def test_no_text_spells_a_byte_or_a_control_token() -> None:
    """llama.cpp makes the text "<0x41>" the byte of "A" if "<0x" and "41>" are tokens; that loses text."""
    base = pieces_metadata()
    more = ["<0x", "41>", "<", "0x", "41", "4", "1", ">", "<s", "x", "0", "s"]
    metadata = base | {
        "tokenizer.ggml.tokens": base["tokenizer.ggml.tokens"][:259] + more,
        "tokenizer.ggml.token_type": base["tokenizer.ggml.token_type"][:259] + [1] * len(more),
        "tokenizer.ggml.scores": [0.0] * 259 + [float(-place) for place in range(len(more))],
        "tokenizer.ggml.add_space_prefix": False,
    }
    tokenizer = load_tokenizer_gguf(metadata)
    for text in ("<0x41>", "<s>", "a<s>b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 1 in tokenizer.encode("a<s>b", add_start=False, parse_special=True)


def test_characters_without_token_become_bytes_or_an_error() -> None:
    tokenizer = load_tokenizer_gguf(pieces_metadata())
    assert [tokenizer.token_bytes(id_) for id_ in tokenizer.encode("𝄞", add_start=False)[1:]] == [
        bytes([byte]) for byte in "𝄞".encode()
    ]
    base = pieces_metadata()
    kinds = [5 if kind == 6 else kind for kind in base["tokenizer.ggml.token_type"]]  # unused
    without_bytes = load_tokenizer_gguf(base | {"tokenizer.ggml.token_type": kinds})
    with pytest.raises(BadInput, match=r"U\+1D11E"):
        without_bytes.encode("𝄞")
