"""The generation loop: any number of requests in one continuous batch.

    submit -> wait -> admit (blocks reserved, prefix reused) -> read the prompt -> fork per sample -> write

Each `step` is one pass over the weights: one token of every text that is being written and, in the room that
is left, tokens of prompts that are being read. Nothing is padded, and since a row's bits depend on that row's
history only, every result is the one that its request gives alone. Requests join and leave between steps.
There is no other loop: `loop.py`, `batch.py` and the server stand on this one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from pophood.errors import BadInput, EngineError, QueueFull
from pophood.generate.choose import Row, Sample, Token
from pophood.generate.decoder import Decoder, Distribution
from pophood.generate.inside import Inside
from pophood.generate.inspection import looked_from, looks_at, most_read
from pophood.generate.passes import (
    Fed,
    PrefillPace,
    masks_of,
    next_kept,
    scores_of,
    targets_of,
    writing,
)
from pophood.generate.prefix import KEPT_EVERY, PrefixCache, TokenScore
from pophood.generate.request import Request, Running
from pophood.sampling import Likeliest
from pophood.taps import Tap
from pophood.text.tokenizer import Tokenizer

TOGETHER, MOST_TOGETHER = 16, 256  # texts that are written at a time


class Computed(NamedTuple):
    """The new tokens of a pass, in the order of their requests, and the requests that have ended."""

    tokens: list[tuple[Running, Token]]
    ended: list[Running]


class Scheduler:
    """Computes requests together: `submit` them, then `step` until it is `idle`.

    `blocks` bounds the keys and values of all requests and of the prefix cache together (None: no bound): a
    request is admitted when its largest need is free, so that it can always finish. At most `together` texts
    are written at a time (a request with more samples is computed alone), at most `queue` requests wait.
    Methods belong to one thread; `Running.cancel` to any. `cancel` is a flag that ends a step with Cancelled.
    """

    def __init__(
        self,
        engine: Decoder,
        tokenizer: Tokenizer,
        prefix: PrefixCache | None = None,
        *,
        blocks: int | None = None,
        together: int = TOGETHER,
        queue: int | None = None,
        pace: PrefillPace | None = None,
        cancel: Any = None,
    ) -> None:
        if not 1 <= together <= MOST_TOGETHER:
            raise BadInput(f"together is {together:,}; wanted 1 to {MOST_TOGETHER}")
        self._engine, self._tokenizer, self._prefix = engine, tokenizer, prefix
        self._blocks, self._together, self._queue = blocks, together, queue
        self._pace = pace or PrefillPace()
        self._cancel = cancel
        self._waiting: dict[Hashable, deque[Running]] = {}  # by client, the next one to be served first
        self.running: list[Running] = []
        self.reserved = 0  # blocks
        self._served: dict[Hashable, int] = {}  # the pass that last read a prompt of a client
        self._passes = 0
        self._taps: dict[str, Tap] = {}  # of the model, once a request is inspected
        self._ended: list[Running] = []  # since the last step

    # ---- requests come and go ----

    @property
    def waiting(self) -> int:
        """The number of requests that wait for admission."""
        return sum(map(len, self._waiting.values()))

    @property
    def idle(self) -> bool:
        return not self.running and not self._waiting and not self._ended

    @property
    def stalled(self) -> bool:
        """True if it is idle, or all that it could begin is held back."""
        heads = (waiting[0] for waiting in self._waiting.values())
        return not self.running and not self._ended and all(one.held and not one.cancelled for one in heads)

    def make_room(self, blocks: int) -> bool:
        """Let the prefix cache free so many blocks; return False if running requests need them."""
        if self._blocks is None or self._prefix is None:
            return True
        self._prefix.shrink(self._blocks - self.reserved - blocks)
        return self._blocks - self.reserved >= blocks

    def submit(self, request: Request) -> Running:
        """Let a request wait for its turn. Raises QueueFull, and BadInput for one that can never fit."""
        running = Running(request, self._engine, self._tokenizer)
        if self._blocks is not None and running.blocks > self._blocks:
            raise BadInput(
                f"the request needs {running.blocks:,} blocks of keys and values, and {self._blocks:,} are "
                "there: ask for fewer samples or tokens"
            )
        if self._queue is not None and self.waiting >= self._queue:
            raise QueueFull(f"{self.waiting:,} requests wait already: try again later")
        self._waiting.setdefault(request.client, deque()).append(running)
        return running

    def cancel(self, running: Running) -> None:
        """End a request now if it waits, else at the beginning of the next step."""
        running.cancel()
        if running not in self.running:
            self._end(running)

    def step(self) -> Computed:
        """Make one pass over the weights.

        An error of one request is its `error`, and ends it alone. What concerns all is raised: Cancelled,
        KeyboardInterrupt, MemoryError; `close` must follow.
        """
        for running in list(self.running):
            if running.cancelled:
                self._end(running)
        self._admit()
        pieces = self._pieces()
        tokens = self._compute_safely(pieces) if pieces else []
        ended, self._ended = self._ended, []
        return Computed(tokens, ended)

    def _compute_safely(self, pieces: Sequence[Fed]) -> list[tuple[Running, Token]]:
        try:
            return self._compute(pieces)
        except EngineError as error:  # a NaN in one of them: each alone, and no other notices
            tokens = []
            for running in {id(piece.running): piece.running for piece in pieces}.values():
                own = [piece for piece in pieces if piece.running is running]
                try:
                    if len(own) == len(pieces):
                        raise error
                    tokens += self._compute(own)
                except EngineError as its:
                    running.error = its
                    self._end(running)
            return tokens

    def close(self) -> None:
        """End everything: what was computed goes to the prefix cache, if there is one."""
        for running in [*self.running, *(one for queue in self._waiting.values() for one in queue)]:
            self._end(running)

    def _admit(self) -> None:
        """Admit the first request of each client in turn, as long as there is room for the next one."""
        for running in [queue[0] for queue in self._waiting.values()]:
            if running.cancelled:
                self._end(running)
        while ready := [client for client, queue in self._waiting.items() if not queue[0].held]:
            client = ready[0]
            queue = self._waiting[client]
            running = queue[0]
            if running.cancelled:
                self._end(running)
                continue
            texts = sum(one.request.settings.samples for one in self.running)
            if texts and texts + running.request.settings.samples > self._together:
                return
            if self._blocks is not None and self.reserved + running.blocks > self._blocks:
                return
            queue.popleft()
            del self._waiting[client]
            if queue:
                self._waiting[client] = queue  # behind the other clients
            self._begin(running)

    def _begin(self, running: Running) -> None:
        request = running.request
        if self._prefix is None:
            sequence = self._engine.new_sequence(request.adapters)
        else:
            reusable = request.prompt[: looked_from(request)]
            taken = self._prefix.take(reusable, request.adapters, request.scores)
            sequence, running.reused, running.known = taken.sequence, taken.length, taken.known
            running.scores = list(taken.scores)
        if request.scores is not None and not running.scores:
            running.scores = [TokenScore(request.prompt[0], None)]
        running.read = running.reused
        running.first = running.chooser.new_sample(request.settings.first_sample, sequence, request.prompt)
        self.running.append(running)
        self.reserved += running.blocks
        self._make_room()
        if not running.reading and not request.generates:
            self._end(running)

    def _make_room(self) -> None:
        if self._blocks is not None and self._prefix is not None:
            self._prefix.shrink(self._blocks - self.reserved)

    def _end(self, running: Running) -> None:
        """Give the first sequence to the prefix cache, drop the others, and free what was reserved."""
        if running.ended:
            return
        running.ended = True
        self._ended.append(running)
        for client, queue in list(self._waiting.items()):
            if running in queue:
                queue.remove(running)
                if not queue:
                    del self._waiting[client]
        if running not in self.running:
            return
        self.running.remove(running)
        self.reserved -= running.blocks
        if all(other.request.client != running.request.client for other in self.running):
            self._served.pop(running.request.client, None)
        first, running.first = running.first, None
        for sample in running.samples:
            if sample is not first:
                self._engine.drop(sample.sequence)
        running.samples = []
        if first is not None and self._prefix is not None and running.pool is None:
            self._prefix.keep(first.sequence, first.ids, running.scores, running.request.scores or 0)
            self._make_room()
        elif first is not None:
            self._engine.drop(first.sequence)

    def _keeps_windows(self, running: Running) -> bool:
        return self._prefix is not None and self._prefix.kv.windowed > 0 and running.pool is None

    def _keep_windows(self, sample: Sample, length: int) -> None:
        """Give the prefix cache a copy of the first `length` tokens, which can go on there."""
        assert self._prefix is not None
        copy = self._engine.fork(sample.sequence)
        self._engine.truncate(copy, length)
        self._prefix.keep(copy, sample.ids)
        self._make_room()

    # ---- one pass ----

    def _pieces(self) -> list[Fed]:
        """Divide a pass: a token for every text that is being written, then prompts, client by client."""
        pieces = [writing(running, sample) for running in self.running for sample in running.samples]
        tokens = sum(len(piece.ids) for piece in pieces)
        room = self._pace.room(tokens) if any(running.reading for running in self.running) else 0
        self._passes += 1
        reading = [running for running in self.running if running.reading]
        for running in sorted(reading, key=lambda one: self._served.get(one.request.client, 0)):
            n = min(room, running.to_read - running.read, most_read(running.request))
            if self._keeps_windows(running):
                n = min(n, next_kept(running) - running.read)
            if not n or running.first is None:
                break
            room -= n
            self._served[running.request.client] = self._passes
            ids = running.request.prompt[running.read : running.read + n]
            last = running.request.generates and running.read + n == running.to_read
            pieces.append(
                Fed(running, running.first, ids, n if running.request.scores is not None else int(last))
            )
        return pieces

    def _compute(self, pieces: Sequence[Fed]) -> list[tuple[Running, Token]]:
        """Feed the pieces in one call, and choose the next token of every sample that has a row for it."""
        began = time.perf_counter()
        scoring = any(piece.running.request.scores is not None for piece in pieces)
        looks = looks_at(self._engine.config, self._taps, pieces)
        found = self._engine.summary(
            [(piece.sample.sequence, piece.ids) for piece in pieces],
            max(max(piece.running.chooser.likeliest, piece.running.request.scores or 0) for piece in pieces),
            self._cancel,
            rows=[piece.rows for piece in pieces],
            allowed=masks_of(pieces, self._engine.config.vocab_size),
            targets=[target for piece in pieces for target in targets_of(piece)] if scoring else None,
            whole=any(piece.running.chooser.whole for piece in pieces if piece.rows),
            cancels={piece.sample.sequence: piece.running.flag for piece in pieces},
            readings=() if looks is None else looks.readings,
        )
        insides = {} if looks is None else looks.insides(found, self._engine)
        self._note(pieces, time.perf_counter() - began)
        tokens: list[tuple[Running, Token]] = []
        place = 0
        for number, piece in enumerate(pieces):
            place += piece.rows
            if piece.running.ended:
                continue
            if piece.sample.sequence in found.cancelled:
                self._end(piece.running)
                continue
            if looks is not None:
                looks.pool(number, found)
            try:
                tokens += self._advance(piece, found, place, insides.get(number, ()))
            except (EngineError, BadInput) as error:
                piece.running.error = error
                self._end(piece.running)
            if not piece.running.samples and not piece.running.reading:
                self._end(piece.running)
        return tokens

    def _advance(
        self, piece: Fed, found: Distribution, place: int, insides: Sequence[Inside] = ()
    ) -> list[tuple[Running, Token]]:
        """Take over the results of a piece, whose rows end before `place`: scores, or new tokens."""
        running, sample = piece.running, piece.sample
        if not running.reading:
            return self._write_forced(piece, found, place, insides)
        running.insides += [inside for inside in insides if inside.position < len(running.request.prompt)]
        if running.request.scores is not None:
            running.scores += scores_of(piece, found, place - piece.rows, running.request.scores)
        end = next_kept(running)
        running.read += len(piece.ids)
        if running.read == end and self._keeps_windows(running):
            self._keep_windows(sample, end)
        if running.read < running.to_read or not running.request.generates:
            return []
        settings = running.request.settings
        numbers = range(settings.first_sample + 1, settings.first_sample + settings.samples)
        running.samples = [sample] + [
            running.chooser.new_sample(number, self._engine.fork(sample.sequence), running.request.prompt)
            for number in numbers
        ]
        return self._write(running, list(running.samples), found, place - 1, insides)

    def _write_forced(
        self, piece: Fed, found: Distribution, place: int, insides: Sequence[Inside]
    ) -> list[tuple[Running, Token]]:
        """Write the tokens that a grammar forced, whose rows are before `place`, and the one after them."""
        tokens: list[tuple[Running, Token]] = []
        sample = piece.sample
        for at in range(place - piece.rows, place):
            tokens += self._write(piece.running, [sample], found, at, insides)
            if sample.finish is not None:
                if sample is piece.running.first and at < place - 1:  # what was read after its end
                    self._engine.truncate(sample.sequence, len(sample.ids))
                break
        if sample is piece.running.first and sample.finish is None and self._keeps_windows(piece.running):
            length = len(sample.ids) - 1
            if length // KEPT_EVERY > (length - piece.rows) // KEPT_EVERY:
                self._keep_windows(sample, length // KEPT_EVERY * KEPT_EVERY)
        return tokens

    def _write(
        self,
        running: Running,
        samples: Sequence[Sample],
        found: Distribution,
        at: int,
        insides: Sequence[Inside],
    ) -> list[tuple[Running, Token]]:
        """Choose the next token of samples from one row; those that end leave the batch."""
        ids, logits = found.ids[at], found.logits[at]
        if len(ids) and ids[-1] < 0:  # a grammar allows fewer
            ids, logits = ids[ids >= 0], logits[ids >= 0]
        likeliest = Likeliest(ids, logits, float(found.log_mass[at]), float(found.entropy[at]))
        whole = found.whole[at] if found.whole is not None and running.chooser.whole else None
        predicted = [inside for inside in insides if inside.position == len(samples[0].ids)]
        row = Row(likeliest, whole, predicted[0] if predicted else None)
        tokens = []
        for sample in samples:
            tokens.append((running, running.chooser.next_token(sample, row)))
            if sample.finish is not None:
                running.samples.remove(sample)
                if sample is not running.first:
                    self._engine.drop(sample.sequence)
        return tokens

    def _note(self, pieces: Sequence[Fed], seconds: float) -> None:
        """Divide the seconds of a pass among its requests by their tokens."""
        total = sum(len(piece.ids) for piece in pieces)
        reading = sum(len(piece.ids) for piece in pieces if piece.running.reading)
        self._pace.note(total - reading, reading, seconds)
        for piece in pieces:
            timings, share = piece.running.timings, seconds * len(piece.ids) / total
            if piece.running.reading:
                timings.prefill_seconds += share
                timings.prefill_tokens += len(piece.ids)
            else:
                timings.decode_seconds += share
