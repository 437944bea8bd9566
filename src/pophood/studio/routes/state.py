"""GET /studio/api/state: what the page must know of the server and this machine. (small: one route)"""

from __future__ import annotations

import importlib.util
from typing import Any

from starlette.responses import Response

from pophood import __version__, system
from pophood.hub.net import Outside
from pophood.serve.catalog import Catalog
from pophood.serve.protocol.responses import Json
from pophood.serve.routes import models


class StateDesk:
    """Answers how things are. `fault` of a model says why it does not compute just now."""

    def __init__(self, catalog: Catalog, threads: int) -> None:
        self._catalog, self._threads = catalog, threads

    async def state(self) -> Response:
        return Json(self._state())

    def _state(self) -> dict[str, Any]:
        every = self._catalog.all()
        first = every[0]
        return {
            "version": __version__,
            "model": first.served.name,
            "models": [
                models.described(one)
                | {"fault": one.client.fault, "layers": one.served.layers, "heads": one.served.heads}
                for one in every
            ],
            "adapters": list(first.served.adapters),
            "tune": importlib.util.find_spec("torch") is not None,
            "connections": {"outside": Outside.opened},
            "machine": {
                "memory": system.available_memory(),
                "threads": self._threads,
            },
        }
