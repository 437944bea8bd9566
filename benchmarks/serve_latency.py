"""How soon `pophood serve` answers beside a long prompt: its first event, and the gaps of a stream.

SmolLM2's shape in Q8_0. Two figures, each with a bar: the time from sending a request of 1,000 tokens to
its first event, which names the role, at most 50 ms; the 95th percentile of the gaps between the tokens
of one stream while another client's prompt of 1,900 tokens is read, at most 3 times the gap of the stream
alone. All prompts are new each time, so nothing is cached.
Run: python benchmarks/serve_latency.py [--rounds 5] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from _amx import add_no_amx
from _models import quantised_gguf, smollm2_gguf
from _servers import Arrival, Served, pophood_server, text_times
from _timing import judged, report, summary

ROLE_PROMPT, LONG_PROMPT, STEPS = 1000, 1900, 400
CLIENTS = 2


class Latencies:
    """A server with two clients, and what is timed."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.pool = ThreadPoolExecutor(CLIENTS)
        self._turn = 0

    def first_event(self) -> float:
        """Milliseconds from sending a chat of about 1,000 tokens to the first event of its stream."""
        self._turn += 1
        text = f"{self._turn} " + "one two three four five six seven eight nine ten " * (ROLE_PROMPT // 10)
        fields = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "stream": True}
        request = self.server.request("/v1/chat/completions", fields)
        began = time.perf_counter()
        arrivals = self.server.exchange(request)
        first = next(when for when, part in arrivals if b"data: " in part)
        return 1000 * (first - began)

    def gaps(self, beside: bool) -> list[float]:
        """Milliseconds between the tokens of a stream: alone, or while the other's prompt is read."""
        stream: Future[list[Arrival]] = self.pool.submit(self._complete, 16, STEPS)
        if not beside:
            return _gaps(text_times(stream.result()))
        time.sleep(0.3)  # the stream writes by now
        began = time.perf_counter()
        read = self._complete(LONG_PROMPT, 1)
        ended = read[-1][0]
        times = [when for when in text_times(stream.result()) if began <= when <= ended]
        return _gaps(times)

    def _complete(self, prompt: int, steps: int) -> list[Arrival]:
        self._turn += 1
        ids = [100 + (37 * self._turn + 7 * i) % 40_000 for i in range(prompt)]
        fields = {"prompt": ids, "max_tokens": steps, "temperature": 0, "ignore_eos": True, "stream": True}
        return self.server.exchange(self.server.request("/v1/completions", fields))


def _gaps(times: list[float]) -> list[float]:
    return [1000 * float(gap) for gap in np.diff(times) if gap > 0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    path = quantised_gguf(smollm2_gguf(), "Q8_0")
    server = pophood_server(path, options.threads, clients=CLIENTS, context=2048)
    sides = Latencies(server)
    cold = sides.first_event()
    figures: dict[str, list[float]] = {"first event": [], "gap alone": [], "gap beside, 95th percentile": []}
    for _ in range(options.rounds):
        figures["first event"].append(sides.first_event())
        figures["gap alone"].append(float(np.median(sides.gaps(False))))
        figures["gap beside, 95th percentile"].append(float(np.percentile(sides.gaps(True), 95)))
    alone, beside = figures["gap alone"], figures["gap beside, 95th percentile"]
    ratios = summary([a / b for a, b in zip(beside, alone, strict=True)])
    bars = {
        "ms to the first event of a chat of 1,000 tokens": judged(
            summary(figures["first event"]), 50, 20, most=True
        ),
        "95th percentile of the gaps beside 1,900 tokens / gap alone": judged(ratios, 3, 2, most=True),
    }
    server.end()
    report("latency of the server", "ms", figures, bars=bars, threads=options.threads, first_of_all=cold)


if __name__ == "__main__":
    main()
