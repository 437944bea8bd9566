"""A conversation as a Jupyter notebook: each answer is a cell that computes it again, and says if it differs.

What the model was sent is in the notebook as token ids, and so are the seed and the samplers; the engine's
bits do not depend on anything else. It is plain JSON (nbformat 4.5), so that no notebook library is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pophood.openai.settings import OTHER_NAMES
from pophood.sampling import SamplingSettings

WIDTH = 100  # characters of a line of token ids
REPLAY = '''\
def replay(prompt, wanted, adapter=None, **settings):
    """Continue token ids with the settings of the conversation, and compare the answer with that one."""
    lm.use_adapters([ADAPTERS[adapter]] if adapter else [])
    tokens = list(lm.stream(prompt, max_tokens=len(wanted), **settings))
    print("".join(token.text for token in tokens))
    assert [token.id for token in tokens] == wanted, "another answer than in the conversation"'''


@dataclass(frozen=True, slots=True)
class NotebookModel:
    """How a model is opened: its name or place, precision, window, and the places of its adapters."""

    name: str
    precision: str = "auto"
    kv: str = "auto"
    context: int | None = None
    adapters: tuple[tuple[str, str], ...] = ()

    def options(self) -> dict[str, str | int]:
        """Return what `pophood.load` must be told besides the name.

        >>> NotebookModel("gpt2", precision="q8").options()
        {'precision': 'q8'}
        """
        given = {"precision": self.precision, "kv": self.kv, "context": self.context}
        return {name: value for name, value in given.items() if value not in ("auto", None)}


def notebook(conversation: Mapping[str, Any], path: Sequence[Mapping[str, Any]], model: NotebookModel) -> str:
    """Return the notebook of a path of turns."""
    cells = [*_opening(conversation, model)]
    for number, node in enumerate(path):
        cells += _turn(number, node)
    book = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(book, indent=1, sort_keys=True) + "\n"


def _opening(conversation: Mapping[str, Any], model: NotebookModel) -> Iterator[dict[str, Any]]:
    title = " ".join(conversation["title"].split()) or "Conversation"
    words = "Each cell computes an answer of this conversation again, from the same tokens."
    system = f"\n\n**System:** {conversation['system']}" if conversation["system"] else ""
    yield _cell("markdown", "title", f"# {title}\n\n{words}{system}")
    options = "".join(f", {name}={value!r}" for name, value in model.options().items())
    lines = [
        "import pophood",
        "",
        f"lm = pophood.load({model.name!r}{options})",
        f"ADAPTERS = {dict(model.adapters)!r}",
    ]
    yield _cell("code", "model", "\n".join([*lines, "", "", REPLAY]))


def _turn(number: int, node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a turn; an answer without its prompt, such as an imported one, is only shown."""
    if node["role"] != "assistant" or not node["prompt"] or not node["tokens"]:
        yield _cell("markdown", f"turn-{number}", f"**{node['role']}**\n\n{node['text']}")
        return
    given = node["given"]
    ids = [token["id"] for token in node["tokens"]]
    if given:
        kept = "".join(token["text"] for token in node["tokens"][:given])
        words = f"**assistant**, after the words {kept!r}, which were given"
        yield _cell("markdown", f"turn-{number}", words)
    settings = {"seed": node["seed"] or 0} | samplers(node["settings"])
    adapter = node["settings"].get("adapter")
    settings |= {"adapter": adapter} if adapter else {}
    arguments = [
        f"prompt={_ids(node['prompt'])}",
        f"wanted={_ids(ids[given:])}",
        *(f"{name}={value!r}" for name, value in settings.items()),
    ]
    code = "replay(\n" + "".join(f"    {one},\n" for one in arguments) + ")"
    yield _cell("code", f"answer-{number}", code)


def samplers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a request that choose tokens, under the names of the library.

    >>> samplers({"top_k": 40, "repeat_penalty": 1.1, "stream": True})
    {'top_k': 40, 'repetition_penalty': 1.1}
    """
    ours = {theirs: name for name, theirs in OTHER_NAMES.items()}
    known = {field.name for field in fields(SamplingSettings)}
    named = {ours.get(name, name): value for name, value in settings.items() if value is not None}
    return {name: value for name, value in named.items() if name in known}


def _ids(ids: Sequence[int]) -> str:
    """Return a list of ids as lines of code."""
    text = ", ".join(map(str, ids))
    if len(text) <= WIDTH:
        return f"[{text}]"
    lines, line = [], ""
    for id_ in ids:
        if len(line) + len(str(id_)) + 2 > WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += f"{id_}, "
    return "[\n" + "".join(f"        {one}\n" for one in [*lines, line.rstrip()]) + "    ]"


def _cell(kind: str, name: str, text: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": name, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
