"""ChildProcess: a model's process as the HTTP process sees it. It is started here, asked, heard, and ended.

Reading and writing never keep the event loop waiting: on Windows, whose pipes cannot be watched, a thread
reads.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pophood.serve.guard.keys import VARIABLE
from pophood.serve.process.pipe import PART, PipeReader, packed
from pophood.serve.process.records import LoadOrder

PACKAGES = Path(__file__).resolve().parents[3]
# With -P no module in the working folder takes the place of another.
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from pophood.serve.process.child import main; main()"
Arrived = Callable[[list[Any]], object]


class ChildProcess:
    """One process, from its start to its end.

    child = ChildProcess(order)
    while (messages := child.receive()) is not None: ...    # before the event loop runs
    child.attach(loop, arrived, ended)                      # in it
    child.send(Drain(5)); child.end(seconds=3)
    """

    def __init__(self, order: LoadOrder) -> None:
        with _signals_later():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(PACKAGES), order.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={name: value for name, value in os.environ.items() if name != VARIABLE},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._sink, self._source = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._reader = PipeReader(self._source)
        self._unsent = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.send(order)

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self) -> list[Any] | None:
        """Wait for messages and return them; None at the end of the process."""
        while (messages := self._reader.receive()) == []:
            pass
        return messages

    def attach(self, loop: asyncio.AbstractEventLoop, arrived: Arrived, ended: Callable[[], object]) -> None:
        """Let the loop call `arrived` with the messages that come, and `ended` once when no more can come."""
        self._loop = loop
        if sys.platform == "win32":
            reading = threading.Thread(target=self._read_beside, args=(loop, arrived, ended), daemon=True)
            reading.start()
            return
        os.set_blocking(self._source, False)
        os.set_blocking(self._sink, False)
        loop.add_reader(self._source, self._readable, arrived, ended)

    def _readable(self, arrived: Arrived, ended: Callable[[], object]) -> None:
        messages = self._reader.receive()
        if messages is None:
            self._detach()
            ended()
        elif messages:
            arrived(messages)

    def _read_beside(
        self, loop: asyncio.AbstractEventLoop, arrived: Arrived, ended: Callable[[], object]
    ) -> None:
        with suppress(OSError, RuntimeError):  # the loop may be closed already
            while (messages := self.receive()) is not None:
                loop.call_soon_threadsafe(arrived, messages)
            loop.call_soon_threadsafe(ended)

    def send(self, message: object) -> None:
        """Write a message. To a process that has ended nothing is written."""
        data = packed(message)
        if self._unsent:
            self._unsent += data
            return
        written = self._write(data)
        if written < len(data) and self._loop is not None:
            self._unsent += data[written:]
            self._loop.add_writer(self._sink, self._writable)

    def _write(self, data: bytes | bytearray) -> int:
        """Write what the pipe takes, and return how much; everything, if nobody reads any more."""
        try:
            return os.write(self._sink, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _writable(self) -> None:
        assert self._loop is not None
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._sink)

    def _detach(self) -> None:
        if self._loop is not None and sys.platform != "win32" and not self._loop.is_closed():
            self._loop.remove_reader(self._source)
            self._loop.remove_writer(self._sink)

    # ---- the end ----

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def end(self, seconds: float) -> None:
        """Wait until the process has ended, kill it after so many seconds, and close the pipes."""
        end = time.monotonic() + seconds
        self._detach()
        if sys.platform != "win32":  # what it still writes must not keep it waiting
            waiting = select.poll()
            waiting.register(self._source, select.POLLIN)
            while (left := end - time.monotonic()) > 0 and waiting.poll(1000 * left):
                if not os.read(self._source, PART):
                    break
        try:
            self._process.wait(max(end - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """Reap a process that has ended or was killed, and close the pipes."""
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def cause_of_end(code: int) -> str:
    """Return the words for an exit code.

    >>> cause_of_end(-11), cause_of_end(2)
    ('SIGSEGV', 'exit code 2')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


@contextmanager
def _signals_later() -> Iterator[None]:
    """Hold Ctrl-C back during the block, so that a new process, which inherits this, never dies of it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
