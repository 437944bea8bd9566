"""Answers in Ollama's protocol: lines of JSON, or one object; errors are `{"error": "..."}`."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.types import Send

from pophood.openai.asked import Asked
from pophood.openai.assembly import Growth
from pophood.openai.errors import ApiError
from pophood.openai.tools.parser import calls_of, text_of
from pophood.serve.client import EngineClient
from pophood.serve.messages import UNWATCHED
from pophood.serve.ollama.shapes import OllamaShape
from pophood.serve.protocol.assembly import EventAssembly
from pophood.serve.protocol.replies import Replies
from pophood.serve.protocol.responses import Json, Watched, respond

MEDIA = b"application/x-ndjson"


def refused(error: ApiError) -> Json:
    """Return the response of an error."""
    return Json({"error": error.message}, error.status, error.headers)


def answer(asked: Asked, shape: OllamaShape, client: EngineClient, *, most_open: int) -> Watched:
    """Return the response to a request, computed while it is written, for as long as its client is there."""

    async def answering(send: Send) -> None:
        lines = LineStream(send)
        try:
            pause = asked.pause if asked.stream else UNWATCHED
            async with Replies(client, asked.jobs, most_open=most_open, pause=pause) as replies:
                await _write(asked, shape, replies, lines)
        except ApiError as error:
            if lines.opened:
                await lines.write({"error": error.message}, last=True)
            else:
                await respond(send, refused(error))

    return Watched(answering)


async def _write(asked: Asked, shape: OllamaShape, replies: Replies, lines: LineStream) -> None:
    assembly, began = EventAssembly(asked), time.perf_counter()
    whole = Growth()
    while not replies.done:
        for growth in assembly.take(await replies.next()).values():
            whole.pieces += growth.pieces
            whole.entries += growth.entries
            text, logprobs = text_of(growth.pieces), _logprobs(asked, growth)
            if asked.stream and (text or logprobs):
                await lines.write(shape.piece(text, (), logprobs))
    calls = calls_of(whole.pieces)
    end = shape.end(assembly.ends[0][1], assembly.counts, time.perf_counter() - began)
    if not asked.stream:
        piece = shape.piece(text_of(whole.pieces), calls, _logprobs(asked, whole))
        await respond(lines.send, Json(piece | end))
        return
    if calls:
        await lines.write(shape.piece("", calls, []))
    await lines.write(shape.piece("", (), []) | end, last=True)


def _logprobs(asked: Asked, growth: Growth) -> list[dict[str, Any]]:
    return [] if asked.speller is None else asked.speller.chat(growth.entries)


class LineStream:
    """Writes a stream of lines, whose headers leave with the first one."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.opened = False

    async def write(self, data: Any, *, last: bool = False) -> None:
        if not self.opened:
            self.opened = True
            headers = [(b"content-type", MEDIA), (b"cache-control", b"no-store")]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        body = json.dumps(data, separators=(",", ":")).encode() + b"\n"
        await self.send({"type": "http.response.body", "body": body, "more_body": not last})
