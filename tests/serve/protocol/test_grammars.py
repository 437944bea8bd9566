"""Structured answers: every spelling is enforced, a wrong form is 400, a failing matcher an error."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import pophood
from pophood.grammar.matching import Constraint
from tests.serve.protocol.reader import read_stream
from tests.serve.protocol.service import Service

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "size": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["mood", "size"],
    "additionalProperties": False,
}
OPENAI: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA}}
GBNF = 'root ::= "yes" | "no"'
FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "OpenAI's": ({"response_format": OPENAI}, SCHEMA),
    "strict": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {**OPENAI["json_schema"], "strict": True},
            }
        },
        SCHEMA,
    ),
    "llama.cpp's object": ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
    "json_schema": ({"json_schema": SCHEMA}, SCHEMA),
    "guided_json": ({"guided_json": SCHEMA}, SCHEMA),
    "guided_json as text": ({"guided_json": json.dumps(SCHEMA)}, SCHEMA),
    "structured_outputs": ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
    "grammar": ({"grammar": GBNF}, {"yes", "no"}),
    "Lark": ({"grammar": 'start: "yes" | "no"'}, {"yes", "no"}),
    "regex": ({"regex": "yes|no"}, {"yes", "no"}),
    "guided_regex": ({"guided_regex": "yes|no"}, {"yes", "no"}),
    "guided_grammar": ({"guided_grammar": GBNF}, {"yes", "no"}),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
    "outputs: regex": ({"structured_outputs": {"regex": "yes|no"}}, {"yes", "no"}),
    "outputs: choice": ({"structured_outputs": {"choice": ["yes", "no"]}}, {"yes", "no"}),
    "outputs: grammar": ({"structured_outputs": {"grammar": GBNF}}, {"yes", "no"}),
}
WILD: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "max_tokens": 100}


def follows(text: str, form: Any) -> None:
    if isinstance(form, set):
        assert text in form
    else:
        jsonschema.validate(json.loads(text), form)


@pytest.mark.parametrize("name", FORMS)
def test_every_spelling_is_enforced(service: Service, name: str) -> None:
    fields, form = FORMS[name]
    for seed in range(3):
        told = service.chat(seed=seed, n=2, **fields, **WILD)
        assert told.status == 200, told.body
        for choice in told.json["choices"]:
            follows(choice["message"]["content"], form)
            assert choice["finish_reason"] == "stop"
        text = service.complete(["One", "Two"], seed=seed, **fields, **WILD)
        for choice in text.json["choices"]:
            follows(choice["text"], form)


@pytest.mark.parametrize("name", FORMS)
def test_a_stream_has_the_same_text(service: Service, name: str) -> None:
    fields, _ = FORMS[name]
    whole = service.chat(seed=1, logprobs=True, top_logprobs=3, **fields, **WILD).json
    body = service.chat(seed=1, logprobs=True, top_logprobs=3, stream=True, **fields, **WILD).body
    (choice,) = read_stream(body, size=1, include_usage=False, chat=True).choices
    assert choice.text == whole["choices"][0]["message"]["content"]
    assert choice.entries == whole["choices"][0]["logprobs"]["content"]


def test_the_json_mode_gives_an_object(service: Service) -> None:
    for seed in range(5):
        told = service.chat(seed=seed, response_format={"type": "json_object"}, **WILD).json["choices"][0]
        text = told["message"]["content"]
        assert text.startswith("{")
        assert told["finish_reason"] == "length" or isinstance(json.loads(text), dict)


def test_an_answer_is_that_of_the_library(service: Service, alone: pophood.LM) -> None:
    told = service.complete("Once upon", seed=3, json_schema=SCHEMA, **WILD).json["choices"][0]["text"]
    grammar = pophood.Grammar.json_schema(SCHEMA)
    assert told == alone.generate("Once upon", grammar=grammar, seed=3, **WILD).completion


def test_log_probabilities_of_what_must_follow_are_0(service: Service) -> None:
    told = service.chat(seed=1, guided_choice=["yes!"], logprobs=True, top_logprobs=5, max_tokens=9).json
    for entry in told["choices"][0]["logprobs"]["content"]:
        assert entry["logprob"] == 0
        assert [one["logprob"] for one in entry["top_logprobs"]] == [0]


NOTHING: list[dict[str, Any]] = [
    *(
        {"response_format": {"type": "text"}},
        {"response_format": None},
        {"grammar": ""},
        {"json_schema": None},
    ),
    *(
        {"structured_outputs": {}},
        {"structured_outputs": {"json": None, "json_object": False}},
        {"regex": ""},
    ),
]


@pytest.mark.parametrize("fields", NOTHING)
def test_a_field_that_asks_for_nothing_changes_nothing(service: Service, fields: dict[str, Any]) -> None:
    plain = service.chat(seed=1, max_tokens=5).json["choices"]
    assert service.chat(seed=1, max_tokens=5, **fields).json["choices"] == plain


WRONG: list[tuple[str, Any]] = [
    *(
        ("response_format", value)
        for value in ({}, {"type": "xml"}, {"type": "json_schema"}, {"type": ["a"]})
    ),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}),
    ("response_format", {"type": "json_object", "schema": 5}),
    ("json_schema", {"$ref": "https://example.org/schema"}),
    ("json_schema", [1]),
    ("json_schema", False),
    ("guided_json", "{"),
    ("grammar", "root ::= ("),
    ("grammar", "start: nobody"),
    ("regex", "("),
    ("guided_regex", "(?=a)"),
    ("guided_choice", []),
    ("guided_choice", ["a", 1]),
    ("structured_outputs", {"json": {}, "regex": "a"}),
    ("structured_outputs", {"tag": 1}),
    ("structured_outputs", {"regex": 5}),
    ("structured_outputs", {"grammar": 5}),
    ("structured_outputs", {"choice": "yes"}),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_form_is_refused_by_name(service: Service, name: str, value: Any, stream: bool) -> None:
    told = service.chat(stream=stream, **{name: value})
    assert told.status == 400
    assert told.error["param"] == name


def test_two_forms_contradict_each_other(service: Service) -> None:
    told = service.chat(response_format=OPENAI, regex="yes|no")
    assert told.status == 400 and "give one" in told.error["message"]


@pytest.mark.parametrize("at", range(1, 21))
def test_a_matcher_that_fails_ends_the_answer_with_an_error(
    service: Service, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status before the first byte of an answer, an event in a stream, and nobody else notices."""
    consume = Constraint._consume
    steps: dict[int, int] = {}

    def broken(self: Constraint, tokens: Any) -> None:
        steps[id(self)] = steps.get(id(self), 0) + 1
        consume(self, [*tokens, 10**6] if steps[id(self)] == at else tokens)

    monkeypatch.setattr(Constraint, "_consume", broken)
    body = {"prompt": "Once", "regex": "[a-z]{90}", "seed": at, "max_tokens": 60}
    free = {"prompt": "Once", "seed": at, "max_tokens": 60}
    whole, stream, other = service.ask_all(
        [("/v1/completions", body), ("/v1/completions", body | {"stream": True}), ("/v1/completions", free)]
    )
    assert whole.status == 500
    assert whole.error["code"] == "engine_error" and "matcher failed" in whole.error["message"]
    assert other.status == 200
    if stream.status == 200:
        lines = [line for line in stream.body.decode().split("\n") if line]
        last = json.loads(lines[-1].removeprefix("data: "))
        assert last["error"]["code"] == "engine_error" and "[DONE]" not in lines[-1]
        text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1])
        assert text == "" or text.isalpha()
    else:
        assert stream.status == 500
