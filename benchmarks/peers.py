"""Prefill, decoding and memory beside every engine for the same processor, interleaved in one run per model.

pophood, llama.cpp and ik_llama.cpp with a GGUF file of each precision, transformers in bfloat16, CTranslate2
and OpenVINO GenAI in 8 bits, ONNX Runtime GenAI in 4: each at the best settings that were found, each a
process of its own that is started once and told to measure in turn; all have the same token ids and number of
threads. Prefill is 512 tokens, decoding 128 greedy tokens after 16. Before anything is timed, every side's
greedy tokens after a text are looked up in pophood's predictions at f32, so that nobody is timed computing
something else (ik_llama.cpp's own program never chooses a token, so it is not looked up).
Ceiling: pophood's own ceilings are in quantized.py; here the peers are the measure.
Run: python benchmarks/peers.py [--models smollm2,qwen] [--peers pophood,openvino] [--rounds 5] [--json FILE]
[--no-amx]
docs/peers.md says how the environments are made, and has the table.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _amx import add_no_amx
from _ik import REPACKED, ik_commit, ik_rate
from _peer_models import MODELS, Model
from _peer_sides import ENGINES, OURS, Engine, PeerSide, started
from _timing import Work, interleaved, judged, paired_ratio, report, summary

import pophood

WORKS = {"prefill": (512, 0), "decode": (16, 128)}  # prompt, steps
CHECKED = 8  # greedy tokens that are looked up
FIRST_RANK, RANK = 5, 10  # of the first token, and of the middle one of all, among f32's: 0 is the likeliest
RANDOM_SHARE = 0.1  # of the vocabulary, for the middle one, with random weights: 4 bits change much there


def rank_of_choices(lm: pophood.LM, prompt: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """The place of each token among f32's predictions, given the tokens before it: 0 for the likeliest."""
    rows = lm.logits([*prompt, *tokens[:-1]])[len(prompt) - 1 :]
    return [int((row > row[token]).sum()) for row, token in zip(rows, tokens, strict=True)]


def checked(model: Model, sides: dict[str, PeerSide]) -> dict[str, list[int]]:
    """The ranks of every side's greedy tokens; ends if one of them computes something else than the model."""
    lm = pophood.load(model.folder(), precision="f32", context=256)
    ranks = {}
    for name, side in sides.items():
        tokens = side.ask(ids=model.prompt, steps=CHECKED - 1)["tokens"]
        ranks[name] = rank_of_choices(lm, model.prompt, tokens)
        print(f"  {name}: greedy tokens {tokens}, their ranks at f32 {ranks[name]}", flush=True)
        middle = float(np.median(ranks[name]))
        wrong = middle > RANDOM_SHARE * lm.config.vocab_size
        if model.learned:
            wrong = ranks[name][0] > FIRST_RANK or middle > RANK
        if wrong:
            sys.exit(f"{name} does not compute {model.title}: f32 finds its tokens unlikely")
    return ranks


def works_of(sides: dict[str, PeerSide], ik: dict[str, Path], threads: int) -> dict[str, Work]:
    """Every work on every side, by the name that it is reported with."""
    works: dict[str, Work] = {}
    for work, (prompt, steps) in WORKS.items():
        works |= {f"{name}: {work}": side.turn(prompt, steps) for name, side in sides.items()}
        for title, path in ik.items():
            for repack in REPACKED:
                works[f"{title}, -rtr {repack}: {work}"] = functools.partial(
                    ik_rate, path, threads, repack, prompt, steps
                )
    return works


def best_of(engine: Engine, work: str, figures: dict[str, list[float]]) -> str | None:
    """The name of the engine's fastest side at a work."""
    names = [name for name in figures if name.startswith(engine.title) and name.endswith(f": {work}")]
    return max(names, key=lambda name: summary(figures[name])["median"], default=None)


def table_of(engines: Sequence[Engine], figures: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each engine and precision: its best side of each work with its figures."""
    rows = []
    for engine in engines:
        row: dict[str, Any] = {"engine": engine.name, "precision": engine.precision}
        for work in WORKS:
            best = best_of(engine, work, figures)
            if best is not None:
                row[work] = summary(figures[best]) | {"side": best.rpartition(":")[0]}
        if len(row) > 2:
            rows.append(row)
    return rows


def bars_of(model: Model, engines: Sequence[Engine], figures: dict[str, list[float]]) -> dict[str, Any]:
    """Prefill against the fastest engine that is not built on ggml, if the model has a bar."""
    ours = [best_of(e, "prefill", figures) for e in engines if e.name == OURS and e.precision == "int8"]
    others = [best_of(e, "prefill", figures) for e in engines if e.name != OURS and not e.ggml]
    there = [name for name in others if name is not None]
    if model.bar is None or not there or not ours or ours[0] is None:
        return {}
    fastest = max(there, key=lambda name: summary(figures[name])["median"])
    ratio = paired_ratio(figures, ours[0], fastest)
    return {f"{model.title}, prefill against {fastest.rpartition(':')[0]}": judged(ratio, *model.bar)}


def compare(key: str, names: Sequence[str], rounds: int, threads: int, place: Path | None) -> None:
    """Measure one model on all sides."""
    model = MODELS[key]
    engines = [engine for name in names for engine in ENGINES[name]]
    print(f"\n{model.title}: starting", flush=True)
    sides: dict[str, PeerSide] = {}
    ik: dict[str, Path] = {}
    versions: dict[str, str] = {}
    for engine in engines:
        if engine.worker:
            new = started(engine, key, model, threads)
            sides |= new
            for side in new.values():
                versions[engine.name] = side.ready["version"]
        elif commit := ik_commit(model.gguf(engine.precision)):
            ik[engine.title] = model.gguf(engine.precision)
            versions[engine.name] = commit
    ranks = checked(model, sides)
    figures = interleaved(works_of(sides, ik, threads), rounds)
    memory = {name: side.ask(memory=True) for name, side in sides.items()}
    rows = table_of(engines, figures)
    report(
        f"{model.title} beside every peer",
        "tokens/s",
        figures,
        place=place,
        bars=bars_of(model, engines, figures),
        table=rows,
        kinds=model.kinds,
        threads=threads,
        peers=versions,
        memory=memory,
        start_seconds={name: round(side.start_seconds, 2) for name, side in sides.items()},
        ranks=ranks,
        settings={name: side.ready for name, side in sides.items()},
    )
    for side in sides.values():
        side.end()


def main() -> None:
    """Compare the models that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--peers", default=",".join(ENGINES), help=f"some of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep the figures in this file instead of results/")
    add_no_amx(parser)
    options = parser.parse_args()
    for key in options.models.split(","):
        compare(key, options.peers.split(","), options.rounds, options.threads, options.json)


if __name__ == "__main__":
    main()
