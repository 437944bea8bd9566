"""The loss curve of a run as SVG, without matplotlib: training loss, its running mean, validation loss."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pophood.table import count

WIDTH, NARROW = 880, 360  # CSS pixels; the narrow one is for a window of a phone's width
HEIGHT, LOW = 360, 300
LEFT, RIGHT, BOTTOM = 56, 28, 44
ROW, LETTER, SWATCH = 20, 6.9, 32  # of the legend: height of a row, about the width of a letter, of a sample
SMOOTH = 0.9  # of the running mean while the length of the run is unknown
MOST_POINTS = 1500
FEW_STEPS = 200  # up to here the line is drawn stronger, because it does not fill the picture

Point = tuple[int, float]  # step, loss
Place = Callable[[float, float], tuple[float, float]]

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
.grid { stroke: #c4ccd4; stroke-width: 1 }
.steps { stroke: #3a9bdc; stroke-width: 1; fill: none; opacity: .75 }
line.steps, .few { stroke-width: 1.75; opacity: 1 }
.mean { stroke: #0072b2; stroke-width: 2.5; fill: none }
.validation { stroke: #d55e00; stroke-width: 2; fill: none } circle.validation { fill: #d55e00 }
circle.steps { fill: #0072b2; opacity: 1 } .back { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .back { fill: #0d1117 }
.grid { stroke: #3d4752 } .mean { stroke: #7cc4ff } .steps { stroke: #2f81c7 } circle.steps { fill: #7cc4ff }
.validation { stroke: #e69f00 } circle.validation { fill: #e69f00 } }
"""


class RunningMean:
    """The exponential mean of a series: m = beta m + (1 - beta) x, divided by 1 - beta^t.

    The divisor corrects the bias of the initial m = 0, as in Adam (Kingma and Ba 2015).

    >>> mean = RunningMean(0.9)
    >>> [round(mean.add(loss), 3) for loss in (4.0, 4.0, 3.0)]
    [4.0, 4.0, 3.631]
    """

    def __init__(self, beta: float = SMOOTH) -> None:
        self._beta, self._mean, self._weight = beta, 0.0, 0.0

    def add(self, value: float) -> float:
        """Add a value, and return the mean so far."""
        self._mean = self._beta * self._mean + (1 - self._beta) * value
        self._weight = self._beta * self._weight + (1 - self._beta)  # 1 - beta^t
        return self._mean / self._weight


def beta_of(steps: int) -> float:
    """Return the beta with which the mean lags behind a slope by a twentieth of this number of steps.

    An exponential mean lags by beta / (1 - beta) steps: with the usual 0.9 by nine, nearly half of a run of
    twenty.

    >>> [beta_of(steps) for steps in (1, 22, 200, 100_000)]
    [0.5, 0.52, 0.91, 0.98]
    """
    return min(max(round(steps / (steps + 20), 2), 0.5), 0.98)


def curve(events: Sequence[dict[str, Any]], title: str = "Loss", width: int = WIDTH) -> str:
    """Return the picture of a run's events: nats per token over steps."""
    steps = [(event["step"], event["loss"]) for event in events if event["event"] == "step"]
    evaluations = [(event["step"], event["loss"]) for event in events if event["event"] == "evaluated"]
    beta = beta_of(len(steps))
    means = smoothed(steps, beta)
    legend, top = _legend(steps, evaluations, beta, width)
    height = HEIGHT if width >= WIDTH else LOW
    last = max((step for step, _ in [*steps, *evaluations]), default=1) or 1
    losses = [loss for _, loss in [*steps, *evaluations]] or [0.0, 1.0]
    ticks = _ticks(min(losses), max(losses))
    low, high = min(*losses, ticks[0]), max(*losses, ticks[-1])

    def at(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (width - LEFT - RIGHT) * step / last
        y = top + (height - top - BOTTOM) * (high - loss) / ((high - low) or 1.0)
        return round(x, 1), round(y, 1)

    parts = [f'<rect class="back" width="{width}" height="{height}"/>', *legend]
    parts += _axes(ticks, last, width, height, at)
    few = " few" if len(steps) <= FEW_STEPS else ""
    parts += [_line(f"steps{few}", _thinned(steps), at), _line("mean", _thinned(means), at)]
    parts.append(_line("validation", evaluations, at))
    parts += [_dot("validation", *at(*point)) for point in evaluations]
    parts += [_dot("steps", *at(*point)) for point in steps[:1] if len(steps) == 1]
    description = html.escape(f"{title}: {words(steps, evaluations)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img"><title>{description}</title><style>{STYLE}</style>'
        f"{''.join(parts)}</svg>"
    )


def curve_data(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the same curves as data, which the modules of studio/draw draw."""
    steps = [(event["step"], event["loss"]) for event in events if event["event"] == "step"]
    evaluations = [(event["step"], event["loss"]) for event in events if event["event"] == "evaluated"]
    beta = beta_of(len(steps))
    lines = {
        "training loss": _thinned(steps),
        f"exponential mean (β = {beta:g})": _thinned(smoothed(steps, beta)) if len(steps) > 1 else [],
        "validation loss": evaluations,
    }
    series = [
        {
            "name": name,
            "x": [step for step, _ in points],
            "y": [loss if math.isfinite(loss) else None for _, loss in points],
            "faint": name == "training loss" and len(points) > 1,
        }
        for name, points in lines.items()
        if points
    ]
    axes = {"x_unit": "step", "y_unit": "nats per token"}
    return {"kind": "curves", "title": "Loss over the steps of the run", "series": series, **axes}


def words(steps: Sequence[Point], evaluations: Sequence[Point]) -> str:
    """Describe the picture for readers who cannot see it."""
    parts = []
    if steps:
        end, made = smoothed(steps, beta_of(len(steps)))[-1][1], count(steps[-1][0], "step")
        parts.append(f"training loss from {steps[0][1]:.3f} to {end:.3f} in {made}")
    if evaluations:
        best = min(evaluations, key=lambda point: point[1])
        parts.append(
            f"validation loss from {evaluations[0][1]:.3f} to {evaluations[-1][1]:.3f},"
            f" lowest {best[1]:.3f} at step {best[0]:,}"
        )
    return "; ".join(parts) or "no step was made"


def smoothed(points: Sequence[Point], beta: float) -> list[Point]:
    """Return the running mean after every step."""
    mean = RunningMean(beta)
    return [(step, mean.add(loss)) for step, loss in points]


def _legend(
    steps: Sequence[Point], evaluations: Sequence[Point], beta: float, width: int
) -> tuple[list[str], int]:
    """Return the legend in rows that fit the width, and the top of the picture below it."""
    names = {"steps": "training loss"} if steps else {}
    if len(steps) > 1:
        names["mean"] = f"exponential mean (β = {beta:g}, bias-corrected)"
    names |= {"validation": "validation loss"} if evaluations else {}
    parts, x, y = [], 16.0, 24
    for kind, name in names.items():
        wide = SWATCH + LETTER * len(name)
        if x > 16 and x + wide > width - RIGHT:
            x, y = 16.0, y + ROW
        if kind != "steps" or len(steps) > 1:
            parts.append(f'<line class="{kind}" x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}"/>')
        if kind == "validation" or (kind == "steps" and len(steps) == 1):
            parts.append(_dot(kind, x + 11, y - 4))
        parts.append(f'<text x="{x + 28}" y="{y}">{name}</text>')
        x = round(x + wide + 20, 1)
    parts.append(f'<text x="16" y="{y + ROW + 8}">nats per token</text>')
    return parts, y + ROW + 24


def _axes(ticks: Sequence[float], last: int, width: int, height: int, at: Place) -> Iterator[str]:
    """Yield grid lines and numbers of the losses, and numbers of the steps."""
    for tick in ticks:
        _, y = at(0, tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>'
    whole = [int(tick) for tick in _ticks(0, last) if tick == int(tick) and tick <= last]
    room = (width - LEFT - RIGHT) / max(1, len(whole) - 1) - 12
    for tick in whole[:: math.ceil(LETTER * len(f"{whole[-1]:,}") / room)]:
        x, y = at(tick, 0)[0], height - BOTTOM + 18
        yield f'<text x="{x}" y="{y}" text-anchor="middle">{tick:,}</text>'
    yield f'<text x="{width - RIGHT}" y="{height - 8}" text-anchor="end">step</text>'


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return about MOST_POINTS points: the lowest and the highest of each stretch, and both ends."""
    size = math.ceil(2 * len(points) / MOST_POINTS)
    if size <= 2:
        return list(points)
    chosen = {points[0], points[-1]}
    for begin in range(0, len(points), size):
        stretch = points[begin : begin + size]
        chosen |= {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
    return sorted(chosen)


def _line(kind: str, points: Sequence[Point], at: Place) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in points))
    return f'<polyline class="{kind}" points="{path}"/>'


def _dot(kind: str, x: float, y: float) -> str:
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="3"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers around a range.

    >>> _ticks(2.1, 3.9)
    [2.0, 2.5, 3.0, 3.5, 4.0]
    """
    span = (high - low) or 1.0
    size = 10.0 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if span / (size * k) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 10) for k in range(first, last + 1)]
