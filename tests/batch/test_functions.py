"""Lines with functions: calls in pophood's own shape and in OpenAI's, with the same ids in every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pophood
from tests.batch.answered import answered
from tests.serve.protocol.tool_models import TOOLS, call_text, forced, form_of, tool_folder

TALK: list[dict[str, Any]] = [{"role": "user", "content": "How warm is it?"}]
ARGUMENTS = '{"city": "Bern", "unit": "C"}'


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder: Path = tool_folder(tmp_path_factory.mktemp("functions") / "m", "hermes")
    return pophood.load(folder)


def wrapped(body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": "q", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_calls_in_both_shapes(calling: pophood.LM) -> None:
    form = form_of("hermes")
    ids = {mark: calling.bundle.tokenizer.id_of(mark) for mark in form.marks}
    text = "Look.\n" + call_text(form, "get_weather", ARGUMENTS)
    body = {"messages": TALK, "tools": TOOLS, **forced(text, {k: v for k, v in ids.items() if v is not None})}
    own, other = answered(calling, [body, wrapped(body)])
    (output,) = own["outputs"]
    assert output["completion"] == "Look."
    assert output["tool_calls"] == [{"name": "get_weather", "arguments": ARGUMENTS}]
    message = other["response"]["body"]["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert message["content"] == "Look."
    assert call["function"] == {"name": "get_weather", "arguments": ARGUMENTS}
    assert answered(calling, [body, wrapped(body)])[1] == other, "the ids differ"


def test_forced_calls_and_refusals(calling: pophood.LM) -> None:
    now = {"type": "function", "function": {"name": "now"}}
    body = {"messages": TALK, "tools": [now], "tool_choice": now, "max_tokens": 200}
    own, other, wrong = answered(calling, [body, wrapped(body), body | {"tool_choice": "any"}])
    assert own["outputs"][0]["tool_calls"] == [{"name": "now", "arguments": "{}"}]
    choice = other["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert json.dumps(wrong).count("tool_choice")
