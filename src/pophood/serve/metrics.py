"""Counts and times of the server as Prometheus reads them: text format 0.0.4, written here.

    metrics = Metrics("smollm2", "0.1.0")
    metrics.note(access)                      # after every request
    metrics.text(gauges, open_connections=3)  # GET /metrics

Counters live as long as the server. Labels come from small sets (routes, statuses), never from a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from pophood.serve.guard.access import Access
from pophood.serve.messages import Gauges

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
Labels = tuple[tuple[str, str], ...]


class CounterVec:
    """A number for each combination of labels, which only grows."""

    def __init__(self, name: str, help_text: str) -> None:
        self.name, self.help_text = name, help_text
        self._values: dict[Labels, float] = {}

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to the number of one combination of labels; `add(0)` makes it appear."""
        key = tuple(labels.items())
        self._values[key] = self._values.get(key, 0) + amount

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.help_text, "counter")
        yield from (_sample(self.name, labels, value) for labels, value in sorted(self._values.items()))


class Histogram:
    """How many values were at most each of some bounds, with their sum."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float] = BUCKETS) -> None:
        self.name, self.help_text = name, help_text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.help_text, "histogram")
        total = 0
        for bound, n in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            total += n
            yield _sample(f"{self.name}_bucket", (("le", bound),), total)
        yield _sample(f"{self.name}_sum", (), self._sum)
        yield _sample(f"{self.name}_count", (), total)


class Metrics:
    """All figures of one server."""

    def __init__(self, model: str, version: str) -> None:
        self._info: Labels = (("model", model), ("version", version))
        self.requests = CounterVec("pophood_requests_total", "Requests by route and status.")
        self.tokens = CounterVec(
            "pophood_tokens_total",
            "Tokens by kind: prompt (all), cached (of these, not computed again), generated.",
        )
        self.cancelled = CounterVec("pophood_cancelled_total", "Requests whose client left before their end.")
        self.seconds = Histogram(
            "pophood_request_seconds", "Seconds from the arrival of a request to its end."
        )
        self.first_token = Histogram(
            "pophood_first_token_seconds", "Seconds from the arrival of a request to its first token."
        )
        for kind in ("prompt", "cached", "generated"):
            self.tokens.add(0, kind=kind)
        self.cancelled.add(0)

    def note(self, access: Access) -> None:
        """Count a request that has ended."""
        self.requests.add(route=access.route, status=str(access.status))
        self.tokens.add(access.prompt_tokens, kind="prompt")
        self.tokens.add(access.cached_tokens, kind="cached")
        self.tokens.add(access.generated_tokens, kind="generated")
        self.cancelled.add(access.cancelled)
        self.seconds.observe(access.seconds)
        if access.first_token is not None:
            self.first_token.observe(access.first_token)

    def text(
        self, gauges: Gauges, *, up: bool, open_connections: int, restarts: int = 0, loaded: int = 1
    ) -> str:
        """Return all figures; those of `gauges` are of this moment."""
        lines = [*_head("pophood_info", "The model and the version.", "gauge")]
        lines.append(_sample("pophood_info", self._info, 1))
        for name, help_text, value in (
            ("pophood_up", "1 while the model computes, 0 while there is no worker.", up),
            ("pophood_models_loaded", "Models in memory.", loaded),
            ("pophood_connections", "Open connections.", open_connections),
            ("pophood_requests_running", "Requests that are computed.", gauges.running),
            ("pophood_requests_waiting", "Requests that wait for room.", gauges.waiting),
            ("pophood_kv_blocks_used", "Blocks of keys and values in use.", gauges.blocks_used),
            (
                "pophood_kv_blocks_cached",
                "Blocks of those in use that are kept for later prompts.",
                gauges.blocks_cached,
            ),
            ("pophood_kv_blocks_total", "Blocks of keys and values that may be used.", gauges.blocks_total),
        ):
            lines += [*_head(name, help_text, "gauge"), _sample(name, (), value)]
        name = "pophood_worker_restarts_total"
        lines += [*_head(name, "Starts of the model's process after it ended by itself.", "counter")]
        lines.append(_sample(name, (), restarts))
        for figure in (self.requests, self.tokens, self.cancelled, self.seconds, self.first_token):
            lines += figure.lines()
        return "\n".join(lines) + "\n"


def _head(name: str, help_text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(float(value)) if value % 1 else str(int(value))
