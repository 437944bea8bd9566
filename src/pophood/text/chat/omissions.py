"""Finds the parts of messages that a chat template leaves out, by the sources of the rendered text.

A template may silently drop a system text, a tool call or a name. A user would then believe that the model
saw it, and tuning would teach the model answers without their reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pophood.text.chat.messages import text_of_parts
from pophood.text.chat.sourced import Source, sources_in
from pophood.text.chat.thoughts import closes_thought, thoughts_in

# Keys that are bookkeeping between programs, and keys that have a rule of their own below.
_NOT_CHECKED = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "id", "type"})


@dataclass(frozen=True, slots=True)
class Omission:
    """A part of message number `message` (from 0) that is missing from the rendered text.

    `kind` is "text" if all of the content is missing, "call" if both the function and the arguments of a tool
    call are (`name` is the function), or "field" for another key with text (`name` is the key).
    """

    message: int
    role: str
    kind: Literal["text", "call", "field"]
    name: str = ""

    def __str__(self) -> str:
        where = f"message {self.message + 1} ({self.role[:30]})"
        if self.kind == "text":
            return f"nothing of {where}"
        if self.kind == "call":
            return f"neither the name nor the arguments of the call of {self.name[:40]!r} in {where}"
        return f"nothing of {self.name[:40]!r} in {where}"


def omissions(messages: Sequence[Mapping[str, Any]], text: str) -> list[Omission]:
    """Return the parts of these messages that are missing from `text`, which was rendered from them."""
    written: dict[int | None, list[Source]] = {}
    for source in sources_in(text):
        written.setdefault(source.message, []).append(source)
    return [
        omission
        for number, message in enumerate(messages)
        for omission in _of_message(number, message, written.get(number, []))
    ]


def _of_message(number: int, message: Mapping[str, Any], written: Sequence[Source]) -> Iterator[Omission]:
    role = str(message["role"])
    paths = [source.path for source in written]
    names = {path[0] for path in paths}
    content = message.get("content")
    words = content if isinstance(content, str) else text_of_parts(content) if content else ""
    if "content" not in names and _has_words(words, role):
        yield Omission(number, role, "text")
    for at, call in enumerate(message.get("tool_calls") or ()):
        written_keys = {path[2] for path in paths if path[:2] == ("tool_calls", at)}
        if not written_keys - {"id", "type"}:
            function = call.get("function")
            function = function if isinstance(function, Mapping) else call
            yield Omission(number, role, "call", str(function.get("name", "a function")))
    legacy = message.get("function_call")
    if isinstance(legacy, Mapping) and "function_call" not in names:
        yield Omission(number, role, "call", str(legacy.get("name", "a function")))
    for name, value in message.items():
        if name not in _NOT_CHECKED and name not in names and isinstance(value, str) and value.strip():
            yield Omission(number, role, "field", str(name))


def _has_words(words: str, role: str) -> bool:
    """Return whether a text has words beyond a thought, which templates drop from past turns on purpose."""
    if role == "assistant":
        tags = thoughts_in(words)
        if tags and closes_thought(tags[-1]):
            words = words.rpartition(tags[-1])[2]
    return bool(words.strip())
