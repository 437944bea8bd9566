"""Merging by score: the heap against the definition, written out without it."""

from __future__ import annotations

import itertools
import random

import pytest

from pophood.errors import BadInput
from pophood.text.load import load_text_gguf
from pophood.text.score_merges import merge_by_score
from tests.text.vocabularies import pieces_metadata


def by_definition(symbols: list[str], ids: dict[str, int], scores: list[float]) -> list[str]:
    """Merge by definition: find the best pair (the leftmost of equals), join it, and start again."""
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
    """Return a small vocabulary with ordered or random scores, many equal, and a text of its letters."""
    rng = random.Random(seed)
    alphabet = "abc"[: rng.randint(1, 3)]
    words = sorted({"".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 25))})
    rng.shuffle(words)
    scores = [float(rng.randint(0, 6)) if seed % 2 else float(-place) for place in range(len(words))]
    letters = alphabet + "x" * (seed % 3 == 0)  # "x" is in no token
    return dict(zip(words, range(len(words)), strict=True)), scores, "".join(rng.choices(letters, k=60))


@pytest.mark.parametrize("part", range(4))
def test_the_heap_merges_as_defined(part: int) -> None:
    for seed in range(part * 300, part * 300 + 300):
        ids, scores, text = cases(seed)
        expected = by_definition(list(text), ids, scores)
        assert merge_by_score(list(text), ids, scores) == expected, seed


def test_a_long_run_without_a_cut_is_merged_to_the_longest_tokens() -> None:
    """Nothing in the text ends the run, and a merge in quadratic time would not finish."""
    tokens = ["a" * length for length in range(1, 17)]
    ids = {token: place for place, token in enumerate(tokens)}
    assert merge_by_score(["a"] * 100_000, ids, [0.0] * 16) == ["a" * 16] * 6_250


def test_no_text_spells_a_byte_or_a_control_token() -> None:
    """llama.cpp turns the text "<0x41>" into the byte "A" if "<0x" and "41>" are tokens, which loses text."""
    base = pieces_metadata()
    more = ["<0x", "41>", "<", "0x", "41", "4", "1", ">", "<s", "x", "0", "s"]
    metadata = base | {
        "tokenizer.ggml.tokens": base["tokenizer.ggml.tokens"][:259] + more,
        "tokenizer.ggml.token_type": base["tokenizer.ggml.token_type"][:259] + [1] * len(more),
        "tokenizer.ggml.scores": [0.0] * 259 + [float(-place) for place in range(len(more))],
        "tokenizer.ggml.add_space_prefix": False,
    }
    tokenizer = load_text_gguf(metadata).tokenizer
    for text in ("<0x41>", "<s>", "a<s>b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 1 in tokenizer.encode("a<s>b", add_start=False, parse_special=True)


def test_characters_without_token_become_bytes_or_an_error() -> None:
    tokenizer = load_text_gguf(pieces_metadata()).tokenizer
    assert [tokenizer.token_bytes(id_) for id_ in tokenizer.encode("𝄞", add_start=False)[1:]] == [
        bytes([byte]) for byte in "𝄞".encode()
    ]
    base = pieces_metadata()
    kinds = [5 if kind == 6 else kind for kind in base["tokenizer.ggml.token_type"]]  # unused
    without_bytes = load_text_gguf(base | {"tokenizer.ggml.token_type": kinds}).tokenizer
    with pytest.raises(BadInput, match=r"U\+1D11E"):
        without_bytes.encode("𝄞")
