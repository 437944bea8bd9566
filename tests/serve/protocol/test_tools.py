"""Functions in requests: 200 conversations whose answers are forced, refusals, and calls that are forced."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import jsonschema
import pytest

import pophood
from pophood.grammar import matching
from pophood.openai.tools.formats import CallFormat
from tests.serve.protocol.reader import read_stream
from tests.serve.protocol.service import Service, Told
from tests.serve.protocol.tool_models import (
    NOW,
    TOOLS,
    WEATHER,
    call_text,
    forced,
    form_of,
    tool_folder,
)
from tests.text.tool_templates import PLAIN, TOOL_TEMPLATES, XML

FORMS = sorted(TOOL_TEMPLATES)
ASKED = {"role": "user", "content": "What is the weather?"}
BARE = CallFormat("bare", "")
WILD: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "max_tokens": 300}


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a model behind the app, for each format."""
    folder = tool_folder(tmp_path_factory.mktemp("tools") / "m", form)
    with Service(pophood.load(folder)) as service:
        yield service


def marks(model: Service, form: str) -> dict[str, int]:
    """Return the tokens that are marks of a format."""
    found = {mark: model.served.tokenizer.id_of(mark) for mark in form_of(form).marks}
    return {mark: id_ for mark, id_ in found.items() if id_ is not None}


def talk(model: Service, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return the choice of a chat, whole and streamed, which must agree."""
    body = {"messages": messages, "tools": TOOLS, "seed": 1, **fields}
    whole = model.ask("/v1/chat/completions", body)
    assert whole.status == 200, whole.body
    choice: dict[str, Any] = whole.json["choices"][0]
    streamed = model.ask("/v1/chat/completions", body | {"stream": True}).body
    (one,) = read_stream(streamed, size=1, include_usage=False, chat=True).choices
    assert one.text == (choice["message"]["content"] or "")
    assert one.finish == choice["finish_reason"]
    calls = choice["message"].get("tool_calls", [])
    assert [(call["function"], call["type"]) for call in one.calls] == [
        (call["function"], call["type"]) for call in calls
    ]
    return choice


# Texts that are no calls: what a small model writes when it goes wrong.
BROKEN = [
    "Sunny.",
    "{open}",
    '{open}{{"name": "get_weather", "arguments": {{"city": "Ba',
    '{open}{{"name": "get_weather", "parameters": "Basel"}}{close}',
    '{open}{{"name": "unknown", "arguments": {{}}}}{close}',
    '{open}{{"city": "Basel"}}{close}',
    "{open}get_weather(city='Basel'){close}",
    '{open}[{{"name": "now"}}]{close} done',
    '{{"name": "Bob", "age": 3}}',
    "{open}{open}{close}{close}",
    "{close} \\u2028 </tool",
    "  \n",
]


def arguments_of(random_: random.Random) -> str:
    values: list[Any] = [
        "Basel",
        "Zürich \U0001f600",
        'a "quoted" \\ name',
        "</tool_call>\n[ARGS]",
        "",
        3.5,
        -1,
        None,
    ]
    data = {f"k{n}": random_.choice(values) for n in range(random_.randrange(4))}
    data |= {"deep": [dict(data), [True, {}]]} if random_.random() < 0.3 else {}
    return json.dumps(data, ensure_ascii=random_.random() < 0.5)


def test_conversations_whose_answers_are_forced(model: Service, form: str) -> None:
    """50 in each of the four formats: content, calls, results, calls again; and what goes wrong."""
    random_ = random.Random(form)
    ids, shape = marks(model, form), form_of(form)
    for number in range(50):
        messages: list[dict[str, Any]] = [ASKED]
        for turn in count():
            if number % 3 == 2 or turn == 2:
                text = BROKEN[(number // 3 + turn) % len(BROKEN)].format(open=shape.opens, close=shape.closes)
                choice = talk(model, messages, **forced(text, ids))
                assert choice["message"]["content"] == text
                assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
                break
            name, arguments = random_.choice(["now", "get_weather"]), arguments_of(random_)
            said = "" if shape.style == "bare" or random_.random() < 0.5 else "Let me look."
            text = said + ("\n" if said else "") + call_text(shape, name, arguments)
            choice = talk(model, messages, **forced(text, ids))
            message = choice["message"]
            (call,) = message["tool_calls"]
            assert call["function"] == {"name": name, "arguments": arguments}
            assert message["content"] == (said or None)
            assert choice["finish_reason"] == "tool_calls"
            messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": "Rain, 7 C"}]
    rendered = model.ask("/v1/chat/completions/render", {"messages": messages, "tools": TOOLS}).json
    assert "Rain, 7 C" in rendered["prompt"] and "get_weather" in rendered["prompt"]


def test_what_was_called_comes_back_to_the_model_as_it_wrote_it(model: Service, form: str) -> None:
    text = call_text(form_of(form), "get_weather", '{"city": "Z\u00fcrich", "unit": "C"}')
    message = talk(model, [ASKED], **forced(text, marks(model, form)))["message"]
    told = model.ask(
        "/v1/chat/completions/render",
        {"messages": [ASKED, message], "tools": TOOLS, "add_generation_prompt": False},
    )
    prompt = told.json["prompt"]
    if form == "mistral spaced":
        text = text.replace("}}]", f'}}, "id": "{message["tool_calls"][0]["id"]}"}}]')
    assert text in prompt
    assert (form in ("hermes", "llama")) or message["tool_calls"][0]["id"].isalnum()


def test_several_calls_in_one_answer(model: Service, form: str) -> None:
    one, two = '{"city": "A", "unit": "F"}', "{}"
    shape = form_of(form)
    text = {
        "tagged": f"{call_text(shape, 'get_weather', one)}\n{call_text(shape, 'now', two)}",
        "bare": f"{call_text(shape, 'get_weather', one)}; {call_text(shape, 'now', two)}",
        "named": call_text(shape, "get_weather", one) + call_text(shape, "now", two),
        "list": call_text(shape, "get_weather", one)[:-1] + f", {call_text(BARE, 'now', two)}]",
    }[shape.style]
    message = talk(model, [ASKED], **forced(text, marks(model, form)))["message"]
    functions = [call["function"] for call in message["tool_calls"]]
    assert functions == [{"name": "get_weather", "arguments": one}, {"name": "now", "arguments": two}]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    alone = talk(model, [ASKED], parallel_tool_calls=False, **forced(text, marks(model, form)))["message"]
    assert len(alone.get("tool_calls", [])) <= 1


def check(choice: dict[str, Any]) -> list[str]:
    """Check that an answer is calls that match their schemas; return the names."""
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    names = []
    for call in choice["message"]["tool_calls"]:
        names.append(call["function"]["name"])
        arguments = json.loads(call["function"]["arguments"])
        if names[-1] == "now":
            assert arguments == {}
        else:
            jsonschema.validate(arguments, WEATHER["function"]["parameters"])
            assert arguments.keys() <= {"city", "unit", "days"}
    return names


# A random model would seldom end a text or a list.
CLOSING = {"1": 6, "60": 6, "92": 6}


def test_a_required_call_is_forced(model: Service) -> None:
    seen: set[str] = set()
    for seed in range(12):
        fields = {"seed": seed, "logit_bias": CLOSING, "parallel_tool_calls": False, **WILD}
        choice = talk(model, [ASKED], tool_choice="required", **fields)
        names = check(choice)
        assert len(names) == 1
        seen |= set(names)
    assert seen == {"now", "get_weather"}


def test_a_named_function_is_forced(model: Service) -> None:
    for name in ("now", "get_weather"):
        named = {"type": "function", "function": {"name": name}}
        for seed in range(4):
            choice = talk(model, [ASKED], tool_choice=named, **WILD | {"seed": seed, "logit_bias": CLOSING})
            assert check(choice) == [name]


def test_several_calls_can_be_forced(model: Service) -> None:
    for seed in range(6):
        fields = WILD | {"seed": seed, "logit_bias": CLOSING, "max_tokens": 900}
        choice = talk(model, [ASKED], tool_choice="required", **fields)
        if choice["finish_reason"] != "length":
            check(choice)


def test_a_forced_call_that_is_cut_says_so(model: Service) -> None:
    for length in range(1, 40, 3):
        fields = WILD | {"max_tokens": length}
        choice = talk(model, [ASKED], tool_choice="required", tools=[WEATHER], **fields)
        assert choice["finish_reason"] == "length"


def test_strict_functions_are_enforced_when_they_are_called(model: Service, form: str) -> None:
    strict = [{"type": "function", "function": WEATHER["function"] | {"strict": True}}, NOW]
    opening = call_text(form_of(form), "get_weather", "").split("get_weather")[0]
    bias = {str(id_): 40 for mark, id_ in marks(model, form).items() if opening.startswith(mark)}
    bias |= {str(model.served.tokenizer.id_of("{")): 30} if form == "llama" else {}
    for seed in range(8):
        fields = WILD | {"seed": seed, "logit_bias": bias | CLOSING, "parallel_tool_calls": False}
        choice = talk(model, [ASKED], tools=strict, **fields)
        for call in choice["message"].get("tool_calls", []):
            arguments = json.loads(call["function"]["arguments"])
            if call["function"]["name"] == "get_weather":
                jsonschema.validate(arguments, WEATHER["function"]["parameters"])


def test_a_schema_for_answers_leaves_calls_possible(model: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    for seed in range(8):
        fields = WILD | {"seed": seed, "logit_bias": CLOSING, "parallel_tool_calls": False}
        choice = talk(model, [ASKED], response_format=form, **fields)
        if choice["message"].get("tool_calls"):
            check(choice)
        else:
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)


def test_none_shows_the_model_no_functions(model: Service) -> None:
    body = {"messages": [ASKED], "tools": TOOLS}
    shown, hidden, bare = (
        model.ask("/v1/chat/completions/render", one).json["prompt"]
        for one in (body, body | {"tool_choice": "none"}, {"messages": [ASKED]})
    )
    assert "get_weather" in shown and hidden == bare


def test_the_model_says_that_it_takes_tools(model: Service) -> None:
    assert model.ask("/v1/models").json["data"][0]["capabilities"]["tools"] is True
    told = model.ask("/tokenize", {"messages": [ASKED], "tools": TOOLS}).json
    render = model.ask("/v1/chat/completions/render", {"messages": [ASKED], "tools": TOOLS}).json
    assert told["tokens"] == render["prompt_token_ids"]


def named(name: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [5]}, "tools", "whose type is function"),
    ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
    ({"tools": [{"type": "function"}]}, "tools", "tools[0].function"),
    ({"tools": [named("a b")]}, "tools", "64 letters"),
    ({"tools": [named("a"), named("a")]}, "tools", "two functions"),
    ({"tools": [named(f"f{n}") for n in range(129)]}, "tools", "128"),
    ({"tools": [named("a", description="x" * 270_000)]}, "tools", "262,144"),
    ({"tools": [named("a", description=5)]}, "tools", "description"),
    ({"tools": [named("a", strict="yes")]}, "tools", "strict"),
    ({"tools": [named("a", parameters=[])]}, "tools", "JSON schema"),
    ({"tools": [named("a", parameters={"type": "string"})]}, "tools", "wanted object"),
    ({"tools": "all"}, "tools", "list"),
    ({"tool_choice": "any"}, "tool_choice", '"required"'),
    ({"tool_choice": {"type": "function"}}, "tool_choice", "name"),
    ({"tool_choice": named("other")}, "tool_choice", "none of the functions"),
    ({"tool_choice": "required", "tools": []}, "tool_choice", "no function"),
    ({"tool_choice": "required", "regex": "a"}, "tool_choice", "give one"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "bool"),
    (
        {"tool_choice": "required", "tools": [NOW, named("a", parameters={"type": "object", "not": {}})]},
        "tools",
        "tools[1] (a): the JSON schema cannot be used",
    ),
    ({"chat_template_kwargs": {"tools": []}}, "tools", "once"),
]


@pytest.mark.parametrize(("fields", "param", "words"), WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_functions_are_refused_by_name(
    model: Service, fields: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    body = {"messages": [ASKED], "tools": TOOLS, "stream": stream, "max_tokens": 1, **fields}
    told = model.ask("/v1/chat/completions", body)
    assert told.status == 400, told.body
    assert told.error["param"] == param and words in told.error["message"], told.error


def test_without_llguidance_one_line_names_the_extra(model: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise pophood.errors.Unsupported(matching.MISSING)

    monkeypatch.setattr(type(model.served), "compile", missing)
    body = {"messages": [ASKED], "tools": TOOLS, "tool_choice": "required"}
    told = model.ask("/v1/chat/completions", body)
    assert told.status == 400 and "pophood[grammar]" in told.error["message"]
    assert model.ask("/v1/chat/completions", body | {"tool_choice": "auto", "max_tokens": 1}).status == 200


@pytest.mark.parametrize("source", [PLAIN, XML])
def test_a_template_without_calls_refuses_tools(service: Service, source: str) -> None:
    template = service.served.template
    service.served.template = pophood.text.chat.chat_template.ChatTemplate(source)
    try:
        told: Told = service.chat(tools=TOOLS, max_tokens=1)
        assert (told.status, told.error["param"], told.error["code"]) == (
            400,
            "tools",
            "unsupported_parameter",
        )
        assert service.chat(tools=TOOLS, tool_choice="none", max_tokens=1).status == 200
        assert service.ask("/v1/models").json["data"][0]["capabilities"]["tools"] is False
    finally:
        service.served.template = template


def test_a_completion_model_refuses_tools(untemplated: Service) -> None:
    told = untemplated.chat(tools=TOOLS)
    assert told.status == 400
    assert untemplated.complete(tools=TOOLS).error["param"] == "tools"
