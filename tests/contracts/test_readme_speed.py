"""The README's table of speeds has the figures of benchmarks/results, a peer's with its best options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS: Mapping[str, Any] = json.loads(
    (ROOT / "benchmarks" / "results" / "amd-epyc-avx512bf16.json").read_text(encoding="utf-8")
)
TABLE = README.partition("| file | work | pophood |")[2].partition("\n\n")[0].splitlines()[2:]
RECORDS = {
    "SmolLM2-135M, Q4_1": "SmolLM2 Q4_1 beside llama.cpp and ik_llama.cpp",
    "GPT-2 small's shape, Q8_0": "GPT-2 Q8_0 beside llama.cpp and ik_llama.cpp",
    "GPT-2 small's shape, Q4_0": "GPT-2 Q4_0 beside llama.cpp and ik_llama.cpp",
    "Qwen2.5-0.5B's shape, Q4_K_M": "qwen2.5-0.5b Q4_K_M, as stored",
    "GPT-2 small's shape, Q4_K_M": "gpt2 Q4_K_M, as stored",
    "GPT-2 small's shape, F32": "GPT-2 F32 beside llama.cpp and ik_llama.cpp",
}


def rows() -> list[tuple[str, str, list[str]]]:
    """Return file, work and cells of each row; a row without a file goes on with the one above."""
    found: list[tuple[str, str, list[str]]] = []
    for line in TABLE:
        file, work, *cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
        found.append((file or found[-1][0], work, cells))
    return found


def median(record: Mapping[str, Any], beginning: str, ending: str) -> float | None:
    """Return the best median among the sides of an engine."""
    figures = record["figures"].items()
    values = [one["median"] for name, one in figures if name.startswith(beginning) and name.endswith(ending)]
    return max(values, default=None)


@pytest.mark.parametrize(
    ("file", "work", "cells"), [row for row in rows() if row[1] in ("decode", "prefill")]
)
def test_speeds_are_those_that_were_measured(file: str, work: str, cells: list[str]) -> None:
    record = RESULTS[RECORDS[file]]
    measured = [median(record, side, f" {work}") for side in ("pophood", "llama.cpp", "ik ")]
    shown = [re.sub(r"\*\*|,| \(.*", "", cell) for cell in cells]
    assert shown == ["-" if rate is None else f"{rate:.0f}" for rate in measured]
    if share := re.search(r"\((\d+) %", cells[0]):
        assert int(share[1]) == round(100 * record["share_of_bandwidth"]["median"])


def test_start_and_memory_are_those_that_were_measured() -> None:
    (cells,) = (cells for _, work, cells in rows() if work.startswith("new process"))
    start = RESULTS["start to the tenth token"]["figures"]
    memory = RESULTS["memory of a process at 128 tokens, SmolLM2 Q4_1"]["figures"]
    seconds = [start[f"{side}, SmolLM2 Q4_1"]["median"] for side in ("pophood run", "llama-cpp-python")]
    numbers = [[float(x) for x in re.findall(r"[\d.]+", cell)] for cell in cells[:2]]
    assert [seconds for seconds, _ in numbers] == [round(one, 2) for one in seconds]
    assert all(any(abs(one["median"] - bytes_) < 1 for one in memory.values()) for _, bytes_ in numbers), (
        memory
    )
