"""Progress bars on stderr for work of more than a second. A download in a pipe prints a line per tenth."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pophood.cli.terminal.console import QUIET, Console
from pophood.cli.terminal.tables import seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from pophood.hub.progress import Progress as State

PATIENCE = 1.0  # seconds before anything is shown


class Waiting:
    """Shows a bar with a clock on a terminal while a block runs longer than a second.

    Example: `with Waiting(console, "loading gpt2") as waiting: waiting(3, 148)`
    """

    def __init__(self, console: Console, what: str) -> None:
        self._what = what
        self._wanted = console.verbosity > QUIET and sys.stderr.isatty()
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Update the progress; the bar appears at the first call after a second."""
        if not self._wanted or time.monotonic() - self._started < PATIENCE:
            return
        if self._progress is None:
            from rich.console import Console as RichConsole
            from rich.markup import escape
            from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

            self._progress = Progress(
                escape(self._what),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=RichConsole(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task("", total=total)
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class Transfer:
    """Shows the progress of a download: a bar with rate and time left, or lines without a terminal."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._started = time.monotonic()
        self._tenth = 0
        self._moved = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, state: State) -> None:
        """Update the progress."""
        self._moved = True
        if self._console.verbosity <= QUIET:
            return
        if sys.stderr.isatty():
            self._bar(state)
        elif state.size and time.monotonic() - self._started > PATIENCE:
            tenth = state.done * 10 // state.size
            if tenth > self._tenth:
                from pophood.system import size_text

                self._tenth = tenth
                self._console.say(f"{self._what}: {tenth * 10} % of {size_text(state.size)}")

    def _bar(self, state: State) -> None:
        if self._progress is None:
            from rich.console import Console as RichConsole
            from rich.markup import escape
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._progress = Progress(
                escape(self._what),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=RichConsole(stderr=True),
            )
            self._task = self._progress.add_task("", total=state.size)
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, completed=state.done, total=state.size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        took = time.monotonic() - self._started
        if kind is None and self._moved and took > PATIENCE:
            self._console.say(f"{self._what}: done in {seconds(took)}")
