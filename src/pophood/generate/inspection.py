"""Inspection: a pass of the scheduler reads the insides of the model where requests ask for them.

    pieces of a pass ─► Looks: the rows to look into ─► readings of the engine ─► Inside: a record of each

RowReading changes no bit, and of other requests nothing is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pophood.config import ModelConfig
from pophood.generate.decoder import Decoder, Distribution
from pophood.generate.inside import BestTokens, Floats, Inside, Inspect, Lens, residual_norms
from pophood.taps import RowReading, Tap, taps_of

if TYPE_CHECKING:
    from pophood.generate.passes import Fed
    from pophood.generate.request import Request, Running

LOOKED = 32  # tokens of a prompt that is inspected in one pass, so that others need not wait long

Stream = int  # the residual stream after that block; -1: before the first
Head = tuple[int, int]  # block, and head of it
Key = Stream | Head


class Look(NamedTuple):
    """A row to look into: the piece of a pass that it belongs to, the position that it predicts.

    `output` is the number of the output row that has the model's distribution; None if none has, as for a
    token of the prompt. `values` are told of it.
    """

    piece: int
    running: Running
    row: int
    position: int
    output: int | None
    values: int


class Unembedded(NamedTuple):
    """Distributions after blocks, `rows` of them by row of the pass and block."""

    rows: Mapping[tuple[int, Stream], int]
    found: Distribution


class PooledRows:
    """The rows after the final norm that a pass reads for prompts that are pooled."""

    def __init__(self, taps: Mapping[str, Tap], pieces: Sequence[Fed]) -> None:
        self._ranges: dict[int, tuple[int, int]] = {}  # of a piece, in the rows that are read
        rows: list[int] = []
        end = 0
        for number, piece in enumerate(pieces):
            end += len(piece.ids)
            pool = piece.running.pool
            if pool is None or not piece.running.reading:
                continue
            last = piece.running.read + len(piece.ids) == piece.running.to_read
            wanted = len(piece.ids) if pool.kind == "mean" else int(last)
            self._ranges[number] = len(rows), len(rows) + wanted
            rows += range(end - wanted, end)
        self.readings = (RowReading(taps["final_norm"], tuple(rows)),) if rows else ()

    def of(self, number: int, values: Floats) -> Floats:
        """Return the rows of a piece, [n, C], from those that were read."""
        first, last = self._ranges[number]
        return values[first:last]


class Looks:
    """The rows of one pass to look into, as readings for the engine, and what comes of them."""

    def __init__(self, config: ModelConfig, taps: Mapping[str, Tap], pieces: Sequence[Fed]) -> None:
        self._config, self._pieces = config, pieces
        self._looks = _looks_of(pieces, config.n_layer)
        rows: dict[Key, list[int]] = {}
        for look in self._looks:
            for key in self._wanted(look):
                rows.setdefault(key, []).append(look.row)
        self._numbers = {key: number for number, key in enumerate(rows)}
        self._pooled = PooledRows(taps, pieces)
        inside = tuple(_reading(taps, key, tuple(mine)) for key, mine in rows.items())
        self.readings = inside + self._pooled.readings

    def _wanted(self, look: Look) -> list[Key]:
        """Return the streams and heads that a row needs, each once."""
        inspect, layers = inspect_of(look.running), self._config.n_layer
        wanted: dict[Key, None] = {}
        if inspect.residual_norms:
            wanted |= dict.fromkeys(range(-1, layers))
        wanted |= dict.fromkeys(self._unembedded_layers(look))
        return [*wanted, *dict.fromkeys(inspect.attention)]

    def insides(self, found: Distribution, engine: Decoder) -> dict[int, list[Inside]]:
        """Return what was found, by the number of the piece: prompts in their order, the next token last."""
        there = [
            look
            for look in self._looks
            if self._pieces[look.piece].sample.sequence not in found.cancelled and not look.running.ended
        ]
        unembedded = self._unembedded(there, found, engine)
        told: dict[int, list[Inside]] = {}
        for look in there:
            inspect = inspect_of(look.running)
            top, entropy = self._own(look, found, unembedded)
            inside = Inside(
                look.position,
                top if inspect.top else None,
                entropy if inspect.entropy else None,
                self._lens(look, found, unembedded) if inspect.lens else None,
                self._attention(look, found) if inspect.attention else None,
                self._norms(look, found) if inspect.residual_norms else None,
            )
            told.setdefault(look.piece, []).append(inside)
            look.running.looked += look.values
        return told

    def pool(self, number: int, found: Distribution) -> None:
        """Give the rows of a piece to the vector of its prompt, if it has one."""
        pool = self._pieces[number].running.pool
        if pool is not None and self._pooled.readings:
            pool.add(self._pooled.of(number, found.readings[-1]))

    def _value(self, found: Distribution, key: Key, row: int) -> Floats:
        number = self._numbers[key]
        values: Floats = found.readings[number][self.readings[number].rows.index(row)]
        return values

    def _unembedded(self, looks: Sequence[Look], found: Distribution, engine: Decoder) -> Unembedded | None:
        """Return the distributions after blocks, with their entropies; None if none is asked for."""
        wanted = [(look.row, layer) for look in looks for layer in self._unembedded_layers(look)]
        if not wanted:
            return None
        k = max(max(inspect_of(look.running).top, inspect_of(look.running).lens) for look in looks)
        hidden = np.stack([self._value(found, layer, row) for row, layer in wanted])
        entropy = any(look.output is None and inspect_of(look.running).entropy for look in looks)
        made = engine.unembed(hidden, k, entropy=entropy)
        return Unembedded({place: row for row, place in enumerate(wanted)}, made)

    def _unembedded_layers(self, look: Look) -> dict[Stream, None]:
        """Return the blocks whose distributions are computed: an output row has that of the last one."""
        inspect, last = inspect_of(look.running), self._config.n_layer - 1
        layers = dict.fromkeys(inspect.lens_layers(last + 1))
        if look.output is not None:
            layers.pop(last, None)
        elif inspect.top or inspect.entropy:
            layers[last] = None
        return layers

    def _lens(self, look: Look, found: Distribution, unembedded: Unembedded | None) -> Lens:
        """Return the best tokens after the blocks that are asked for; an output row has those of the last."""
        inspect, last = inspect_of(look.running), self._config.n_layer - 1
        layers, at, k = inspect.lens_layers(last + 1), look.output, inspect.lens
        parts = []
        if rows := [
            unembedded.rows[look.row, layer]
            for layer in layers
            if unembedded is not None and (at is None or layer < last)
        ]:
            assert unembedded is not None
            made = unembedded.found
            parts.append((made.ids[rows, :k], made.logits[rows, :k], made.log_mass[rows]))
        if at is not None and last in layers:
            parts.append(
                (found.ids[at : at + 1, :k], found.logits[at : at + 1, :k], found.log_mass[at : at + 1])
            )
        ids, logits, masses = map(np.concatenate, zip(*parts, strict=True))
        return Lens(layers, ids, logits, masses)

    def _own(
        self, look: Look, found: Distribution, unembedded: Unembedded | None
    ) -> tuple[BestTokens | None, float | None]:
        """Return the distribution that the model had, and its entropy."""
        inspect, at = inspect_of(look.running), look.output
        if at is not None:
            return _output(found, at).first(inspect.top), float(found.entropy[at])
        if not (inspect.top or inspect.entropy):
            return None, None
        assert unembedded is not None
        made, row = unembedded.found, unembedded.rows[look.row, self._config.n_layer - 1]
        return _output(made, row).first(inspect.top), float(made.entropy[row])

    def _attention(self, look: Look, found: Distribution) -> Floats:
        heads = inspect_of(look.running).attention
        return np.stack([self._value(found, head, look.row)[: look.position] for head in heads])

    def _norms(self, look: Look, found: Distribution) -> Floats:
        """Return the lengths of the stream; sums in float64, rounded once."""
        streams = [self._value(found, layer, look.row) for layer in range(-1, self._config.n_layer)]
        return residual_norms(np.stack(streams))


def looks_at(config: ModelConfig, taps: dict[str, Tap], pieces: Sequence[Fed]) -> Looks | None:
    """Return the rows of a pass to look into; None if there are none. `taps` is filled once."""
    if all(_is_plain(piece.running) for piece in pieces):
        return None
    if not taps:
        taps |= taps_of(config)
    return Looks(config, taps, pieces)


def _is_plain(running: Running) -> bool:
    return running.request.settings.inspect is None and running.pool is None


def looked_from(request: Request) -> int:
    """Return how many of a prompt's first tokens may come from a cache, and the one after them."""
    if request.pools == "mean":
        return 1
    inspect, prompt = request.settings.inspect, len(request.prompt)
    return prompt if inspect is None else next(iter(inspect.asked(prompt)), prompt)


def most_read(request: Request) -> int:
    """Return how many tokens of a prompt one pass reads at most."""
    inspect, prompt = request.settings.inspect, len(request.prompt)
    return LOOKED if inspect is not None and inspect.asked(prompt) else prompt


def inspect_of(running: Running) -> Inspect:
    """Return what is asked of a request that is inspected."""
    inspect = running.request.settings.inspect
    assert inspect is not None
    return inspect


def _looks_of(pieces: Sequence[Fed], layers: int) -> list[Look]:
    looks: list[Look] = []
    told: dict[Running, int] = {}
    row = output = 0  # of the next piece
    for number, piece in enumerate(pieces):
        running, first = piece.running, row
        row, output = row + len(piece.ids), output + piece.rows
        if (inspect := running.request.settings.inspect) is None:
            continue
        masked = piece.sample.constraint is not None  # its output rows lack the tokens that a grammar forbids
        for position in _positions(piece, inspect):
            generated = position >= len(running.request.prompt)
            each = running.request.settings.samples if generated and running.reading else 1
            values = each * inspect.values(position, layers)
            if told.setdefault(running, running.looked) + values > inspect.bound:
                break
            told[running] += values
            offset = position - _first(piece)
            at = output - row + first + offset if generated and not masked else None
            looks.append(Look(number, running, first + offset, position, at, values))
    return looks


def _first(piece: Fed) -> int:
    """Return the position that the first row of a piece predicts."""
    return piece.running.read + 1 if piece.running.reading else len(piece.sample.ids)


def _positions(piece: Fed, inspect: Inspect) -> list[int]:
    """Return the positions that the rows of a piece predict, of those that are told."""
    running, prompt = piece.running, len(piece.running.request.prompt)
    first, end = _first(piece), _first(piece) + len(piece.ids)
    if not running.reading:
        return list(range(first, end))
    asked = inspect.asked(prompt)
    positions = list(range(max(asked.start, first), min(asked.stop, end)))
    return [*positions, prompt] if piece.writes else positions


def _reading(taps: Mapping[str, Tap], key: Key, rows: tuple[int, ...]) -> RowReading:
    if isinstance(key, tuple):
        return RowReading(taps[f"blocks.{key[0]}.attn.pattern"], rows, key[1])
    return RowReading(taps["blocks.0.resid_pre" if key < 0 else f"blocks.{key}.resid_post"], rows)


def _output(found: Distribution, row: int) -> BestTokens:
    return BestTokens(found.ids[row], found.logits[row], float(found.log_mass[row]))
