"""The program of a model's process: it loads the model, and hands messages to the worker.

    stdin ── LoadOrder, then messages ──► worker ──► lists of events ── stdout

The HTTP process starts it (`spawn`), decides about signals, and ends it by closing the pipe. This process
ends then at once, whatever it computes, so that none is left behind.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from pophood import system
from pophood.adapters.open import open_adapter
from pophood.errors import PophoodError, one_line
from pophood.generate.decoder import KvBlocks
from pophood.hub import Located
from pophood.model import lm as models
from pophood.model.bundle import open_weights
from pophood.model.identity import kv_identity, load_details, load_remarks, public_name, weights_digest
from pophood.model.memory import checked_context, plan_memory
from pophood.model.prefix_files import CHUNK, PrefixFiles
from pophood.serve.capacity import Capacity, plan_capacity
from pophood.serve.process.pipe import PipeReader, PipeWriter
from pophood.serve.process.records import (
    CacheFacts,
    EngineFault,
    LoadedFacts,
    LoadLine,
    LoadOrder,
    LoadProgress,
    LoadRefusal,
)
from pophood.serve.process.viewer import Viewer
from pophood.serve.worker import Worker
from pophood.system.programs import end_with_parent

REFUSED, BROKEN, LEFT = 1, 2, 3  # exit codes


def main() -> NoReturn:
    """Run the process; it ends with `os._exit`, since nothing is open that an exit would have to close."""
    end_with_parent()
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    source, sink = _own_streams()
    writer = PipeWriter(sink, gone=_leave)
    child = ModelChild(writer.send)
    reader = threading.Thread(target=_read, args=(source, child.take), name="pipe", daemon=True)
    reader.start()
    try:
        code = child.run()
    except BaseException as error:
        writer.send(EngineFault(f"{type(error).__name__}: {one_line(error)}"))
        traceback.print_exception(error)
        code = BROKEN
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def _own_streams() -> tuple[int, int]:
    """Return stdin and stdout under other numbers; what any library prints goes to stderr from now on."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _leave() -> NoReturn:
    os._exit(LEFT)


def _read(source: int, take: Callable[[Any], object]) -> None:
    """Hand on what arrives until the HTTP process closes the pipe or ends."""
    reader = PipeReader(source)
    with suppress(OSError):
        while (messages := reader.receive()) is not None:
            for message in messages:
                take(message)
    _leave()


class ModelChild:
    """A model's process without its pipes: `take` receives what arrives, `send` says what happens."""

    def __init__(self, send: Callable[[object], object]) -> None:
        self._send = send
        self._ordered = threading.Event()
        self._order: LoadOrder | None = None
        self._worker: Worker | None = None
        self._fault = False

    def take(self, message: Any) -> None:
        """Take the order to load, or a message to the worker; for the thread that reads."""
        if isinstance(message, LoadOrder):
            self._order = message
            self._ordered.set()
        elif self._worker is not None:  # nothing else is sent before LoadedFacts has arrived
            self._worker.post(message)

    def run(self) -> int:
        """Wait for the order, load, compute until the worker ends, and return the exit code."""
        self._ordered.wait()
        assert self._order is not None
        try:
            facts, self._worker = self._load(self._order)
        except (PophoodError, MemoryError, OSError) as error:
            self._send(LoadRefusal(type(error).__name__, _words(error)))
            return REFUSED
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self._send(LoadRefusal(type(error).__name__, str(error), trace))
            return REFUSED
        gc.collect()
        gc.freeze()  # what is there now stays: later collections look at less
        self._send(facts)
        self._worker.start(self._send, self._broke)
        self._worker.join(threading.TIMEOUT_MAX)
        return BROKEN if self._fault else 0

    def _broke(self, why: str) -> None:
        self._fault = True
        self._send(EngineFault(why))

    def _load(self, order: LoadOrder) -> tuple[LoadedFacts, Worker]:
        """Load the model, its adapters and the folder of prefixes. Raises PophoodError."""
        capacity = self._capacity(order)
        lm = models.load(
            Located(order.name, order.path),
            precision=order.precision,
            kv=order.kv,
            threads=order.threads,
            context=capacity.context,
            announce=self._say,
            progress=self._count,
        )
        adapters = {name: open_adapter(place, lm.config) for name, place in order.adapters}
        files = self._files(order, lm)
        worker = Worker(
            lm.engine,
            lm.bundle.tokenizer,
            blocks=capacity.blocks,
            together=order.parallel,
            adapters=adapters,
            waiting=order.waiting,
            files=files,
            view=Viewer(lm, adapters, dict(order.adapters)),
        )
        return _facts(order, lm, capacity, files), worker

    def _capacity(self, order: LoadOrder) -> Capacity:
        """Divide the memory that is free beside the weights. Raises BadInput, OutOfMemory."""
        opened = open_weights(order.path)
        positions = opened.config.n_positions
        context = None if order.context is None else checked_context(opened.config, order.context)
        plan = plan_memory(opened.config, opened.weights.stored_type, context, order.precision, order.kv)
        free = system.available_memory() - order.reserved - plan.weights - plan.activations
        capacity = plan_capacity(
            plan.cache_per_position,
            positions,
            free,
            memory=order.memory,
            context=context,
            kv=KvBlocks.of(opened.config),
        )
        if context is None and capacity.context < positions:
            self._say(
                f"the window is {capacity.context:,} tokens instead of {positions:,}: more do not fit into "
                "memory (see --memory)"
            )
        return capacity

    def _files(self, order: LoadOrder, lm: models.LM) -> PrefixFiles | None:
        if order.cache_dir is None:
            return None
        size, of_windows = CHUNK * lm.engine.position_bytes, CHUNK * lm.engine.windowed_bytes
        return PrefixFiles(
            order.cache_dir, kv_identity(lm), size, order.cache_size, of_windows=of_windows, say=self._say
        )

    def _count(self, done: int, total: int) -> None:
        self._send(LoadProgress(done, total))

    def _say(self, words: str) -> None:
        self._send(LoadLine(words))


def _facts(order: LoadOrder, lm: models.LM, capacity: Capacity, files: PrefixFiles | None) -> LoadedFacts:
    engine = lm.engine
    return LoadedFacts(
        public_name=public_name(lm),
        digest=weights_digest(lm.path),
        precision=engine.precision,
        kv=engine.kv,
        isa=engine.isa,
        how_computed=lm.how_computed,
        threads=engine.threads,
        weight_bytes=engine.weight_bytes,
        vocab_size=lm.config.vocab_size,
        trained_window=lm.config.n_positions,
        parameters=lm.n_params,
        layers=lm.config.n_layer,
        heads=lm.config.n_head,
        capacity=capacity,
        cache=None if files is None else CacheFacts(files.folder, files.limit, *files.count()),
        remarks=load_remarks(lm, order.precision),
        details=load_details(lm),
    )


def _words(error: BaseException) -> str:
    """Return the words of an error; a system's error with the file that it is about."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)
