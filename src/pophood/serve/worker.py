"""The worker: one thread, the only user of the engine and of the scheduler. Messages in, events out.

    inbox (any thread) ──► Submit, Cancel, Drain, ShowView... ──► scheduler.step ──► all events of the step

`post` may be called from any thread and sets the flag of a cancelled request itself, so that a pass that is
being computed leaves it within one block of the model. An error of one request ends that request; an error
of a step ends those that were open, and the thread goes on with a new scheduler.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pophood.adapters.adapter import Adapter
from pophood.errors import one_line
from pophood.generate import Token
from pophood.generate.decoder import CHUNK
from pophood.generate.inspection import LOOKED
from pophood.generate.loop import prepared
from pophood.generate.prefix import PrefixCache
from pophood.generate.request import Request, Running
from pophood.generate.scheduler import Computed, Scheduler
from pophood.model.engine import Engine
from pophood.model.packed_adapters import PackedAdapters
from pophood.model.prefix_files import PrefixFiles
from pophood.serve.errands import Errands, View
from pophood.serve.messages import (
    ENDING,
    UNWATCHED,
    Begun,
    Cancel,
    Drain,
    Ended,
    Errand,
    Event,
    Failed,
    FailureKind,
    Gauges,
    Message,
    Pooled,
    PromptInspected,
    PromptRead,
    PromptScored,
    Submit,
    Tokens,
    UseThreads,
    failure,
)
from pophood.serve.prefix_disk import ChunkRead, ChunkWritten, PrefixDisk
from pophood.text.tokenizer import Tokenizer

QUEUE = 256  # requests that may wait
GATHERED = 64  # tokens of a request that are told at once if nobody watches its answer grow


@dataclass(eq=False, slots=True)
class Computing:
    """A request that was handed to the scheduler, and what has been told of it."""

    submit: Submit
    running: Running
    adapters: tuple[int, ...]
    begun: bool = False
    read: int = 0
    scored: bool = False
    looked: int = 0  # tokens of the prompt whose insides have been told
    tokens: list[Token] = field(default_factory=list)  # that are not told yet
    told: float = -math.inf  # when some were

    @property
    def due(self) -> bool:
        """True if its tokens have to be told now."""
        if len(self.tokens) >= GATHERED:
            return True
        return self.submit.pause < UNWATCHED and time.monotonic() - self.told >= self.submit.pause

    @property
    def settled(self) -> bool:
        """True if nothing but tokens and the end is left to tell."""
        return self.begun and not self.running.reading and (self.scored or self.submit.scores is None)


class Worker:
    """The thread. `start` it once; it ends after `Drain`, or by an error that is reported.

    `blocks` bounds keys and values, `together` the texts that are written at a time. `files` keep prefixes
    beyond the end. `view` does errands.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        blocks: int,
        together: int,
        adapters: Mapping[str, Adapter] | None = None,
        waiting: int = QUEUE,
        files: PrefixFiles | None = None,
        view: View | None = None,
    ) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._blocks, self._together, self._queue = blocks, together, waiting
        self._prefix = PrefixCache(engine, blocks)
        self._scheduler = self._new_scheduler()
        self._packed = PackedAdapters(engine, self._prefix, {} if adapters is None else adapters)
        self._inbox: queue.SimpleQueue[Message | ChunkRead | ChunkWritten] = queue.SimpleQueue()
        self._disk = (
            None if files is None else PrefixDisk(engine, self._prefix, self._packed, files, self._inbox.put)
        )
        self._errands = Errands(view)
        self._open: dict[int, Computing] = {}
        self._by_running: dict[Running, Computing] = {}
        self._unsettled: list[Computing] = []
        self._gone: set[int] = set()  # requests whose Cancel is in the inbox
        self._events: list[Event] = []
        self._gauges = Gauges()
        self._ending = False  # a Drain was posted
        self._deadline: float | None = None  # after Drain was taken: when what still runs is ended
        self._timer = threading.Timer(0, self._cancel_all)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(
            self._engine,
            self._tokenizer,
            self._prefix,
            blocks=self._blocks,
            together=self._together,
            queue=self._queue,
        )

    # ---- from any thread ----

    def start(self, deliver: Callable[[Sequence[Event]], object], ended: Callable[[str], object]) -> None:
        """Begin to compute; `deliver` receives the events of each step, `ended` the error that ended all."""
        self._deliver, self._ended = deliver, ended
        self._thread.start()

    def post(self, message: Message) -> None:
        """Send a message."""
        if isinstance(message, Cancel):
            # In this order: whoever comes second, this thread or the one that begins it, sees the other.
            self._gone.add(message.id)
            if (computing := self._open.get(message.id)) is not None:
                computing.running.cancel()
        elif isinstance(message, Drain):
            self._ending = True  # before the timer: what it ends must hear of it
            self._timer.cancel()
            self._timer = threading.Timer(message.grace, self._cancel_all)
            self._timer.daemon = True
            self._timer.start()
        self._inbox.put(message)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def _cancel_all(self) -> None:
        for computing in list(self._open.values()):
            computing.running.cancel()

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._tell_gauges()
            while not (self._deadline is not None and not self._open):
                self._turn()
                if told := self._errands.next(self._between):
                    self._forget_adapters()  # one may have been replaced
                    self._events.append(told)
                    self._send()
            self._scheduler.close()
            if self._disk is not None:
                self._disk.close()
        except BaseException as error:  # a bug: every open request must hear of it
            self._ended(f"{type(error).__name__}: {one_line(error)}")
        finally:
            self._timer.cancel()

    def _turn(self) -> None:
        """Take what has arrived, make a step, and tell of it."""
        self._take_messages()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._stop_all()
        self._step()
        self._send()

    def _between(self) -> int:
        """Let the answers go on between the passes of an errand; return how many rows the next may have."""
        self._turn()
        self._errands.check()
        return CHUNK if self._scheduler.idle else LOOKED

    def _take_messages(self) -> None:
        """Take what has arrived; wait for a message if there is nothing to do."""
        waits = self._scheduler.stalled and self._deadline is None and self._errands.idle
        if self._disk is not None:
            waits = waits and not self._disk.busy
            self._disk.copy_one()
        while True:
            try:
                message = self._inbox.get(block=waits)
            except queue.Empty:
                return
            waits = False
            if isinstance(message, Submit):
                self._submit(message)
            elif isinstance(message, Cancel):
                self._cancel(message.id)
            elif isinstance(message, Errand):
                if self._deadline is None:
                    self._errands.add(message)
                else:
                    self._events.append(Failed(message.id, "stopping", ENDING))
            elif isinstance(message, UseThreads):
                self._engine.use_threads(message.threads)
            elif isinstance(message, Drain):
                self._drain(message.grace)
            elif self._disk is not None:
                if isinstance(message, ChunkRead):
                    self._disk.take(message, self._scheduler)
                    return  # a step comes before the next one
                self._disk.written(message)
            self._send()

    def _submit(self, submit: Submit) -> None:
        if submit.id in self._gone:
            return
        if self._deadline is not None:
            self._events.append(Failed(submit.id, "stopping", ENDING))
            return
        try:
            ids, _ = prepared(self._engine, self._tokenizer, submit.prompt, submit.settings)
            adapters = self._packed.numbers(submit.adapters)
            running = self._scheduler.submit(
                Request(
                    ids,
                    submit.settings,
                    adapters,
                    submit.client,
                    submit.scores,
                    submit.generates,
                    submit.pools,
                )
            )
        except Exception as error:
            self._events.append(failure(submit.id, error))
            return
        computing = Computing(submit, running, adapters)
        self._open[submit.id] = self._by_running[running] = computing
        self._unsettled.append(computing)
        if self._disk is not None and submit.scores is None:
            self._disk.fetch(submit.id, running, adapters)
        if submit.id in self._gone:
            running.cancel()

    def _cancel(self, number: int) -> None:
        self._gone.discard(number)
        self._errands.leave(number)
        if (computing := self._open.get(number)) is not None:
            self._scheduler.cancel(computing.running)

    def _drain(self, grace: float) -> None:
        """Refuse what waits, and set the time at which what runs is ended."""
        deadline = time.monotonic() + grace
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._events += [Failed(number, "stopping", ENDING) for number in self._errands.stop()]
        for computing in list(self._open.values()):
            if computing.running not in self._scheduler.running:
                self._fail(computing, "stopping", ENDING)

    def _stop_all(self) -> None:
        for computing in list(self._open.values()):
            self._fail(computing, "stopping", ENDING)

    def _fail(self, computing: Computing, kind: FailureKind, words: str) -> None:
        self._forget(computing)
        self._events.append(Failed(computing.submit.id, kind, words))
        self._scheduler.cancel(computing.running)

    def _forget(self, computing: Computing) -> None:
        self._open.pop(computing.submit.id, None)
        self._by_running.pop(computing.running, None)
        if computing in self._unsettled:
            self._unsettled.remove(computing)

    # ---- one step ----

    def _step(self) -> None:
        if self._scheduler.idle:
            return
        try:
            computed = self._scheduler.step()
        except Exception as error:
            self._start_anew(error)
            return
        self._tell(computed)
        if computed.ended:
            self._forget_adapters()

    def _forget_adapters(self) -> None:
        self._packed.forget_unused({n for one in self._open.values() for n in one.adapters})

    def _start_anew(self, error: Exception) -> None:
        """After an error that concerns all: end what is open, and go on with nothing."""
        for computing in list(self._open.values()):
            self._forget(computing)
            self._events.append(failure(computing.submit.id, error))
        self._scheduler.close()
        self._prefix.forget()
        self._scheduler = self._new_scheduler()

    def _tell(self, computed: Computed) -> None:
        """Turn what a step computed into events, in the order that `messages` promises."""
        for computing in self._unsettled[:]:
            if computing.running.first is not None or computing.running.ended:  # it was admitted
                self._tell_progress(computing)
        grown: dict[Computing, None] = {}
        for running, token in computed.tokens:
            if (found := self._by_running.get(running)) is not None:
                found.tokens.append(token)
                grown[found] = None
        for computing in grown:
            if computing.due:
                self._tell_tokens(computing)
        for running in computed.ended:
            if (found := self._by_running.get(running)) is not None:
                self._tell_end(found)

    def _tell_tokens(self, computing: Computing) -> None:
        if computing.tokens:
            self._events.append(Tokens(computing.submit.id, tuple(computing.tokens)))
            computing.tokens, computing.told = [], time.monotonic()

    def _tell_progress(self, computing: Computing) -> None:
        running, number = computing.running, computing.submit.id
        total = len(running.request.prompt)
        if running.cancelled or running.error is not None:
            return
        if not computing.begun:
            computing.begun, computing.read = True, running.reused
            self._events.append(Begun(number, running.reused, total, running.seed))
            if self._disk is not None and computing.submit.scores is None:
                self._disk.note(running.request.prompt[: running.reused], computing.adapters)
        if running.read > computing.read:
            computing.read = running.read
            if computing.submit.pause < UNWATCHED:
                self._events.append(PromptRead(number, running.read, total))
        if insides := running.insides[computing.looked :]:
            computing.looked = len(running.insides)
            self._events.append(PromptInspected(number, tuple(insides)))
        if computing.submit.scores is not None and not computing.scored and not running.reading:
            computing.scored = True
            self._events.append(PromptScored(number, tuple(running.scores)))
        if computing.settled:
            self._unsettled.remove(computing)

    def _tell_end(self, computing: Computing) -> None:
        running, number = computing.running, computing.submit.id
        self._forget(computing)
        if running.error is not None:
            self._events.append(failure(number, running.error))
        elif not running.cancelled or len(running.finishes) == running.request.settings.samples:
            self._tell_tokens(computing)
            if running.pool is not None:
                self._events.append(Pooled(number, running.pool.vector.tobytes()))
            self._events.append(Ended(number, dict(running.finishes), running.timings))
        elif self._ending:
            self._events.append(Failed(number, "stopping", ENDING))

    def _tell_gauges(self) -> None:
        gauges = Gauges(
            len(self._scheduler.running),
            self._scheduler.waiting,
            self._scheduler.reserved + self._prefix.blocks,
            self._blocks,
            self._prefix.blocks,
        )
        if gauges != self._gauges:
            self._gauges = gauges
            self._events.append(gauges)

    def _send(self) -> None:
        self._tell_gauges()
        if self._events:
            events, self._events = self._events, []
            self._deliver(events)
