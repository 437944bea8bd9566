"""Conversations leave as Markdown, JSON and a notebook that gives the same answers, and come in again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from pophood.errors import PophoodError
from pophood.openai.errors import ApiError
from pophood.studio.history.conversations import new_id
from pophood.studio.history.importing import imported
from tests import processes
from tests.studio.server import StudioCommand

SETTINGS = {"temperature": 0.9, "top_k": 50, "repetition_penalty": 1.2, "top_p": 0.95, "max_tokens": 12}


def answered(running: StudioCommand, prompt: list[int], seed: int, given: list[int]) -> dict[str, Any]:
    """Let the model answer as the page does, and return the node of its answer."""
    asked = SETTINGS | {"prompt": prompt + given, "seed": seed, "logprobs": 2, "inspect": {"top": 3}}
    choice = running.post("/v1/completions", asked)["choices"][0]
    ids = [*given, *(record["id"] for record in choice["inspect"] if record["part"] == "answer")]
    tokens = [{"id": id_, "text": f"<{id_}>"} for id_ in ids]
    return {
        "id": new_id(),
        "role": "assistant",
        "text": choice["text"],
        "tokens": tokens,
        "prompt": prompt + given,
        "given": len(given),
        "seed": seed,
        "settings": {**SETTINGS, "stream": True},
        "finish": choice["finish_reason"],
    }


@pytest.fixture(scope="module")
def conversation(running: StudioCommand) -> str:
    """Return a conversation with an answer, and a branch whose third token was chosen by hand."""
    key: str = running.post("/conversations", {"title": "A cat & a mat", "system": "Be brief."})["id"]
    question = {"id": new_id(), "role": "user", "text": "the cat?"}
    running.post(f"/conversations/{key}/nodes", question)
    talk = {"messages": [{"role": "user", "content": "the cat?"}]}
    ids = running.post("/v1/chat/completions/render", talk)["prompt_token_ids"]
    first = answered(running, ids, 7, [])
    given = [token["id"] for token in first["tokens"][:2]] + [99]
    for node in (first, answered(running, ids, 7, given)):
        running.post(f"/conversations/{key}/nodes", node | {"parent": question["id"]})
    return key


def exported(running: StudioCommand, key: str, query: str) -> bytes:
    answer = running.ask(f"/conversations/{key}/export?{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('attachment; filename="A-cat-a-mat.')
    return answer.body


def test_the_cells_of_the_notebook_give_the_same_answers(
    running: StudioCommand, conversation: str, tmp_path: Path
) -> None:
    whole = running.get(f"/conversations/{conversation}")
    leaves = [node["id"] for node in whole["nodes"] if node["role"] == "assistant"]
    for number, leaf in enumerate(leaves):
        text = exported(running, conversation, f"format=notebook&leaf={leaf}").decode()
        book = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(book)
        code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
        assert code.count("replay(\n") == 1
        path = tmp_path / f"{number}.py"
        path.write_text(code, encoding="utf-8")
        done = processes.run([sys.executable, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        changed = code.replace("seed=7", "seed=8")
        path.write_text(changed, encoding="utf-8")
        done = processes.run([sys.executable, str(path)], capture_output=True, text=True)
        assert "another answer" in done.stderr


def test_markdown_holds_one_path(running: StudioCommand, conversation: str) -> None:
    nodes = running.get(f"/conversations/{conversation}")["nodes"]
    text = exported(running, conversation, "format=markdown").decode()
    assert text.startswith("# A cat & a mat\n\n**System:** Be brief.\n\n## You\n\nthe cat?\n\n## Model\n\n")
    assert nodes[2]["text"] in text
    assert text.count("## Model") == 1


def test_what_was_exported_comes_in_again(running: StudioCommand, conversation: str) -> None:
    data = json.loads(exported(running, conversation, "format=json"))
    assert [message["role"] for message in data["messages"]] == ["system", "user", "assistant"]
    before, after = data["conversation"], running.post("/import", data)
    assert after["id"] != before["id"]
    ids = {old["id"]: new["id"] for old, new in zip(before["nodes"], after["nodes"], strict=True)}
    assert not set(ids) & set(ids.values())
    for old, new in zip(before["nodes"], after["nodes"], strict=True):
        assert new["parent"] == ids.get(old["parent"])
        for name in ("role", "text", "tokens", "settings", "seed", "prompt", "given", "finish"):
            assert new[name] == old[name]


def test_openais_messages_come_in(running: StudioCommand) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "tool_calls": None},
    ]
    made = running.post("/import", {"messages": messages, "model": "gpt-4"})
    assert (made["system"], made["title"]) == ("S", "ab")
    assert [(node["role"], node["text"]) for node in made["nodes"]] == [("user", "ab"), ("assistant", "c")]
    assert made["nodes"][1]["parent"] == made["nodes"][0]["id"]
    assert made["current"] == made["nodes"][1]["id"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "wanted `messages`"),
        ({"messages": []}, "wanted `messages`"),
        ({"messages": ["a"]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"format": "pophood-conversation", "version": 9}, "version"),
        ({"format": "pophood-conversation", "version": 1}, "conversation"),
        ({"format": "pophood-conversation", "version": 1, "conversation": {"nodes": [1]}}, "nodes[0]"),
        (
            {"format": "pophood-conversation", "version": 1, "conversation": {"nodes": [{"parent": "x"}]}},
            "nodes[0].parent",
        ),
        ({"format": "pophood-conversation", "version": 1, "conversation": {"nodes": [{}]}}, "role"),
    ],
)
def test_what_would_be_lost_is_refused_by_name(data: dict[str, Any], says: str) -> None:
    with pytest.raises((ApiError, PophoodError)) as caught:
        imported(data)
    assert says in str(caught.value)


def test_another_format_and_an_unknown_leaf_are_refused(running: StudioCommand, conversation: str) -> None:
    assert running.ask(f"/conversations/{conversation}/export?format=pdf").status == 400
    assert running.ask(f"/conversations/{conversation}/export?leaf=nobody").status == 400
