"""/v1/responses: a chat in other words. openai's library reads answers and streams; a memory is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel, Field

import pophood
from tests.serve.protocol.service import Service
from tests.serve.protocol.test_tools import CLOSING, marks
from tests.serve.protocol.tool_models import call_text, forced, form_of, tool_folder

ROUTE = "/v1/responses"
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 9}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Mood(BaseModel):
    """A form for answers."""

    kind: Literal["good", "bad"]
    size: Annotated[int, Field(ge=0, le=99)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tool_folder(tmp_path_factory.mktemp("responses") / "m", "hermes")
    with Service(pophood.load(folder)) as service:
        yield service


@pytest.fixture(scope="module")
def client(model: Service) -> Iterator[OpenAI]:
    with model.openai_client() as client:
        yield client


def events_of(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, whose lines and numbers are checked."""
    events = []
    for block in body.decode("ascii")[:-2].split("\n\n"):
        kind, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def alike(response: dict[str, Any]) -> dict[str, Any]:
    """Return what two answers to the same request have in common."""
    copy = {name: value for name, value in response.items() if name not in ("id", "created_at", "timings")}
    copy["output"] = [
        {name: value for name, value in item.items() if name not in ("id", "call_id")}
        for item in copy["output"]
    ]
    copy["usage"] = {name: value for name, value in copy["usage"].items() if name != "input_tokens_details"}
    return copy


def both(model: Service, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a response and the events of the same request's stream, which must agree."""
    body = {"input": "Hi", "seed": 1, "max_output_tokens": 9, **fields}
    told = model.ask(ROUTE, body)
    assert told.status == 200, told.body
    Response.model_validate_json(told.body)
    events = events_of(model.ask(ROUTE, body | {"stream": True}).body)
    assert alike(events[-1]["response"]) == alike(told.json)
    assert events[-1]["type"] == f"response.{told.json['status']}"
    return told.json, events


def test_a_response_is_the_answer_of_the_chat(model: Service) -> None:
    for seed in range(5):
        response, _ = both(model, seed=seed, temperature=0.9, instructions="Be brief.")
        talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        chat = model.ask(
            "/v1/chat/completions",
            {"messages": talk, "seed": seed, "max_tokens": 9, "temperature": 0.9},
        ).json
        (item,) = response["output"]
        assert item["content"][0]["text"] == chat["choices"][0]["message"]["content"]
        assert response["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]
        assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
        finish = {"length": "incomplete", "stop": "completed"}[chat["choices"][0]["finish_reason"]]
        assert response["status"] == item["status"] == finish
        assert response["store"] is False and response["instructions"] == "Be brief."


def test_the_order_of_events(model: Service) -> None:
    text = 'Look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
    fields = forced(text, marks(model, "hermes"))
    fields = {"grammar": fields["grammar"], "max_output_tokens": 500}
    response, events = both(model, tools=[TOOL | {"strict": False}], **fields)
    kinds = [event["type"].removeprefix("response.") for event in events]
    once = [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]
    assert once == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
        *("output_item.done", "completed"),
    ]
    message, call = response["output"]
    assert message["content"][0]["text"] == "Look."
    assert (call["name"], call["arguments"]) == ("get_weather", '{"city": "Bern"}')
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "Look."
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == events[-1]["response"]["output"][event["output_index"]]["id"]


def test_openais_library_creates_and_streams(client: OpenAI) -> None:
    for seed in range(3):
        fields: dict[str, Any] = {"model": "tiny", "input": "Hi", "max_output_tokens": 30}
        fields["extra_body"] = {"seed": seed, "regex": "[a-z ]{12}"}  # it is complete, as the helper wants
        response = client.responses.create(**fields)
        with client.responses.stream(**fields) as stream:
            for _ in stream:
                pass
            assert stream.get_final_response().output_text == response.output_text
        pieces = client.responses.create(stream=True, **fields)
        text = "".join(event.delta for event in pieces if event.type == "response.output_text.delta")
        assert text == response.output_text


def test_openais_library_parses_forms_and_calls(client: OpenAI) -> None:
    for seed in range(3):
        extra = {"seed": seed, "logit_bias": CLOSING}
        parsed = client.responses.parse(
            model="tiny", input="Hi", text_format=Mood, max_output_tokens=200, extra_body=extra
        )
        assert isinstance(parsed.output_parsed, Mood)
        fields: dict[str, Any] = {"model": "tiny", "input": "Hi", "tools": [TOOL], "max_output_tokens": 200}
        fields |= {"tool_choice": "required", "parallel_tool_calls": False, "extra_body": extra}
        called = client.responses.create(**fields)
        (call,) = called.output
        assert call.type == "function_call" and json.loads(call.arguments).keys() == {"city"}


def test_a_conversation_goes_on_from_its_items(client: OpenAI, model: Service) -> None:
    text = call_text(form_of("hermes"), "get_weather", '{"city": "Bern"}')
    grammar = forced(text, marks(model, "hermes"))["grammar"]
    tool: Any = TOOL | {"strict": False}
    talk: list[Any] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Warm?"}]
    first = client.responses.create(
        model="tiny",
        input=talk,
        tools=[tool],
        max_output_tokens=500,
        extra_body={"grammar": grammar},
    )
    (call,) = first.output
    assert call.type == "function_call"
    items = [item.model_dump(exclude_none=True) for item in first.output]
    talk += [*items, {"type": "function_call_output", "call_id": call.call_id, "output": "7 C"}]
    second = client.responses.create(
        model="tiny",
        input=talk,
        tools=[tool],
        max_output_tokens=5,
    )
    rendered = model.ask(
        "/v1/chat/completions/render",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Warm?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": call.call_id,
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": call.arguments},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": call.call_id, "content": "7 C"},
            ],
            "tools": [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}],
        },
    ).json
    assert second.usage is not None and second.usage.input_tokens == rendered["prompt_tokens"]
    assert text in rendered["prompt"]


def test_log_probabilities(model: Service) -> None:
    include = ["message.output_text.logprobs"]
    response, events = both(model, include=include, top_logprobs=2)
    (part,) = response["output"][0]["content"]
    assert len(part["logprobs"]) == response["usage"]["output_tokens"] or part["logprobs"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    streamed = [one for event in events if event["type"].endswith("text.delta") for one in event["logprobs"]]
    assert streamed == part["logprobs"][: len(streamed)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"store": True}, "store"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"truncation": "auto"}, "truncation"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"include": ["file_search_call.results"]}, "include"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"n": 2}, "n"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": [5]}, "input"),
    ({"input": [{"type": "reasoning", "id": "r"}]}, "input"),
    ({"input": [{"type": "item_reference", "id": "r"}]}, "input"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input"),
    ({"input": [{"role": "user"}]}, "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
    ({"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]}]}, "input"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]}, "input"),
    ({"input": "x" * 3_000}, "input"),
    ({"text": {"format": {"type": "xml"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}}, "text.format"),
    (
        {"text": {"format": {"type": "json_object"}}, "response_format": {"type": "json_object"}},
        "text.format",
    ),
    ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
    ({"messages": []}, "messages"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_there_is_refused_by_name(
    model: Service, fields: dict[str, Any], param: str, stream: bool
) -> None:
    told = model.ask(ROUTE, {"input": "Hi", "max_output_tokens": 3, "stream": stream, **fields})
    assert told.status == 400, told.body
    assert told.error["param"] == param, told.error


HARMLESS: dict[str, Any] = {
    "store": False,
    "background": False,
    "truncation": "disabled",
    "previous_response_id": None,
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
    "user": "me",
    "tools": [],
    "include": [],
    "text": {"format": {"type": "text"}, "verbosity": "low"},
}


def test_what_asks_for_what_happens_anyway_is_taken(model: Service) -> None:
    response, _ = both(model, **HARMLESS)
    assert response["metadata"] == {"a": "b"} and response["store"] is False


def test_a_failure_in_a_stream_is_an_event(client: OpenAI, model: Service, monkeypatch: Any) -> None:
    from pophood.grammar.matching import Constraint

    consume, steps = Constraint._consume, [0]

    def broken(self: Constraint, tokens: Any) -> None:
        steps[0] += 1
        consume(self, [*tokens, 10**6] if steps[0] == 12 else tokens)

    monkeypatch.setattr(Constraint, "_consume", broken)
    with pytest.raises(openai.APIError, match="matcher failed"):
        for _ in client.responses.create(
            model="tiny", input="Hi", stream=True, max_output_tokens=60, extra_body={"regex": "[a-z]{90}"}
        ):
            pass
