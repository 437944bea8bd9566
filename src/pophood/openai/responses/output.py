"""OutputItems: the pieces of an answer as items of a response, and the events that tell of them.

text   output_item.added, content_part.added, output_text.delta ..., output_text.done, content_part.done,
       output_item.done
call   output_item.added, function_call_arguments.delta ..., function_call_arguments.done, output_item.done
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pophood.openai.logprobs import TokenEntry
from pophood.openai.tools.parser import CallPiece, Piece

Event = dict[str, Any]  # its type, and everything but its number
Ids = Callable[[str, int], str]  # from "msg", "fc" or "call" and a number to an id
Spelled = Callable[[Sequence[TokenEntry]], list[dict[str, Any]]]  # log-probabilities as JSON


class OutputItems:
    """The items of one response, in order; `output` is complete after `close`."""

    def __init__(self, ids: Ids, spelled: Spelled) -> None:
        self.output: list[dict[str, Any]] = []
        self._ids, self._spelled = ids, spelled
        self._entries: list[TokenEntry] = []  # of tokens whose text has not come
        self._logprobs: list[dict[str, Any]] = []  # of the message that is open
        self._parts: list[str] = []  # the text, or the arguments, of the item that is open
        self._open = False

    def take(self, pieces: Sequence[Piece], entries: Sequence[TokenEntry]) -> Iterator[Event]:
        """Take new pieces; yield what they change."""
        self._entries += entries
        for piece in pieces:
            if isinstance(piece, str):
                if piece:
                    yield from self._text(piece)
            else:
                yield from self._call(piece)

    def close(self, *, complete: bool) -> Iterator[Event]:
        """End the last item; a response without any has an empty message."""
        if not self.output:
            yield from self._begin_message()
        yield from self._end("completed" if complete else "incomplete")

    # ---- texts ----

    def _text(self, text: str) -> Iterator[Event]:
        if not self._open or self._item["type"] != "message":
            yield from self._end()
            yield from self._begin_message()
        logprobs = self._spelled(self._entries)
        self._entries = []
        self._logprobs += logprobs
        self._parts.append(text)
        yield self._event("output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _begin_message(self) -> Iterator[Event]:
        self._logprobs = []
        id_ = self._ids("msg", len(self.output))
        head = {"id": id_, "type": "message", "status": "in_progress", "role": "assistant"}
        yield self._begin(head | {"content": []})
        yield self._event("content_part.added", content_index=0, part=self._part)

    def _end_message(self) -> Iterator[Event]:
        text, place = "".join(self._parts), {"content_index": 0}
        self._item["content"] = [self._part]
        yield self._event("output_text.done", text=text, logprobs=self._logprobs, **place)
        yield self._event("content_part.done", part=self._part, **place)

    @property
    def _part(self) -> dict[str, Any]:
        text = "".join(self._parts)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self._logprobs)}

    # ---- calls ----

    def _call(self, call: CallPiece) -> Iterator[Event]:
        if call.name is not None:
            yield from self._end()
            ids = {"id": self._ids("fc", call.number), "call_id": self._ids("call", call.number)}
            own = {"type": "function_call", "status": "in_progress", "name": call.name, "arguments": ""}
            yield self._begin(ids | own)
        if call.arguments:
            self._parts.append(call.arguments)
            yield self._event("function_call_arguments.delta", delta=call.arguments)

    def _end_call(self) -> Iterator[Event]:
        self._item["arguments"] = "".join(self._parts)
        arguments, name = self._item["arguments"], self._item["name"]
        yield self._event("function_call_arguments.done", arguments=arguments, name=name)

    # ---- items ----

    @property
    def _item(self) -> dict[str, Any]:
        return self.output[-1]

    def _begin(self, item: dict[str, Any]) -> Event:
        self.output.append(item)
        self._open, self._parts = True, []
        return {
            "type": "response.output_item.added",
            "output_index": len(self.output) - 1,
            "item": dict(item),
        }

    def _end(self, status: str = "completed") -> Iterator[Event]:
        if not self._open:
            return
        yield from self._end_message() if self._item["type"] == "message" else self._end_call()
        self._item["status"] = status
        self._open = False
        place = len(self.output) - 1
        yield {"type": "response.output_item.done", "output_index": place, "item": dict(self._item)}

    def _event(self, kind: str, **fields: Any) -> Event:
        place = {"item_id": self._item["id"], "output_index": len(self.output) - 1}
        return {"type": f"response.{kind}", **place, **fields}
