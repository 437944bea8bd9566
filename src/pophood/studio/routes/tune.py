"""/studio/api/files and /studio/api/tune: training data, the plan of a run, runs and their events."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from pophood.errors import PophoodError, one_line
from pophood.openai.errors import ApiError, invalid
from pophood.serve.catalog import Catalog
from pophood.serve.process.records import LoadOrder
from pophood.serve.protocol import sse
from pophood.serve.protocol.responses import EventStream, Json, Watched, refusal, respond
from pophood.studio.bodies import Count, Name, Nothing, Number, StudioBody, read
from pophood.studio.tuning.adapters import RunAdapters
from pophood.studio.tuning.files import DataFiles
from pophood.studio.tuning.process import asked_once
from pophood.studio.tuning.runs import Runs, arguments_of, check_trainer

EVERY = 0.25  # seconds between two looks at a run
SILENCE = 40  # looks after which a stream says that it lives
CONFINED = {  # a page of one file, whose own policy allows its own script and style by their hashes
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
Layout = Literal["auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"]
ResultT = TypeVar("ResultT")


class TuneBody(StudioBody):
    """The files that a run learns from, and how it learns."""

    files: Annotated[list[Name], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    model: Name | None = None
    method: Literal["lora", "last", "full"] | None = None
    minutes: Annotated[Number, Field(gt=0, le=100_000)] | None = None
    steps: Annotated[Count, Field(ge=1)] | None = None
    epochs: Annotated[Number, Field(gt=0)] | None = None
    rank: Annotated[Count, Field(ge=1)] | None = None
    learning_rate: Annotated[Number, Field(gt=0)] | None = None
    length: Annotated[Count, Field(ge=1)] | None = None
    batch_size: Annotated[Count, Field(ge=1)] | None = None
    validation: Annotated[Number, Field(ge=0, lt=1)] | None = None
    seed: Count | None = None
    format: Literal["auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"] | None = (
        None
    )
    answers_only: bool | None = None
    prompts: Annotated[list[str], Field(max_length=8)] | None = None
    lens: bool | None = None


class ExportBody(StudioBody):
    """The form in which a result is written: a GGUF file, or a folder as Hugging Face has it."""

    to: Literal["gguf", "folder"]
    type: Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"] | None = None


class TuneDesk:
    """Answers requests about training data and runs.

    `order` is that of the first model; `places` are the folders of adapters by name, to which those of runs
    are added; `say` tells a line.
    """

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        order: LoadOrder,
        places: dict[str, str],
        say: Callable[[str], object],
    ) -> None:
        self._catalog, self._order = catalog, order
        self._files, self._runs = DataFiles(folder / "files"), Runs(folder / "runs")
        self._adapters = RunAdapters(self._runs, catalog, places, say)
        self.restore = self._adapters.restore

    def close(self) -> None:
        """Let runs save and end; they go on with `resume`."""
        self._runs.pause_all()

    # ---- files ----

    async def files(self) -> Response:
        return Json({"files": await asyncio.to_thread(self._files.listed)})

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        if request.headers.get("content-type") != "application/octet-stream":
            raise ApiError(415, "wanted the bytes of a file as application/octet-stream", code="not_bytes")
        return Json(await self._files.take(name, request.stream()), 201)

    async def remove_file(self, name: str) -> Response:
        await asyncio.to_thread(self._files.delete, name)
        return Json({"name": name, "deleted": True})

    # ---- runs ----

    async def plan(self, request: Request) -> Response:
        """Answer what `pophood tune --show` and `--plan` say: the data as it is read, time and memory."""
        words = self._words(await read(request, TuneBody))

        async def answering(send: Send) -> None:
            try:
                response = Json(await self._plan(words))
            except ApiError as error:
                response = refusal(error)
            await respond(send, response)

        return Watched(answering)

    async def _plan(self, words: Sequence[str]) -> dict[str, Any]:
        """Return a plan; its processes end with this task, so with the page that asks."""
        shown, said = await asked_once("tune", [*words, "--show", "--json"])
        if importlib.util.find_spec("torch") is None:
            return {**shown, "plan": None, "said": said}
        plan, more = await asked_once("tune", [*words, "--plan", "--json"])
        return {**shown, "plan": plan, "said": [*said, *(line for line in more if line not in said)]}

    async def start(self, request: Request) -> Response:
        body = await read(request, TuneBody)
        words = self._words(body)
        asked = body.model_dump(exclude_none=True) | {"model": self._catalog.find(body.model).served.name}
        return Json({"run": await self._do(lambda: self._start(words, asked))}, 201)

    def _start(self, words: Sequence[str], asked: dict[str, Any]) -> str:
        check_trainer(importlib.util.find_spec("torch") is not None)
        others = {name for one in self._catalog.all() for name in one.served.adapters}
        return self._runs.start(words, asked, others)

    def _words(self, body: TuneBody) -> list[str]:
        served = self._catalog.find(body.model).served
        first = self._catalog.all()[0].served.name == served.name
        options = body.model_dump(exclude={"files", "model", "name"}, exclude_none=True)
        files = [self._files.path(name) for name in body.files]
        if sum(name in options for name in ("minutes", "steps", "epochs")) > 1:
            raise invalid("give one of `minutes`, `steps` and `epochs`", "minutes")
        return arguments_of(files, self._order.name if first else served.name, options)

    async def listed(self) -> Response:
        return Json({"runs": await asyncio.to_thread(self._runs.listed)})

    async def one(self, run: str) -> Response:
        return Json(await self._do(lambda: self._runs.one(run)))

    async def report(self, run: str) -> Response:
        """Answer the report of a run, a page that is confined to itself."""
        page = await self._do(lambda: self._runs.report(run))
        return Response(page, media_type="text/html; charset=utf-8", headers=CONFINED)

    async def pause(self, run: str, request: Request) -> Response:
        return await self._told(run, request, self._runs.pause)

    async def resume(self, run: str, request: Request) -> Response:
        return await self._told(run, request, self._runs.resume)

    async def cancel(self, run: str, request: Request) -> Response:
        return await self._told(run, request, self._runs.cancel)

    async def delete(self, run: str) -> Response:
        told = await self._do(lambda: self._runs.one(run))
        await self._do(lambda: self._runs.delete(run))
        await self._adapters.forget(told)
        return Json({"id": run, "deleted": True})

    async def export(self, run: str, request: Request) -> Response:
        """Write the result of a run for other programs, with the proof that `pophood export` makes."""
        asked = await read(request, ExportBody)
        words, place = await self._do(lambda: self._runs.export(run, asked.to, asked.type))
        told, said = await asked_once("export", [*words, "--json"])
        return Json({"place": str(place), "receipt": told, "said": said}, 201)

    async def use(self, run: str, request: Request) -> Response:
        """Load a run's adapter beside its model, under the run's name, so that conversations can name it."""
        await read(request, Nothing)
        told = await self._do(lambda: self._runs.one(run))
        await self._adapters.use(told)
        return Json({"adapter": told["name"], "model": told["model"]})

    async def _told(self, run: str, request: Request, work: Callable[[str], None]) -> Response:
        await read(request, Nothing)
        await self._do(lambda: work(run))
        return Json(await self._do(lambda: self._runs.one(run)))

    async def _do(self, work: Callable[[], ResultT]) -> ResultT:
        try:
            return await asyncio.to_thread(work)
        except PophoodError as error:
            raise ApiError(409, one_line(error)) from error

    # ---- events ----

    async def events(self, run: str, request: Request) -> Response:
        """Stream a run's events from `after` on: each as its line has it, what it says, and how it stands."""
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 9:
            raise invalid("after: wanted a number of events", "after")
        await self._do(lambda: self._runs.one(run))

        async def answering(send: Send) -> None:
            stream = EventStream(send)
            await stream.open()
            with suppress(ApiError, FileNotFoundError):  # the run was deleted meanwhile
                await self._follow(stream, run, int(after))
            await stream.close()

        return Watched(answering)

    async def _follow(self, stream: EventStream, run: str, after: int) -> None:
        said, state, silent = 0, "", 0
        while True:
            now = (await asyncio.to_thread(self._runs.one, run))[
                "state"
            ]  # before the events that it ends with
            lines = await asyncio.to_thread(self._runs.said, run, said)
            events = await asyncio.to_thread(self._runs.events, run, after)
            said, after = said + len(lines), after + len(events)
            words = [sse.event({"event": "said", "text": line}) for line in lines]
            words += [sse.event(event) for event in events]
            if now != state:
                words.append(sse.event({"event": "state", "state": now}))
            silent = 0 if words else silent + 1
            if silent >= SILENCE:
                words, silent = [sse.KEEP_ALIVE], 0
            if words:
                await stream.write(b"".join(words))
            if now == state != "running":
                return
            state = now
            await asyncio.sleep(EVERY)
