"""Fleet: the models of one server, each in a process of its own. Loaded and unloaded by name, or by use.

POST /models/load, a request for an unloaded model ──► room (the idle one that was used longest ago leaves)
                                                   ──► its process starts ──► held requests go on
POST /models/unload, --idle-unload                 ──► its process ends; what is known of it stays
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from pophood.errors import PophoodError, one_line, quoted
from pophood.openai.errors import INVALID, MISSING, SERVER, ApiError, invalid
from pophood.openai.model import ServedAdapter, ServedModel
from pophood.serve.catalog import HostedModel
from pophood.serve.messages import Failed, Gauges
from pophood.serve.process.records import LoadedFacts, LoadOrder
from pophood.serve.process.supervisor import EngineProcess, Say

CONFLICT = 409


class Fleet:
    """A catalog of models, the first of which is loaded already.

    `find_order` returns how to load a name that `pophood list` shows, or None; `describe` returns what is
    known of a model once it is loaded. Both may take their time. At most `most` models are in memory at once;
    one without requests for `idle` seconds leaves it.
    """

    def __init__(
        self,
        served: ServedModel,
        engine: EngineProcess,
        *,
        find_order: Callable[[str], LoadOrder | None],
        describe: Callable[[LoadOrder, LoadedFacts], ServedModel],
        most: int,
        idle: float | None,
        say: Say,
        detail: Say,
    ) -> None:
        self._find_order, self._describe = find_order, describe
        self._most, self._idle, self._say, self._detail = most, idle, say, detail
        self._models: list[tuple[ServedModel, EngineProcess]] = []
        self._coming: set[str] = set()  # names that are loaded for the first time
        self._lock = asyncio.Lock()  # one comes or goes at a time
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: int | None = None
        self._stopping = False
        self._take(served, engine)

    def _take(self, served: ServedModel, engine: EngineProcess) -> None:
        engine.wake = partial(self._in_background, self._bring_back, served, engine)
        self._models.append((served, engine))

    # ---- the catalog ----

    def find(self, name: str | None) -> HostedModel:
        for served, engine in self._models:
            if served.answers_to(name):
                return HostedModel(served, engine.client, engine.state)
        if name in self._coming:
            message = f"The model {quoted(name or '')} is being loaded: try again shortly."
            raise ApiError(503, message, SERVER, "model", "model_loading")
        there = ", ".join(quoted(served.name) for served, _ in self._models)
        message = f"The model {quoted(name or '')} does not exist; there is: {there}."
        raise ApiError(404, message, MISSING, "model", "model_not_found")

    def all(self) -> list[HostedModel]:
        return [HostedModel(served, engine.client, engine.state) for served, engine in self._models]

    async def load(self, name: str) -> None:
        """Load a model that `pophood list` shows, and wait until it is there. Raises ApiError.

        400 for one that is loaded, 404 for another name, 409 if there is no room for it.
        """
        async with self._lock:
            known = self._known(name)
            if known is not None and known[1].state != "unloaded":
                raise invalid(f"{quoted(name)} is {known[1].state} already", "model", "model_loaded")
            try:
                await (self._load_new(name) if known is None else self._load(*known))
            except (PophoodError, MemoryError, RuntimeError, OSError) as error:
                raise ApiError(CONFLICT, one_line(error), INVALID, "model", "model_not_loaded") from error

    async def unload(self, name: str) -> None:
        """Let a model leave memory; its next request brings it back. Raises ApiError.

        400 for one that is not loaded, 404 for an unknown name, 409 while it computes requests.
        """
        async with self._lock:
            known = self._known(name)
            if known is None:
                raise ApiError(404, f"no model is called {quoted(name)}", MISSING, "model", "model_not_found")
            engine = known[1]
            if engine.state != "loaded":
                raise invalid(f"{quoted(name)} is {engine.state}", "model", "model_not_loaded")
            if engine.open_requests:
                message = f"{quoted(name)} computes {engine.open_requests} requests: try again later"
                raise ApiError(CONFLICT, message, INVALID, "model", "model_busy")
            await engine.unload()
            self._say(f"{known[0].name} has left memory; its next request brings it back")

    async def add_adapter(self, name: str, adapter: ServedAdapter, place: str) -> None:
        """Load an adapter beside a model, for requests that name it, in the place of one with its name.

        Raises ApiError.
        """
        async with self._lock:
            known = self._known(name)
            if known is None:
                raise ApiError(404, f"no model is called {quoted(name)}", MISSING, "model", "model_not_found")
            served, engine = known
            async with engine.client.add_adapter(adapter.name, place) as reply:
                async for event in reply:
                    if isinstance(event, Failed):
                        raise ApiError(CONFLICT, event.message, INVALID, "adapter", "adapter_not_loaded")
            engine.keep_adapter(adapter.name, place)
            adapters = {**served.adapters, adapter.name: adapter}
            self._models[self._models.index(known)] = replace(served, adapters=adapters), engine

    async def remove_adapter(self, name: str, adapter: str) -> None:
        """Let no more requests name an adapter; those that have begun end with it."""
        async with self._lock:
            for at, (served, engine) in enumerate(self._models):
                if served.answers_to(name) and adapter in served.adapters:
                    engine.forget_adapter(adapter)
                    rest = {key: one for key, one in served.adapters.items() if key != adapter}
                    self._models[at] = replace(served, adapters=rest), engine

    def _known(self, name: str) -> tuple[ServedModel, EngineProcess] | None:
        return next((one for one in self._models if one[0].answers_to(name)), None)

    # ---- coming and going, with the lock held ----

    async def _load_new(self, name: str) -> None:
        order = await asyncio.to_thread(self._find_order, name)
        if order is None:
            message = f"no model on this machine is called {quoted(name)} (see `pophood list`)"
            raise ApiError(404, message, MISSING, "model", "model_not_found")
        engine = EngineProcess(order, say=self._say, detail=self._detail)
        self._coming.add(name)
        try:
            await self._make_room(order.name)
            await engine.load(self._reserved())
            served = await asyncio.to_thread(self._describe, order, engine.facts)
        except BaseException:
            engine.end(0)
            raise
        finally:
            self._coming.discard(name)
        self._take(served, engine)
        self._came(served, engine)

    async def _load(self, served: ServedModel, engine: EngineProcess) -> None:
        await self._make_room(served.name)
        await engine.load(self._reserved())
        self._came(served, engine)

    def _came(self, served: ServedModel, engine: EngineProcess) -> None:
        if self._threads is not None:
            engine.use_threads(self._threads)
        self._say(f"{served.name} is loaded, {engine.facts.how_computed}")

    async def _make_room(self, name: str) -> None:
        """Unload the idle model that was used longest ago if there are as many as there may be."""
        loaded = [one for one in self._models if one[1].state != "unloaded"]
        if len(loaded) < self._most:
            return
        idle = [one for one in loaded if one[1].state == "loaded" and not one[1].open_requests]
        if not idle:
            message = f"{len(loaded)} of at most {self._most} models are loaded, and all compute requests"
            raise ApiError(CONFLICT, message, INVALID, "model", "models_busy")
        served, engine = min(idle, key=lambda one: one[1].used)
        await engine.unload()
        self._say(f"{served.name} has left memory for {name} (--max-models {self._most})")

    def _reserved(self) -> int:
        return sum(engine.unused_memory for _, engine in self._models)

    # ---- by use ----

    def _in_background(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        if not self._stopping:
            task = asyncio.get_running_loop().create_task(work(*arguments))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bring_back(self, served: ServedModel, engine: EngineProcess) -> None:
        """Load a model for the requests that are held for it."""
        async with self._lock:
            if not engine.wanted or engine.state != "unloaded":
                return
            try:
                await self._load(served, engine)
            except (ApiError, PophoodError, MemoryError, RuntimeError, OSError) as error:
                engine.fail_held(one_line(error))
                self._say(f"{served.name} could not be loaded: {one_line(error)}")

    async def _put_away(self, served: ServedModel, engine: EngineProcess) -> None:
        async with self._lock:
            if engine.state == "loaded" and not engine.open_requests and self._is_idle(engine):
                await engine.unload()
                self._say(f"{served.name} has left memory after {self._idle:g} s without requests")

    def _is_idle(self, engine: EngineProcess) -> bool:
        return self._idle is not None and time.monotonic() - engine.used >= self._idle

    def look(self) -> None:
        """Let models that nobody has used for long leave memory; called now and then."""
        for served, engine in self._models:
            if engine.open_requests:
                engine.used = time.monotonic()
            elif engine.state == "loaded" and self._is_idle(engine):
                self._in_background(self._put_away, served, engine)

    # ---- the server's life ----

    @property
    def open_requests(self) -> int:
        """The number of requests that have not ended."""
        return sum(engine.open_requests for _, engine in self._models)

    @property
    def restarts(self) -> int:
        """The number of starts after a process ended by itself."""
        return sum(engine.restarts for _, engine in self._models)

    @property
    def loaded(self) -> int:
        """The number of models in memory."""
        return sum(engine.state == "loaded" for _, engine in self._models)

    @property
    def fault(self) -> str | None:
        """The reason why a model that should compute does not, or None."""
        return next((engine.client.fault for _, engine in self._models if engine.client.fault), None)

    @property
    def gauges(self) -> Gauges:
        """The state of all workers together."""
        every = [engine.client.gauges for _, engine in self._models]
        return Gauges(
            sum(one.running for one in every),
            sum(one.waiting for one in every),
            sum(one.blocks_used for one in every),
            sum(one.blocks_total for one in every),
            sum(one.blocks_cached for one in every),
        )

    def use_threads(self, threads: int) -> None:
        """Let every model compute with so many threads."""
        self._threads = threads
        for _, engine in self._models:
            engine.use_threads(threads)

    def begin(self) -> None:
        """Take requests, in the running event loop."""
        self._models[0][1].begin()

    def drain(self, grace: float) -> None:
        """Refuse new requests; the others have `grace` seconds."""
        self._stopping = True
        for _, engine in self._models:
            engine.drain(grace)

    def end(self, seconds: float) -> None:
        """End every process within so many seconds."""
        end = time.monotonic() + seconds
        self._stopping = True
        for _, engine in self._models:
            engine.end(max(end - time.monotonic(), 0.0))
