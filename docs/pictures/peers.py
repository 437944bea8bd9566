"""The picture of prefill and decoding beside every engine, from what `benchmarks/peers.py` has measured.

It is a view like those of `pophood look`, so that its style, both themes and its SVG are theirs. `draw` is
its painter: a panel for each model and work, a bar for each engine and precision, pophood's in colour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.look.figures import parts
from pophood.look.figures.theme import Theme
from pophood.look.source import ViewSource
from pophood.look.view import View
from pophood.table import Table, count

NAMED = " beside every peer"  # how the benchmark ends the names of its records
WORKS = {"prefill": "a prompt of 512 tokens", "decode": "generating after 16 tokens"}
ORDER = ("SmolLM2-135M", "Qwen2.5-0.5B's shape", "GPT-2 small's shape")  # of models
SHOWN = 2  # of them
OURS = "pophood"
PRECISIONS = {"int8": "8 bits", "int4": "4 bits", "bf16": "bfloat16"}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDE, ROW, AROUND = 9.2, 0.235, 0.55  # inches: the picture, a bar, what stands around a panel's bars
Record = Mapping[str, Any]


@dataclass(frozen=True)
class PeersView(View):
    """The records of a machine, one for each model, in the order of ORDER."""

    records: tuple[Record, ...]
    name: ClassVar[str] = "peers"
    painter: ClassVar[str] = "docs.pictures.peers"

    @property
    def headline(self) -> str:
        record = self.records[0]
        threads = count(record["threads"], "thread")
        return f"Tokens per second beside every engine: {machine_of(record)}, {threads} each"

    @property
    def alt(self) -> str:
        sentences = [
            f"{model_of(record)}, {words}: "
            + ", ".join(f"{label_of(row)} {rate:,.0f}" for row, rate in ranked(record, work))
            + "."
            for record in self.records
            for work, words in WORKS.items()
        ]
        return " ".join(["Bars of tokens per second.", *sentences])

    @property
    def notes(self) -> tuple[str, ...]:
        machine = self.records[0]["machine"]
        cores = count(machine["cores"], "core")
        versions = ", ".join(f"{name} {release(version)}" for name, version in self._versions().items())
        return (
            f"{machine_of(self.records[0])} ({machine['isa']}), {cores}. Medians of one interleaved run, "
            "thin lines from the smallest to the largest; bits are those of weights.",
            f"{versions}. Settings: docs/peers.md.",
        )

    def tables(self) -> dict[str, Table]:
        """Return the medians: a row for each model, engine and precision."""
        rows = tuple(
            (model_of(record), row["engine"], row["precision"], *(row[work]["median"] for work in WORKS))
            for record in self.records
            for row in record["table"]
        )
        return {"peers": Table(("model", "engine", "precision", *WORKS), rows)}

    def _versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for record in self.records:
            found |= record["peers"]
        return {name: version for name, version in found.items() if name != OURS}


def read(results: Iterable[Path]) -> PeersView:
    """Return the view of the first of these files that has records; ends with one line if none has."""
    for path in results:
        kept: dict[str, Record] = json.loads(path.read_text(encoding="utf-8"))
        records = [record for name, record in kept.items() if name.endswith(NAMED)]
        if records:
            chosen = sorted(records, key=lambda record: ORDER.index(model_of(record)))[:SHOWN]
            return PeersView(ViewSource("peers", "", ""), tuple(chosen))
    sys.exit("no file of results has figures beside every peer: run benchmarks/peers.py first")


def write(results: Iterable[Path], stem: Path) -> list[Path]:
    """Write STEM-light.svg and STEM-dark.svg."""
    view = read(results)
    paths = []
    for theme in THEMES:
        path = stem.with_name(f"{stem.name}-{theme}.svg")
        view.save(path, theme)
        paths.append(path)
    return paths


def machine_of(record: Record) -> str:
    """The processor by its short name, and whether AMX was refused to all engines."""
    machine = record["machine"]
    words = str(machine["processor"]).replace("(R)", "").replace("(TM)", "").split()
    name = " ".join(word for word in words if word not in ("CPU", "Processor"))
    return f"{name} without AMX" if machine.get("amx_refused") else name


def model_of(record: Record) -> str:
    """The model that a record is about."""
    return str(record["benchmark"]).removesuffix(NAMED)


def label_of(row: Record) -> str:
    """An engine with the bits of its weights."""
    return f"{row['engine']}, {PRECISIONS[row['precision']]}"


def release(version: str) -> str:
    """A version without the name of its build.

    >>> release("2026.4.1.0-3408-ab01d1771e4"), release("5.23.0, torch 2.13.0+cpu")
    ('2026.4.1.0', '5.23.0, torch 2.13.0')
    """
    return ", ".join(part.partition("-")[0].partition("+")[0] for part in version.split(", "))


def ranked(record: Record, work: str) -> list[tuple[Record, float]]:
    """The rows that have this work, with their medians, the fastest first."""
    rows = [(row, float(row[work]["median"])) for row in record["table"] if work in row]
    return sorted(rows, key=lambda pair: -pair[1])


def draw(view: PeersView, figure: Figure, theme: Theme) -> None:
    """Draw a row of panels for each model and a column for each work."""
    rows = [max(len(ranked(record, work)) for work in WORKS) for record in view.records]
    parts.size(figure, WIDE, sum(ROW * n + AROUND for n in rows))
    panels = figure.subplots(len(rows), len(WORKS), squeeze=False, height_ratios=rows)
    for record, line in zip(view.records, panels, strict=True):
        for (work, words), axes in zip(WORKS.items(), line, strict=True):
            _panel(axes, record, work, theme)
            axes.set_title(f"{model_of(record)}: {words}", loc="left")


def _panel(axes: Axes, record: Record, work: str, theme: Theme) -> None:
    bars = ranked(record, work)
    others = parts.mixed(theme.muted, theme.background, 0.55)
    for place, (row, median) in enumerate(bars):
        ours = row["engine"] == OURS
        axes.barh(place, median, height=0.72, color=theme.accents[0] if ours else others)
        least, most = row[work]["min"], row[work]["max"]
        if least < most:
            axes.plot([least, most], [place, place], "-", color=theme.text, linewidth=0.9)
        parts.write_beside(axes, (max(median, most), place), f"{median:,.0f}", theme.text)
    axes.set_yticks(range(len(bars)), [label_of(row) for row, _ in bars])
    for text, (row, _) in zip(axes.get_yticklabels(), bars, strict=True):
        text.set_fontweight("bold" if row["engine"] == OURS else "normal")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max(row[work]["max"] for row, _ in bars))
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
