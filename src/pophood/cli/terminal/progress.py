"""Progress bars on stderr for work of more than a second. A download in a pipe prints a line per tenth."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from pophood.cli.terminal.console import QUIET, Console
from pophood.cli.terminal.tables import seconds
from pophood.phrases import phrase
from pophood.system import size_text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from pophood.hub.progress import Progress as State

PATIENCE = 1.0  # seconds before anything is shown
EVERY = 5.0  # seconds between two lines of progress in a pipe


def started_bar(
    *columns: str | ProgressColumn, total: int | None, transient: bool = True, **fields: Any
) -> Progress:
    """Show a progress bar with one task on stderr; `fields` are the initial values of its own columns."""
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    bar = Progress(*columns, console=RichConsole(stderr=True), transient=transient)
    bar.add_task("", total=total, **fields)
    bar.start()
    return bar


class _Timed:
    """The block whose progress is shown: what it does, when it started, and its bar once there is one."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._started = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started


class Waiting(_Timed):
    """Shows that a block runs which takes longer than a second, and says so if Ctrl-C ends it.

    On a terminal a bar with a clock appears after a second, even if the block has not counted anything yet;
    in a pipe, a line every five seconds.

    Example: `with Waiting(console, "loading gpt2") as waiting: waiting(3, 148)`
    """

    def __init__(self, console: Console, what: str) -> None:
        super().__init__(console, what)
        self._said = self._started
        self._counted: tuple[int, int | None] = (0, None)
        self._lock = threading.Lock()  # of the bar, which the timer's thread makes
        self._timer = threading.Timer(PATIENCE, self._begin)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._console.verbosity > QUIET and sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._timer.cancel()
        with self._lock:
            super().__exit__(kind, *rest)
        if kind is KeyboardInterrupt:
            self._console.say(phrase("stopped while {what}", what=self._what))

    def __call__(self, done: int, total: int) -> None:
        """Update the progress."""
        self._counted = done, total
        with self._lock:
            if self._progress is not None:
                self._update(self._progress)
        if not sys.stderr.isatty() and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            self._console.say(f"{self._what}: {100 * done // max(total, 1)} %")

    def _begin(self) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn

        with self._lock:
            if self._timer.finished.is_set():  # the block has ended meanwhile
                return
            clocks = TimeElapsedColumn(), TimeRemainingColumn()
            self._progress = started_bar(escape(self._what), BarColumn(bar_width=20), *clocks, total=None)
            self._update(self._progress)

    def _update(self, bar: Progress) -> None:
        done, total = self._counted
        bar.update(bar.task_ids[0], completed=done, total=total)


class Transfer(_Timed):
    """Shows the progress of a download: a bar with rate and time left, or lines without a terminal."""

    _moved = False
    _tenth = 0

    def __call__(self, state: State) -> None:
        """Update the progress."""
        self._moved = True
        if self._console.verbosity <= QUIET:
            return
        if sys.stderr.isatty():
            self._bar(state)
        elif state.size and self._seconds > PATIENCE:
            tenth = state.done * 10 // state.size
            if tenth > self._tenth:
                self._tenth = tenth
                self._console.say(f"{self._what}: {tenth * 10} % of {size_text(state.size)}")

    def _bar(self, state: State) -> None:
        if self._progress is None:
            from rich import progress
            from rich.markup import escape

            self._progress = started_bar(
                escape(self._what),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                total=state.size,
                transient=False,
            )
        self._progress.update(self._progress.task_ids[0], completed=state.done, total=state.size)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__(kind)
        if kind is None and self._moved and self._seconds > PATIENCE:
            done = phrase("{what}: done in {seconds}", what=self._what, seconds=seconds(self._seconds))
            self._console.say(done)
