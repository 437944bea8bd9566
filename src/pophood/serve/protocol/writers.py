"""The writers of streams: chunks of chats and completions, or the events of a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pophood.openai.asked import Asked
from pophood.openai.assembly import Growth
from pophood.openai.choices import Reason, inspected
from pophood.openai.errors import ApiError
from pophood.openai.responses.output import Event
from pophood.openai.responses.shape import ResponseShape
from pophood.openai.tools.parser import text_of
from pophood.serve.protocol import sse


class ChunkWriter:
    """Writes the chunks of a chat or completion."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._shape = asked, asked.shape

    def opening(self) -> bytes:
        """Open every choice."""
        opened = (self._shape.opening(index) for index in range(self._asked.size))
        return b"".join(sse.event(self._shape.piece([one])) for one in opened)

    def moved(self, progress: Mapping[str, Any]) -> bytes:
        """Tell how much of the prompts has been read."""
        return sse.event(self._shape.piece([], prompt_progress=progress))

    def grown(self, grown: Mapping[int, Growth]) -> bytes:
        """Tell what is new of the choices."""
        lines = []
        for index, growth in grown.items():
            text, calls = text_of(growth.pieces), [one for one in growth.pieces if not isinstance(one, str)]
            if text or growth.entries or growth.insides or not calls:
                choice = self._shape.grown(index, text, growth.entries)
                lines.append(self._shape.piece([choice | inspected(growth.insides or None)]))
            lines += [self._shape.piece([self._shape.called(index, call)]) for call in calls]
        return b"".join(map(sse.event, lines))

    def ended(self, index: int, reason: Reason, details: Mapping[str, Any]) -> bytes:
        """End a choice; the last one has `details` of the whole answer."""
        return sse.event(self._shape.piece([self._shape.ended(index, reason)], **details))

    def closing(self, usage: Mapping[str, Any]) -> bytes:
        """End the stream."""
        counted = [sse.event(self._shape.piece([], usage=usage))] if self._asked.usage_later else []
        return b"".join([*counted, sse.DONE])

    def failed(self, error: ApiError) -> bytes:
        """End the stream with an error."""
        return sse.event(error.body)


class ResponseWriter(ChunkWriter):
    """Writes the events of a response, which are numbered."""

    def __init__(self, asked: Asked, shape: ResponseShape) -> None:
        super().__init__(asked)
        self._response, self._items = shape, shape.items()
        self._next = 0
        self._reason: Reason | None = None
        self._details: Mapping[str, Any] = {}

    def opening(self) -> bytes:
        return self._events(self._response.begun())

    def moved(self, progress: Mapping[str, Any]) -> bytes:
        return b""  # the protocol has no such event

    def grown(self, grown: Mapping[int, Growth]) -> bytes:
        return b"".join(
            self._events(self._items.take(growth.pieces, growth.entries)) for growth in grown.values()
        )

    def ended(self, index: int, reason: Reason, details: Mapping[str, Any]) -> bytes:
        self._reason, self._details = reason, details
        return self._events(self._items.close(complete=reason != "length"))

    def closing(self, usage: Mapping[str, Any]) -> bytes:
        return self._events([self._response.finished(self._items, self._reason, usage, self._details)])

    def failed(self, error: ApiError) -> bytes:
        told = error.body["error"]
        return self._events([{**told, "type": "error", "error": told}])

    def _events(self, events: Iterable[Event]) -> bytes:
        lines = []
        for event in events:
            lines.append(sse.event(event | {"sequence_number": self._next}, event["type"]))
            self._next += 1
        return b"".join(lines)


def writer_of(asked: Asked) -> ChunkWriter:
    """Return the writer of a stream."""
    shape = asked.shape
    return ResponseWriter(asked, shape) if isinstance(shape, ResponseShape) else ChunkWriter(asked)
