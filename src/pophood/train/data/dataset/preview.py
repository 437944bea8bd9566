"""Examples token by token, before the first step: what is trained, what is only read, the end, what is cut
off."""

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
class ShownPiece:
    """Neighbouring tokens of one state, as text for printing in colour; special tokens are written out."""

    text: str
    state: State


@dataclass(frozen=True, slots=True)
class Shown:
    """One example: every token in a table, the same as few pieces of text, and the counts of all its
    tokens."""

    source: str
    table: Table
    pieces: tuple[ShownPiece, ...]
    counts: dict[State, int]
    left_out: int  # tokens after the ones that are shown


def show(examples: Examples, tokenizer: Tokenizer, n: int = 3, *, most: int = 400) -> list[Shown]:
    """The first `n` examples, the last of them one that is cut, if any is; at most `most` tokens of each.

    The table's columns: position, token_id, token_text, state.
    """
    numbers = list(range(min(n, len(examples))))
    cut = examples.cut_documents.nonzero()[0].tolist()
    if numbers and cut and not set(cut) & set(numbers):
        numbers[-1] = cut[0]
    return [_shown(examples, number, tokenizer, most) for number in numbers]


def _shown(examples: Examples, number: int, tokenizer: Tokenizer, most: int) -> Shown:
    example = examples.whole(number)
    kept = len(example.ids) - example.cut
    ends = {end_id(tokenizer), *tokenizer.stops}
    states: list[State] = []
    for place, (id_, trained) in enumerate(zip(example.ids.tolist(), example.trained.tolist(), strict=True)):
        if place >= kept:
            states.append("cut")
        elif not trained:
            states.append("ignored")
        else:
            states.append("end" if id_ in ends else "trained")
    ids = example.ids.tolist()[:most]
    rows = tuple(
        (place, id_, tokenizer.token_text(id_), state)
        for place, (id_, state) in enumerate(zip(ids, states, strict=False))
    )
    table = Table(("position", "token_id", "token_text", "state"), rows, title=example.source)
    pieces = tuple(_pieces(ids, states, tokenizer))
    counts = {state: states.count(state) for state in STATES}
    return Shown(example.source, table, pieces, counts, len(states) - len(ids))


def _pieces(ids: list[int], states: list[State], tokenizer: Tokenizer) -> Iterator[ShownPiece]:
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or states[place] != states[start]:
            data = b"".join(map(tokenizer.token_bytes, ids[start:place]))
            yield ShownPiece(data.decode("utf-8", "replace"), states[start])
            start = place
