"""The picture of a benchmark: bars of tokens per second for each kind of work, before what would be possible.

A lighter bar behind each is the machine's ceiling, a thin line the range, a mark the earlier run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.bench.record import WorkRate
from pophood.bench.view import BenchView, rate_text
from pophood.look.figures.parts import LABEL, caption, centred, mixed, size, write_beside
from pophood.look.figures.theme import Theme
from pophood.table import count

ROW, GAP = 0.30, 0.75  # inches: of a bar, and around each group of bars
HEIGHT = 0.62  # of a bar, as a share of its row
FURTHEST = 10  # a ceiling is drawn up to this multiple of the longest bar of its group


def draw(view: BenchView, figure: Figure, theme: Theme) -> None:
    """Draw a group of bars for the prompt, for one sequence and for several sequences."""
    groups = {title: rates for title, rates in grouped(view.record.rates).items() if rates}
    if not groups:
        size(figure, 7.0, 1.5)
        axes = figure.add_subplot()
        axes.set_axis_off()
        centred(axes, (0.5, 0.5), "Nothing was measured.", LABEL, theme.muted)
        return
    rows = [len(rates) for rates in groups.values()]
    size(figure, 8.2, sum(ROW * n + GAP for n in rows))
    all_axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[n + 1.2 for n in rows])
    earlier = {} if view.earlier is None else view.earlier.medians
    for number, (axes, (title, rates)) in enumerate(zip(all_axes[:, 0], groups.items(), strict=True)):
        _group(axes, title, rates, [earlier.get(one.work) for one in rates], theme, accent=number)
    caption(figure, _explanation(view, groups))


def grouped(rates: Sequence[WorkRate]) -> dict[str, list[WorkRate]]:
    """Return the rates by the title of their group."""
    return {
        "Reading a prompt, tokens/s": [one for one in rates if one.work.kind == "prefill"],
        "Generating, tokens/s": [one for one in rates if one.work.kind == "decode" and one.work.batch == 1],
        "Generating several texts together, tokens/s of all": [one for one in rates if one.work.batch > 1],
    }


def _group(
    axes: Axes,
    title: str,
    rates: Sequence[WorkRate],
    earlier: Sequence[float | None],
    theme: Theme,
    accent: int,
) -> None:
    colour, track = theme.accents[accent], mixed(theme.accents[accent], theme.background, 0.22)
    longest, ends = _longest(rates), []
    for place, (one, before) in enumerate(zip(rates, earlier, strict=True)):
        rate, reach = one.rate, _reach(one, longest)
        if reach is not None:
            axes.barh(place, reach, height=HEIGHT, color=track)
        axes.barh(place, rate.median, height=HEIGHT, color=colour)
        if rate.least < rate.most:
            axes.plot([rate.least, rate.most], [place, place], "|-", color=theme.text, linewidth=1.0)
        if before is not None:
            axes.plot([before], [place], "D", color=theme.text, markersize=5, markerfacecolor="none")
        ends.append(max(rate.most, before or 0.0, reach or 0.0))
    for place, (one, end) in enumerate(zip(rates, ends, strict=True)):
        share = "" if one.share is None else f", {100 * one.share:.0f} %"
        write_beside(axes, (end, place), f"{rate_text(one.rate.median)}{share}", theme.text)
    axes.set_yticks(range(len(rates)), [_label(one) for one in rates])
    axes.set_ylim(len(rates) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(ends))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=LABEL)


def _label(one: WorkRate) -> str:
    """Name a bar within its group: the number of threads, and what else differs."""
    work = one.work
    words = count(work.threads, "thread")
    if work.kind == "prefill":
        return f"{work.tokens:,} tokens, {words}"
    if work.batch > 1:
        return f"{count(work.batch, 'text')}, {words}"
    return f"after {count(work.depth, 'token')}, {words}"


def _explanation(view: BenchView, groups: Mapping[str, Sequence[WorkRate]]) -> str:
    """Return what the faint bars, the lines and the marks mean."""
    words = []
    if any(one.ceiling is not None for one in view.record.rates):
        words.append("Faint bars: what this machine could do, and the share of it that was reached.")
    if any(_reach(one, _longest(rates)) != one.ceiling for rates in groups.values() for one in rates):
        words.append(f"They end at {FURTHEST} times the longest rate of their group.")
    if view.record.rounds > 1:
        words.append("Line: the range of the rounds.")
    if view.earlier is not None:
        words.append("Diamond: the earlier run.")
    return " ".join(words)


def _longest(rates: Sequence[WorkRate]) -> float:
    return max(one.rate.most for one in rates)


def _reach(one: WorkRate, longest: float) -> float | None:
    """Return where the faint bar ends: at the ceiling, unless that is far away."""
    return None if one.ceiling is None else min(one.ceiling, FURTHEST * longest)
