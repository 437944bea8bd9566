"""Checks the messages of a conversation and converts them to the plain data, with sources, for a template.

Errors name a message by its number and role. No template is known here.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pophood.errors import BadInput
from pophood.text.chat.sourced import KeyPath, Kind, Source, SourcedText, runs_of

MOST_DEPTH = 32  # of nested lists and objects
_SYSTEM_ROLES = frozenset({"system", "developer"})

Messages = Sequence[Mapping[str, Any]]

# The keys under which publishers keep an answer's reasoning; most templates read the first.
REASONING = ("reasoning_content", "thinking", "reasoning")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_PARTS = {
    **dict.fromkeys(("image", "image_url", "input_image"), "an image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
    **dict.fromkeys(("video", "video_url"), "a video"),
    **dict.fromkeys(("file", "input_file", "document"), "a file"),
}


def checked_messages(messages: object) -> list[Mapping[str, Any]]:
    """Return the messages if each has a role and text content; BadInput names the first that does not.

    Content is text, or a list whose parts are all text. It may be null or missing only beside a tool call or
    reasoning.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise BadInput(f"messages is {kind_of(messages)}; wanted a list of objects with role and content")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise BadInput(f"message {number} is {kind_of(message)}; wanted an object with role and content")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            got = "no role" if role is None else "an empty role" if role == "" else f"{kind_of(role)} as role"
            raise BadInput(f"message {number} has {got}; wanted text such as user or assistant")
        where = f"message {number} ({role[:30]})"
        content = message.get("content")
        if content is None:
            if not any(message.get(name) for name in ("tool_calls", "function_call", *REASONING)):
                raise BadInput(f"{where} has no content; wanted text")
        elif not isinstance(content, str):
            text_of_parts(content, where)
        _check_calls(message, where)
    return list(messages)


def text_of_parts(content: object, where: str = "a message") -> str:
    """Join a list of text parts by line ends; BadInput for a part that is not text.

    >>> text_of_parts([{"type": "text", "text": "Hi,"}, {"type": "text", "text": "you."}])
    'Hi,\\nyou.'
    """
    if isinstance(content, (list, tuple)):
        faults = [] if content else ["nothing in it"]
        faults += [name for part in content if (name := _part_fault(part)) is not None]
        if not faults:
            return "\n".join(_part_text(part) for part in content)
        got = f"a list with {faults[0]}"
    else:
        got = kind_of(content)
    raise BadInput(f"the content of {where} is {got}; wanted text")


def renderings(messages: Messages) -> Iterator[Messages]:
    """Yield the messages in the forms that templates accept, skipping a form that changes nothing.

    First unchanged, except that a list of empty texts is "": only their texts would show a template that
    writes lists as lists. Then with every list of text parts joined to one text; then with missing content as
    "", for templates that concatenate it; then with the arguments of tool calls as objects where they are
    JSON text, as in OpenAI's protocol.
    """
    forms: list[Messages] = [[_empty_parts(message) for message in messages]]
    for change in (_joined_parts, _empty_content, parsed_arguments):
        forms.append([change(message) for message in forms[-1]])
    yield forms[0]
    yield from (form for before, form in pairwise(forms) if any(map(operator.is_not, before, form)))


def has_parts(messages: Messages) -> bool:
    """Return whether the content of any message is a list."""
    return any(isinstance(message.get("content"), (list, tuple)) for message in messages)


def _empty_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    empty = isinstance(content, (list, tuple)) and not any(map(_part_text, content))
    return {**message, "content": ""} if empty else message


def _joined_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": text_of_parts(content)} if isinstance(content, (list, tuple)) else message


def _empty_content(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**message, "content": ""} if message.get("content") is None else message


def parsed_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message with the arguments of its calls as objects, where they are the text of one."""
    calls = message.get("tool_calls") or ()
    parsed = [_parsed_call(call) for call in calls]
    changed = any(map(operator.is_not, calls, parsed))
    return {**message, "tool_calls": parsed} if changed else message


def _parsed_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def encodes_arguments(messages: Messages, text: str) -> bool:
    """Return whether a text has the arguments of a call, which are JSON, as a text inside JSON.

    A template that writes them so (`arguments | tojson`) was made for objects.
    """
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call.get("function")
            arguments = function.get("arguments") if isinstance(function, Mapping) else None
            if isinstance(arguments, str) and any(
                json.dumps(arguments, ensure_ascii=ascii_only) in text for ascii_only in (False, True)
            ):
                return True
    return False


def writes_parts(messages: Messages, text: str) -> bool:
    """Return whether a text rendered from lists of parts holds every part's words, not a printed list."""
    written: dict[tuple[int | None, KeyPath], str] = {}
    at = 0
    for length, sources in runs_of(text):
        if len(sources) == 1:
            source = (sources[0].message, sources[0].path)
            written[source] = written.get(source, "") + str.__str__(text)[at : at + length]
        at += length
    for number, message in enumerate(messages):
        if not isinstance(message.get("content"), (list, tuple)):
            continue
        for place, part in enumerate(message["content"]):
            words = _part_text(part)
            path = ("content", place) if isinstance(part, str) else ("content", place, "text")
            output = written.get((number, path), "")
            # A template may change case or shorten; quotes and brackets around the words mean a printed list.
            if words.strip() and not (output.strip() and output.casefold() in words.casefold()):
                return False
    return True


def merge_system(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Move the text of each system message to the beginning of the next user message.

    This is the usual workaround for templates that refuse system messages (Gemma's and some of Mistral's) or
    leave them out. A blank line separates the two texts. Raises BadInput if a system message is not text, or
    if no user message follows it.

    >>> merge_system([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    [{'role': 'user', 'content': 'Be brief.\\n\\nHi'}]
    """
    merged: list[dict[str, Any]] = []
    waiting: list[str] = []
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role in _SYSTEM_ROLES:
            if not isinstance(content, str):
                raise BadInput(f"the content of message {number} (system) is not text; wanted text to merge")
            waiting += [content] if content.strip() else []
        elif role == "user" and waiting:
            if not isinstance(content, str):
                raise BadInput(
                    f"the content of message {number} (user) is not text; wanted text to merge with"
                )
            merged.append({**message, "content": "\n\n".join([*waiting, content])})
            waiting = []
        else:
            merged.append(dict(message))
    if waiting:
        raise BadInput("no user message follows the system text, so there is nothing to merge it with")
    return merged


def sourced_messages(messages: Messages) -> list[dict[str, Any]]:
    """Copy messages to plain data in which every text carries its source.

    As in transformers, a key with null is left out (templates would write "None" for it but handle a missing
    key), and reasoning under one of its names is available under the others too.
    """
    copies = []
    for number, message in enumerate(messages):
        kind: Kind = "answer" if message.get("role") == "assistant" else "text"
        reasoning = next((name for name in REASONING if message.get(name) is not None), None)
        copy: dict[str, Any] = {
            _key(name, number): _message_value(value, str(name), number, kind)
            for name, value in message.items()
            if value is not None
        }
        if reasoning is not None:
            text = copy[reasoning]
            copy = {"thinking": text, **copy, "reasoning_content": text}
        copies.append(copy)
    return copies


def sourced(value: object, path: KeyPath, message: int | None = None, kind: Kind = "text") -> Any:
    """Copy plain data, with a source on every text; BadInput for other objects and for deep nesting."""
    if len(path) > MOST_DEPTH:
        raise BadInput(f"{path[0]} is nested deeper than {MOST_DEPTH} levels")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        return SourcedText(text, ((len(text), (Source(message, path, kind),)),) if text else ())
    if isinstance(value, Mapping):
        return {
            _key(key, message): sourced(item, (*path, str(key)), message, kind) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [sourced(item, (*path, at), message, kind) for at, item in enumerate(value)]
    raise BadInput(
        f"{path[0]} holds a {type(value).__name__}; a chat template takes texts, numbers, lists and objects"
    )


def kind_of(value: object) -> str:
    """Name the type of a value in JSON's terms: "a list", "null"."""
    if isinstance(value, bool):
        return "true or false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


def _check_calls(message: Mapping[str, Any], where: str) -> None:
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, (list, tuple)):
        raise BadInput(f"the tool_calls of {where} are {kind_of(calls)}; wanted a list of objects")
    for call in calls:
        if not isinstance(call, Mapping):
            raise BadInput(f"the tool_calls of {where} hold {kind_of(call)}; wanted objects")


def _key(name: object, message: int | None) -> str:
    text = str(name)
    return SourcedText(text, ((len(text), (Source(message, ("key",)),)),) if text else ())


def _message_value(value: object, name: str, number: int, kind: Kind) -> Any:
    if name == "role":
        return sourced(value, (name,), number, "role")
    copy = sourced(value, (name,), number, kind if name == "content" else "text")
    if name == "content" and isinstance(copy, list):
        return [_without_null(part) if isinstance(part, dict) else part for part in copy]
    return copy


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "text": ""} if "text" in part and part["text"] is None else part


def _part_fault(part: object) -> str | None:
    """Return why a part of a message's content is not text, or None if it is."""
    if isinstance(part, str):
        return None
    if not isinstance(part, Mapping):
        return kind_of(part)
    kind = part.get("type")
    if kind in _TEXT_PARTS:
        text = part.get("text")
        if isinstance(text, str) or (text is None and "text" in part):
            return None
        return "a part without text" if text is None else f"{kind_of(text)} as text"
    return _PARTS.get(str(kind), f"a part of the type {str(kind)[:30]!r}")


def _part_text(part: Any) -> str:
    return part if isinstance(part, str) else part["text"] or ""
