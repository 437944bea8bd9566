"""Adapters of runs, loaded beside their models so that conversations can name them, also by later servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pophood.adapters.open import template_of
from pophood.adapters.peft import WEIGHTS
from pophood.errors import PophoodError, one_line, quoted
from pophood.openai.errors import ApiError
from pophood.openai.model import ServedAdapter
from pophood.serve.catalog import Catalog, HostedModel
from pophood.studio.tuning.runs import CONFLICT, Runs
from pophood.text.chat.chat_template import ChatTemplate


class RunAdapters:
    """The adapters of runs that are in use, under the names of their runs.

    Their folders are put into `places`. `say` tells which ones could not be loaded again.
    """

    def __init__(
        self, runs: Runs, catalog: Catalog, places: dict[str, str], say: Callable[[str], object]
    ) -> None:
        self._runs, self._catalog, self._places, self._say = runs, catalog, places, say
        self._loaded: dict[str, int] = {}  # by id of the run: when the adapter that is loaded was written
        self._lost: dict[str, str] = {}  # by id of the run: why its adapter is not there
        self._lock = asyncio.Lock()

    async def use(self, run: Mapping[str, Any]) -> None:
        """Load the adapter of a run, or load it again if it has learned more since. Raises ApiError."""
        async with self._lock:
            await self._load(run, self._catalog.find(run["model"]))
        self._lost.pop(run["id"], None)
        await asyncio.to_thread(self._runs.note_used, run["id"])

    async def restore(self) -> list[str]:
        """Load the adapters that earlier servers used beside the models that are loaded now.

        Returns a line for each one that is missing.
        """
        async with self._lock:
            for run in await asyncio.to_thread(self._runs.used):
                if run["id"] not in self._loaded and run["id"] not in self._lost:
                    await self._restore(run)
            return list(self._lost.values())

    async def forget(self, run: Mapping[str, Any]) -> None:
        """Let no conversation name the adapter of a run that was deleted."""
        async with self._lock:
            self._lost.pop(run["id"], None)
            if self._loaded.pop(run["id"], None) is not None:
                self._places.pop(run["name"], None)
                await self._catalog.remove_adapter(run["model"], run["name"])

    async def _restore(self, run: Mapping[str, Any]) -> None:
        try:
            hosted = self._catalog.find(run["model"])
        except ApiError:
            return  # its model is not here yet
        if hosted.state != "loaded":
            return
        try:
            await self._load(run, hosted)
        except (ApiError, PophoodError, OSError) as error:
            why = error.message if isinstance(error, ApiError) else one_line(error)
            self._lost[run["id"]] = f"The adapter {quoted(run['name'])} is not loaded: {why}"
            self._say(self._lost[run["id"]])

    async def _load(self, run: Mapping[str, Any], hosted: HostedModel) -> None:
        name, served = run["name"], hosted.served
        place = await asyncio.to_thread(self._runs.adapter, run["id"])
        written = _time_of(place)
        if self._loaded.get(run["id"]) == written:
            return
        if name in served.adapters and run["id"] not in self._loaded:
            raise ApiError(CONFLICT, f"another adapter is called {quoted(name)}", code="adapter_exists")
        own = template_of(str(place))
        template = None if own is None else ChatTemplate(own, names=served.tokenizer.names)
        await self._catalog.add_adapter(run["model"], ServedAdapter(name, template), str(place))
        self._loaded[run["id"]], self._places[name] = written, str(place)


def _time_of(place: Path) -> int:
    """Return when an adapter was written, in nanoseconds. Raises ApiError if its weights are gone."""
    try:
        return (place / WEIGHTS).stat().st_mtime_ns
    except OSError as error:
        raise ApiError(CONFLICT, f"{place / WEIGHTS} is gone", code="no_adapter") from error
