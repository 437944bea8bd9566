"""Fields of requests: refused by name, ignored, unknown, of a wrong type, out of range. Never a 5xx."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from pophood.openai.fields import HARMLESS_VALUES, IGNORED, REFUSED
from pophood.serve.protocol.schemas import ChatRequest, CompletionRequest
from tests.serve.protocol.service import Service

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BASE: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "seed": 1},
    TEXT: {"prompt": "Hi", "max_tokens": 1, "seed": 1},
}
MEANT: dict[str, Any] = {  # a value that asks for something, where "yes" is no such value
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "modalities": ["text", "audio"],
    "best_of": 3,
    "mirostat": 2,
    "n_probs": 5,
    "use_beam_search": True,
    "truncate_prompt_tokens": 5,
}


def refused(path: str) -> list[str]:
    """Return the fields that a route refuses; a chat takes functions."""
    return [name for name in REFUSED if path == TEXT or name not in ChatRequest.model_fields]


@pytest.mark.parametrize(("path", "name"), [(path, name) for path in (CHAT, TEXT) for name in refused(path)])
def test_a_field_that_changes_the_meaning_is_refused_by_name(service: Service, path: str, name: str) -> None:
    told = service.ask(path, BASE[path] | {name: MEANT.get(name, "yes")})
    assert told.status == 400
    assert (told.error["param"], told.error["code"]) == (name, "unsupported_parameter")
    assert name in told.error["message"]
    assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_value_that_asks_for_what_happens_anyway_is_taken(service: Service, path: str) -> None:
    for name in set(refused(path)) - {"best_of"}:
        for value in (None, False, "", [], {}, *HARMLESS_VALUES.get(name, ())):
            told = service.ask(path, BASE[path] | {name: value})
            assert told.status == 200, (name, value, told.body)


def test_a_flag_is_not_a_number(service: Service) -> None:
    assert service.chat(mirostat=True).status == 400
    assert service.chat(length_penalty=True).status == 400


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_field_on_which_nothing_depends_is_ignored(service: Service, path: str) -> None:
    fields = {name: {"any": ["thing"]} for name in IGNORED}
    plain, told = service.ask(path, BASE[path]), service.ask(path, BASE[path] | fields)
    assert told.status == 200
    assert told.json["choices"] == plain.json["choices"]


def test_no_field_is_in_two_lists() -> None:
    known = ChatRequest.model_fields.keys() | CompletionRequest.model_fields.keys()
    assert not REFUSED.keys() & IGNORED
    assert not IGNORED & known
    assert REFUSED.keys() & CompletionRequest.model_fields.keys() == {"best_of"}  # taken if it equals n
    assert REFUSED.keys() & known == {"best_of", "tools", "tool_choice", "parallel_tool_calls"}
    assert HARMLESS_VALUES.keys() <= REFUSED.keys()


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_an_unknown_field_is_refused_as_openai_does(service: Service, path: str) -> None:
    told = service.ask(path, BASE[path] | {"temprature": 0.5, "other\n": 1})
    assert told.status == 400
    assert (told.error["param"], told.error["code"]) == ("temprature", "unknown_parameter")
    assert told.error["message"] == (
        "Unrecognized request argument supplied: 'temprature', 'other\\n'. Did you mean `temperature`?"
    )


NUMBERS = (
    *("max_tokens", "n_predict", "min_tokens", "n", "seed", "first_sample", "temperature", "top_k", "top_p"),
    *("min_p", "typical_p", "repetition_penalty", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("penalty_window", "repeat_last_n", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_window"),
    *("dry_penalty_last_n", "xtc_probability", "xtc_threshold"),
)
NO_NUMBERS: list[Any] = ["1", True, [1], {}, {"a": 1}]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_must_be_one(service: Service, name: str) -> None:
    for value in NO_NUMBERS:
        told = service.chat(**{name: value})
        assert told.status == 400, value
        assert told.error["param"] == name
    for value in (-(2**63), 2**64, 10**400, 1e300, -7.5):
        fields: dict[str, Any] = {"max_tokens": 1, name: value}
        told = service.chat(**fields)
        assert told.status == 400 or (name.endswith("penalty") and value == -7.5), (value, told.body)
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5_000):
        body = json.dumps(BASE[CHAT] | {name: "X"}).encode().replace(b'"X"', text)
        assert service.ask(CHAT, body).status == 400, text


WRONG: list[tuple[str, str, Any]] = [
    (CHAT, "messages", "Hi"),
    (CHAT, "messages", []),
    (CHAT, "messages", [1]),
    (CHAT, "messages", [{}]),
    (CHAT, "messages", [{"role": "user"}]),
    (CHAT, "messages", [{"role": 7, "content": "Hi"}]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
    (CHAT, "messages", [{"role": "user", "content": "\ud800"}]),
    (CHAT, "logprobs", 3),
    (CHAT, "top_logprobs", 21),
    (CHAT, "top_logprobs", 5),  # without logprobs
    (CHAT, "max_tokens", 0),
    (CHAT, "chat_template_kwargs", []),
    (CHAT, "chat_template_kwargs", {"nothing": 1}),
    (TEXT, "prompt", None),
    (TEXT, "prompt", []),
    (TEXT, "prompt", [[]]),
    (TEXT, "prompt", 7),
    (TEXT, "prompt", [1, "a"]),
    (TEXT, "prompt", ["a", 1]),
    (TEXT, "prompt", [1, True]),
    (TEXT, "prompt", [1.0]),
    (TEXT, "prompt", [[1], ["a"]]),
    (TEXT, "prompt", [10**9]),
    (TEXT, "prompt", [-1]),
    (TEXT, "prompt", [2**70]),
    (TEXT, "prompt", "\udfff"),
    (TEXT, "prompt", ["a"] * 3_000),
    (TEXT, "logprobs", True),
    (TEXT, "logprobs", 21),
    (TEXT, "best_of", 2),
    (TEXT, "n", 17),
    (TEXT, "stop", 7),
    (TEXT, "stop", [""]),
    (TEXT, "stop", ["a", None]),
    (TEXT, "stop", ["ab"] * 2_000),
    (TEXT, "stop", "a" * 100_000),
    (TEXT, "stop_token_ids", [99_999]),
    (TEXT, "stop_token_ids", "a"),
    (TEXT, "logit_bias", []),
    (TEXT, "logit_bias", {"a": 1}),
    (TEXT, "logit_bias", {"-1": 1}),
    (TEXT, "logit_bias", {"512": 1}),
    (TEXT, "logit_bias", {"\u0663": 1}),
    (TEXT, "logit_bias", {"3": "1"}),
    (TEXT, "logit_bias", {"3": True}),
    (TEXT, "logit_bias", {"3": None}),
    (TEXT, "logit_bias", {"3": 1e300}),
    (TEXT, "logit_bias", {"3": 10**400}),
    (TEXT, "order", ["top_k", "top_k"]),
    (TEXT, "samplers", "mirostat"),
    (TEXT, "samplers", 3),
    (TEXT, "min_tokens", 5),  # over max_tokens
    (TEXT, "dry_sequence_breakers", ["x"] * 40),
    (TEXT, "adapters", [{"scale": 1}]),
    (TEXT, "adapters", [{"name": "one", "scale": "1"}]),
    (TEXT, "adapters", [{"name": "one", "factor": 1}]),
    (TEXT, "adapters", [{"name": "one"}] * 17),
    (TEXT, "stream", 1),
    (TEXT, "stream_options", {"include_usage": 1}),
    (TEXT, "echo", "yes"),
    (TEXT, "model", 7),
]


@pytest.mark.parametrize(("path", "name", "value"), WRONG)
def test_a_wrong_value_is_400_and_named(service: Service, path: str, name: str, value: Any) -> None:
    told = service.ask(path, BASE[path] | {name: value})
    assert told.status == 400, told.body
    assert (told.error["param"] or "").startswith(name), told.error
    assert told.error["type"] == "invalid_request_error"
    assert len(told.error["message"]) < 400


BODIES = [
    *(b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"{} {}"),
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize", f"{CHAT}/render"])
def test_a_body_that_is_no_request_is_400(service: Service, path: str, body: bytes) -> None:
    told = service.ask(path, body, method="POST")
    assert told.status == 400
    assert told.error["type"] == "invalid_request_error"


def test_a_missing_field_is_named_in_openais_words(service: Service) -> None:
    told = service.ask(CHAT, {})
    assert told.error["message"] == "Missing required parameter: 'messages'."
    assert service.ask(TEXT, {}).error["param"] == "prompt"
    assert service.ask("/detokenize", {}).error["param"] == "tokens"


@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize", f"{CHAT}/render"])
def test_an_unknown_model_is_404(service: Service, path: str) -> None:
    bodies: dict[str, Any] = {"/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [1]}}
    body = bodies.get(path, BASE[TEXT if path == TEXT else CHAT])
    told = service.ask(path, body | {"model": "gpt-4o"})
    assert (told.status, told.error["code"]) == (404, "model_not_found")
    assert told.error["message"] == "The model 'gpt-4o' does not exist; 'tiny/random' is loaded."
    for name in ("tiny/random", "tiny", None):
        assert service.ask(path, body | {"model": name}).status == 200


def test_random_garbage_is_never_a_server_error(service: Service) -> None:
    """Values of every type in every field: a few hundred requests, none of which may be a 5xx."""
    draw = random.Random(7)
    values: list[Any] = [
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            2,
            17,
            2**31,
            2**63,
            -(2**63),
            2**64,
            0.5,
            -0.5,
            1e9,
            -1e9,
            1e38,
            1e-320,
        ),
        *("", "a", "\u2028", "\ud800", "top_k", [], [1], ["a"], [[1]], {}, {"1": 5}, {"a": 1}, [{}], [None]),
    ]
    for path, kind in ((CHAT, ChatRequest), (TEXT, CompletionRequest)):
        names = sorted(kind.model_fields)
        for _ in range(400):
            some = {name: draw.choice(values) for name in draw.sample(names, draw.randint(1, 4))}
            told = service.ask(path, BASE[path] | {"max_tokens": 2} | some)
            assert told.status in (200, 400, 404), (some, told.body)
            if told.status == 200 and not some.get("stream"):
                assert told.json["choices"]


def test_extreme_samplers_give_text_or_a_400(service: Service) -> None:
    draw = random.Random(8)
    extremes = [0, 1, -1e9, 1e9, 1e-9, 0.001, 1e6, 2]
    names = [name for name in NUMBERS if name not in ("max_tokens", "n_predict", "n", "seed", "min_tokens")]
    for _ in range(300):
        some: dict[str, Any] = {name: draw.choice(extremes) for name in draw.sample(names, 4)}
        told = service.chat("ha ha ha ha", max_tokens=3, **some)
        assert told.status in (200, 400), (some, told.body)
