"""`pophood bench [MODEL]`: how fast a model runs on this machine, beside what the machine could deliver."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from pophood.bench.settings import BenchSettings
from pophood.cli.app import DONE, INTERRUPTED
from pophood.cli.commands.look.options import OUTPUT_OPTIONS, Destinations, hand_out
from pophood.cli.options.from_settings import setting_options, typed_settings
from pophood.cli.options.shared import ModelChoice, model_options, option, output_option, verb, with_options
from pophood.cli.session import open_model
from pophood.cli.terminal.console import QUIET, Console
from pophood.cli.terminal.progress import started_bar
from pophood.cli.terminal.tables import seconds
from pophood.errors import BadInput

if TYPE_CHECKING:
    from rich.progress import Progress

    from pophood.bench.measure import Benchmark, BenchStep

SECTION = "Measurement"
EVERY = 5.0  # seconds between two lines of progress in a pipe
OUTPUTS = (  # those of `look`, without arrays
    output_option(
        "--save",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Write .svg, .png, .html, .csv or .json, by the ending; repeatable.",
    ),
    *OUTPUT_OPTIONS[1:],
)
# The letters of llama.cpp's llama-bench, whose -b is something else.
SHORT = {"prompt": "-p", "tokens": "-n", "depth": "-d", "threads": "-t", "rounds": "-r"}
MEASURING = setting_options(BenchSettings, SECTION, short=SHORT)


@verb()
@click.argument("name", required=False, metavar="[MODEL]")
@functools.partial(with_options, options=list(MEASURING.values()))
@option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    section=SECTION,
    help="Show the ratios to an earlier run, which --json or --save FILE.json wrote.",
)
@functools.partial(with_options, options=OUTPUTS)
@functools.partial(model_options, threads=False)
def bench_command(
    console: Console, name: str | None, choice: ModelChoice, compare: Path | None, **options: Any
) -> int:
    """Measure how fast a model runs on this machine.

    Prints the tokens per second of reading a prompt and of generating, for several numbers of threads,
    depths and sequences, each with its range and its share of what this machine's memory or multipliers
    could deliver; and the time and memory of a new process. Ctrl-C ends it with the figures so far.

    Example: pophood bench smollm2

    Example: pophood bench smollm2 --threads 1,2 --rounds 5 --save bench.svg

    Example: pophood bench smollm2 --json > before.json

    Example: pophood bench smollm2 --compare before.json
    """
    settings = BenchSettings(**typed_settings(BenchSettings, options))
    to = Destinations(**{one.name: options.pop(one.name) for one in fields(Destinations)})
    to.check()
    if arrays := [path for path in to.save if path.suffix.lower() == ".npz"]:
        raise BadInput(f"{arrays[0]}: a benchmark has tables, no arrays: save it as .csv or .json")
    if name is not None and choice.name is not None and name != choice.name:
        raise click.UsageError(f"two models: {name} and -m {choice.name}; give one")
    earlier = None
    if compare is not None:
        from pophood.bench.record import read_earlier

        earlier = read_earlier(compare)
    lm = open_model(console, replace(choice, name=name or choice.name))
    from pophood.bench.measure import Benchmark

    benchmark = Benchmark(lm, settings, earlier)
    finished = _run(console, benchmark)
    view = benchmark.view()
    hand_out(console, view, to, text=True)
    if to.as_json or to.as_csv:
        for note in view.notes[1:]:
            console.say(note)
    return DONE if finished else INTERRUPTED


def _run(console: Console, benchmark: Benchmark) -> bool:
    """Do all steps and return True, or False after Ctrl-C."""
    warned = False
    try:
        with _Screen(console) as screen:
            for step in benchmark.run():
                if step.round == 1 and not warned:
                    warned = True
                    _warn(console, benchmark)
                screen.show(step)
    except KeyboardInterrupt:
        console.say("stopped; the figures so far:")
        return False
    return True


def _warn(console: Console, benchmark: Benchmark) -> None:
    """Say at once that other programs are busy, so that nobody waits for figures that are of no use."""
    from pophood.bench.view import BUSY

    others = benchmark.others()
    if others is not None and others > BUSY:
        console.say(f"other programs are busy ({others:.1f} processors): these figures will be low")


class _Screen:
    """Shows on stderr what is measured at the moment: as a bar on a terminal, else as a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._said: float | None = None
        self._bar: Progress | None = None
        self._wanted = console.verbosity > QUIET and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: BenchStep) -> None:
        """Show a step that is about to be done."""
        show: Callable[[BenchStep], None] = self._paint if self._wanted else self._write
        show(step)

    def _paint(self, step: BenchStep) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

            description, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
            columns = (description, BarColumn(bar_width=20), TimeElapsedColumn(), left)
            self._bar = started_bar(*columns, total=step.total, left="")
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=step.done, description=step.what, left=self._left(step))

    def _write(self, step: BenchStep) -> None:
        now = time.monotonic()
        if self._said is None or now - self._said > EVERY:
            left = self._left(step)
            self._console.say(f"measuring, {step.what}{', ' * bool(left)}{left}")
            self._said = now

    def _left(self, step: BenchStep) -> str:
        """Return the time that the other steps will take if they are like those that are done."""
        if step.done < 3:
            return ""
        left = (time.monotonic() - self._began) / step.done * (step.total - step.done)
        return f"about {seconds(left) if left >= 60 else f'{max(1, round(left))} s'} left"
