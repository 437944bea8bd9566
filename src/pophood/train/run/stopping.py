"""Stopping: Ctrl-C and SIGTERM ask a run to save and end; a second Ctrl-C ends it at once. No torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

ASKED = "stopped"
ECHO = 2.0  # seconds in which torchrun passes a Ctrl-C on that the terminal has sent to everybody already


class Stop:
    """Answers `Trainer`'s `should_stop`; while it is entered, signals are caught. For the main thread.

        with Stop() as stop:
            for event in Trainer(..., should_stop=stop).run(): ...
        sys.exit(stop.exit_code)

    `announce` is called once, from a thread of its own, as soon as the first signal has come: Python runs
    a handler only between two of its own instructions, and a product of matrices is one.
    Whatever happens, the checkpoint on the disk is whole: a second Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self, announce: Callable[[], object] | None = None) -> None:
        self.announce = announce
        self._ends: tuple[int, int] | None = None
        self._wakeup = -1  # who was told of signals before
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
        self._listen()
        return self

    def _listen(self) -> None:
        """Let Python write the number of each signal, at once, into a pipe that a thread waits at."""
        ours, theirs = os.pipe()
        if os.name != "nt":  # where a signal may not wait for the thread
            os.set_blocking(theirs, False)
        numbers = set(self._before)

        def wait() -> None:
            while came := os.read(ours, 64):
                if numbers & set(came):
                    if self.announce is not None:
                        self.announce()
                    return

        self._ends = ours, theirs
        self._wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=wait, daemon=True)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
        if self._ends is not None:
            signal.set_wakeup_fd(self._wakeup)
            ours, theirs = self._ends
            os.close(theirs)  # which ends the thread
            self._thread.join()
            os.close(ours)
            self._ends = None

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._came_at = number, time.monotonic()
        elif number == signal.SIGINT and not self._is_echo():
            raise KeyboardInterrupt

    def _is_echo(self) -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._came_at < ECHO
