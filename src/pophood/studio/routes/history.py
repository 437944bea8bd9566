"""/studio/api/conversations: the history, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from pophood.errors import PophoodError, one_line, quoted
from pophood.openai.errors import SERVER, ApiError, invalid
from pophood.serve.protocol.responses import Json
from pophood.serve.protocol.schemas import read_object
from pophood.studio.bodies import ConversationChange, NewConversation, NewNode, NodeChange, Nothing, read
from pophood.studio.history.conversations import History
from pophood.studio.history.export import as_json, as_markdown, as_notebook
from pophood.studio.history.importing import imported
from pophood.studio.history.notebook import NotebookModel

ResultT = TypeVar("ResultT")
TYPES = {  # of files: the media type, and the end of the name
    "markdown": ("text/markdown; charset=utf-8", ".md"),
    "json": ("application/json", ".json"),
    "notebook": ("application/x-ipynb+json", ".ipynb"),
}
SAFE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}


class HistoryDesk:
    """Answers requests about conversations. What is answered is on the disk."""

    def __init__(self, path: Path, opened: Callable[[str | None], NotebookModel]) -> None:
        """Open the database; `opened` tells how a notebook opens a model. Raises BadFile, PophoodError."""
        self._history, self._opened = History(path), opened
        self._thread = ThreadPoolExecutor(1, "history")

    def close(self) -> None:
        """Wait for changes that are under way, and close the database."""
        self._thread.shutdown()
        self._history.close()

    async def use(self, work: Callable[[History], ResultT]) -> ResultT:
        """Return `work(history)`. Raises ApiError; 500 for a disk that takes no more."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._history)
        except PophoodError as error:
            raise ApiError(500, one_line(error), SERVER, code="history_failed") from error

    async def listed(self, request: Request) -> Response:
        search, deleted = request.query_params.get("search", ""), request.query_params.get("deleted", "")
        there = await self.use(lambda history: history.listed(search, deleted=deleted in ("1", "true")))
        return Json({"conversations": there})

    async def create(self, request: Request) -> Response:
        values = _given(await read(request, NewConversation))
        return Json(await self.use(lambda history: history.create(values)), 201)

    async def one(self, conversation: str) -> Response:
        return Json(await self.use(lambda history: history.conversation(conversation)))

    async def change(self, conversation: str, request: Request) -> Response:
        values = _given(await read(request, ConversationChange))
        return Json(await self.use(lambda history: history.change(conversation, values)))

    async def delete(self, conversation: str, request: Request) -> Response:
        forever = request.query_params.get("forever", "") in ("1", "true")
        await self.use(lambda history: history.delete(conversation, forever=forever))
        return Json({"id": conversation, "deleted": True})

    async def restore(self, conversation: str, request: Request) -> Response:
        await read(request, Nothing)
        return Json(await self.use(lambda history: history.restore(conversation)))

    async def export(self, conversation: str, request: Request) -> Response:
        """Answer a conversation as a file: `format` is markdown, json or notebook; `leaf` ends the path."""
        kind, leaf = request.query_params.get("format", "markdown"), request.query_params.get("leaf")
        if kind not in TYPES:
            raise invalid(f"format: got {quoted(kind)}; wanted one of {', '.join(TYPES)}", "format")
        whole = await self.use(lambda history: history.conversation(conversation))
        if kind == "notebook":
            text = as_notebook(whole, self._opened(whole["model"]), leaf)
        else:
            text = as_markdown(whole, leaf) if kind == "markdown" else as_json(whole, leaf)
        media, ending = TYPES[kind]
        name = re.sub(r"[^A-Za-z0-9]+", "-", whole["title"]).strip("-")[:60] or "conversation"
        headers = {
            "content-disposition": f'attachment; filename="{name}{ending}"',
            "cache-control": "no-store",
        }
        return Response(text.encode(), media_type=media, headers=headers | SAFE)

    async def take(self, request: Request) -> Response:
        values, nodes = imported(read_object(await request.body()))
        return Json(await self.use(lambda history: history.create(values, nodes)), 201)

    async def write_node(self, conversation: str, request: Request) -> Response:
        values = (await read(request, NewNode)).model_dump()
        return Json({"id": await self.use(lambda history: history.write(conversation, values))}, 201)

    async def change_node(self, conversation: str, node: str, request: Request) -> Response:
        values = _given(await read(request, NodeChange))
        await self.use(lambda history: history.change_node(conversation, node, values))
        return Json({"id": node})

    async def delete_node(self, conversation: str, node: str) -> Response:
        await self.use(lambda history: history.delete_node(conversation, node))
        return Json({"id": node, "deleted": True})

    async def restore_node(self, conversation: str, node: str, request: Request) -> Response:
        await read(request, Nothing)
        await self.use(lambda history: history.restore_node(conversation, node))
        return Json({"id": node})


def _given(body: ConversationChange | NodeChange) -> dict[str, Any]:
    """Return the fields that a request has."""
    return body.model_dump(exclude_unset=True)
