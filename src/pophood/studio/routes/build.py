"""Studio: every route of the page and of its API, added to the app of `serve`.

The guards around the app hold for these routes as for all others: Host, Origin, key or cookie, sizes, and
`Content-Type: application/json` for what has a body. Uploads are bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from pophood import system
from pophood.serve.catalog import Catalog
from pophood.serve.process.records import LoadOrder
from pophood.studio.history.notebook import NotebookModel
from pophood.studio.routes.course import CourseDesk
from pophood.studio.routes.history import HistoryDesk
from pophood.studio.routes.library import LibraryDesk
from pophood.studio.routes.pages import Pages
from pophood.studio.routes.state import StateDesk
from pophood.studio.routes.tune import TuneDesk
from pophood.studio.routes.views import ViewDesk

PLACE = "/studio/"
API = "/studio/api"
Routes = Mapping[tuple[str, str], Callable[..., Any]]


class Studio:
    """The studio of one server, whose files are in `folder`. `close` it at the end.

    `order` says how the first model is computed; `say` tells a line.
    """

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        *,
        order: LoadOrder,
        say: Callable[[str], object],
        dist: Path | None = None,
    ) -> None:
        """Open the history. Raises BadFile, PophoodError."""
        self._pages = Pages(dist)
        self._views = ViewDesk(catalog)
        self._library, self._course = LibraryDesk(catalog), CourseDesk(catalog)
        places = dict(order.adapters)  # of adapters, by name; those of runs join when they are used
        self._tune = TuneDesk(folder, catalog, order, places, say)

        def opened(model: str | None) -> NotebookModel:
            served, first = catalog.find(model).served, catalog.all()[0].served
            name = order.name if served.name == first.name else served.name
            window = None if served.window == served.trained_window else served.window
            own = tuple((adapter, places[adapter]) for adapter in served.adapters if adapter in places)
            return NotebookModel(name, order.precision, order.kv, window, own)

        threads = order.threads or system.default_threads()
        self._state = StateDesk(catalog, opened, threads, self._tune.restore)
        self._history = HistoryDesk(folder / "history.sqlite3", opened)

    def begin(self) -> None:
        """Load the adapters that were in use before, in the running event loop."""
        self._restoring = asyncio.get_running_loop().create_task(self._tune.restore())

    def close(self) -> None:
        """Let a run save and end, and close the history."""
        self._tune.close()
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
        return (f"{API}/files",)

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
            ("GET", f"{one}/export"): history.export,
            ("POST", f"{API}/import"): history.take,
            ("PATCH", one): history.change,
            ("DELETE", one): history.delete,
            ("POST", f"{one}/restore"): history.restore,
            ("POST", f"{one}/nodes"): history.write_node,
            ("PATCH", node): history.change_node,
            ("DELETE", node): history.delete_node,
            ("POST", f"{node}/restore"): history.restore_node,
            ("GET", f"{API}/library"): self._library.listed,
            ("POST", f"{API}/library/{{name:path}}/pull"): self._library.pull,
            ("DELETE", f"{API}/library/{{name:path}}"): self._library.remove,
            ("GET", f"{API}/course"): self._course.contents,
            ("GET", f"{API}/course/{{page}}"): self._course.page,
            ("POST", f"{API}/course/{{page}}/run"): self._course.run,
            ("POST", f"{API}/course/{{page}}/check"): self._course.check,
            **self._tuning,
        }

    @property
    def _tuning(self) -> Routes:
        tune, one = self._tune, f"{API}/tune/{{run}}"
        return {
            ("GET", f"{API}/files"): tune.files,
            ("POST", f"{API}/files"): tune.upload,
            ("DELETE", f"{API}/files/{{name}}"): tune.remove_file,
            ("POST", f"{API}/tune/plan"): tune.plan,
            ("GET", f"{API}/tune"): tune.listed,
            ("POST", f"{API}/tune"): tune.start,
            ("GET", one): tune.one,
            ("DELETE", one): tune.delete,
            ("GET", f"{one}/events"): tune.events,
            ("GET", f"{one}/report"): tune.report,
            ("POST", f"{one}/pause"): tune.pause,
            ("POST", f"{one}/resume"): tune.resume,
            ("POST", f"{one}/cancel"): tune.cancel,
            ("POST", f"{one}/export"): tune.export,
            ("POST", f"{one}/use"): tune.use,
        }
