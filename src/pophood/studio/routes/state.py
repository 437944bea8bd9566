"""GET /studio/api/state: what the page must know of the server and this machine. (small: one route)"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from pophood import __version__, system
from pophood.hub.net import Outside
from pophood.serve.catalog import Catalog, HostedModel
from pophood.serve.protocol.responses import Json
from pophood.serve.routes import models
from pophood.studio.history.notebook import NotebookModel


class StateDesk:
    """Answers how things are. `fault` of a model says why it does not compute just now.

    `opened` tells under which name the command line opens a model and its adapters; `restore` loads adapters
    that were in use before, and returns a line for each one that is missing.
    """

    def __init__(
        self,
        catalog: Catalog,
        opened: Callable[[str | None], NotebookModel],
        threads: int,
        restore: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._catalog, self._opened, self._threads = catalog, opened, threads
        self._restore = restore

    async def state(self) -> Response:
        missing = await self._restore()
        return Json(self._state() | {"missing": missing})

    def _state(self) -> dict[str, Any]:
        every = self._catalog.all()
        first = every[0]
        return {
            "version": __version__,
            "model": first.served.name,
            "models": [self._model(one) for one in every],
            "adapters": list(first.served.adapters),
            "tune": importlib.util.find_spec("torch") is not None,
            "connections": {"outside": Outside.opened, "opened": Outside.told()},
            "machine": {
                "memory": system.available_memory(),
                "threads": self._threads,
            },
        }

    def _model(self, hosted: HostedModel) -> dict[str, Any]:
        served, opened = hosted.served, self._opened(hosted.served.name)
        return models.described(hosted) | {
            "fault": hosted.client.fault,
            "layers": served.layers,
            "heads": served.heads,
            "opened_as": opened.name,
            "opened_with": opened.options(),
            "adapter_places": dict(opened.adapters),
        }
