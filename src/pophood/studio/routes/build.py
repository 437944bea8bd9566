"""Studio: every route of the page and of its API, added to the app of `serve`.

The guards around the app hold for these routes as for all others: Host, Origin, key or cookie, sizes, and
`Content-Type: application/json` for what has a body. Uploads are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from pophood import system
from pophood.serve.catalog import Catalog
from pophood.serve.process.records import LoadOrder
from pophood.studio.routes.history import HistoryDesk
from pophood.studio.routes.pages import Pages
from pophood.studio.routes.state import StateDesk
from pophood.studio.routes.views import ViewDesk

PLACE = "/studio/"
API = "/studio/api"
Routes = Mapping[tuple[str, str], Callable[..., Any]]


class Studio:
    """The studio of one server, whose files are in `folder`. `close` it at the end.

    `order` says how the first model is computed.
    """

    def __init__(self, folder: Path, catalog: Catalog, *, order: LoadOrder, dist: Path | None = None) -> None:
        """Open the history. Raises BadFile, PophoodError."""
        self._pages = Pages(dist)
        self._state = StateDesk(catalog, order.threads or system.default_threads())
        self._views = ViewDesk(catalog)
        self._history = HistoryDesk(folder / "history.sqlite3")

    def close(self) -> None:
        """End what still runs, and close the history."""
        self._history.close()

    def add_to(self, app: FastAPI) -> tuple[str, ...]:
        """Add the routes to an app, and return the paths at which files are uploaded."""
        for (method, path), endpoint in self.routes.items():
            app.add_api_route(
                path,
                endpoint,
                methods=[method],
                response_model=None,
                response_class=Response,
                include_in_schema=False,
            )
        return ()

    @property
    def routes(self) -> Routes:
        """Every route: its method and its path, and what answers."""
        pages, state, history = self._pages, self._state, self._history
        every, one = f"{API}/conversations", f"{API}/conversations/{{conversation}}"
        node = f"{one}/nodes/{{node}}"
        return {
            ("GET", PLACE): pages.page,
            ("GET", PLACE.rstrip("/")): pages.bare,
            ("GET", "/studio/assets/{name:path}"): pages.asset,
            ("GET", f"{API}/state"): state.state,
            ("GET", f"{API}/views"): self._views.listed,
            ("POST", f"{API}/views/{{name}}"): self._views.view,
            ("GET", every): history.listed,
            ("POST", every): history.create,
            ("GET", one): history.one,
            ("PATCH", one): history.change,
            ("DELETE", one): history.delete,
            ("POST", f"{one}/restore"): history.restore,
            ("POST", f"{one}/nodes"): history.write_node,
            ("PATCH", node): history.change_node,
            ("DELETE", node): history.delete_node,
            ("POST", f"{node}/restore"): history.restore_node,
        }
