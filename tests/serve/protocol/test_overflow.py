"""A prompt that is too long: 400 with both counts, on every route, exactly at the limit, streamed or not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.protocol.conftest import WINDOW
from tests.serve.protocol.service import Service, Told

RENDER = "/v1/chat/completions/render"


def conversation_of(service: Service, tokens: int) -> list[dict[str, str]]:
    """Return a conversation of exactly so many tokens."""
    around = service.ask(RENDER, {"messages": [{"role": "user", "content": "\x01"}]}).json["prompt_tokens"]
    # A byte that no merge has: one token each.
    return [{"role": "user", "content": "\x01" * (tokens - around + 1)}]


def chat_with(service: Service, tokens: int, **fields: Any) -> Told:
    return service.ask("/v1/chat/completions", {"messages": conversation_of(service, tokens)} | fields)


def ids_with(service: Service, tokens: int, **fields: Any) -> Told:
    return service.complete([3] * tokens, **fields)


def text_with(service: Service, tokens: int, **fields: Any) -> Told:
    return service.complete("\x01" * tokens, **fields)


def lists_with(service: Service, tokens: int, **fields: Any) -> Told:
    return service.complete([[3], [3] * tokens], **fields)


WAYS = {"chat": chat_with, "ids": ids_with, "text": text_with, "lists": lists_with}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_limit_is_exact(service: Service, way: str, stream: bool) -> None:
    ask, window = WAYS[way], service.served.window
    for tokens in (window + 1, window + 2, 10 * window):
        told = ask(service, tokens, stream=stream)
        assert told.status == 400
        field = "messages" if way == "chat" else "prompt"
        assert told.error == {
            "message": f"This model's maximum context length is {window} tokens. However, your {field} "
            f"resulted in {tokens} tokens. Please reduce the length of the {field}.",
            "type": "invalid_request_error",
            "param": field,
            "code": "context_length_exceeded",
            "n_ctx": window,
            "n_prompt_tokens": tokens,
        }
        assert told.headers["x-should-retry"] == "false"
    for tokens in (window - 1, window):
        told = ask(service, tokens, max_tokens=50, ignore_eos=True, seed=1)
        assert told.status == 200
        assert told.json["choices"][-1]["finish_reason"] == "length"
        own = tokens + 1 if way == "lists" else tokens
        assert told.json["usage"]["prompt_tokens"] == own
    new = told.json["usage"]["completion_tokens"]
    assert new == (51 if way == "lists" else 1), "a prompt that fills the window has one new token"


@pytest.mark.parametrize("beyond", [-1, 0, 1, 9 * WINDOW])
def test_routes_that_compute_nothing_count_what_is_too_long(service: Service, beyond: int) -> None:
    tokens = service.served.window + beyond
    messages = conversation_of(service, tokens)
    rendered = service.ask(RENDER, {"messages": messages}).json
    assert (rendered["prompt_tokens"], rendered["max_model_len"]) == (tokens, WINDOW)
    assert rendered["fits"] == (beyond <= 0)
    for path in ("/tokenize", "/v1/tokenize"):
        for asked in ({"messages": messages}, {"prompt": "\x01" * tokens}):
            told = service.ask(path, asked).json
            assert (told["count"], told["max_model_len"]) == (tokens, WINDOW)
            assert len(told["tokens"]) == tokens
        whole = service.ask(path.replace("tokenize", "detokenize"), {"tokens": told["tokens"]})
        assert whole.json["prompt"] == "\x01" * tokens


def test_a_prompt_of_the_whole_window_can_be_scored(service: Service) -> None:
    window = service.served.window
    for limit in (0, 1):
        told = ids_with(service, window, echo=True, logprobs=1, max_tokens=limit, temperature=0)
        assert len(told.json["choices"][0]["logprobs"]["tokens"]) == window + limit


def test_the_window_is_the_one_that_is_told(service: Service) -> None:
    told = service.ask("/v1/models").json["data"][0]
    assert told["max_model_len"] == told["context_length"] == service.lm.engine.context
