"""The figures of a benchmark, as frozen records, and the JSON document that `--compare` reads back."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pophood.bench.ceilings import Limit
from pophood.bench.settings import Work
from pophood.errors import BadInput
from pophood.plaintext import read_text
from pophood.table import Table

FORMAT = 1  # of the document; a change that an older pophood cannot read needs the next number


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the most of some figures.

    >>> Spread.of([3.0, 1.0, 2.0])
    Spread(median=2.0, least=1.0, most=3.0)
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one figure."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class WorkRate:
    """The tokens per second of a work, and the most that the machine would allow, where that is known."""

    work: Work
    rate: Spread
    ceiling: float | None = None
    limit: Limit | None = None

    @property
    def share(self) -> float | None:
        """The share of the ceiling that was reached, usually 0 to 1."""
        return self.rate.median / self.ceiling if self.ceiling else None


@dataclass(frozen=True, slots=True)
class MachineRate:
    """Rates of this machine with some threads: bytes read, and 8-bit operations, per second."""

    threads: int
    read_bandwidth: float | None
    multiply_rate: float | None


@dataclass(frozen=True, slots=True)
class StartCost:
    """A new process up to its tenth token: seconds, and the most memory that it took, in bytes."""

    seconds: Spread
    peak_memory: int


@dataclass(frozen=True, slots=True)
class Setup:
    """The program, the model as it was loaded, and the machine that were measured."""

    pophood: str
    model: str
    precision: str
    kv: str
    isa: str
    context: int
    weight_bytes: int
    cache_per_position: int  # bytes of keys and values
    processor: str
    cores: int
    usual_threads: int  # those that depths and batches were measured with
    adapters: str = ""  # each with its scale, unless that is 1
    default_threads: int = 0  # those that other commands take
    cache_of_context: int = 0  # bytes of keys and values of a whole context; 0: of every position the same


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """All figures of one benchmark of `rounds` rounds; some are missing if it was stopped.

    `others` is the number of processors that other programs used on average meanwhile; None if unknown.
    """

    setup: Setup
    rounds: int
    complete: bool
    rates: tuple[WorkRate, ...]
    machine: tuple[MachineRate, ...]
    start: StartCost | None
    others: float | None
    remarks: tuple[str, ...] = ()  # sentences about what was left out

    def as_dict(self) -> dict[str, Any]:
        """Return the document: plain dictionaries, lists and numbers."""
        facts = asdict(self)
        for rate, one in zip(facts["rates"], self.rates, strict=True):
            rate["share"] = one.share
        return {"bench": FORMAT, **facts}


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """An earlier benchmark to compare with: its file, what was measured, and the medians by work."""

    place: str
    setup: dict[str, Any]
    medians: dict[Work, float]
    start: float | None  # seconds

    def differences(self, setup: Setup) -> list[str]:
        """Return a remark for each part of the setup that differs: `"precision: f32 there, auto here"`."""
        names = ("pophood", "model", "adapters", "precision", "kv", "isa", "processor")
        pairs = [(name, self.setup.get(name), getattr(setup, name)) for name in names]
        return [
            f"{name}: {there or 'none'} there, {here or 'none'} here"
            for name, there, here in pairs
            if there != here
        ]


def read_earlier(path: str | os.PathLike[str]) -> EarlierRun:
    """Read what `pophood bench --json` or `--save FILE.json` wrote; raises BadInput for any other file."""
    refusal = f"{path}: is not what `pophood bench --json` writes"
    try:
        document = json.loads(read_text(Path(path)))
    except json.JSONDecodeError as error:
        raise BadInput(f"{refusal}: no JSON at line {error.lineno}: give such a file") from None
    if not isinstance(document, dict) or "bench" not in document:
        raise BadInput(f"{refusal}: give such a file")
    if document["bench"] != FORMAT:
        raise BadInput(f"{path}: has format {document['bench']!r}, wanted {FORMAT}: measure it again")
    try:
        medians = {Work(**one["work"]): _positive(one["rate"]["median"]) for one in document["rates"]}
        start = document["start"] and _positive(document["start"]["seconds"]["median"])
        return EarlierRun(str(path), dict(document["setup"]), medians, start or None)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{refusal}: {type(error).__name__} {error}: measure it again") from None


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value} is not a positive number")
    return number


def speed_table(rates: Sequence[WorkRate], earlier: Mapping[Work, float] | None, title: str = "") -> Table:
    """Return the rates as a table; `earlier` adds the medians of another run and the ratios to them."""
    columns = ["work", "threads", "tokens_per_second", "least", "most", "ceiling", "share"]
    rows: list[tuple[object, ...]] = []
    for one in rates:
        row = (one.work.name, one.work.threads, one.rate.median, one.rate.least, one.rate.most)
        rows.append((*row, one.ceiling, one.share))
    if earlier is not None:
        columns += ["earlier", "ratio"]
        before = [earlier.get(one.work) for one in rates]
        rows = [
            (*row, median, one.rate.median / median if median else None)
            for row, one, median in zip(rows, rates, before, strict=True)
        ]
    digits = 0 if all(one.rate.median >= 100 for one in rates) else 1
    decimals = dict.fromkeys(("tokens_per_second", "least", "most", "ceiling", "earlier"), digits)
    return Table(tuple(columns), tuple(rows), "share", title, decimals | {"share": 2, "ratio": 2})
