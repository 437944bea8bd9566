"""A preview of examples, token by token: learned, only read, the end token, cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pophood.table import Table
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.dataset.examples import Examples
from pophood.train.data.encode.default_template import end_id

State = Literal["trained", "ignored", "end", "cut"]
STATES: dict[State, str] = {
    "trained": "the model learns to predict it",
    "ignored": "only read",
    "end": "the end token, learned",
    "cut": "cut off: longer than a row",
}


@dataclass(frozen=True, slots=True)
class PreviewPiece:
    """Neighbouring tokens in one state, as one text; special tokens are spelled out."""

    text: str
    state: State


@dataclass(frozen=True, slots=True)
class Preview:
    """One example: its first tokens as a table and as pieces of text, and the counts of all its tokens."""

    source: str
    table: Table
    pieces: tuple[PreviewPiece, ...]
    counts: dict[State, int]
    left_out: int  # tokens after the ones in the table


def previews(examples: Examples, tokenizer: Tokenizer, n: int = 3, *, most: int = 400) -> list[Preview]:
    """Preview the first `n` examples, at most `most` tokens of each; the last is a cut one, if there is one.

    The table's columns are position, token_id, token_text and state.
    """
    numbers = list(range(min(n, len(examples))))
    cut = examples.cut_documents.nonzero()[0].tolist()
    if numbers and cut and not set(cut) & set(numbers):
        numbers[-1] = cut[0]
    return [_preview(examples, number, tokenizer, most) for number in numbers]


def _preview(examples: Examples, number: int, tokenizer: Tokenizer, most: int) -> Preview:
    example = examples.whole(number)
    end = len(example.ids) - example.cut
    end_tokens = {end_id(tokenizer), *tokenizer.stops}
    states: list[State] = []
    for place, (id_, trained) in enumerate(zip(example.ids.tolist(), example.trained.tolist(), strict=True)):
        if place >= end:
            states.append("cut")
        elif not trained:
            states.append("ignored")
        else:
            states.append("end" if id_ in end_tokens else "trained")
    ids = example.ids.tolist()[:most]
    rows = tuple(
        (place, id_, tokenizer.token_text(id_), state)
        for place, (id_, state) in enumerate(zip(ids, states, strict=False))
    )
    table = Table(("position", "token_id", "token_text", "state"), rows, title=example.source)
    pieces = tuple(_pieces(ids, states, tokenizer))
    counts = {state: states.count(state) for state in STATES}
    return Preview(example.source, table, pieces, counts, len(states) - len(ids))


def _pieces(ids: list[int], states: list[State], tokenizer: Tokenizer) -> Iterator[PreviewPiece]:
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or states[place] != states[start]:
            data = b"".join(map(tokenizer.token_bytes, ids[start:place]))
            yield PreviewPiece(data.decode("utf-8", "replace"), states[start])
            start = place
