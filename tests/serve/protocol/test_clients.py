"""Requests as real programs send them: openai's client over a socket, and others rebuilt from their source.

Open WebUI, Continue, Zed and VS Code are too heavy to run here. Their requests and what they read of answers
were written down from their sources (fields, headers, order of keys); only openai's library itself runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

import pophood
from tests.serve.protocol.service import LOCAL, Service
from tests.serve.wire import read_response, request


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with service.listening() as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://{LOCAL}:{port}/v1", api_key="none", timeout=300) as client:
        yield client


TALK: list[Any] = [{"role": "user", "content": "Hi"}]
CLOSING = {"1": 6, "60": 6, "92": 6}  # `"`, `]` and `}`, which a random model would seldom write


def test_openai_create_and_stream_agree(client: OpenAI, alone: pophood.LM) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": TALK, "seed": 3, "max_tokens": 15, "n": 2}
    answer = client.chat.completions.create(**fields)
    own = [one.text for one in alone.chat("Hi", seed=3, max_tokens=15)]
    assert answer.choices[0].message.content == "".join(own)
    texts = ["", ""]
    for piece in client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **fields
    ):
        for choice in piece.choices:
            texts[choice.index] += choice.delta.content or ""
        usage = piece.usage
    assert texts == [choice.message.content for choice in answer.choices]
    assert usage is not None
    assert answer.usage is not None
    assert usage.total_tokens == answer.usage.total_tokens


class Mood(BaseModel):
    """A form as users of openai's library declare it."""

    kind: Literal["good", "bad"]
    size: Annotated[int, Field(ge=0, le=99)]
    name: Annotated[str, Field(max_length=6)]
    more: list[Literal["x", "y"]] | None


def test_openais_parse_reads_the_form(client: OpenAI) -> None:
    for seed in range(5):
        fields: dict[str, Any] = {"model": "tiny", "messages": TALK, "seed": seed, "max_tokens": 200}
        fields["logit_bias"] = CLOSING
        parsed = client.chat.completions.parse(response_format=Mood, n=2, **fields)
        moods = [choice.message.parsed for choice in parsed.choices]
        assert all(isinstance(mood, Mood) for mood in moods)
        with client.chat.completions.stream(response_format=Mood, n=2, **fields) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        assert [choice.message.parsed for choice in final.choices] == moods
        plain = client.chat.completions.create(response_format={"type": "json_object"}, **fields)
        assert (plain.choices[0].message.content or "").startswith("{")


def test_openais_library_hears_of_a_wrong_form(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError, match="Unimplemented keys") as refused:
        client.chat.completions.create(model="tiny", messages=TALK, response_format=form)
    assert refused.value.param == "response_format"


def test_openais_helper_for_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tiny",
        messages=TALK,
        seed=4,
        max_completion_tokens=400,
        n=3,
        logprobs=True,
        top_logprobs=2,
        extra_body={"stop_token_ids": list(range(60))},  # a soon end: the helper refuses a cut answer
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[0] == "chunk"
    assert {choice.finish_reason for choice in final.choices} == {"stop"}
    whole = client.chat.completions.create(
        model="tiny",
        messages=TALK,
        seed=4,
        max_completion_tokens=400,
        n=3,
        extra_body={"stop_token_ids": list(range(60))},
    )
    assert [choice.message.content for choice in final.choices] == [
        choice.message.content for choice in whole.choices
    ]
    for choice in final.choices:
        assert choice.logprobs is not None
        data = bytes(byte for entry in choice.logprobs.content or [] for byte in entry.bytes or [])
        assert data.decode("utf-8", "replace") == choice.message.content


def test_openais_legacy_completions_and_models(client: OpenAI, alone: pophood.LM) -> None:
    answer = client.completions.create(model="tiny/random", prompt=[[5, 6, 7], [8]], max_tokens=5, seed=1)
    assert [choice.text for choice in answer.choices] == [
        alone.generate(ids, max_tokens=5, seed=1).completion for ids in ([5, 6, 7], [8])
    ]
    pieces = client.completions.create(model="tiny", prompt="Hi", max_tokens=5, seed=1, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == (
        alone.generate("Hi", max_tokens=5, seed=1).completion
    )
    assert [model.id for model in client.models.list()] == ["tiny/random"]
    assert client.models.retrieve("tiny/random").owned_by == "pophood"


def test_openais_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=TALK)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "\x01" * 999}])
    assert long.value.code == "context_length_exceeded"
    assert "this model's maximum context length is" in str(long.value).lower(), "LiteLLM's words"
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(
            model="tiny", messages=TALK, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert tools.value.param == "tools"


def test_open_webui(port: int) -> None:
    """It lists models, streams with whatever its user set, and asks for titles and tags in between."""
    models = request(port, "/v1/models").json
    assert [one["name"] for one in models["data"]] == ["tiny/random"]
    body: dict[str, Any] = {
        "stream": True,
        "model": "tiny/random",
        "messages": TALK,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "seed": 42,
        "stop": ["###"],
    }
    text, usage = "", None
    for line in request(port, "/v1/chat/completions", body=body).body.decode().split("\n"):
        if not line.startswith("data:") or "[DONE]" in line:
            continue
        piece = json.loads(line.removeprefix("data:"))
        usage = (piece.get("usage") or {}) | (piece.get("timings") or {}) or usage
        for choice in piece["choices"]:
            text += choice["delta"].get("content") or ""
    assert text
    assert usage is not None
    assert usage["completion_tokens"] <= 9
    title = {"model": "tiny/random", "messages": TALK, "stream": False, "max_completion_tokens": 6}
    answer = request(port, "/v1/chat/completions", body=title).json
    assert isinstance(answer["choices"][0]["message"]["content"], str)


def test_continue_reads_until_done(port: int) -> None:
    """Its parser takes a line with `: ping` for the end, and stops of any number."""
    body = {
        "model": "tiny",
        "messages": [*TALK, {"role": "assistant", "content": " "}, *TALK],
        "max_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["<|im_start|>", "<|im_end|>", "\n\n\n", "```", "// ", "====", "/*"],
    }
    headers = {"api-key": "none", "x-api-key": "none"}
    answer = request(port, "/v1/chat/completions", body=body, headers=headers)
    assert answer.status == 200
    assert b": ping" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_zed_parses_every_line(port: int) -> None:
    body = {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        "stream": True,
        "max_completion_tokens": 8,
        "stop": [],
        "temperature": 1.0,
        "tools": [],
        "parallel_tool_calls": None,
        "prompt_cache_key": "thread-1",
        "reasoning_effort": None,
        "stream_options": {"include_usage": True},
    }
    lines = request(port, "/v1/chat/completions", body=body).body.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line]
    assert data.pop() == "[DONE]"
    for one in data:
        piece = json.loads(one)
        assert isinstance(piece["choices"], list)
        if piece["usage"] is not None:
            assert all(
                type(piece["usage"][name]) is int
                for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            )
        for choice in piece["choices"]:
            assert choice["delta"].get("role") in (None, "assistant")


def test_vs_code_and_langchain_send_nulls(port: int) -> None:
    body = {
        "model": "tiny",
        "messages": TALK,
        "max_tokens": 5,
        "temperature": 0.1,
        "top_p": 1,
        "n": 1,
        "stream": False,
        "logit_bias": None,
        "logprobs": None,
        "seed": None,
        "stop": None,
        "tools": None,
        "user": None,
        "frequency_penalty": None,
    }
    answer = request(port, "/v1/chat/completions", body=body).json
    assert {"id", "object", "created", "model", "choices", "usage"} <= answer.keys()


def test_lm_eval_probes_the_tokenizer_over_http(port: int, alone: pophood.LM) -> None:
    info = request(port, "/tokenizer_info").json
    assert isinstance(info, dict)
    assert "eos_token" in info
    tokens = request(port, "/tokenize", body={"prompt": "test", "add_special_tokens": False}).json["tokens"]
    assert tokens == alone.tokenize("test")


def test_one_connection_serves_many_requests(port: int) -> None:
    from tests.serve.wire import connect, head

    body = json.dumps({"prompt": "Hi", "max_tokens": 2}).encode()
    fields = {"host": LOCAL, "content-type": "application/json", "content-length": str(len(body))}
    with connect(port) as stream:
        for _ in range(3):
            stream.sendall(head("POST", "/v1/completions", fields) + body)
            assert read_response(stream).status == 200
