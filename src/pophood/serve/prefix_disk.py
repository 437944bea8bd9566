"""PrefixDisk: what the worker reads from and writes to `--cache-dir`, without keeping other requests waiting.

    a request that is new ──► its chunks are read beside the worker ──► one per step joins the prefix cache
    a prefix that is used a second time ──► one chunk per step is copied ──► written beside the worker

What comes once is not worth a write; what comes twice comes again. The rest of the prefix cache is written at
a clean end, the most recently used first, as far as two seconds reach. Scores of prompts are not stored, so
that requests for them neither read nor write: an evaluation would fill the disk with texts that never return.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.generate.decoder import blocks_of
from pophood.generate.prefix import PrefixCache
from pophood.generate.request import Running
from pophood.generate.scheduler import Scheduler
from pophood.model.call import KvState
from pophood.model.engine import Engine
from pophood.model.packed_adapters import PackedAdapters
from pophood.model.prefix_files import CHUNK, PrefixFiles, StoredChunk

LAST = 2.0  # seconds of writing at the end
WRITING = 2  # chunks in memory that are being written
PLANNED = 4096  # chunks that wait to be copied


@dataclass(frozen=True, slots=True, eq=False)
class ChunkRead:
    """For the worker: a chunk for a request that waits for it; without `data` there is no more."""

    id: int
    chunk: StoredChunk
    data: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class ChunkWritten:
    """For the worker: a chunk was written, or cannot be."""

    chunk: StoredChunk


@dataclass(frozen=True, slots=True, eq=False)
class _Loading:
    running: Running
    ids: tuple[int, ...]
    adapters: tuple[int, ...]
    coming: deque[StoredChunk]


class Lane:
    """A thread that does jobs one after the other, and ends with the program."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], object]) -> None:
        self._jobs.put(job)

    def close(self, seconds: float) -> None:
        """Let it end after its jobs, and wait for that."""
        self._jobs.put(None)
        self._thread.join(max(seconds, 0))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class PrefixDisk:
    """Stored prefixes of one worker, whose thread all methods belong to.

    `post` sends ChunkRead and ChunkWritten to the worker, which gives them to `take` and `written`.
    """

    def __init__(
        self,
        engine: Engine,
        prefix: PrefixCache,
        adapters: PackedAdapters,
        files: PrefixFiles,
        post: Callable[[ChunkRead | ChunkWritten], object],
    ) -> None:
        self._engine, self._prefix, self._adapters = engine, prefix, adapters
        self._files, self._post = files, post
        self._loading: dict[int, _Loading] = {}
        self._planned: deque[tuple[tuple[int, ...], tuple[int, ...], StoredChunk]] = deque()
        self._pending: set[bytes] = set()  # keys of what is planned or being written
        self._writing = 0
        self._reader, self._writer = Lane("read-prefixes"), Lane("write-prefixes")

    @property
    def busy(self) -> bool:
        """True if `copy_one` has something to do."""
        return bool(self._planned) and self._writing < WRITING

    # ---- reading ----

    def fetch(self, number: int, running: Running, adapters: tuple[int, ...]) -> None:
        """Hold a request back while more of its prompt is read than the prefix cache has."""
        ids = running.request.prompt
        known = self._prefix.known(ids, adapters)
        chunks = self._files.chunks(ids[:-1], self._adapters.identity(adapters))[known // CHUNK :]
        coming: deque[StoredChunk] = deque()
        for chunk in chunks:
            if not self._files.has(chunk):
                break
            coming.append(chunk)
        if coming:
            running.held = True
            self._loading[number] = _Loading(running, ids, adapters, coming)
            self._read_next(number)

    def take(self, message: ChunkRead, scheduler: Scheduler) -> None:
        """Give a chunk to the prefix cache; after the last one the request is let go."""
        loading = self._loading[message.id]
        more = message.data is not None and not loading.running.ended and bool(loading.coming)
        if more:
            self._read_next(message.id)
        if message.data is None or loading.running.ended or not self._append(loading, message, scheduler):
            loading.coming.clear()
        if not more:
            loading.running.held = False
            del self._loading[message.id]

    def _read_next(self, number: int) -> None:
        chunk = self._loading[number].coming.popleft()
        self._reader.put(lambda: self._post(ChunkRead(number, chunk, self._files.read(chunk))))

    def _append(self, loading: _Loading, message: ChunkRead, scheduler: Scheduler) -> bool:
        """Return False if the chunk has no room, or what comes before it is gone."""
        assert message.data is not None
        start, end = message.chunk.start, message.chunk.end
        if not scheduler.make_room(blocks_of(CHUNK)):
            return False
        taken = self._prefix.copy(loading.ids[:end], loading.adapters)
        if not start <= taken.length < end:
            self._engine.drop(taken.sequence)
            return taken.length == end
        self._engine.truncate(taken.sequence, start)
        windows = message.data.nbytes == CHUNK * self._engine.position_bytes
        tokens = np.array(loading.ids[start:end], np.int32)
        state = KvState(
            self._engine.kv_geometry, CHUNK, message.data, start, start if windows else end, tokens
        )
        self._engine.append_kv(taken.sequence, state)
        self._prefix.keep(taken.sequence, loading.ids[:end], part=True)
        return True

    # ---- writing ----

    def note(self, ids: Sequence[int], adapters: tuple[int, ...]) -> None:
        """Plan to store tokens that a request took from the prefix cache, unless they are stored."""
        if self._files.paused:
            return
        whole = tuple(ids)
        for chunk in self._files.chunks(whole, self._adapters.identity(adapters)):
            if self._files.has(chunk):
                self._files.touch(chunk)
            elif chunk.key not in self._pending and len(self._planned) < PLANNED:
                self._pending.add(chunk.key)
                self._planned.append((whole, adapters, chunk))

    def copy_one(self) -> None:
        """Copy one chunk that is planned, and let it be written; do nothing if two are being written."""
        if not self.busy:
            return
        ids, adapters, chunk = self._planned.popleft()
        taken = self._prefix.copy(ids[: chunk.end], adapters)
        try:
            if taken.length < chunk.end or self._files.paused:
                self._pending.discard(chunk.key)
                return
            data = self._data(taken.sequence, chunk)
        finally:
            self._engine.drop(taken.sequence)
        self._writing += 1

        def write() -> None:
            self._files.write(chunk, data)
            self._post(ChunkWritten(chunk))

        self._writer.put(write)

    def written(self, message: ChunkWritten) -> None:
        """Note that a chunk needs no memory any more."""
        self._writing -= 1
        self._pending.discard(message.chunk.key)

    def close(self, seconds: float = LAST) -> None:
        """Store what the prefix cache holds, the most recently used first, for so many seconds at most."""
        end = time.monotonic() + seconds
        self._reader.close(0)
        self._writer.close(seconds)
        for span in reversed(list(self._prefix.spans())):
            for chunk in self._files.chunks(span.ids, self._adapters.identity(span.adapters)):
                if self._files.paused or time.monotonic() >= end:
                    return
                if not self._files.has(chunk):
                    taken = self._prefix.copy(span.ids[: chunk.end], span.adapters)
                    self._files.write(chunk, self._data(taken.sequence, chunk))
                    self._engine.drop(taken.sequence)

    def _data(self, sequence: int, chunk: StoredChunk) -> NDArray[np.uint8]:
        """Copy a chunk; layers with an attention window take part if all of it is there."""
        state = self._engine.export_kv(sequence, CHUNK, chunk.start)
        if state.windows_from != chunk.start:
            state = self._engine.export_kv(sequence, CHUNK, chunk.start, windows=False)
        return state.data
