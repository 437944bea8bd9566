"""Random requests, streamed, through the strict reader, and beside the same request that is not streamed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from tests.serve.protocol.reader import check_chat_entries, model_of, read_stream
from tests.serve.protocol.service import Service

# Characters of one to four bytes, three at which some splitters break lines, and parts of an emoji.
FAVOURED = "é\u2028\u2029\u0085\x0b\U0001f600\U0001f469\u200d\U0001f4bb日本 ab\n"
STOPS = ["a", "b\n", "\U0001f600", "é", "\u2028", "bé", " a", "日本", "zzz", "b\u2028a"]


def random_request(draw: random.Random, service: Service) -> tuple[str, dict[str, Any]]:
    """Return a route and a request that differ in everything a stream depends on."""
    tokenizer = service.lm.bundle.tokenizer
    fields: dict[str, Any] = {
        "seed": draw.randrange(2**63),
        "n": draw.randint(1, 4),
        "max_tokens": draw.randint(1, 24),
        "temperature": draw.choice([0, 0.5, 1.0, 1.7]),
        "stop": draw.sample(STOPS, draw.randint(0, 4)),
        "skip_special_tokens": draw.choice([None, None, False]),
    }
    if draw.random() < 0.7:  # bytes of the favoured characters, often in pieces
        parts = sorted({id_ for one in FAVOURED for id_ in tokenizer.encode(one, add_start=False)})
        some = draw.sample(parts, draw.randint(2, len(parts)))
        fields["logit_bias"] = {str(id_): 12 for id_ in some}
    if draw.random() < 0.5:
        fields["logit_bias"] = fields.get("logit_bias", {}) | {
            str(id_): draw.choice([4, 8, 12]) for id_ in service.served.stop_ids
        }
    if draw.random() < 0.3:
        fields["stream_options"] = {"include_usage": draw.choice([True, False])}
    if draw.random() < 0.2:
        fields["min_tokens"] = draw.randint(0, fields["max_tokens"])
    if draw.random() < 0.2:
        fields["return_progress"] = True
    words = "".join(draw.choice("abc \n" + FAVOURED) for _ in range(draw.randint(1, 30)))
    if draw.random() < 0.5:
        if draw.random() < 0.6:
            fields |= {"logprobs": True, "top_logprobs": draw.choice([0, 1, 3, 20])}
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": words}]} | fields
    if draw.random() < 0.6:
        fields["logprobs"] = draw.choice([0, 1, 3, 20])
    fields["echo"] = draw.choice([None, True])
    ids = [draw.randrange(service.served.vocab_size) for _ in range(draw.randint(1, 20))]
    prompt = draw.choice([words, [words, "b"], ids, [ids, ids[:1]]])
    return "/v1/completions", {"prompt": prompt} | fields


def check_random(service: Service, seed: int) -> None:
    """Ask one random request streamed and not, and compare."""
    path, request = random_request(random.Random(seed), service)
    chat = path == "/v1/chat/completions"
    whole, streamed = service.ask_all([(path, request), (path, request | {"stream": True})])
    assert (whole.status, streamed.status) == (200, 200), (whole.body, streamed.body)
    answer = whole.json
    model_of(ChatCompletion if chat else Completion, answer)
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    stream = read_stream(streamed.body, size=len(answer["choices"]), include_usage=usage, chat=chat)
    for read, choice in zip(stream.choices, answer["choices"], strict=True):
        assert read.text == (choice["message"]["content"] if chat else choice["text"])
        assert read.finish == choice["finish_reason"]
        if chat:
            assert read.entries == ((choice["logprobs"] or {}).get("content") or [])
            if request.get("logprobs"):
                check_chat_entries(read, request["top_logprobs"])
        else:
            assert read.lists == (choice["logprobs"] or {})
            if "logprobs" in request:
                check_lists(read.lists, read.text, request)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert stream.usage is None or stream.usage[name] == answer["usage"][name]
    assert stream.details["seed"] == answer["seed"] == request["seed"]
    assert all(one["processed"] <= one["total"] for one in stream.progress)


def check_lists(lists: dict[str, list[Any]], text: str, request: dict[str, Any]) -> None:
    """Check the legacy lists: offsets grow inside the text, each token is among its likeliest."""
    offsets = lists.get("text_offset", [])
    assert offsets == sorted(offsets)
    assert all(0 <= offset <= len(text) for offset in offsets)
    rows = zip(*(lists.get(name, []) for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True)
    for place, (token, value, top) in enumerate(rows):
        if value is None:
            assert top is None
            assert place == 0
            assert request["echo"]
            continue
        assert value <= top[token]
        assert len(top) <= request["logprobs"] + 1


@pytest.mark.parametrize("seed", range(150))
def test_a_random_stream_breaks_no_rule(service: Service, started: Service, seed: int) -> None:
    check_random(started if seed % 3 == 0 else service, seed)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1_000, 3_000))
def test_many_random_streams_break_no_rule(service: Service, started: Service, seed: int) -> None:
    check_random(started if seed % 3 == 0 else service, seed)
