"""The items of `input` as the messages of a chat: texts, calls that were made, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pophood.errors import short
from pophood.openai.errors import ApiError, invalid

MOST_ITEMS = 4_096
_ROLES = ("user", "assistant", "system", "developer")


def messages_of(items: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    """Return the messages of a request; `instructions` are a system message before them. Raises ApiError."""
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    if not isinstance(items, list) or not items:
        raise invalid(f"input: got {short(items)}; wanted a text, or a list of items, not empty", "input")
    if len(items) > MOST_ITEMS:
        raise invalid(f"input has {len(items):,} items; wanted {MOST_ITEMS:,} at most", "input")
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise invalid(f"input[{place}]: got {short(item)}; wanted an object", "input")
        _add(item, place, messages)
    return messages


def _add(item: Mapping[str, Any], place: int, messages: list[dict[str, Any]]) -> None:
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        messages.append(_message(item, place))
    elif kind == "function_call":
        last = messages[-1] if messages else {}
        if last.get("role") != "assistant":
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(_call(item, place))
    elif kind == "function_call_output":
        call_id = _text(item, "call_id", place)
        messages.append({"role": "tool", "tool_call_id": call_id, "content": _output(item, place)})
    else:
        wanted = "message, function_call or function_call_output"
        message = f"input[{place}].type: got {short(kind)}; wanted {wanted}"
        raise invalid(message, "input", "unsupported_parameter")


def _message(item: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return a message. The role "developer" is what templates call "system"."""
    role = item.get("role")
    if role not in _ROLES:
        raise invalid(f"input[{place}].role: got {short(role)}; wanted {', '.join(_ROLES)}", "input")
    content = item.get("content")
    if isinstance(content, list):
        content = [_part(part, place) for part in content]
    return {"role": "system" if role == "developer" else role, "content": content}


def _part(part: Any, place: int) -> Any:
    """Return a part of a message as a chat has it; what is no text is refused with its message."""
    if isinstance(part, dict) and part.get("type") in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if isinstance(part, dict) and part.get("type") == "refusal":
        raise invalid(f"input[{place}]: a refusal is no text that a model reads here", "input")
    return part


def _call(item: Mapping[str, Any], place: int) -> dict[str, Any]:
    function = {"name": _text(item, "name", place), "arguments": _text(item, "arguments", place)}
    return {"id": _text(item, "call_id", place), "type": "function", "function": function}


def _output(item: Mapping[str, Any], place: int) -> Any:
    output = item.get("output")
    if isinstance(output, list) and output:
        return [_part(part, place) for part in output]
    if isinstance(output, str):
        return output
    raise _wrong("output", output, place)


def _text(item: Mapping[str, Any], name: str, place: int) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong(name, value, place)
    return value


def _wrong(name: str, value: object, place: int) -> ApiError:
    return invalid(f"input[{place}].{name}: got {short(value)}; wanted a text", "input")
