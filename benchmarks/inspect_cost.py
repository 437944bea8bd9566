"""The cost of `inspect` in a request of `pophood serve`: tokens per second of one stream, with more told.

SmolLM2's shape in Q8_0. Bars, as ratios of times per token: the ten likeliest tokens and the entropy at most
1.05 of a plain stream, a logit lens after each of the 30 blocks at most 2. The times are the client's, JSON
included. Beside these: the lens, ten tokens, entropy, norms and five heads together; and a plain stream
while another client's answer is told with its lens, against a plain stream beside a plain one.
Run: python benchmarks/inspect_cost.py [--rounds 7] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from _amx import add_no_amx
from _models import quantised_gguf, smollm2_gguf
from _servers import Served, pophood_server
from _timing import Work, interleaved, judged, paired_ratio, report

STEPS = 300
LENS = {"lens": True}
KINDS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "top 10 and entropy": {"top": 10, "entropy": True},
    "lens": LENS,
    "everything": {
        "top": 10,
        "entropy": True,
        "lens": {"top": 3},
        "residual_norms": True,
        "attention": [[layer, 0] for layer in range(0, 30, 6)],
    },
}


def request(server: Served, inspect: dict[str, Any] | None) -> bytes:
    """A completion of a short prompt, streamed."""
    fields: dict[str, Any] = {"prompt": list(range(100, 108)), "max_tokens": STEPS, "temperature": 0}
    fields |= {"ignore_eos": True, "stream": True, "inspect": inspect}
    return server.request("/v1/completions", fields)


def alone(server: Served, inspect: dict[str, Any] | None) -> Work:
    """Tokens per second of one stream."""

    def run() -> float:
        began = time.perf_counter()
        server.exchange(request(server, inspect))
        return STEPS / (time.perf_counter() - began)

    return run


def beside(server: Served, other: dict[str, Any] | None) -> Work:
    """Tokens per second of a plain stream beside another one that is told `other`."""

    def run() -> float:
        second = server.pool.submit(server.exchange, request(server, other))
        began = time.perf_counter()
        server.exchange(request(server, None))
        rate = STEPS / (time.perf_counter() - began)
        second.result()
        return rate

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all of it, interleaved, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    server = pophood_server(quantised_gguf(smollm2_gguf(), "Q8_0"), options.threads, clients=2)
    works = {name: alone(server, inspect) for name, inspect in KINDS.items()}
    works |= {"beside a plain stream": beside(server, None), "beside a lens": beside(server, LENS)}
    figures = interleaved(works, options.rounds)
    server.end()
    cost = {name: paired_ratio(figures, "plain", name) for name in KINDS if name != "plain"}
    bars = {
        "time per token, top 10 and entropy / plain": judged(
            cost["top 10 and entropy"], 1.05, 1.02, most=True
        ),
        "time per token, lens / plain": judged(cost["lens"], 2, 1.5, most=True),
    }
    ratios = {
        "time per token, everything / plain": cost["everything"],
        "time per token beside a lens / beside a plain stream": paired_ratio(
            figures, "beside a plain stream", "beside a lens"
        ),
    }
    report("inspecting a stream", "tokens/s", figures, bars=bars, ratios=ratios, threads=options.threads)


if __name__ == "__main__":
    main()
