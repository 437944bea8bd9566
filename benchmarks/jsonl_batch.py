"""A file of prompts: `pophood batch` against a loop over `LM.generate`, with SmolLM2 as it is fetched.

Prompts are pieces of 4 to 24 words of a text, each continued by 8 to 48 tokens with the usual sampler. Both
sides give the same texts, which is checked. The time of `pophood batch` is that of the lines: reading,
computing, writing and syncing the file, without loading the model, which both sides have loaded. Turns
alternate, and each takes a part of the prompts; rates are those of the new tokens. Where the machine is quiet
for a minute only, `--first` and `--count` take some of the parts, and `--keep` adds up their figures.
Bar: 3 times the loop. Ceiling: weights are read once for all texts that are written at a time: `--together`
times the loop, if nothing else took time.
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
    parser.add_argument("--first", type=int, default=0, help="number of the first part")
    parser.add_argument("--count", type=int, help="number of parts")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", type=int, default=16)
    options = parser.parse_args()
    lm = pophood.load("smollm2", threads=options.threads)
    lines = prompts(options.prompts)
    parts = [lines[start : start + options.part] for start in range(0, len(lines), options.part)]
    kept: dict[str, list[float]] = {}  # number of a part -> tokens, seconds of the loop, seconds of the batch
    if options.keep is not None and options.keep.exists():
        kept = json.loads(options.keep.read_text(encoding="utf-8"))
    last = len(parts) if options.count is None else options.first + options.count
    with tempfile.TemporaryDirectory() as name:
        batch(lm, lines[:16], options.together, Path(name))  # warm
        for number, part in list(enumerate(parts))[options.first : last]:
            one, new, seconds = loop(lm, part)
            other, _, faster = batch(lm, part, options.together, Path(name))
            assert one == other, "the same texts"
            kept[str(number)] = [new, seconds, faster]
            if options.keep is not None:
                options.keep.write_text(json.dumps(kept), encoding="utf-8")
    if len(kept) < len(parts):
        print(f"{len(kept)} of {len(parts)} parts: {kept}")
        return
    tokens, slow, fast = (sum(column) for column in zip(*kept.values(), strict=True))
    figures = {
        "loop over LM.generate": [new / seconds for new, seconds, _ in kept.values()],
        "pophood batch": [new / seconds for new, _, seconds in kept.values()],
    }
    ratios = [seconds / faster for _, seconds, faster in kept.values()]
    report(
        "a file of prompts, SmolLM2",
        "new tokens/s",
        figures,
        bars={f"{len(lines):,} prompts, batch against loop": judged(summary(ratios), 3.0, 5.0)},
        whole_file=slow / fast,
        seconds={"loop": slow, "batch": fast},
        tokens=tokens,
        threads=options.threads,
        together=options.together,
        isa=lm.engine.isa,
    )


if __name__ == "__main__":
    main()
