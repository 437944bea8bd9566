"""A file of prompts: `pophood batch` against a loop over `LM.generate`, with the real SmolLM2.

Prompts are pieces of 4 to 24 words of a text, each continued by 8 to 48 tokens with the usual sampler; both
sides give the same texts, which is checked. The loop has one prefix after another, as a user would write it.
The time of `pophood batch` is that of the lines: reading, computing, writing and syncing the file,
without loading the model, which both sides have loaded. Turns alternate; each takes a part of the
prompts, so that a turn is short: the rates are those of all prompts. Bar: 3 times the loop. Ceiling:
weights are read once for all texts that are written at a time, so 16 times the loop if nothing but
reading weights took time.
Run: python benchmarks/jsonl_batch.py [--prompts 2000] [--part 100] [--threads 2] [--together 16]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from _models import smollm2_gguf
from _timing import judged, report, summary

import pophood
from pophood.batch.answering import Answering
from pophood.batch.answers import AnswerFile
from pophood.batch.lines import LineSource
from pophood.batch.model import BatchModel, LineDefaults

TEXT = Path(__file__).parents[1] / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
Line = dict[str, Any]


def prompts(n: int) -> list[Line]:
    """Lines with their seeds, the same on every run."""
    words, draw = TEXT.read_text(encoding="utf-8").split(), random.Random(1)
    lines = []
    for number in range(n):
        start = draw.randrange(len(words) - 24)
        text = " ".join(words[start : start + draw.randint(4, 24)])
        lines.append({"prompt": text, "max_tokens": draw.randint(8, 48), "seed": number})
    return lines


def loop(lm: pophood.LM, lines: list[Line]) -> tuple[list[str], int, float]:
    """Texts, new tokens and seconds of a loop over `LM.generate`."""
    begin = time.perf_counter()
    made = [lm.generate(**line) for line in lines]
    seconds = time.perf_counter() - begin
    return [one.completion for one in made], sum(len(one.tokens) for one in made), seconds


def batch(lm: pophood.LM, lines: list[Line], together: int, folder: Path) -> tuple[list[str], int, float]:
    """Answer them by the run of `pophood batch`, from a file's bytes to a file on disk."""
    data, path = "".join(json.dumps(line) + "\n" for line in lines).encode(), folder / "answers.jsonl"
    model = BatchModel(lm, LineDefaults(), most_samples=together)
    facts = model.facts()  # hashes the model's file: once in a run of any length
    begin = time.perf_counter()
    source = LineSource(io.BytesIO(data), "prompts")
    with AnswerFile(path, overwrite=True) as answers, Answering(model, together=together) as answering:
        answers.begin(facts, source)
        for record in answering.records(source):
            answers.write(record)
    seconds = time.perf_counter() - begin
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [one["outputs"][0]["completion"] for one in told], sum(one["new_tokens"] for one in told), seconds


def main() -> None:
    """Time both sides, part by part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--part", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", type=int, default=16)
    options = parser.parse_args()
    lm = pophood.load(smollm2_gguf(), threads=options.threads)
    lines = prompts(options.prompts)
    figures: dict[str, list[float]] = {"loop over LM.generate": [], "pophood batch": []}
    total = dict.fromkeys(figures, 0.0)
    tokens = 0
    with tempfile.TemporaryDirectory() as name:
        batch(lm, lines[:16], options.together, Path(name))  # warm
        for start in range(0, len(lines), options.part):
            part = lines[start : start + options.part]
            one, new, seconds = loop(lm, part)
            other, _, faster = batch(lm, part, options.together, Path(name))
            assert one == other, "the same texts"
            for side, spent in zip(figures, (seconds, faster), strict=True):
                figures[side].append(new / spent)
                total[side] += spent
            tokens += new
    ratios = [b / a for a, b in zip(*figures.values(), strict=True)]
    whole = total["loop over LM.generate"] / total["pophood batch"]
    report(
        "a file of prompts, SmolLM2",
        "new tokens/s",
        figures,
        bars={f"{len(lines):,} prompts, batch against loop": judged(summary(ratios), 3.0, 5.0)},
        whole_file=whole,
        seconds=total,
        tokens=tokens,
        threads=options.threads,
        together=options.together,
        isa=lm.engine.isa,
    )


if __name__ == "__main__":
    main()
