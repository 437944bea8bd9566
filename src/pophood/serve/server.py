"""The server's life: uvicorn in one process, its start and its end. The routes are in `app.py`.

At Ctrl-C (or SIGTERM) it takes no more connections and requests. Running answers may finish for some seconds,
then they end with an error event, and the exit code is 130 (143). A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol

import uvicorn

from pophood.serve.guard.asgi import AsgiApp
from pophood.serve.guard.connections import IDLE_SECONDS, GuardedProtocol
from pophood.serve.guard.limits import HEADER_BYTES
from pophood.serve.guard.listening import BACKLOG, Listening

GRACE = 5.0  # seconds that running answers have to finish
LAST = 3.0  # further seconds to write their error events
EVERY = 2.0  # seconds between two looks at other programs


class Engines(Protocol):
    """The models that compute, as far as the server's life needs them."""

    @property
    def open_requests(self) -> int:
        """The number of requests that have not ended."""

    def begin(self) -> None:
        """Take requests, in the running event loop."""

    def drain(self, grace: float) -> None:
        """Refuse new requests; the others have `grace` seconds."""

    def end(self, seconds: float) -> None:
        """Wait until everything has ended, and force it after so many seconds."""


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, its lines on stderr, and its own choice of protocols.

    `ready` is called when connections are accepted.
    """

    def __init__(
        self,
        app: AsgiApp,
        protocol: type[GuardedProtocol] = GuardedProtocol,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=round(GRACE + LAST),
                h11_max_incomplete_event_size=HEADER_BYTES,
            )
        )
        self._ready = ready

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def stop(self) -> None:
        """Take no more connections, and end when the present ones have."""
        self.should_exit = True
        for listener in self.servers:
            listener.close()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._ready()

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self.server_state.connections)


class Life:
    """One run of the server, from the first connection to the exit code.

    `notice` is called every two seconds, for what the server should know of the machine; `say` prints a line.
    """

    def __init__(
        self,
        http: HttpServer,
        listening: Listening,
        engines: Engines,
        *,
        say: Callable[[str], object],
        notice: Callable[[], object] = lambda: None,
        grace: float = GRACE,
        others: Sequence[tuple[HttpServer, Listening]] = (),
    ) -> None:
        """`others` are servers at further ports, which begin and end with this one."""
        self._http, self._listening, self._engines = http, listening, engines
        self._others = others
        self._say, self._notice, self._grace = say, notice, grace
        self._signal: int | None = None

    def run(self) -> int:
        """Serve until a signal, and return the exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        # What is there now stays. A full collection then looks at nothing but what requests have left: it
        # comes sooner and takes less time.
        gc.collect()
        gc.freeze()
        try:
            asyncio.run(self._main())
        finally:
            gc.unfreeze()
        return 0 if self._signal is None else 128 + self._signal

    def stop(self) -> None:
        """End as a signal would, without one. For the thread of the loop."""
        self._engines.drain(self._grace)
        for http in (self._http, *(other for other, _ in self._others)):
            http.stop()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._engines.begin()
        looking = asyncio.create_task(self._look())
        try:
            with self._handling_signals(loop):
                every = ((self._http, self._listening), *self._others)
                await asyncio.gather(*(http.serve(sockets=[one.socket]) for http, one in every))
        finally:
            looking.cancel()
            self._engines.end(LAST)

    async def _look(self) -> None:
        while True:
            self._notice()
            await asyncio.sleep(EVERY)

    # ---- signals ----

    @contextmanager
    def _handling_signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            # A handler of Python's own would wait for the loop's next event on some systems.
            if sys.platform == "win32":
                signal.signal(number, lambda n, _: loop.call_soon_threadsafe(self._arrived, n))
            else:
                loop.add_signal_handler(number, self._arrived, number)
        try:
            yield
        finally:
            for number in numbers:
                if sys.platform != "win32":
                    loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _arrived(self, number: int) -> None:
        if self._signal is None:
            self._signal = number
            open_requests = self._engines.open_requests
            if open_requests:
                self._say(
                    f"stopping: {open_requests} running, which may finish for {self._grace:g} s "
                    "(Ctrl-C again ends at once)"
                )
            self.stop()
        elif number == signal.SIGINT:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(128 + self._signal)  # nothing is stored that could be cut
