"""`pophood tune --show`: examples token by token, with colours on a terminal and marks elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.cli.app import DONE
from pophood.cli.screens.tune import data_lines
from pophood.cli.terminal.console import Console, plain, visible
from pophood.cli.terminal.tables import count

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.train.data import DataOptions, Preview
    from pophood.train.settings import TrainSettings

SHOWN = 3  # examples
COLOURS = {"trained": "32", "ignored": "2", "end": "1;35", "cut": "9;31"}  # SGR codes
MARKS = {"trained": ("[", "]"), "ignored": ("", ""), "end": ("{", "}"), "cut": ("~", "~")}  # without colours


def show(
    console: Console,
    lm: LM,
    paths: Sequence[Path],
    settings: TrainSettings,
    reading: DataOptions,
    as_json: bool,
) -> int:
    """Print the first examples as the model will see them, and the report on the data. Needs no torch."""
    from dataclasses import asdict, replace

    from pophood.train.data import STATES, open_data, previews
    from pophood.train.defaults import for_model, length_messages

    fitting = for_model(settings, lm.config)
    for line in length_messages(settings, fitting):
        console.say(line)
    data = open_data(paths, lm.bundle.tokenizer, lm.chat_template, replace(reading, length=fitting.length))
    shown = previews(data.train, lm.bundle.tokenizer, SHOWN)
    if as_json:
        examples = [
            {"source": one.source, "counts": one.counts, "left_out": one.left_out, "tokens": list(one.table)}
            for one in shown
        ]
        console.json({"data": asdict(data.report), "examples": examples})
        return DONE
    for line in data_lines(data.report):
        console.say(line)
    painted = _colours()
    legend = ", ".join(_painted(words, state, painted) for state, words in STATES.items())
    console.paint(plain(legend, sys.stdout) + "\n")
    for one in shown:
        console.paint("\n" + plain(_example(one, painted), sys.stdout) + "\n")
    return DONE


def _example(preview: Preview, painted: bool) -> str:
    counts = ", ".join(f"{n:,} {state}" for state, n in preview.counts.items() if n)
    text = "".join(_painted(visible(piece.text), piece.state, painted) for piece in preview.pieces)
    more = f"\n... and {count(preview.left_out, 'token')} more" if preview.left_out else ""
    return f"{preview.source}: {counts}\n{text}{more}"


def _painted(text: str, state: str, painted: bool) -> str:
    if painted:
        return f"\x1b[{COLOURS[state]}m{text}\x1b[0m"
    before, after = MARKS[state]
    return f"{before}{text}{after}"


def _colours() -> bool:
    from pophood.system import colour_ok

    return colour_ok(sys.stdout)
