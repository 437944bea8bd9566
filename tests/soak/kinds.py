"""Kinds of requests that `make soak` mixes: what each asks for, how often, and the status it must have."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WINDOW = 384  # the description of a function takes most of it
Fields = dict[str, Any]
# Few different words: the encoders of the tokenizer keep up to 10,000 each, some megabytes that fill up late.
_LETTERS = random.Random(0)
WORDS = ["".join(_LETTERS.choices("abcde", k=_LETTERS.randint(1, 6))) for _ in range(300)]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"enum": ["cat", "dog"]}},
            "required": ["word"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind: `make` draws the fields of one, None for a GET.

    `weight` is how often it is drawn. `probed` kinds are left out if the server does not know them. `leaves`:
    the client closes its connection at a random moment.
    """

    name: str
    path: str
    make: Callable[[random.Random], Any]
    status: int = 200
    weight: float = 1.0
    probed: bool = False
    leaves: bool = False
    headers: Mapping[str, str] | None = None


def words(draw: random.Random, most: int = 6) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def few(draw: random.Random) -> Fields:
    """Return the fields of a short answer, streamed or not."""
    fields: Fields = {"max_tokens": draw.randint(1, 4), "seed": draw.randrange(1000)}
    return fields | ({"stream": True} if draw.random() < 0.4 else {})


def prompt(draw: random.Random, **fields: Any) -> Fields:
    return {"prompt": words(draw)} | few(draw) | fields


def talk(draw: random.Random, **fields: Any) -> Fields:
    turns = [{"role": "user", "content": words(draw)}]
    if draw.random() < 0.3:
        turns += [{"role": "assistant", "content": words(draw)}, {"role": "user", "content": words(draw)}]
    return {"messages": turns} | few(draw) | fields


def _samplers(draw: random.Random) -> Fields:
    return prompt(
        draw,
        temperature=draw.choice([0, 0.5, 1.5]),
        top_k=draw.choice([0, 5]),
        top_p=draw.choice([0.5, 1.0]),
        min_p=draw.choice([0.0, 0.1]),
        presence_penalty=draw.choice([0, 0.5]),
        frequency_penalty=draw.choice([0, 0.5]),
        repetition_penalty=draw.choice([1.0, 1.2]),
        logit_bias={str(draw.randrange(100)): draw.choice([-100, 5])},
    )


def _overflow(draw: random.Random) -> Fields:
    ids = [draw.randrange(20, 100)] * draw.choice([WINDOW + 1, 5 * WINDOW])
    return {"prompt": ids, "stream": draw.random() < 0.5}


def _wrong(draw: random.Random) -> Fields:
    wrong: list[Fields] = [{"temprature": 1}, {"n": -1}, {"max_tokens": "x"}, {"stop": [""] * 9}]
    return {"prompt": words(draw)} | draw.choice(wrong)


def _long(draw: random.Random) -> Fields:
    return {
        "prompt": words(draw),
        "max_tokens": 100,
        "stop_token_ids": [],
        "n": 2,
        "stream": draw.random() < 0.5,
    }


def _none(_: random.Random) -> None:
    return None


def _inspected(draw: random.Random) -> Fields:
    return prompt(
        draw, inspect={"top": 3, "entropy": True, "lens": draw.random() < 0.3, "residual_norms": True}
    )


KINDS = (
    Kind("completion", COMPLETIONS, prompt, weight=4),
    Kind("n", COMPLETIONS, lambda draw: prompt(draw, n=draw.choice([2, 3])), weight=2),
    Kind("stop", COMPLETIONS, lambda draw: prompt(draw, stop=["a", "zzz"], max_tokens=8), weight=2),
    Kind("samplers", COMPLETIONS, _samplers, weight=4),
    Kind("prompts", COMPLETIONS, lambda draw: prompt(draw) | {"prompt": [words(draw), words(draw)]}),
    Kind(
        "scores",
        COMPLETIONS,
        lambda d: {"prompt": words(d), "echo": True, "logprobs": 2, "max_tokens": 1},
        weight=2,
    ),
    Kind("chat", CHAT, talk, weight=5),
    Kind("chat-logprobs", CHAT, lambda draw: talk(draw, logprobs=True, top_logprobs=3)),
    Kind(
        "adapter",
        COMPLETIONS,
        lambda d: prompt(d, adapters=[{"name": "one", "scale": d.choice([0.5, 1])}]),
        weight=2,
    ),
    Kind("no-adapter", COMPLETIONS, lambda draw: prompt(draw, adapters=[])),
    Kind("render", f"{CHAT}/render", lambda draw: {"messages": talk(draw)["messages"]}),
    Kind("tokenize", "/tokenize", lambda draw: {"prompt": words(draw)}, weight=2),
    Kind("detokenize", "/detokenize", lambda draw: {"tokens": [draw.randrange(20, 100)] * 5}),
    Kind("models", "/v1/models", _none),
    Kind("metrics", "/metrics", _none),
    Kind("overflow", COMPLETIONS, _overflow, 400, weight=2),
    Kind("wrong", COMPLETIONS, _wrong, 400, weight=2),
    Kind("wrong-chat", CHAT, lambda draw: {"messages": words(draw)}, 400),
    Kind("other-model", COMPLETIONS, lambda draw: prompt(draw, model="other"), 404),
    Kind("other-adapter", COMPLETIONS, lambda d: prompt(d, adapters=[{"name": "two", "scale": 1}]), 404),
    Kind("no-route", "/v2/none", prompt, 404),
    Kind("no-key", COMPLETIONS, prompt, 401, headers={"x-api-key": "none"}),
    Kind("other-host", COMPLETIONS, prompt, 403, headers={"host": "example.com"}),
    Kind("dropped", COMPLETIONS, _long, weight=4, leaves=True),
    Kind(
        "json", CHAT, lambda d: talk(d, response_format={"type": "json_object"}, max_tokens=12), probed=True
    ),
    Kind(
        "schema",
        CHAT,
        lambda draw: talk(
            draw,
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
            max_tokens=20,
        ),
        weight=2,
        probed=True,
    ),
    Kind(
        "wrong-schema",
        CHAT,
        lambda draw: talk(
            draw,
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "cat"}}},
        ),
        400,
        probed=True,
    ),
    Kind("inspect", COMPLETIONS, _inspected, weight=2, probed=True),
    Kind("tools", CHAT, lambda draw: talk(draw, tools=[TOOL], max_tokens=12), probed=True),
    Kind("tool", CHAT, lambda d: talk(d, tools=[TOOL], tool_choice="required", max_tokens=40), probed=True),
    Kind("embeddings", "/v1/embeddings", lambda draw: {"input": words(draw)}, weight=2, probed=True),
    Kind(
        "responses",
        "/v1/responses",
        lambda draw: {"input": words(draw), "max_output_tokens": 16},
        probed=True,
    ),
)
