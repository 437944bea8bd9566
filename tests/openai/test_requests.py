"""Fields of requests: the plain reader and pydantic's, which describes the server, agree on every value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

from pophood.openai.errors import ApiError
from pophood.openai.requests import ChatFields, CompletionFields, GeneratingFields, kinds_of, read_fields
from pophood.serve.protocol.schemas import ChatRequest, CompletionRequest, fields_of, read_body

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"prompt": "Hi"}
KINDS: list[tuple[type[GeneratingFields], type[ChatRequest] | type[CompletionRequest], dict[str, Any]]] = [
    (ChatFields, ChatRequest, CHAT),
    (CompletionFields, CompletionRequest, COMPLETION),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, -2, 20, 21, 2**31 - 1, 2**31, 2**64 - 1, 2**64),
    *(0.5, -1e9, 1e9, 1.1e9, 1e300),
    *("", "text", [], ["text"], [1], [[1]], {}, {"include_usage": True}, {"1": 2}, [{"role": "user"}]),
    *([{"name": "a"}], [{"name": "a", "scale": 2}], [{"name": "a", "scale": "2"}], [{"scale": 2}]),
    *([{"name": "a", "size": 2}], [{"name": "a"}] * 17, [{"role": "user"}, 1]),
]


def verdict(read: Callable[[], Any], name: str) -> tuple[str, Any]:
    """Return that a value is taken, with what is read, or refused, with the field that is named."""
    try:
        value = getattr(read(), name)
    except ApiError as error:
        return "refused", str(error.param).partition("[")[0].partition(".")[0]
    return "taken", None if name == "adapters" else value  # records of two kinds


@pytest.mark.parametrize(("plain", "described", "least"), KINDS)
def test_both_have_the_same_fields(plain: Any, described: Any, least: dict[str, Any]) -> None:
    assert {one.name for one in fields(plain)} == described.model_fields.keys() == kinds_of(plain).keys()


@pytest.mark.parametrize(("plain", "described", "least"), KINDS)
def test_both_accept_and_refuse_the_same_values(plain: Any, described: Any, least: dict[str, Any]) -> None:
    wrong = []
    for name in described.model_fields:
        for value in VALUES[name == "prompt" :]:  # pydantic leaves a prompt of null to `completions.py`
            data = least | {name: value}
            body = json.dumps(data).encode()
            ours = verdict(partial(read_fields, data, plain), name)
            theirs = verdict(lambda: fields_of(read_body(body, described), plain), name)  # noqa: B023
            if ours != theirs:
                wrong.append((name, value, ours, theirs))
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "Missing required parameter: 'prompt'."),
        ({"prompt": None}, "Missing required parameter: 'prompt'."),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens: got '5'; wanted a whole number"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens: got True; wanted a whole number"),
        ({"prompt": "a", "logprobs": 21}, "logprobs: got 21; wanted a whole number from 0 to 20"),
        ({"prompt": "a", "temprature": 1}, "'temprature'. Did you mean `temperature`?"),
        ({"prompt": "a", "tools": [{}]}, "`tools` is not supported"),
        ({"prompt": "a", "adapters": [{"name": "a", "alpha": 1}]}, "adapters[0]: has 'alpha'"),
        ({"prompt": "a", "adapters": [{"name": 3}]}, "adapters[0].name: got 3; wanted a text"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_fields(data, CompletionFields)
    assert said in refused.value.message and refused.value.status == 400


def test_fields_without_meaning_here_are_ignored() -> None:
    read = read_fields({"prompt": "a", "user": "me", "tools": [], "cache_prompt": True}, CompletionFields)
    assert read == CompletionFields(prompt="a")
