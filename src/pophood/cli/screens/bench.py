"""Shows the steps of a benchmark on stderr while they are done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pophood.cli.terminal.console import QUIET, Console
from pophood.cli.terminal.progress import EVERY, started_bar
from pophood.cli.terminal.tables import seconds

if TYPE_CHECKING:
    from rich.progress import Progress

    from pophood.bench.measure import BenchStep


class StepScreen:
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
