"""The processor time of a streamed token in the two processes of `pophood serve`, beside `LM.stream`.

Each token that the server handles takes a core from the model, which computes on all of them. The model here
is a small one with Qwen2.5's vocabulary, on one thread, so that what it computes itself is about 0.8 ms. The
requests are those of the studio's page (ten likeliest tokens and entropy, pieces 100 ms apart), the same with
a piece for each token, and a plain stream. Seconds of processors, not of clocks: a busy machine does not
falsify them much. The least of the rounds counts.
Run: python benchmarks/token_cost.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _models import KEPT, QWEN
from _servers import Served, pophood_server

import pophood
from tests import processes
from tests.tiny import tiny_gguf

STEPS = 400
SMALL = {"n_layer": 1, "n_head": 2, "n_kv_head": 1, "n_embd": 64, "head_dim": 32, "n_inner": 128}
PROMPT = list(range(100, 108))
SAMPLING = {"temperature": 0.8, "top_k": 40, "seed": 1}
TOLD = {"inspect": {"top": 10, "entropy": True}, "logprobs": 0}
KINDS: dict[str, dict[str, Any]] = {
    "as the page asks": TOLD | {"stream_options": {"interval_ms": 100}},
    "a piece for each token": TOLD,
    "plain": {},
}


def model() -> Path:
    """The model's file, kept in build/."""
    path = KEPT / "small-large-vocabulary-q8_0.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_gguf(path, "qwen2", seed=4, quantised="Q8_0", **QWEN | SMALL)
    return path


def spent(process: int) -> float:
    """Milliseconds of processors that all threads of a process have used."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text("ascii").split()[0]) for task in tasks) / 1e6


def streamed(server: Served, kind: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds of a token in the process that answers, and in the model's."""
    (child,) = processes.descendants(server.process.pid)
    numbers = server.process.pid, child.pid
    before = [spent(number) for number in numbers]
    fields = {"prompt": PROMPT, "max_tokens": STEPS, "stream": True, **SAMPLING, **kind}
    server.exchange(server.request("/v1/completions", fields))
    answering, computing = (spent(number) - had for number, had in zip(numbers, before, strict=True))
    return answering / STEPS, computing / STEPS


def alone(lm: pophood.LM) -> float:
    """Milliseconds of a token of `LM.stream`."""
    before = time.process_time()
    tokens = sum(1 for _ in lm.stream(PROMPT, max_tokens=STEPS, **SAMPLING))
    return 1000 * (time.process_time() - before) / tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args(arguments).rounds
    lm = pophood.load(model(), threads=1, context=1024)
    own: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    server = pophood_server(model(), 1, context=1024)
    for _ in range(rounds + 1):  # the first one warms up
        own.append(alone(lm))
        for kind, fields in KINDS.items():
            found[kind].append(streamed(server, fields))
    server.end()
    least = min(own[1:])
    print(f"ms of a token: LM.stream {least:.3f}")
    for kind, times in found.items():
        answering, computing = (min(column) for column in zip(*times[1:], strict=True))
        print(f"{kind}: {answering:.3f} to answer, {computing - least:.3f} beyond that to compute")


if __name__ == "__main__":
    main()
