"""Positions: how a model encodes the position of a token: learned vectors (GPT-2) or rotary angles (RoPE).

Learned: the matrix, its curve along the principal directions, the similarity of positions.
Rotary (Llama, Qwen): nothing is added; queries and keys are rotated, so that scores depend on distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.errors import Unsupported
from pophood.look.blocks import Block, Heat, Lines, Points
from pophood.look.math.first_block import Floats, queries_and_keys, rotate, rows_before, score_scale
from pophood.look.math.geometry import cosines, principal
from pophood.look.math.model_parts import shape_text
from pophood.look.math.permutation import WordOrder, compare
from pophood.look.source import ViewSource, model_title
from pophood.look.view import View
from pophood.look.words import MICE
from pophood.model.lm import LM
from pophood.phrases import heading, phrase
from pophood.table import Table

MAP = 256  # most rows and columns of the similarity map
MAP_SHOWN = 32  # of them on a terminal
ANGLES = 64  # positions in the map of angles
Turn = tuple[NDArray[np.float64], float]  # frequencies and magnitude of a rotation
DISTANCES, OFFSETS = 65, (0, 1, 7, 100, 1000)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The position matrix: its curve along principal directions, and the similarity of positions."""

    curve: NDArray[np.float64]  # [P, 3], along the first right singular vectors of the centred matrix
    explained: tuple[float, ...]
    places: NDArray[np.int64]  # positions of the map
    similarity: NDArray[np.float64]  # cosines [places, places]


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """Angles per position, and the scores of one query and key at equal distances in different places."""

    frequencies: NDArray[np.float64]  # [R/2], radians per position
    cosines: NDArray[np.float64]  # [ANGLES, R/2], of position * frequency
    scores: NDArray[np.float64]  # [offsets, distances]: query at offset + distance, key at offset
    offsets: tuple[int, ...]

    @property
    def spread(self) -> float:
        """The largest difference between scores at the same distance."""
        return float(np.ptp(self.scores, axis=0).max())


@dataclass(frozen=True, eq=False)
class PositionsView(View):
    """The context window, and how positions in it are encoded."""

    config: ModelConfig
    order: WordOrder
    learned: Learned | None
    rotary: Rotary | None

    @property
    def headline(self) -> str:
        model, config = model_title(self.source.model), self.config
        if self.learned is not None:
            return phrase(
                "Position Embeddings of {model}: {positions} rows of {features} numbers",
                model=model,
                positions=config.n_positions,
                features=config.n_embd,
            )
        return phrase(
            "Rotary positions of {model}: queries and keys are rotated by position x frequency", model=model
        )

    @property
    def alt(self) -> str:
        if self.learned is not None:
            places, near = self.learned.places, np.diagonal(self.learned.similarity, 1)
            return phrase(
                "Left: the {vectors} position vectors along the first two singular vectors, "
                "joined in order, coloured by position; they hold {share:.0%} of the variance. "
                "Right: cosine of every position with every other; positions {apart} apart "
                "have a mean of {mean:.2f}. {verdict}",
                vectors=len(self.learned.curve),
                share=sum(self.learned.explained[:2]),
                apart=places[1] - places[0],
                mean=near.mean(),
                verdict=self.order.verdict,
            )
        assert self.rotary is not None
        return phrase(
            "Left: cosine of position x frequency for {positions} positions and {pairs} "
            "pairs of features, fast pairs to the left. Right: the score of one query and "
            "key by distance, at {places} places of the text: the curves coincide (largest "
            "difference {spread:.0e}). {verdict}",
            positions=len(self.rotary.cosines),
            pairs=len(self.rotary.frequencies),
            places=len(self.rotary.offsets),
            spread=self.rotary.spread,
            verdict=self.order.verdict,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        order = (self.order.verdict,) if self.order.left is None else (self.order.verdict, self.order.left)
        if self.rotary is None:
            return order
        offsets = ", ".join(map(str, self.rotary.offsets))
        return (
            phrase(
                "Nothing is added to the token rows: in {rotating}, features i and i + {half} "
                "of each query and key head are rotated as a pair, by position x frequency i. "
                "The score of two rotated vectors depends on their distance alone: largest "
                "difference {spread:.0e} over offsets {offsets}.",
                rotating=self._rotating,
                half=self._half,
                spread=self.rotary.spread,
                offsets=offsets,
            ),
            *self._other_blocks,
            *order,
        )

    @property
    def _half(self) -> str:
        rope = self.config.block_attention[0].rope
        return "D/2" if rope is None or rope.share == 1 else str(rope.rotated(self.config.head_dim) // 2)

    @property
    def _rotating(self) -> str:
        """The blocks that rotate queries and keys, in words."""
        still = [str(i) for i, block in enumerate(self.config.block_attention) if block.rope is None]
        return phrase("every block but {still}", still=", ".join(still)) if still else phrase("every block")

    @property
    def _other_blocks(self) -> tuple[str, ...]:
        """A note about blocks that rotate with other frequencies than block 0, if there are any."""
        ropes = [block.rope for block in self.config.block_attention]
        others = [str(i) for i, rope in enumerate(ropes) if rope not in (None, ropes[0])]
        if not others:
            return ()
        return (
            phrase(
                "Shown are the frequencies of block 0; blocks {others} have others.", others=", ".join(others)
            ),
        )

    @property
    def facts(self) -> str:
        """The sizes as the talk lists them."""
        config = self.config
        matrix = shape_text((config.n_positions, config.n_embd)) if self.learned else phrase("none (rotary)")
        lines = [
            phrase("Context window: {positions}", positions=config.n_positions),
            phrase("Embedding dimension: {features}", features=config.n_embd),
        ]
        return "\n".join([*lines, phrase("Position embedding matrix: {matrix}", matrix=matrix)])

    def tables(self) -> dict[str, Table]:
        """Return `facts`, `order`, `rows`, and `curve` or `frequencies` and `distances`."""
        config = self.config
        facts = [
            (phrase("Context window"), config.n_positions),
            (phrase("Embedding dimension"), config.n_embd),
        ]
        tables = {"order": self.order.table(), "rows": self.order.rows_table()}
        if self.learned is not None:
            shares = dict(zip(("first", "second", "third"), self.learned.explained, strict=False))
            listed = ", ".join(f"{heading(name)} {share:.1%}" for name, share in shares.items())
            title = phrase("{shares} of the variance", shares=listed)
            rows = tuple((i, *row) for i, row in enumerate(self.learned.curve.tolist()))
            tables["curve"] = Table(("position", *shares), rows, title=title)
            facts += [
                (phrase("Rows of the position matrix"), config.n_positions),
                (phrase("Columns"), config.n_embd),
            ]
        if self.rotary is not None:
            tables |= {"frequencies": _frequencies(self.rotary), "distances": _distances(self.rotary)}
        return {"facts": Table(("fact", "value"), tuple(facts)), **tables}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return `curve` and `similarity`, or `frequencies`, `cosines` and `scores`."""
        names = ("curve", "similarity") if self.rotary is None else ("frequencies", "cosines", "scores")
        return {name: getattr(self.rotary or self.learned, name) for name in names}

    def picture(self) -> tuple[Block, ...]:
        first = (
            Lines(phrase("Positions"), self.facts, self.facts),
            self.order.rows_table(),
            self.order.table(),
        )
        if self.learned is not None:
            return (*first, *self._learned_blocks(self.learned))
        assert self.rotary is not None
        every = -(-len(self.rotary.cosines) // MAP_SHOWN)
        tokens = tuple(str(i) for i in range(0, len(self.rotary.cosines), every))
        pairs = tuple(str(i) for i in range(len(self.rotary.frequencies)))
        waves = self.rotary.cosines[::every].astype(np.float32)
        scale = phrase("cosine of position x frequency")
        return (
            *first,
            Heat(
                phrase("Angles: positions down, pairs across"), waves, tokens, pairs, -1.0, 1.0, scale, True
            ),
            _distances(self.rotary),
        )

    def _learned_blocks(self, learned: Learned) -> tuple[Block, ...]:
        every = -(-len(learned.places) // MAP_SHOWN)
        labels = tuple(str(place) for place in learned.places[::every])
        values = learned.similarity[::every, ::every].astype(np.float32)
        step = max(1, len(learned.curve) // 40)
        points = tuple(
            (float(x), float(y), str(i * step) if i % 10 == 0 else "", "positions")
            for i, (x, y) in enumerate(learned.curve[::step, :2])
        )
        return (
            Points(phrase("The position vectors along their first two singular vectors"), points),
            Heat(
                phrase("Similarity of positions"), values, labels, labels, -1.0, 1.0, phrase("cosine"), True
            ),
        )


def positions(lm: LM, *, sentences: tuple[str, str] = MICE) -> PositionsView:
    """Show how the model encodes positions, and what two sentences of the same words lose without them.

    print(look.positions(lm).tables()["order"])

    Raises BadInput unless the two sentences are the same tokens in a different order, and Unsupported for a
    model in which block 0 does not rotate, unlike others, or sees fewer tokens than a sentence has.
    """
    if lm.config.rope is not None and lm.config.block_attention[0].rope is None:
        raise Unsupported(
            f"block 0 of this {lm.config.architecture}, which the view positions shows, does not rotate"
            " queries and keys, unlike other blocks: `pophood look attention --layer 1` shows one of those"
        )
    order = compare(lm, sentences)
    learned = _learned(lm.weights["embed.position"]) if lm.config.rope is None else None
    rotary = _rotary(lm, sentences[0]) if learned is None else None
    return PositionsView(ViewSource.of(lm), lm.config, order, learned, rotary)


def _learned(matrix: NDArray[np.float32]) -> Learned:
    curve = principal(matrix, 3)
    places = np.arange(0, len(matrix), -(-len(matrix) // MAP))
    return Learned(curve.coordinates, curve.explained, places, cosines(matrix[places]))


def _rotary(lm: LM, sentence: str) -> Rotary:
    """Rotate a real query and key (head 0 of block 0, last and second token) by hand."""
    config = lm.config
    rope = config.block_attention[0].rope
    assert rope is not None
    frequencies = rope.frequencies(config.head_dim, lm.engine.context).astype(np.float64)
    turn = (frequencies, rope.magnitude)
    rows = rows_before(lm.weights, config, tuple(lm.tokenize(sentence)), False)
    queries, keys = queries_and_keys(lm.weights, config, rows, False)
    distances = np.arange(min(DISTANCES, config.n_positions))
    offsets = tuple(start for start in OFFSETS if start + len(distances) <= config.n_positions)
    scores = np.stack([_products(queries[-1, 0], keys[1, 0], distances, offset, turn) for offset in offsets])
    scores *= score_scale(config)
    places = np.arange(min(ANGLES, config.n_positions))
    return Rotary(frequencies, np.cos(places[:, None] * frequencies), scores, offsets)


def _products(query: Floats, key: Floats, distances: NDArray[np.int64], offset: int, turn: Turn) -> Floats:
    """Return the products of a query at offset + distance and a key at offset, for every distance."""
    rotated = rotate(np.tile(query, (len(distances), 1, 1)), distances + offset, *turn)[:, 0]
    fixed = rotate(key[None, None], np.array([offset]), *turn)[0, 0]
    products: Floats = rotated @ fixed
    return products


def _frequencies(rotary: Rotary) -> Table:
    rows = tuple((i, float(f), 2 * math.pi / float(f)) for i, f in enumerate(rotary.frequencies))
    columns = ("pair", "radians_per_position", "positions_per_turn")
    return Table(columns, rows, decimals={columns[1]: 6, columns[2]: 1})


def _distances(rotary: Rotary) -> Table:
    spread = np.ptp(rotary.scores, axis=0)
    rows = tuple(
        (distance, float(rotary.scores[0, distance]), float(spread[distance]))
        for distance in (0, 1, 2, 4, 8, 16, 32, 64)
        if distance < rotary.scores.shape[1]
    )
    columns = ("distance", "score", "spread_over_offsets")
    title = phrase(
        "One query and key, {offsets} positions into the text", offsets=", ".join(map(str, rotary.offsets))
    )
    return Table(columns, rows, title=title, decimals={"spread_over_offsets": 15})
