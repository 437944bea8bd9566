"""The slides of the course with the outputs of smollm2: seconds of a new process, and the slowest pages.

Bar: 90 seconds on two cores. Ceiling: the training of pages 27 to 30, and drawing each picture in two themes.
Run: python benchmarks/slides.py [--rounds 1]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from _timing import interleaved, judged, report, summary

BAR, AIM = 90.0, 60.0
SLOWEST = 6  # pages that are listed


def make(model: str, pages: dict[str, float]) -> float:
    """Seconds that the command takes; `pages` gets the seconds of every page."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "talk.html")
        command = [sys.executable, "-m", "pophood", "talk", "--slides", str(file), "-m", model, "-v"]
        environment = dict(os.environ, POPHOOD_OFFLINE="1")
        start = last = time.perf_counter()
        page = "loading"
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "/" in line.split(" ")[0]:
                    now = time.perf_counter()
                    pages[page], page, last = now - last, line.strip(), now
        now = time.perf_counter()
        pages[page] = now - last
        assert process.returncode == 0 and file.stat().st_size > 1e6
    return now - start


def main() -> None:
    """Time the deck."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    pages: dict[str, float] = {}
    figures = interleaved(
        {f"slides of {options.model}": partial(make, options.model, pages)}, options.rounds, warmup=0
    )
    (values,) = figures.values()
    slowest = sorted(pages.items(), key=lambda item: -item[1])[:SLOWEST]
    report(
        "slides of the course",
        "seconds",
        figures,
        bars={"the deck on two cores": judged(summary(values), BAR, AIM, most=True)},
        slowest={page: round(seconds, 1) for page, seconds in slowest},
    )


if __name__ == "__main__":
    main()
