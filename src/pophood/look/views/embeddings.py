"""Embeddings: the token and position matrices, the nearest neighbours of a word, and the talk's map.

The map takes the embedding of each token, centres them, and projects them on the first two right singular
vectors (`geometry.principal` explains how their signs are fixed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.blocks import Block, Lines, Points
from pophood.look.math.geometry import Projection, cosine, cosines, nearest, principal
from pophood.look.math.model_parts import shape_text
from pophood.look.source import ViewSource, model_title
from pophood.look.view import View
from pophood.look.words import Pair, WordList, word_list
from pophood.model.lm import LM
from pophood.phrases import phrase
from pophood.sampling.softmax import Floats
from pophood.table import Table, count

Ids = dict[str, tuple[int, ...]]  # word -> its tokens
RANDOM_PAIRS, SEED = 1000, 42
SHARED = 0.1  # a larger mean cosine of random pairs is explained in a note
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Piece:
    """One point of the map: a token, and the word that it is or belongs to."""

    id: int
    text: str
    word: str
    group: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Control:
    """The cosines of many pairs: their mean, and the interval that holds the middle 95 % of them."""

    label: str
    pairs: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Related:
    """Two related words. A word of several tokens is their mean; `tokens` counts them."""

    pair: Pair
    tokens: tuple[int, int]
    cosine: float


@dataclass(frozen=True, eq=False)
class EmbeddingsView(View):
    """The shapes of the matrices, a map of words, and the nearest tokens of one word."""

    token_shape: tuple[int, int]
    position_shape: tuple[int, int] | None  # None: rotary positions, no matrix
    words: WordList
    spaced: bool
    pieces: tuple[Piece, ...]
    vectors: Floats  # [pieces, C]
    explained: tuple[float, ...]
    related: tuple[Related, ...]
    controls: tuple[Control, ...]
    word: tuple[int, str]  # the token whose neighbours are listed
    neighbours: tuple[tuple[int, str, float], ...]

    def joined(self) -> tuple[tuple[Piece, Piece], ...]:
        """Return the pairs of points that the map joins: the first tokens of two related words."""
        first: dict[str, Piece] = {}
        for piece in self.pieces:
            first.setdefault(piece.word, piece)
        pairs = (related.pair for related in self.related)
        return tuple((first[a], first[b]) for a, b in pairs if a in first and b in first)

    @property
    def headline(self) -> str:
        spaced = phrase(", words with a leading space") if self.spaced else ""
        return phrase(
            "{model} Token Embedding Space{spaced}", model=model_title(self.source.model), spaced=spaced
        )

    @property
    def alt(self) -> str:
        pieces, control = ", ".join(piece.text for piece in self.pieces[:40]), self.controls[-1]
        related = ", ".join(f"{a}-{b} {r.cosine:.2f}" for r in self.related for a, b in [r.pair])
        pairs = phrase(" Cosine of related words: {related}.", related=related) if related else ""
        return phrase(
            "Scatter plot of {tokens} of {words} along the first two singular vectors of "
            "their embeddings, which hold {share:.0%} of the variance: {pieces}.{pairs} "
            "Mean cosine of {several} {label}: {mean:.2f}.",
            tokens=count(len(self.pieces), "token"),
            words=count(len(self.words.words), "word"),
            share=sum(self.explained),
            pieces=pieces,
            pairs=pairs,
            several=control.pairs,
            label=control.label,
            mean=control.mean,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        split = _split_words(self.pieces)
        first, second = self.explained
        notes = [
            phrase(
                "The map shows {first:.1%} (across) and {second:.1%} (up) of the variance of "
                "these points; the rest lies in the other {others} directions. Each "
                "direction's largest component is positive, so that every machine draws the "
                "same picture.",
                first=first,
                second=second,
                others=self.token_shape[1] - 2,
            ),
        ]
        if split:
            words = ", ".join("|".join(piece.strip() for piece in pieces) for pieces in split)
            advice = "" if self.spaced else phrase(": with a leading space a word is more often one token")
            notes.append(
                phrase(
                    "Words of several tokens, one point each: {words}{advice}.", words=words, advice=advice
                )
            )
        random = self.controls[-1]
        if random.mean > SHARED:
            notes.append(
                phrase(
                    "Even random pairs of tokens have a mean cosine of {mean:.2f} here, since all "
                    "rows share a direction: compare a cosine with that control.",
                    mean=random.mean,
                )
            )
        return tuple(notes)

    def tables(self) -> dict[str, Table]:
        """Return `points`, `neighbours`, `pairs` (if there are any), `controls` and `shapes`."""
        points = tuple(astuple(piece) for piece in self.pieces)
        pairs = tuple((*r.pair, r.cosine, *r.tokens) for r in self.related)
        controls = tuple(astuple(control) for control in self.controls)
        shapes: list[tuple[object, ...]] = [(phrase("token embedding"), *self.token_shape)]
        if self.position_shape is not None:
            shapes.append((phrase("position embedding"), *self.position_shape))
        nearest_columns = ("token_id", "token_text", "cosine")
        pair_columns = ("first", "second", "cosine", "tokens_of_first", "tokens_of_second")
        control_columns = ("control", "pairs", "mean", "low_2.5%", "high_97.5%")
        title = phrase(
            "The nearest tokens to {word!r} (token {id}) by cosine", word=self.word[1], id=self.word[0]
        )
        tables = {
            "points": Table(("token_id", "token_text", "word", "group", "x", "y"), points),
            "neighbours": Table(nearest_columns, self.neighbours, bars="cosine", title=title),
            "pairs": Table(pair_columns, pairs, title=phrase("Cosine of related words")),
            "controls": Table(control_columns, controls, title=phrase("Cosine of unrelated pairs")),
            "shapes": Table(("matrix", "rows", "columns"), tuple(shapes)),
        }
        return {name: table for name, table in tables.items() if table.rows}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return `vectors` [pieces, C], their `coordinates` [pieces, 2] and `cosines` [pieces, pieces]."""
        coordinates = np.array([(piece.x, piece.y) for piece in self.pieces])
        return {"vectors": self.vectors, "coordinates": coordinates, "cosines": cosines(self.vectors)}

    def picture(self) -> tuple[Block, ...]:
        position = self.position_shape
        second = phrase("none (rotary positions)") if position is None else shape_text(position)
        token = shape_text(self.token_shape)
        shapes = phrase(
            "Token embedding matrix: {token}\nPosition embedding matrix: {second}", token=token, second=second
        )
        points = tuple((piece.x, piece.y, piece.text, piece.group) for piece in self.pieces)
        tables = self.tables()
        shown = [tables[name] for name in ("neighbours", "pairs", "controls") if name in tables]
        return (Lines(phrase("Embeddings"), shapes, shapes), Points(self.title, points), *shown)


def embeddings(
    lm: LM,
    words: str | PathLike[str] | Sequence[str] = "family",
    *,
    spaced: bool = False,
    word: str | None = None,
    k: int = NEAREST,
) -> EmbeddingsView:
    """Show both matrices, a map of words, and the k tokens nearest to `word` (default: the list's first).

    `words` is "family" or "cities" (the talk's), a file of words, or a list of them. `spaced` adds the space
    before each word that it has inside a text; with it, a word is more often one token.

        look.embeddings(lm, "cities", spaced=True).tables()["pairs"]
        look.embeddings(lm, word=" Madrid").tables()["neighbours"]

    Raises BadInput for fewer than three words, and if `word` is not a token; NotFound for a missing file.
    """
    chosen = word_list(words)
    rows = lm.weights["embed.token"]
    size = min(rows.shape[0], lm.bundle.tokenizer.vocab_size)
    if not 1 <= k < size:
        raise BadInput(f"k must be 1..{size - 1:,}, got {k}")
    ids = {one: _ids(lm, one, spaced) for one in chosen.words}
    target = _token_of(lm, word) if word is not None else ids[chosen.words[0]][0]
    pieces, plane = _map(lm, chosen, ids, rows)
    spell = lm.bundle.tokenizer.token_text
    return EmbeddingsView(
        source=ViewSource.of(lm),
        token_shape=(rows.shape[0], rows.shape[1]),
        position_shape=(lm.config.n_positions, lm.config.n_embd) if lm.config.rope is None else None,
        words=chosen,
        spaced=spaced,
        pieces=pieces,
        vectors=rows[[piece.id for piece in pieces]],
        explained=plane.explained,
        related=_related(chosen, ids, rows),
        controls=_controls(chosen, ids, rows, size),
        word=(target, spell(target)),
        neighbours=tuple((id_, spell(id_), towards) for id_, towards in nearest(rows[:size], target, k)),
    )


def _ids(lm: LM, word: str, spaced: bool) -> tuple[int, ...]:
    """Return the tokens of one word, with a leading space if `spaced`."""
    return tuple(lm.tokenize(f" {word}" if spaced else word, add_start=False))


def _token_of(lm: LM, word: str) -> int:
    """Return the token `word`, without or with a leading space; BadInput lists its pieces otherwise."""
    tokenizer = lm.bundle.tokenizer
    for spelling in (word, f" {word}"):
        id_ = tokenizer.id_of(spelling) if spelling.strip() else None
        if id_ is not None:
            return id_
    pieces = [repr(tokenizer.token_text(id_)) for id_ in lm.tokenize(word, add_start=False)]
    if not pieces:
        raise BadInput("the word is empty: give a word or a token's text, such as ' Madrid'")
    raise BadInput(
        f"{word!r} is not a token of {lm.name}, with a leading space or without; its pieces are"
        f" {', '.join(pieces)}: choose one of them, or another word"
    )


def _map(lm: LM, chosen: WordList, ids: Ids, rows: Floats) -> tuple[tuple[Piece, ...], Projection]:
    """Return one point per token, in the order of the words; a token of two words is one point."""
    spell = lm.bundle.tokenizer.token_text
    tokens: dict[int, tuple[str, str]] = {}  # id -> word, group
    for group, words in chosen.groups:
        for word in words:
            for id_ in ids[word]:
                tokens.setdefault(id_, (word, phrase(group)))
    if len(tokens) < 3:
        raise BadInput(f"the words are {len(tokens)} different tokens; a map needs at least 3: add words")
    plane = principal(rows[list(tokens)])
    points = plane.coordinates.tolist()
    pieces = tuple(
        Piece(id_, spell(id_), word, group, x, y)
        for (id_, (word, group)), (x, y) in zip(tokens.items(), points, strict=True)
    )
    return pieces, plane


def _related(chosen: WordList, ids: Ids, rows: Floats) -> tuple[Related, ...]:
    return tuple(
        Related((a, b), (len(ids[a]), len(ids[b])), cosine(_mean(rows, ids[a]), _mean(rows, ids[b])))
        for a, b in chosen.pairs
    )


def _mean(rows: Floats, ids: tuple[int, ...]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = rows[list(ids)].mean(axis=0, dtype=np.float64)
    return mean


def _controls(chosen: WordList, ids: Ids, rows: Floats, size: int) -> tuple[Control, ...]:
    """Return the cosines of unrelated pairs: the same words paired otherwise, and random tokens (seeded)."""
    controls = []
    words = list(dict.fromkeys(word for pair in chosen.pairs for word in pair))
    if words:
        table = cosines(np.stack([_mean(rows, ids[word]) for word in words]))
        others = [
            float(table[i, j])
            for i, a in enumerate(words)
            for j, b in enumerate(words[:i])
            if (a, b) not in chosen.pairs and (b, a) not in chosen.pairs
        ]
        if others:
            controls.append(_control(phrase("the same words, paired otherwise"), others))
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, size, (RANDOM_PAIRS, 2))
    distinct = [(a, b) for a, b in picks.tolist() if a != b]
    random = [cosine(rows[a], rows[b]) for a, b in distinct]
    controls.append(_control(phrase("random pairs of tokens (seed {seed})", seed=SEED), random))
    return tuple(controls)


def _control(label: str, values: list[float]) -> Control:
    low, high = np.percentile(values, [2.5, 97.5])
    return Control(label, len(values), float(np.mean(values)), float(low), float(high))


def _split_words(pieces: Sequence[Piece]) -> list[list[str]]:
    words: dict[str, list[str]] = {}
    for piece in pieces:
        words.setdefault(piece.word, []).append(piece.text)
    return [texts for texts in words.values() if len(texts) > 1]
