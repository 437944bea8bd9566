"""The bars of all benchmarks on this machine, from its file in results/, as a Markdown table.

It measures nothing: run the benchmarks first, each alone on the machine. Those with bars are quantized.py,
stored_types.py, stored_quality.py, peers.py, depth.py, large.py, batch.py, serve.py, avx2.py, adapter.py,
busy.py, start.py, memory.py, outside.py and quality.py. The table shows medians and, in brackets, the
smallest and largest of the rounds.
Run: python benchmarks/bars.py [--missed] [--no-amx]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from _amx import add_no_amx
from _machine import slug
from _timing import RESULTS

Bar = tuple[str, dict[str, Any]]


def bars(missed: bool) -> Iterator[Bar]:
    """Yield every bar of this machine's results, or only the missed ones."""
    path = RESULTS / f"{slug()}.json"
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for record in records.values():
        for what, figure in record.get("bars", {}).items():
            if isinstance(figure, dict) and not (missed and figure["met"]):
                yield what, figure


def line(what: str, figure: dict[str, Any]) -> str:
    """One row of the table.

    >>> line("decode", {"median": 1.5, "min": 1.4, "max": 1.6, "bar": 1.4, "aim": 2, "at_most": 0, "met": 1})
    '| decode | at least 1.4 | 2 | 1.5 (1.4 to 1.6) | met |'
    """
    side = "at most" if figure["at_most"] else "at least"
    measured = f"{figure['median']:.3g} ({figure['min']:.3g} to {figure['max']:.3g})"
    verdict = "met" if figure["met"] else "**missed**"
    return f"| {what} | {side} {figure['bar']:g} | {figure['aim']:g} | {measured} | {verdict} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--missed", action="store_true")
    add_no_amx(parser)
    options = parser.parse_args()
    print("| work | bar | aim | measured | |\n|---|---|---|---|---|")
    for what, figure in bars(options.missed):
        print(line(what, figure))


if __name__ == "__main__":
    main()
