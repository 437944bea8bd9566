"""Conversations from elsewhere: OpenAI's messages, or a file of `export`. Refuses what it would lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pophood.errors import short
from pophood.openai.errors import invalid
from pophood.serve.protocol.schemas import of_validation
from pophood.studio.bodies import NewConversation, NewNode
from pophood.studio.history.conversations import new_id
from pophood.studio.history.export import FORMAT, VERSION

ROLES = ("system", "developer", "user", "assistant", "tool")
Imported = tuple[dict[str, Any], list[dict[str, Any]]]  # a conversation, and its nodes


def imported(data: Mapping[str, Any]) -> Imported:
    """Return what a file holds, under new ids. Raises ApiError, 400, that names what is wrong."""
    try:
        return _own(data) if data.get("format") == FORMAT else _messages(data)
    except ValidationError as error:
        raise of_validation(error) from error


def _own(data: Mapping[str, Any]) -> Imported:
    if data.get("version") != VERSION:
        raise invalid(f"version: got {short(data.get('version'))}; wanted {VERSION}", "version")
    whole = data.get("conversation")
    if not isinstance(whole, dict) or not isinstance(nodes := whole.get("nodes"), list):
        raise invalid("conversation: wanted an object with `nodes`", "conversation")
    ids: dict[Any, str] = {}
    written = []
    for place, node in enumerate(nodes):
        if not isinstance(node, dict):
            raise invalid(f"nodes[{place}]: got {short(node)}; wanted an object", "nodes")
        fields = {name: value for name, value in node.items() if name in NewNode.model_fields}
        parent = node.get("parent")
        if parent is not None and parent not in ids:
            raise invalid(f"nodes[{place}].parent: no node before it is {short(parent)}", "nodes")
        ids[node.get("id")] = new_id()
        fields |= {"id": ids[node.get("id")], "parent": ids.get(parent)}
        written.append(NewNode.model_validate(fields).model_dump())
    fields = {name: value for name, value in whole.items() if name in NewConversation.model_fields}
    fields |= {"id": new_id(), "current": ids.get(whole.get("current"))}
    return NewConversation.model_validate(fields).model_dump(), written


def _messages(data: Mapping[str, Any]) -> Imported:
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("wanted `messages`, or a file that the studio exported", "messages")
    system: str | None = None
    nodes: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        role, text = _read(place, message)
        if role in ("system", "developer") and not nodes and system is None:
            system = text
            continue
        parent = nodes[-1]["id"] if nodes else None
        role = "system" if role == "developer" else role
        nodes.append(NewNode(id=new_id(), parent=parent, role=role, text=text).model_dump())  # type: ignore[arg-type]
    title = data.get("title")
    values = {"id": new_id(), "system": system, "current": nodes[-1]["id"] if nodes else None}
    values |= {"title": title} if title is not None else {}
    return NewConversation.model_validate(values).model_dump(), nodes


def _read(place: int, message: Any) -> tuple[str, str]:
    """Return the role and the text of a message. Raises ApiError for what a turn cannot hold."""
    where = f"messages[{place}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise invalid(f"{where}.role: got {short(message)}; wanted one of {', '.join(ROLES)}", "messages")
    for name, value in message.items():
        if name not in ("role", "content", "name") and value:
            raise invalid(f"{where}.{name}: a turn holds only text", "messages")
    content = message.get("content")
    if isinstance(content, list):
        return message["role"], "".join(_parts(where, content))
    if not isinstance(content, str):
        raise invalid(f"{where}.content: got {short(content)}; wanted a text", "messages")
    return message["role"], content


def _parts(where: str, parts: list[Any]) -> Iterator[str]:
    for number, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(text := part.get("text"), str):
            raise invalid(f"{where}.content[{number}]: a turn holds only text", "messages")
        yield text
