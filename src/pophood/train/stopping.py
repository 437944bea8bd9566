"""Stopping: Ctrl-C and SIGTERM ask a run to save and end; a second Ctrl-C ends it at once. No torch."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

ASKED = "stopped"
ECHO = 2.0  # seconds in which torchrun passes a Ctrl-C on that the terminal has sent to everybody already


class Stop:
    """Answers `Trainer`'s `should_stop`; while it is entered, signals are caught. For the main thread.

        with Stop() as stop:
            for event in Trainer(..., should_stop=stop).run(): ...
        sys.exit(stop.exit_code)

    Whatever happens, the checkpoint on the disk is whole: a second Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that came
        self._came_at = 0.0
        self._before: dict[int, Any] = {}

    def __call__(self) -> str | None:
        """Why to stop, or None."""
        return None if self.signal is None else ASKED

    @property
    def exit_code(self) -> int:
        """0, or as a shell has it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Stop:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._came_at = number, time.monotonic()
        elif number == signal.SIGINT and not self._is_echo():
            raise KeyboardInterrupt

    def _is_echo(self) -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._came_at < ECHO
