"""A conversation as a file: Markdown to read, JSON with everything, a notebook that answers again.

Markdown and the notebook hold one path of the tree, from its beginning to a leaf; JSON holds the whole tree,
and that path as OpenAI's messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pophood.openai.errors import invalid
from pophood.studio.history.notebook import NotebookModel, notebook

FORMAT = "pophood-conversation"
VERSION = 1
SPEAKERS = {"user": "You", "assistant": "Model", "system": "System", "tool": "Tool", "text": "Text"}
Conversation = Mapping[str, Any]
Node = Mapping[str, Any]


def path_to(conversation: Conversation, leaf: str | None = None) -> list[Node]:
    """Return the nodes from the beginning to a leaf: the one named, else the shown, else the newest one.

    Raises ApiError for a leaf that is not there.
    """
    nodes = {node["id"]: node for node in conversation["nodes"]}
    if leaf is not None and leaf not in nodes:
        raise invalid(f"there is no node {leaf[:80]!a} in this conversation", "leaf")
    shown = conversation["current"] if conversation["current"] in nodes else None
    at = leaf or shown or next(reversed(nodes), None)
    path: list[Node] = []
    while at is not None and at in nodes:
        path.append(nodes[at])
        at = nodes[at]["parent"]
    return path[::-1]


def as_markdown(conversation: Conversation, leaf: str | None = None) -> str:
    """Return the path to a leaf as Markdown; the texts are as they were written."""
    parts = [f"# {_one_line(conversation['title']) or 'Conversation'}"]
    if conversation["system"]:
        parts.append(f"**System:** {conversation['system']}")
    for node in path_to(conversation, leaf):
        name = f" ({_one_line(node['name'])})" if node["name"] else ""
        parts.append(f"## {SPEAKERS[node['role']]}{name}\n\n{node['text']}")
    return "\n\n".join(parts) + "\n"


def as_json(conversation: Conversation, leaf: str | None = None) -> str:
    """Return the whole conversation as JSON, which `importing` reads, and other programs by its messages."""
    messages = [{"role": "system", "content": conversation["system"]}] if conversation["system"] else []
    for node in path_to(conversation, leaf):
        role = "user" if node["role"] == "text" else node["role"]
        messages.append({"role": role, "content": node["text"]})
    whole = {"format": FORMAT, "version": VERSION, "messages": messages, "conversation": conversation}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def as_notebook(conversation: Conversation, model: NotebookModel, leaf: str | None = None) -> str:
    """Return the path to a leaf as a notebook, whose cells give the same answers."""
    return notebook(conversation, path_to(conversation, leaf), model)


def _one_line(text: str) -> str:
    return " ".join(text.split())
