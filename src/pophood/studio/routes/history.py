"""/studio/api/conversations: the history, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from pophood.errors import PophoodError, one_line
from pophood.openai.errors import SERVER, ApiError
from pophood.serve.protocol.responses import Json
from pophood.studio.bodies import ConversationChange, NewConversation, NewNode, NodeChange, Nothing, read
from pophood.studio.history.conversations import History

ResultT = TypeVar("ResultT")


class HistoryDesk:
    """Answers requests about conversations. What is answered is on the disk."""

    def __init__(self, path: Path) -> None:
        """Open the database. Raises BadFile, PophoodError."""
        self._history = History(path)
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
