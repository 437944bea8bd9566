"""Stopping a run: Ctrl-C and SIGTERM let it save and end; a second Ctrl-C ends it at once. No torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

STOPPED = "stopped"
ECHO = 2.0  # seconds within which torchrun repeats a Ctrl-C that the terminal has sent to every process


class Stop:
    """The `should_stop` of a trainer, which catches signals while it is entered. For the main thread.

        with Stop() as stop:
            for event in Trainer(..., should_stop=stop).run(): ...
        sys.exit(stop.exit_code)

    `announce` is called once, from its own thread, when the first signal arrives: Python runs a signal
    handler only between two of its instructions, and a long matrix product is a single one. A second Ctrl-C
    raises KeyboardInterrupt; the checkpoint on disk is whole even then.
    """

    def __init__(self, announce: Callable[[], object] | None = None) -> None:
        self.announce = announce
        self.signal: int | None = None  # the first one to arrive
        self._arrived_at = 0.0
        self._undo = ExitStack()  # restores what `__enter__` changes

    def __call__(self) -> str | None:
        """Return why to stop, or None."""
        return None if self.signal is None else STOPPED

    @property
    def exit_code(self) -> int:
        """The exit code of a shell: 0, 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Stop:
        numbers = set()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
                self._undo.callback(signal.signal, number, signal.signal(number, self._handle))
                numbers.add(number)
        self._listen(numbers)
        return self

    def _listen(self, numbers: set[int]) -> None:
        """Let Python write each signal's number into a pipe, and start a thread that reads it."""
        reader, writer = os.pipe()
        if os.name != "nt":  # set_wakeup_fd demands it there
            os.set_blocking(writer, False)

        def wait() -> None:
            while arrived := os.read(reader, 64):
                if numbers & set(arrived):
                    if self.announce is not None:
                        self.announce()
                    return

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        self._undo.callback(os.close, reader)  # these are called in reverse order
        self._undo.callback(thread.join)
        self._undo.callback(os.close, writer)  # ends the thread
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._arrived_at = number, time.monotonic()
        elif number == signal.SIGINT and not self._is_echo():
            raise KeyboardInterrupt

    def _is_echo(self) -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._arrived_at < ECHO
