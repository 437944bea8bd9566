"""/studio/api/library: the models of this machine and of the catalogue; pull, with progress, and remove."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from pophood import hub, system
from pophood.errors import PophoodError, one_line
from pophood.openai.errors import ApiError, of_pophood
from pophood.serve.catalog import Catalog
from pophood.serve.protocol import sse
from pophood.serve.protocol.responses import EventStream, Json, Watched
from pophood.studio.bodies import Nothing, read

SPARE = 1.1  # memory of a model, as a part of its file: packed weights and the activations of a pass
WINDOW = 256 << 20  # bytes of keys and values that a conversation should find


class LibraryDesk:
    """Answers requests about models. Only a pull opens a connection to the outside."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def listed(self) -> Response:
        return Json(await asyncio.to_thread(self._listed))

    def _listed(self) -> dict[str, Any]:
        free = system.available_memory()
        states = {name: one.state for one in self._catalog.all() for name in _names(one.served)}
        here = [
            {
                "name": model.name,
                "size": model.size,
                "licence": model.licence or (known.licence if (known := _known(model.name)) else None),
                "source": model.source,
                "kind": model.kind,
                "where": model.where,
                "in_use": model.in_use,
                "state": states.get(model.name, "unloaded"),
                **_fit(model.size, free),
            }
            for model in hub.list_models()
        ]
        names = {model["name"] for model in here}
        others = [
            {"name": one.name, "title": one.title, "licence": one.licence, "parameters": one.n_params}
            | {"chat": one.chat, "window": one.n_positions, **_fit(4 * one.n_params, free)}
            for one in hub.catalogue.values()
            if one.name not in names
        ]
        return {"models": here, "others": others, "free_memory": free, "offline": system.offline()}

    async def remove(self, name: str) -> Response:
        if any(name in _names(one.served) and one.state != "unloaded" for one in self._catalog.all()):
            raise ApiError(409, f"{name[:80]!r} is loaded: unload it first", code="model_loaded")
        try:
            await asyncio.to_thread(hub.remove, name)
        except PophoodError as error:
            raise of_pophood(error, "name") from error
        return Json({"name": name, "deleted": True})

    async def pull(self, name: str, request: Request) -> Response:
        """Fetch a model, and tell its progress as events; a page that leaves ends it, to be resumed later."""
        await read(request, Nothing)

        async def answering(send: Send) -> None:
            stream = EventStream(send)
            await stream.open()
            await self._pull(stream, name)
            await stream.close()

        return Watched(answering)

    async def _pull(self, stream: EventStream, name: str) -> None:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        gone = False

        def say(event: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def progress(state: hub.Progress) -> None:
            if gone:
                raise PophoodError("nobody waits for this model any more")
            say({"event": "progress", "done": state.done, "size": state.size, "file": state.file})

        def announce(text: str) -> None:
            say({"event": "said", "text": text})

        def work() -> None:
            try:
                found = hub.pull(name, progress=progress, announce=announce)
                say({"event": "done", "name": found.name})
            except (PophoodError, OSError) as error:
                say({"event": "error", "message": one_line(error)})
            finally:
                say(None)

        working = loop.run_in_executor(None, work)
        try:
            while (event := await events.get()) is not None:
                await stream.write(sse.event(event))
            await working
        finally:
            gone = True


def _fit(size: int, free: int) -> dict[str, Any]:
    needed = int(SPARE * size) + WINDOW
    return {"memory": needed, "fits": needed <= free}


def _known(name: str) -> hub.KnownModel | None:
    return hub.catalogue.get(name)


def _names(served: Any) -> tuple[str, ...]:
    return (served.name, *served.aliases)
