"""`pophood serve` over HTTP: one client and eight, streamed and not, beside `LM.stream` in this program.

GPT-2 small's and SmolLM2's shapes in Q8_0. Each request has its own prompt of 16 ids and gets 128 tokens.
Tokens/s are those of all clients from the first request to the last byte; the cost of a token is the time
from the first token to the last, divided. Bars: at most 0.3 ms per token above `LM.stream` for one client
that streams; eight clients that do not stream at least 3 times one, and 1.2 times ik_llama.cpp's server
with eight.
Run: python benchmarks/serve.py [--rounds 5] [--threads 2] [--shapes smollm2] [--no-amx]
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _amx import add_no_amx
from _ik import REPACKED
from _models import gpt2_gguf, quantised_gguf, smollm2_gguf
from _servers import Arrival, Served, ik_server, pophood_server, text_times
from _timing import Work, interleaved, judged, paired_ratio, report, summary

import pophood

PROMPT, STEPS, CLIENTS = 16, 128, 8
SAMPLING = {"temperature": 0, "ignore_eos": True}
BETTER = "the better peer"
CUT = (
    b"UTF-8"  # ik_llama.cpp's error for an answer that begins or ends inside a character, after computing it
)
NOT_IK = ("gpt2",)  # ik_llama.cpp aborts on GPT-2 (docs/log.md, "where the time of 8-bit products goes")
SHAPES: dict[str, Callable[[], Path]] = {
    "gpt2": lambda: gpt2_gguf("Q8_0"),
    "smollm2": lambda: quantised_gguf(smollm2_gguf(), "Q8_0"),
}


class Sides:
    """The servers of one shape, and the requests that they get."""

    def __init__(self, path: Path, threads: int) -> None:
        self.ours = pophood_server(path, threads, clients=CLIENTS)
        self._turn = 0

    def rate(self, clients: int, stream: bool) -> float:
        """Tokens/s of so many clients of ours together."""
        began = time.perf_counter()
        self._ask(clients, stream)
        return clients * STEPS / (time.perf_counter() - began)

    def token_seconds(self) -> float:
        """Seconds per token of one client of ours that streams, without the first."""
        (arrivals,) = self._ask(1, True)
        times = text_times(arrivals)
        return (times[-1] - times[0]) / (STEPS - 1)

    def _ask(self, clients: int, stream: bool) -> list[list[Arrival]]:
        more = {"max_tokens": STEPS, "stream": stream}
        answers = self.ours.ask(
            "/v1/completions", [SAMPLING | more | {"prompt": p} for p in self._prompts(clients)]
        )
        for answer in answers:
            assert answer[0][1].startswith(b"HTTP/1.1 200"), answer
        return answers

    def peer_rate(self, peer: Served) -> float:
        """Tokens/s of eight clients of a llama-server."""
        fields = [SAMPLING | {"n_predict": STEPS, "prompt": prompt} for prompt in self._prompts(CLIENTS)]
        began = time.perf_counter()
        answers = peer.ask("/completion", fields)
        seconds = time.perf_counter() - began
        for answer in answers:
            body = b"".join(part for _, part in answer).partition(b"\r\n\r\n")[2]
            assert json.loads(body).get("tokens_predicted") == STEPS or CUT in body, body
        return CLIENTS * STEPS / seconds

    def _prompts(self, clients: int) -> list[list[int]]:
        """A prompt per client, others each time: no answer stands in a cache."""
        self._turn += 1
        starts = [100 + 97 * i + self._turn for i in range(clients)]
        return [list(range(start, start + PROMPT)) for start in starts]


def streamed_seconds(lm: pophood.LM) -> float:
    """Seconds per token of `LM.stream`, without the first."""
    first = 100 + time.monotonic_ns() % 1000  # another prompt each time: nothing is cached
    ids = list(range(first, first + PROMPT))
    run = lm.stream(ids, max_tokens=STEPS, temperature=0, stop_ids=())
    next(run)
    began = time.perf_counter()
    for _ in run:
        pass
    return (time.perf_counter() - began) / (STEPS - 1)


def compare(shape: str, rounds: int, threads: int) -> None:
    """Time one shape."""
    path = SHAPES[shape]()
    lm = pophood.load(path, threads=threads, context=512)
    sides = Sides(path, threads)
    peers = {} if shape in NOT_IK else ik_servers(path, threads)
    works: dict[str, Work] = {
        "LM.stream, s per token": functools.partial(streamed_seconds, lm),
        "1 client streamed, s per token": sides.token_seconds,
        "1 client": functools.partial(sides.rate, 1, False),
        "1 client, streamed": functools.partial(sides.rate, 1, True),
        "8 clients": functools.partial(sides.rate, CLIENTS, False),
        "8 clients, streamed": functools.partial(sides.rate, CLIENTS, True),
    }
    works |= {name: functools.partial(sides.peer_rate, peer) for name, peer in peers.items()}
    figures = interleaved(works, rounds)
    if peers:
        figures[BETTER] = max((figures[name] for name in peers), key=statistics.median)
    seconds = zip(figures["1 client streamed, s per token"], figures["LM.stream, s per token"], strict=True)
    overhead = summary([1000 * (served - alone) for served, alone in seconds])
    ratios = {
        f"{name} / 1 client": paired_ratio(figures, name, "1 client")
        for name in ("8 clients", "8 clients, streamed")
    }
    bars = {
        f"{shape} Q8_0, ms per token of one client above LM.stream": judged(overhead, 0.3, 0.15, most=True),
        f"{shape} Q8_0, 8 clients against 1": judged(ratios["8 clients / 1 client"], 3.0, 4.5),
    }
    if peers:
        ratios["8 clients / the peer's 8"] = paired_ratio(figures, "8 clients", BETTER)
        bars[f"{shape} Q8_0, 8 clients against ik_llama.cpp's 8"] = judged(
            ratios["8 clients / the peer's 8"], 1.2, 2
        )
    facts = {name: sides.ours.facts[name] for name in ("isa", "weight_bytes", "precision", "kv")}
    for server in (sides.ours, *peers.values()):
        server.end()
    report(f"{shape} Q8_0, served", "tokens/s", figures, bars=bars, ratios=ratios, threads=threads, **facts)


def ik_servers(path: Path, threads: int) -> dict[str, Served]:
    """ik_llama.cpp's servers at both settings of -rtr; the better one counts."""
    found = {}
    for repack in REPACKED:
        server = ik_server(path, threads, slots=CLIENTS, window=512, repack=bool(repack))
        if server is None:
            break
        found[f"ik_llama.cpp -rtr {repack}, 8 clients"] = server
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the shapes that are asked for, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    for shape in options.shapes:
        compare(shape, options.rounds, options.threads)


if __name__ == "__main__":
    main()
