"""The output of `pophood tune`: a progress bar or plain lines, the report card, examples token by token."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pophood.cli.app import DONE
from pophood.cli.terminal.console import QUIET, Console, plain, visible
from pophood.cli.terminal.progress import started_bar
from pophood.cli.terminal.tables import count, seconds
from pophood.system import colour_ok, memory_text
from pophood.train.events import (
    Evaluated,
    Event,
    Finished,
    Looked,
    Measuring,
    Noted,
    Sampled,
    Saved,
    Started,
    Step,
)
from pophood.train.report.curve import RunningMean

if TYPE_CHECKING:
    from rich.progress import Progress

    from pophood.model.lm import LM
    from pophood.train.data import DataOptions, DataReport, Preview
    from pophood.train.report.report_card import Card
    from pophood.train.run.plan import Plan
    from pophood.train.settings import TrainSettings
    from pophood.train.tune import Tuning

EVERY = 10.0  # seconds between two lines in a pipe
FEW = 20  # steps; a run with fewer gets a warning
SAMPLE = 160  # characters shown of a sample during the run
MOST_BAD = 5  # bad lines listed
SHOWN = 3  # examples
COLOURS = {"trained": "32", "ignored": "2", "end": "1;35", "cut": "9;31"}  # SGR codes
MARKS = {"trained": ("[", "]"), "ignored": ("", ""), "end": ("{", "}"), "cut": ("~", "~")}  # without colours


class Screen:
    """Shows the events of a run on stderr: as a progress bar on a terminal, else as lines."""

    def __init__(self, console: Console, tuning: Tuning) -> None:
        self._console, self._tuning = console, tuning
        self._bar: Progress | None = None
        self._wanted = console.verbosity > QUIET and sys.stderr.isatty()
        self._said, self._steps, self._made = 0.0, 0, 0
        self._mean, self._loss = RunningMean(), 0.0
        self._held: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide_bar()

    def stopping(self) -> None:
        """Announce at once that Ctrl-C stops the run; called from another thread."""
        if not self._steps:
            self._say("stopping: no step is finished yet, so nothing is written")
        elif self._made >= self._steps:
            self._say("stopping: all steps are done; writing the result")
        elif self._tuning.settings.accumulation > 1:
            self._say("stopping after this batch; writing the result")
        else:
            self._say("stopping after this step; writing the result")

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Measuring):
            self._measuring(event)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Step):
            self._loss = self._mean.add(event.loss)
            self._step(event)
        elif isinstance(event, Evaluated):
            self._held = event.loss
            self._say(f"step {event.step}: validation loss {event.loss:.3f}{', the best' * event.best}")
        elif isinstance(event, Sampled):
            line = " ".join(event.text.split())
            self._say(f"  {' '.join(event.prompt.split())[-40:]} → {line[:SAMPLE]}")
        elif isinstance(event, Looked):
            self._say(f"  lens of {' '.join(event.prompt.split())[-40:]} → {_guesses(event)}")
        elif isinstance(event, Saved):
            self._console.detail(f"step {event.step}: saved {event.path}")
        elif isinstance(event, Noted):
            self._say(event.text)
        elif isinstance(event, Finished):
            self._end(event)

    def _measuring(self, event: Measuring) -> None:
        words = f"measuring: {event.part} of {event.parts} ({event.what})"
        if not self._wanted:
            self._say(words)
            return
        if self._bar is None:
            self._show_bar(event.parts)
        self._update(completed=event.part - 1, description=words)

    def _show_bar(self, total: int) -> None:
        from rich.progress import BarColumn, TextColumn

        description, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
        self._bar = started_bar(description, BarColumn(bar_width=20), figures, total=total, figures="")

    def _update(self, **values: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], **values)

    def _hide_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, event: Started) -> None:
        self._hide_bar()
        self._steps, self._made = event.steps, event.first_step
        plan = self._tuning.plan
        assert plan is not None
        share = event.trained / event.parameters
        self._say(
            f"Training {event.trained:,} of {event.parameters:,} parameters ({share:.1%}):"
            f" {count(event.steps, 'step')} of {event.tokens_per_step:,} tokens, {plan.epochs:.2g} epochs,"
            f" about {seconds(plan.seconds)}"
        )
        if self._tuning.settings.minutes is not None and event.steps < FEW:
            self._say("Those are few steps: give more --minutes, or a smaller --batch-size or --length.")
        if not plan.fits:
            self._say(f"This may not fit into memory or on the disk: {'; '.join(plan.advice)}")
        if self._wanted:
            self._show_bar(event.steps)
            words = f"step {event.first_step}/{event.steps}"
            self._update(completed=event.first_step, description=words)

    def _step(self, event: Step) -> None:
        validation = f", validation {self._held:.3f}" if self._held is not None else ""
        figures = f"loss {self._loss:.3f}{validation}, {event.tokens_per_second:,.0f} tokens/s"
        figures += f", {seconds(event.left)} left"
        self._steps, self._made = event.steps, event.step
        if self._bar is not None:
            words = f"step {event.step}/{event.steps}"
            self._update(completed=event.step, total=event.steps, description=words, figures=figures)
        elif time.monotonic() - self._said > EVERY or event.step == 1:
            self._said = time.monotonic()
            self._say(f"step {event.step} of {event.steps}: {figures}")

    def _end(self, event: Finished) -> None:
        self._hide_bar()
        why = {
            "steps": "all planned steps are done",
            "clock": "the time is up before all planned steps are done; the weights so far are kept",
            "stopped": "stopped; the weights so far are kept",
            "no better": "the validation loss stopped improving",
        }.get(event.reason, event.reason)
        self._say(f"{count(event.step, 'step')} in {seconds(event.seconds)}: {why}")

    def _say(self, text: str) -> None:
        text = plain(text, sys.stderr)
        if self._bar is not None and self._console.verbosity > QUIET:
            self._bar.console.print(visible(text), markup=False, highlight=False)
        else:
            self._console.say(text)


def _guesses(event: Looked) -> str:
    """Return the guesses of a few blocks in a line, as in "block 0 ' the', 15 ' sea', 29 ' sea' 41 %"."""
    last = len(event.blocks) - 1
    shown = [f"{i} {event.blocks[i][0][0]!r}" for i in sorted({0, last // 2, last})]
    return f"block {', '.join(shown)} {event.blocks[last][0][1]:.0%}"


def data_lines(report: DataReport) -> list[str]:
    """Return the report on the data as a few lines."""
    lines = [
        f"data: {report.format}; {count(report.documents, 'document')}, {report.tokens:,} tokens,"
        f" {report.trained_tokens:,} learned in an epoch",
        *report.notes,
        *(f"bad: {bad}" for bad in report.bad[:MOST_BAD]),
        *(f"warning: {warning}" for warning in report.warnings),
    ]
    if report.bad_count > MOST_BAD:
        lines.append(f"... and {report.bad_count - MOST_BAD:,} more bad lines")
    return lines


def plan_text(plan: Plan, settings: TrainSettings) -> str:
    """Return the plan as a few lines."""
    fits = "fits" if plan.fits else "DOES NOT FIT"
    lines = [
        f"steps   {plan.steps:,} of {settings.batch_size * settings.accumulation} x {settings.length} tokens"
        f" ({plan.epochs:.2g} epochs), {plan.seconds_per_step:.2f} s each",
        f"time    {seconds(plan.seconds)}, of which {seconds(plan.evaluations * plan.seconds_per_evaluation)}"
        " for evaluations",
        f"memory  {memory_text(plan.memory)} at its peak; {memory_text(plan.free_memory)} is free",
        f"disk    {memory_text(plan.disk)} at its peak; {memory_text(plan.free_disk)} is free",
        f"It {fits}.",
        *(f"change: {advice}" for advice in plan.advice),
    ]
    return "\n".join(lines)


def card_text(card: Card) -> str:
    """Return the report card as text."""
    parts = [card.headline]
    for prompt, before, after in zip(card.prompts, card.before.samples, card.after.samples, strict=True):
        parts.append(
            f"Prompt: {' '.join(prompt.split())[-200:]}\n  before: {_one(before)}\n  after:  {_one(after)}"
        )
    parts += [str(card.losses()), str(card.changed()), str(card.costs())]
    if card.step != card.actual.steps:
        parts.append(f"Weights kept: {card.kept}.")
    parts += card.remarks
    return plain("\n\n".join(parts), sys.stdout)


def _one(text: str) -> str:
    return " ".join(text.split()) or "(nothing: the model ended its text at once)"


def show_examples(
    console: Console,
    lm: LM,
    paths: Sequence[Path],
    settings: TrainSettings,
    reading: DataOptions,
    as_json: bool,
) -> int:
    """Print the first examples as the model will see them, and the report on the data. Needs no torch."""
    from pophood.train.data import STATES, open_data, previews
    from pophood.train.defaults import for_model, length_messages

    fitting = for_model(settings, lm.config)
    for line in length_messages(settings, fitting):
        console.say(line)
    data = open_data(paths, lm.bundle.tokenizer, lm.chat_template, replace(reading, length=fitting.length))
    shown = previews(data.train, lm.bundle.tokenizer, SHOWN)
    if as_json:
        examples = [
            {"source": one.source, "counts": one.counts, "left_out": one.left_out, "tokens": list(one.table)}
            for one in shown
        ]
        console.json({"data": asdict(data.report), "examples": examples})
        return DONE
    for line in data_lines(data.report):
        console.say(line)
    painted = colour_ok(sys.stdout)
    legend = ", ".join(_painted(words, state, painted) for state, words in STATES.items())
    console.paint(plain(legend, sys.stdout) + "\n")
    for one in shown:
        console.paint("\n" + plain(_example(one, painted), sys.stdout) + "\n")
    return DONE


def _example(preview: Preview, painted: bool) -> str:
    counts = ", ".join(f"{n:,} {state}" for state, n in preview.counts.items() if n)
    text = "".join(_painted(visible(piece.text), piece.state, painted) for piece in preview.pieces)
    more = f"\n... and {count(preview.left_out, 'token')} more" if preview.left_out else ""
    return f"{preview.source}: {counts}\n{text}{more}"


def _painted(text: str, state: str, painted: bool) -> str:
    if painted:
        return f"\x1b[{COLOURS[state]}m{text}\x1b[0m"
    before, after = MARKS[state]
    return f"{before}{text}{after}"
