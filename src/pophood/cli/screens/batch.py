"""The screen of `pophood batch`: lines done, tokens per second, time left, what failed, and a summary."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from pophood.cli.screens.generation import model_facts, settings_of
from pophood.cli.terminal.console import QUIET, Console, visible
from pophood.cli.terminal.progress import EVERY, PATIENCE, started_bar
from pophood.cli.terminal.tables import count, seconds

if TYPE_CHECKING:
    from rich.progress import Progress

    from pophood.batch.answering import Tally
    from pophood.batch.answers import AnswerFile
    from pophood.batch.model import LineDefaults
    from pophood.batch.shapes import Record
    from pophood.cli.options.sampling import SamplingArgs
    from pophood.model.lm import LM

TOLD = 10  # failed lines whose reason is printed
LISTED = 1_000  # failed lines that --json lists
REFRESH = 0.2  # seconds between two changes of the bar


def defaults_of(sampling: SamplingArgs, lm: LM, now: int) -> LineDefaults:
    """Return the settings of lines that name none, from the options; the seed is drawn if none was typed."""
    from pophood.batch.model import LineDefaults
    from pophood.sampling import SamplingSettings, draw_seed

    typed = settings_of(sampling, lm)
    seed = typed.pop("seed", None)
    limits = {"stop": tuple(typed.pop("stop", ())), "special": typed.pop("special", False)}
    endless = "max_tokens" in typed and typed["max_tokens"] is None
    return LineDefaults(
        max_tokens=typed.pop("max_tokens", None),
        endless=endless,
        sampling=SamplingSettings(**typed),
        seed=draw_seed() if seed is None else seed,
        created=now,
        **limits,
    )


class BatchScreen:
    """Shows the progress of a run: a bar on a terminal, a line every five seconds elsewhere.

    `total` is the number of lines of the input, None for a pipe.
    """

    def __init__(self, console: Console, origin: str, output: str, total: int | None) -> None:
        self._console, self._origin, self._output, self._total = console, origin, output, total
        self.before = self.failed_before = 0  # lines that an earlier run answered, and those with an error
        self._failed: list[int] = []  # numbers of lines
        self._tally: Tally | None = None
        self._started = self._shown = self._said = time.monotonic()
        self._seconds = 0.0
        self._bar: Progress | None = None

    @property
    def failed(self) -> int:
        """The number of lines that could not be answered, in this run and before."""
        return self.failed_before + (self._tally.failed if self._tally else 0)

    @property
    def done(self) -> int:
        """The number of lines that are answered."""
        return self.before + (self._tally.lines if self._tally else 0)

    def resumed(self, answers: AnswerFile) -> None:
        """Say from where the run goes on."""
        self.before, self.failed_before = answers.done, answers.failed
        if self.before:
            self._console.say(f"{self._output}: {count(self.before, 'line')} answered before, going on")

    def __enter__(self) -> Self:
        self._started = self._said = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.monotonic() - self._started
        if self._bar is not None:
            self._bar.stop()

    # ---- while it runs ----

    def update(self, tally: Tally) -> None:
        """Show how far it is."""
        self._tally = tally
        now = time.monotonic()
        if now - self._shown < REFRESH or self._console.verbosity <= QUIET:
            return
        self._shown = now
        if sys.stderr.isatty():
            if now - self._started > PATIENCE:
                self._show()
        elif now - self._said > EVERY:
            self._said = now
            self._console.say(f"{self._origin}: {self._state(now)}")

    def written(self, record: Record) -> None:
        """Note an answer; say why a line failed."""
        from pophood.batch.shapes import failed, message_of

        if not failed(record):
            return
        self._failed.append(record["line"])
        if len(self._failed) <= TOLD:
            self._say(f"{self._origin}:{record['line']}: {message_of(record)}")
        elif len(self._failed) == TOLD + 1:
            self._say(f"{self._origin}: further errors are in {self._output} alone")

    def _say(self, text: str) -> None:
        if self._bar is not None:
            from rich.text import Text

            self._bar.print(Text(visible(text)), soft_wrap=True)
        else:
            self._console.say(text)

    def _state(self, now: float) -> str:
        tally = self._tally
        assert tally is not None
        known = f" of {self._total:,}" if self._total is not None else ""
        words = [f"{self.done:,}{known} lines"]
        spent = now - self._started
        rate = (tally.written or tally.read) / spent
        words.append(f"{rate:,.0f} tokens/s")
        if self._total is not None and tally.lines:
            left = max(self._total - self.done, 0) * spent / tally.lines
            words.append(f"{seconds(left)} left")
        return ", ".join(words)

    def _show(self) -> None:
        from rich.progress import BarColumn, TextColumn

        if self._bar is None:
            columns = BarColumn(bar_width=20), TextColumn("{task.fields[state]}")
            self._bar = started_bar(*columns, total=self._total, state="")
        state = self._state(time.monotonic())
        self._bar.update(self._bar.task_ids[0], completed=self.done, state=state)

    # ---- at the end ----

    def summary(self, *, interrupted: bool) -> str:
        """Return one line with the figures."""
        tally = self._tally
        words = f"{count(self.done, 'line')} answered"
        if tally is not None and tally.lines and self._seconds > 0:
            what = tally.written or tally.read
            words += (
                f", {count(what, 'token')} in {seconds(self._seconds)}, {what / self._seconds:,.0f} tokens/s"
            )
        if self.failed:
            listed = f" ({', '.join(map(str, self._failed[:TOLD]))}{', ...' * (len(self._failed) > TOLD)})"
            words += f"; {count(self.failed, 'line')} failed{listed if self._failed else ''}"
        if interrupted:
            again = "; the same command goes on" if self._output != "-" else ""
            words += f"; ended by Ctrl-C{again}"
        return words

    def as_dict(self, lm: LM, defaults: LineDefaults, *, interrupted: bool) -> dict[str, Any]:
        """Return the summary for --json."""
        tally = self._tally
        return {
            **model_facts(lm),
            "input": self._origin,
            "output": self._output,
            "seed": defaults.seed,
            "lines": self.done,
            "answered_before": self.before,
            "failed": self.failed,
            "failed_lines": self._failed[:LISTED],
            "prompt_tokens": tally.read if tally else 0,
            "new_tokens": tally.written if tally else 0,
            "seconds": self._seconds,
            "interrupted": interrupted,
        }
