"""Perplexity of Gemma 3 270M over a whole text: at f32, with blocks as stored, and by transformers.

All sides read the same windows: a start token and 1,023 tokens of the text, longer than the model's own
window of 512, every token scored once. transformers reads the folder that `export` makes of the file, with
the same values in F32. Windows come in a fixed random order and every figure is written down at once, below
build/benchmarks, so that an interrupted run goes on where it stopped and its windows are spread over the
text. Perplexities are compared over the windows that both sides have read.
Run: python benchmarks/gemma_quality.py TEXT [--sides f32 auto transformers] [--windows N] [--threads 2]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _models import KEPT
from _timing import judged, report, versions

import pophood
from pophood import hub
from pophood.export.job import export_model
from pophood.model.bundle import open_bundle

SIDES = ("f32", "auto", "transformers")
BARS = {"f32 against transformers": 0.001, "auto against f32": 0.005}  # of the ratio, less 1
LENGTH = 1023
ROWS = 128  # rows of logits that transformers holds at once
Losses = dict[int, tuple[int, float]]  # window -> tokens, their loss in nats
Score = Callable[[list[int]], float]  # the loss of a window's tokens


def ours(path: Path, precision: str, threads: int) -> Score:
    """pophood."""
    lm = pophood.load(path, precision=precision, threads=threads, context=LENGTH + 1)
    start = lm.bundle.tokenizer.start_ids

    def score(tokens: list[int]) -> float:
        read = [*start, *tokens[:-1]]
        with lm.engine.sequence() as sequence:
            found = lm.engine.summary([(sequence, read)], rows="all", targets=tokens)
        assert found.target_logits is not None
        return float((found.log_mass - found.target_logits.astype(np.float64)).sum())

    return score


def theirs(path: Path, threads: int) -> Score:
    """transformers, in float32, with the attention that computes what the words say."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = KEPT / "gemma3-270m-f32"
    bundle = open_bundle(path)
    if not folder.exists():
        export_model(bundle, folder)
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    start = list(bundle.tokenizer.start_ids)

    def score(tokens: list[int]) -> float:
        targets = torch.tensor(tokens)
        loss = 0.0
        with torch.no_grad():
            hidden = model.model(torch.tensor([[*start, *tokens[:-1]]])).last_hidden_state[0]
            for at in range(0, len(tokens), ROWS):
                rows = model.lm_head(hidden[at : at + ROWS]).double()
                chosen = rows.gather(1, targets[at : at + ROWS, None])[:, 0]
                loss += float((rows.logsumexp(1) - chosen).sum())
        return loss

    return score


def kept(place: Path) -> Losses:
    """Return what a side has read already."""
    if not place.exists():
        return {}
    rows = (line.split() for line in place.read_text().splitlines())
    return {int(window): (int(tokens), float(loss)) for window, tokens, loss in rows}


def read(score: Score, windows: Iterator[tuple[int, list[int]]], place: Path) -> None:
    """Score the windows that are missing, and write every figure down."""
    have = kept(place)
    with place.open("a") as file:
        for number, tokens in windows:
            if number not in have:
                print(number, len(tokens), repr(score(tokens)), file=file, flush=True)


def perplexities(one: Losses, other: Losses) -> tuple[float, float, int]:
    """Return both perplexities over the windows that both have, and how many those are."""
    both = sorted(one.keys() & other.keys())
    tokens = sum(one[window][0] for window in both)
    first, second = (math.exp(sum(side[window][1] for window in both) / tokens) for side in (one, other))
    return first, second, len(both)


def main() -> None:
    """Read with the sides that are asked for, and compare all that have read something."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--windows", type=int, help="read this many windows only")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    path = hub.locate("gemma3-270m", offline=True).path
    tokenizer = open_bundle(path).tokenizer
    ids = list(tokenizer.encode(options.text.read_text(encoding="utf-8")))[len(tokenizer.start_ids) :]
    count = math.ceil(len(ids) / LENGTH)
    order = np.random.default_rng(0).permutation(count)[: options.windows].tolist()
    KEPT.mkdir(parents=True, exist_ok=True)
    places = {side: KEPT / f"gemma3-270m-{options.text.stem}-{side}.txt" for side in SIDES}
    for side in options.sides:
        windows = ((number, ids[number * LENGTH : (number + 1) * LENGTH]) for number in order)
        score = theirs(path, options.threads) if side == "transformers" else ours(path, side, options.threads)
        read(score, windows, places[side])
    losses = {side: kept(place) for side, place in places.items()}
    figures: dict[str, list[float]] = {}
    bars = {}
    for pair, bar in BARS.items():
        one, _, other = pair.partition(" against ")
        if losses[one].keys() & losses[other].keys():
            first, second, both = perplexities(losses[one], losses[other])
            figures |= {f"{one}, {both} of {count} windows": [first], f"{other}, the same": [second]}
            off = abs(first / second - 1)
            bars[pair] = judged({"median": off, "min": off, "max": off}, bar, bar, most=True)
            print(f"{pair}: {first / second - 1:+.5%}")
    report(
        "Gemma 3 270M, perplexity", "", figures, bars=bars, tokens=len(ids), peers=versions("transformers")
    )


if __name__ == "__main__":
    main()
