"""openai's library and functions: its helpers make them, read calls, and send results, over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

import pophood
from tests.serve.protocol.service import Service
from tests.serve.protocol.test_tools import CLOSING, marks
from tests.serve.protocol.tool_models import call_text, forced, form_of, tool_folder
from tests.text.tool_templates import TOOL_TEMPLATES

TALK: list[Any] = [{"role": "user", "content": "How warm is it?"}]


class Weather(BaseModel):
    """The weather of a city."""

    city: Annotated[str, Field(max_length=9)]
    unit: Literal["C", "F"]


class Mood(BaseModel):
    """A form for answers."""

    kind: Literal["good", "bad"]


@pytest.fixture(scope="module", params=sorted(TOOL_TEMPLATES))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tool_folder(tmp_path_factory.mktemp("clients") / "m", form)
    with Service(pophood.load(folder)) as service:
        yield service


@pytest.fixture(scope="module")
def client(model: Service) -> Iterator[OpenAI]:
    with model.openai_client() as client:
        yield client


def test_parse_reads_forced_calls(client: OpenAI) -> None:
    tools = [pydantic_function_tool(Weather)]
    for seed in range(3):
        fields: dict[str, Any] = {"model": "tiny", "messages": TALK, "tools": tools, "seed": seed}
        fields |= {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
        fields |= {"logit_bias": CLOSING}
        parsed = client.chat.completions.parse(**fields)
        (call,) = parsed.choices[0].message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, Weather)
        assert parsed.choices[0].finish_reason == "tool_calls"
        with client.chat.completions.stream(**fields) as stream:
            events = list(stream)
            final = stream.get_final_completion()
        (streamed,) = final.choices[0].message.tool_calls or []
        assert streamed.function == call.function
        kinds = [event.type for event in events]
        assert (
            "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
        )


def test_a_conversation_with_a_call_and_its_result(client: OpenAI, model: Service, form: str) -> None:
    tools = [pydantic_function_tool(Weather, name="get_weather")]
    text = call_text(form_of(form), "get_weather", '{"city": "Bern", "unit": "C"}')
    body = forced(text, marks(model, form))
    first = client.chat.completions.parse(
        model="tiny",
        messages=TALK,
        tools=tools,
        max_tokens=body["max_tokens"],
        extra_body={"grammar": body["grammar"]},
    )
    message = first.choices[0].message
    (call,) = message.tool_calls or []
    assert call.function.parsed_arguments == Weather(city="Bern", unit="C")
    result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"degrees": 7})}
    talk: list[Any] = [*TALK, message, result]
    second = client.chat.completions.create(model="tiny", messages=talk, tools=tools, max_tokens=5, seed=1)
    assert second.choices[0].finish_reason in ("length", "stop", "tool_calls")


def test_a_form_beside_functions(client: OpenAI) -> None:
    for seed in range(4):
        parsed = client.chat.completions.parse(
            model="tiny",
            messages=TALK,
            tools=[pydantic_function_tool(Weather)],
            response_format=Mood,
            parallel_tool_calls=False,
            seed=seed,
            max_tokens=200,
            logit_bias=CLOSING,
            temperature=1.5,
        )
        message = parsed.choices[0].message
        calls = message.tool_calls or []
        assert isinstance(message.parsed, Mood) if not calls else calls[0].function.parsed_arguments
