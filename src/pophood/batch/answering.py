"""Answering: lines are submitted to one scheduler as it takes them, and answered in their order.

    source ─► read_line ─► waiting ─► computed together ─► answers wait for those of earlier lines ─► records

Each answer has the bits that its line has alone (`Answering.answer`), since neither the scheduler nor the
prefix cache changes a bit, and seeds depend on a line's number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from pophood.batch.custom_ids import CustomIds
from pophood.batch.lines import InputLine
from pophood.batch.model import BatchModel
from pophood.batch.parse import bug, read_line
from pophood.batch.shapes import JobResult, LineRequest, Record, failed
from pophood.errors import BadInput, PophoodError, one_line
from pophood.generate.passes import PrefillPace
from pophood.generate.request import Request, Running
from pophood.generate.scheduler import TOGETHER, Scheduler
from pophood.model.packed_adapters import PackedAdapters
from pophood.openai.asked import PromptJob
from pophood.openai.errors import SERVER, ApiError, of_pophood

AHEAD = 64  # lines for each text that is written at a time: so far may answers run ahead of a long one


class RequestLines(Protocol):
    """Lines to answer; `lines.LineSource` is one."""

    @property
    def ended(self) -> bool: ...

    def next(self, *, wait: bool = True) -> InputLine | None: ...


@dataclass(slots=True)
class Tally:
    """Counts of lines, those of them with an error, tokens of prompts read, tokens written."""

    lines: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0


@dataclass(eq=False, slots=True)
class OpenLine:
    """A line from its reading to its answer: `left` of its prompts are not done."""

    request: LineRequest | None
    results: list[JobResult] = field(default_factory=list)
    left: int = 0
    record: Record | None = None


class Answering:
    """Answers lines with one model, `together` texts at a time.

    with Answering(BatchModel(lm)) as answering:
        for record in answering.records(source):
            answers.write(record)
    """

    def __init__(
        self,
        model: BatchModel,
        *,
        together: int = TOGETHER,
        ids: CustomIds | None = None,
        cancel: Any = None,
    ) -> None:
        """`ids` are those of lines that were answered before; `cancel` ends a pass with Cancelled."""
        self._ids = ids or CustomIds()
        self.model, self.tally = model, Tally()
        self._together = together
        blocks = model.blocks(together)
        self._prefix = model.prefix(blocks)
        self._packed = PackedAdapters(model.lm.engine, self._prefix, model.adapters)
        self._scheduler = Scheduler(
            model.lm.engine,
            model.lm.bundle.tokenizer,
            self._prefix,
            blocks=blocks,
            together=together,
            pace=PrefillPace(slowdown=None),
            cancel=cancel,
        )
        self._open: dict[Running, tuple[OpenLine, JobResult]] = {}

    def records(
        self, source: RequestLines, progress: Callable[[Tally], object] | None = None
    ) -> Iterator[Record]:
        """Yield the answer of every line, in order. `progress` is called after each pass.

        Raises Cancelled, KeyboardInterrupt and MemoryError; `close` must follow.
        """
        lines: deque[OpenLine] = deque()
        while True:
            self._fill(source, lines)
            while lines and (record := lines[0].record) is not None:
                lines.popleft()
                self.tally.lines += 1
                self.tally.failed += failed(record)
                yield record
            if self._open:
                self._step()
            elif source.ended:
                return
            if progress is not None:
                progress(self.tally)

    def answer(self, line: InputLine) -> Record:
        """Return the answer that one line has alone."""
        one = self._begin(line)
        while one.record is None:
            self._step()
        return one.record

    def close(self) -> None:
        """End everything, and free what it took."""
        self._scheduler.close()
        self._open.clear()
        self._prefix.forget()
        self._packed.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- lines ----

    def _fill(self, source: RequestLines, lines: deque[OpenLine]) -> None:
        """Submit lines as long as the scheduler soon takes them; wait for one if there is nothing else."""
        while len(lines) < AHEAD * self._together and self._scheduler.waiting < self._together:
            line = source.next(wait=not lines)
            if line is None:
                return
            lines.append(self._begin(line, self._ids))

    def _begin(self, line: InputLine, ids: CustomIds | None = None) -> OpenLine:
        """Submit the prompts of a line; what is wrong with it is its answer."""
        request = read_line(line, self.model, ids)
        if not isinstance(request, LineRequest):
            return OpenLine(None, record=request)
        one = OpenLine(request)
        try:
            for job in request.jobs:
                running = self._scheduler.submit(self._request(job))
                result = JobResult(running, [])
                one.results.append(result)
                self._open[running] = one, result
                one.left += 1
        except PophoodError as error:
            self._fail(one, error)
        if one.record is None and not one.left:
            self._complete(one)
        return one

    def _request(self, job: PromptJob) -> Request:
        usual = job.adapters == self.model.served.usual_adapters
        numbers = None if usual else self._packed.numbers(job.adapters)
        return Request(job.prompt, job.settings, numbers, scores=job.scores, generates=job.generates)

    def _step(self) -> None:
        computed = self._scheduler.step()
        for running, token in computed.tokens:
            if (found := self._open.get(running)) is not None:
                found[1].tokens.append(token)
        self.tally.written += len(computed.tokens)
        for running in computed.ended:
            self.tally.read += running.read - running.reused
            if (found := self._open.pop(running, None)) is None:
                continue
            one = found[0]
            one.left -= 1
            if running.error is not None:
                self._fail(one, running.error)
            elif not one.left:
                self._complete(one)
        if computed.ended:
            used = {n for running in self._open for n in running.request.adapters or ()}
            self._packed.forget_unused(used)

    def _complete(self, one: OpenLine) -> None:
        assert one.request is not None
        try:
            one.record = one.request.answer(one.results)
        except Exception as error:  # one line must not end a run of a million
            one.record = one.request.shape.error(bug(error))
        one.results = []

    def _fail(self, one: OpenLine, error: PophoodError) -> None:
        """Answer a line with an error, and stop what is computed for it."""
        assert one.request is not None
        told = of_pophood(error) if isinstance(error, BadInput) else _of_engine(error)
        one.record = one.request.shape.error(told)
        for result in one.results:
            if self._open.pop(result.running, None) is not None:
                self._scheduler.cancel(result.running)
        one.results = []


def _of_engine(error: PophoodError) -> ApiError:
    return ApiError(500, one_line(error), SERVER, code="engine_error")
