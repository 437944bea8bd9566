"""Ollama's routes: the shapes that its Python client and VS Code read, and the answers of the same model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.serve.catalog import OneModel
from pophood.serve.ollama.app import build_ollama_app
from pophood.serve.ollama.shapes import OllamaShape
from tests.serve.protocol.service import Service, Told
from tests.serve.protocol.tool_models import TOOLS, tool_folder
from tests.text.tool_templates import TOOL_TEMPLATES

TALK = [{"role": "user", "content": "Hi"}]


class OllamaService(Service):
    """The model behind the app of the second port."""

    def __init__(self, lm: pophood.LM, **served: Any) -> None:
        super().__init__(lm, served=served)
        self.app = build_ollama_app(OneModel(self.served, self.client))


@pytest.fixture(scope="module")
def service(chatml_folder: Path) -> Iterator[OllamaService]:
    with OllamaService(
        pophood.load(chatml_folder), architecture="qwen2", parameters=127_552, weight_bytes=5
    ) as service:
        yield service


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaService]:
    from tests.tiny import tiny_folder

    folder = tiny_folder(tmp_path_factory.mktemp("ollama") / "gpt2", "gpt2", n_positions=256)
    with OllamaService(pophood.load(folder)) as service:
        yield service


def lines(told: Told) -> list[dict[str, Any]]:
    assert told.status == 200, told.body
    assert told.headers["content-type"] == "application/x-ndjson"
    assert told.body.endswith(b"\n")
    return [json.loads(line) for line in told.body.decode().splitlines()]


def usual(service: Service, **fields: Any) -> dict[str, Any]:
    """Ask for the same answer in OpenAI's protocol, at the same port."""
    told = service.ask("/v1/chat/completions", {"messages": TALK} | fields)
    answer: dict[str, Any] = told.json
    return answer


def test_vs_code_finds_the_model_and_chats(service: OllamaService) -> None:
    version = service.ask("/api/version").json["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)
    (model,) = service.ask("/api/tags").json["models"]
    facts = service.ask("/api/show", {"model": model["model"]}).json
    assert "completion" in facts["capabilities"] and facts["details"]["family"] == "qwen2"
    info = facts["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] == 256
    assert info["general.basename"] == model["name"]
    assert facts["template"] == service.served.template.source  # type: ignore[union-attr]
    told = service.ask(
        "/v1/chat/completions", {"model": model["model"], "messages": TALK, "max_tokens": 4, "stream": True}
    )
    assert told.status == 200 and told.body.endswith(b"data: [DONE]\n\n")


def test_a_chat_streams_lines_with_the_usual_answer(service: OllamaService) -> None:
    options = {"temperature": 0.7, "seed": 3, "num_predict": 12, "top_k": 20, "num_ctx": 256, "num_gpu": 0}
    told = lines(service.ask("/api/chat", {"model": "tiny", "messages": TALK, "options": options}))
    expected = usual(service, temperature=0.7, seed=3, max_tokens=12, top_k=20)
    assert "".join(one["message"]["content"] for one in told) == expected["choices"][0]["message"]["content"]
    assert all(one["message"]["role"] == "assistant" and one["model"] == "tiny/random" for one in told)
    assert [one["done"] for one in told] == [False] * (len(told) - 1) + [True]
    end = told[-1]
    assert end["done_reason"] == expected["choices"][0]["finish_reason"]
    assert end["prompt_eval_count"] == expected["usage"]["prompt_tokens"]
    assert end["eval_count"] == expected["usage"]["completion_tokens"]
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert isinstance(end[name], int)


def test_a_chat_that_is_not_streamed_is_one_object(service: OllamaService) -> None:
    fields = {"messages": TALK, "stream": False, "options": {"seed": 5, "num_predict": 9, "temperature": 0}}
    told = service.ask("/api/chat", {"model": "tiny:latest"} | fields).json
    expected = usual(service, seed=5, max_tokens=9, temperature=0)["choices"][0]
    assert told["message"] == {"role": "assistant", "content": expected["message"]["content"]}
    assert told["done"] is True and told["done_reason"] == expected["finish_reason"]


def test_log_probabilities_are_those_of_a_chat(service: OllamaService) -> None:
    asked = {"messages": TALK, "options": {"temperature": 0, "num_predict": 5}, "stream": False}
    told = service.ask("/api/chat", {"model": "tiny", "logprobs": True, "top_logprobs": 2} | asked).json
    expected = usual(service, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2)
    assert told["logprobs"] == expected["choices"][0]["logprobs"]["content"]


def test_generate_answers_a_prompt_or_continues_it(service: OllamaService) -> None:
    options = {"temperature": 0, "num_predict": 6}
    told = lines(service.ask("/api/generate", {"model": "tiny", "prompt": "Hi", "options": options}))
    expected = usual(service, temperature=0, max_tokens=6)["choices"][0]["message"]["content"]
    assert "".join(one["response"] for one in told) == expected
    raw = {"model": "tiny", "prompt": "Hi", "raw": True, "stream": False, "options": options}
    continued = service.ask("/v1/completions", {"prompt": "Hi", "temperature": 0, "max_tokens": 6}).json
    assert service.ask("/api/generate", raw).json["response"] == continued["choices"][0]["text"]


def test_a_model_without_a_template_continues(plain: OllamaService) -> None:
    options = {"temperature": 0, "num_predict": 6}
    told = plain.ask("/api/generate", {"model": "tiny", "prompt": "Hi", "options": options, "stream": False})
    continued = plain.ask("/v1/completions", {"prompt": "Hi", "temperature": 0, "max_tokens": 6}).json
    assert told.json["response"] == continued["choices"][0]["text"]
    refused = plain.ask("/api/chat", {"model": "tiny", "messages": TALK})
    assert refused.status == 400 and set(refused.json) == {"error"}


def test_a_form_is_enforced(service: OllamaService) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    asked = {"model": "tiny", "messages": TALK, "format": schema, "stream": False}
    told = service.ask("/api/chat", asked | {"options": {"seed": 1, "num_predict": 60}}).json
    assert json.loads(told["message"]["content"])["a"] in ("x", "y")


def test_a_request_without_a_prompt_finds_the_model_loaded(service: OllamaService) -> None:
    told = service.ask("/api/chat", {"model": "tiny", "messages": []}).json
    assert (told["done"], told["done_reason"], told["message"]["content"]) == (True, "load", "")
    assert service.ask("/api/generate", {"model": "tiny", "keep_alive": 0}).json["response"] == ""
    assert service.ask("/").body == b"pophood is running"


@pytest.mark.parametrize(
    ("path", "fields", "status", "said"),
    [
        ("/api/chat", {}, 400, "wanted the name of a model"),
        ("/api/chat", {"model": "other"}, 404, "does not exist"),
        ("/api/show", {"model": "other"}, 404, "does not exist"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "options": {"num_ctx": 8192}}, 400, "num_ctx"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "options": {"mirostat": 2}}, 400, "mirostat"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "options": {"warmth": 2}}, 400, "warmth"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "truncate": True}, 400, "never cut"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "think": True}, 400, "does not think"),
        ("/api/chat", {"model": "tiny", "messages": TALK, "temprature": 1}, 400, "temprature"),
        ("/api/chat", {"model": "tiny", "messages": [TALK[0] | {"images": ["aa"]}]}, 400, "images"),
        (
            "/api/chat",
            {"model": "tiny", "messages": [TALK[0] | {"content": "a" * 3000}]},
            400,
            "maximum context",
        ),
        ("/api/generate", {"model": "tiny", "prompt": "Hi", "suffix": "a"}, 400, "suffix"),
        ("/api/pull", {"model": "tiny"}, 404, "Not Found"),
    ],
)
def test_what_is_not_done_is_refused_by_name(
    service: OllamaService, path: str, fields: Any, status: int, said: str
) -> None:
    told = service.ask(path, fields)
    assert told.status == status
    assert set(told.json) == {"error"} and said in told.json["error"]


def test_functions_and_their_results_are_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tool_folder(tmp_path_factory.mktemp("ollama") / "tools", sorted(TOOL_TEMPLATES)[0])
    call = {"name": "get_weather", "arguments": {"city": "Basel"}}
    result = {"role": "tool", "content": "sunny"}
    theirs = [*TALK, {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}]
    ours: list[dict[str, Any]] = [*TALK, {"role": "assistant", "content": ""}]
    ours[-1]["tool_calls"] = [{"id": "call_1_0", "type": "function"}]
    ours[-1]["tool_calls"][0]["function"] = call | {"arguments": json.dumps(call["arguments"])}
    with OllamaService(pophood.load(folder)) as service:
        asked = {
            "messages": [*theirs, result | {"tool_name": "get_weather"}],
            "tools": TOOLS,
            "stream": False,
        }
        told = service.ask(
            "/api/chat", {"model": "tiny", "options": {"temperature": 0, "num_predict": 5}} | asked
        )
        fields = {"messages": [*ours, result | {"tool_call_id": "call_2"}], "tools": TOOLS}
        expected = service.ask("/v1/chat/completions", fields | {"temperature": 0, "max_tokens": 5}).json
        assert "tools" in service.ask("/api/show", {"model": "tiny"}).json["capabilities"]
    assert told.status == 200, told.body
    assert told.json["message"]["content"] == (expected["choices"][0]["message"]["content"] or "")
    assert told.json["prompt_eval_count"] == expected["usage"]["prompt_tokens"]


def test_calls_have_their_arguments_as_objects() -> None:
    piece = OllamaShape("chat", "m").piece("", [("f", '{"a": [1]}'), ("g", '{"cut')], [])
    calls = [
        {"function": {"name": "f", "arguments": {"a": [1]}}},
        {"function": {"name": "g", "arguments": {}}},
    ]
    assert piece["message"] == {"role": "assistant", "content": "", "tool_calls": calls}
    assert piece["done"] is False
