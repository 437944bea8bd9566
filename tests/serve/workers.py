"""A worker and its events, for tests without any network."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self

import pophood
from pophood.adapters.adapter import Adapter
from pophood.generate import GenerateSettings
from pophood.model.prefix_files import PrefixFiles
from pophood.sampling import SamplingSettings
from pophood.serve.messages import Cancel, Drain, Ended, Event, Failed, Gauges, ShowView, Submit, Tokens
from pophood.serve.worker import Worker
from tests.processes import HANG_SECONDS

CONTEXT = 4096
BLOCKS = 2048


class Talk:
    """Sends requests to a worker and collects what it says of each. `died` is why its thread ended."""

    def __init__(self, lm: pophood.LM, adapters: Mapping[str, Adapter], **settings: Any) -> None:
        settings = {"blocks": BLOCKS, "together": 8, "waiting": 16} | settings
        self.lm = lm
        self.worker = Worker(lm.engine, lm.bundle.tokenizer, adapters=adapters, **settings)
        self.files: PrefixFiles | None = settings.get("files")
        self.said: list[str] = []  # of the files
        self.died: str | None = None
        self.gauges = Gauges()
        self.steps: list[Sequence[Event]] = []  # as they were delivered
        self._arrived: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
        self._events: dict[int, list[Event]] = {}
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self.worker.start(self._arrived.put, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.post(Drain())
        self.worker.join(HANG_SECONDS)
        assert not self.worker.alive

    def _end(self, why: str) -> None:
        self.died = why
        self._arrived.put([])

    def ask(self, prompt: Sequence[int], *, sampling: Any = None, **values: Any) -> int:
        """Submit a request with fields of `GenerateSettings` and `Submit`; return its number."""
        own = {
            name: values.pop(name)
            for name in ("client", "adapters", "scores", "generates", "pause")
            if name in values
        }
        fields: dict[str, Any] = {"seed": 1, "max_tokens": 8, "stop_ids": ()}
        settings = GenerateSettings(sampling=sampling or SamplingSettings(), **fields | values)
        number = next(self._numbers)
        self._events[number] = []
        self.worker.post(Submit(number, own.pop("client", None), tuple(prompt), settings, **own))
        return number

    def look(self, name: str, text: Any, options: Mapping[str, Any] | None = None) -> int:
        """Ask for a view; return its number."""
        number = next(self._numbers)
        self._events[number] = []
        self.worker.post(ShowView(number, name, text, options or {}))
        return number

    def cancel(self, number: int) -> None:
        self.worker.post(Cancel(number))

    def take(self) -> None:
        """Wait for the events of one step."""
        self._sort(self._arrived.get(timeout=HANG_SECONDS))

    def _sort(self, events: Sequence[Event]) -> None:
        self.steps.append(events)
        for event in events:
            if isinstance(event, Gauges):
                self.gauges = event
            else:
                self._events[event.id].append(event)

    def until(self, number: int, kind: type[Any] | tuple[type[Any], ...] = (Ended, Failed)) -> list[Event]:
        """Wait until a request has an event of a kind, and return all that it has."""
        while not any(isinstance(event, kind) for event in self._events[number]):
            self.take()
            assert self.died is None, self.died
        return self._events[number]

    def settle(self) -> Gauges:
        """Wait until nothing runs or waits, and return the gauges."""
        end = time.monotonic() + HANG_SECONDS
        while time.monotonic() < end:
            try:
                while True:
                    self._sort(self._arrived.get_nowait())
            except queue.Empty:
                if self.gauges.running == self.gauges.waiting == 0:
                    return self.gauges
                time.sleep(0.01)
        raise TimeoutError

    def events(self, number: int) -> list[Event]:
        return self._events[number]

    def ids(self, number: int, sample: int = 0) -> list[int]:
        """Return the tokens of a sample so far."""
        tokens = [event.tokens for event in self._events[number] if isinstance(event, Tokens)]
        return [token.id for some in tokens for token in some if token.sample == sample]
