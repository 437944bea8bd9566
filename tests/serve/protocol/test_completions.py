"""/v1/completions beside the library: texts, scores in the legacy shape, and how evaluations read them."""

from __future__ import annotations

import math
import random
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from openai.types import Completion

import pophood
from tests.serve.protocol.reader import model_of
from tests.serve.protocol.service import Service

TEXT = "Once upon a time there was a \U0001f600 in a house"


def ids_of(lm: pophood.LM, text: str) -> list[int]:
    return lm.tokenize(text)


def lm_eval_reads(answer: dict[str, Any], contexts: list[int]) -> list[tuple[float, bool]]:
    """Return log-likelihoods and greedy flags as lm-eval's `local-completions` computes them."""
    results = []
    for choice, n in zip(sorted(answer["choices"], key=itemgetter("index")), contexts, strict=True):
        values = choice["logprobs"]["token_logprobs"][n:-1]
        tops = choice["logprobs"]["top_logprobs"][n:-1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        results.append((sum(values), greedy))
    return results


def gguf_adapter_reads(logprobs: dict[str, Any], context_length: int) -> tuple[float, bool]:
    """Return the same as lm-eval's `gguf` adapter does, which compares names and offsets."""
    first = next(i for i, offset in enumerate(logprobs["text_offset"]) if offset >= context_length)
    greedy = all(
        max(top, key=lambda name: top[name]) == token
        for token, top in zip(logprobs["tokens"][first:], logprobs["top_logprobs"][first:], strict=True)
    )
    return sum(logprobs["token_logprobs"][first:-1]), greedy


SCORING: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}


def test_lm_eval_reads_the_numbers_of_the_library(service: Service, alone: pophood.LM) -> None:
    draw = random.Random(1)
    prompts = [[draw.randrange(512) for _ in range(draw.randint(2, 60))] for _ in range(20)]
    greedy = [*alone.tokenize("the"), *(t.id for t in alone.stream("the", temperature=0, max_tokens=9))]
    prompts.append(greedy)  # whose end is greedy by construction
    contexts = [draw.randint(1, len(prompt) - 1) for prompt in prompts[:-1]]
    contexts.append(len(alone.tokenize("the")))
    answer = service.complete(prompts, **SCORING).json
    model_of(Completion, answer)
    results = lm_eval_reads(answer, contexts)
    for prompt, context, (value, flag) in zip(prompts, contexts, results, strict=True):
        scored = alone.score(prompt).log_probabilities
        assert value == sum(float(x) for x in scored[context:])
        logits = alone.logits(prompt)
        likeliest = [int(row.argmax()) for row in logits[context - 1 : -1]]
        assert flag == (likeliest == prompt[context:])
    assert results[-1][1]
    for choice, prompt in zip(answer["choices"], prompts, strict=True):
        lists = choice["logprobs"]
        assert len(lists["tokens"]) == len(prompt) + 1
        assert lists["token_logprobs"][0] is None
        assert lists["top_logprobs"][0] is None


def test_the_gguf_adapter_reads_the_same(service: Service, alone: pophood.LM) -> None:
    context, continuation = "Once upon a", " time there"
    answer = service.complete(context + continuation, **SCORING | {"logprobs": 10}).json
    (choice,) = answer["choices"]
    value, _ = gguf_adapter_reads(choice["logprobs"], len(context))
    n = len(alone.tokenize(context))
    assert alone.tokenize(context + continuation)[:n] == alone.tokenize(context)
    scored = alone.score(context + continuation).log_probabilities[n:]
    assert value == sum(float(x) for x in scored)


@pytest.mark.parametrize("logprobs", [1, 5])
def test_a_generated_stop_is_an_entry_like_any_other(
    service: Service, alone: pophood.LM, logprobs: int
) -> None:
    prompt = alone.tokenize(TEXT)
    stop = service.served.stop_ids[-1]
    request = SCORING | {"logprobs": logprobs, "logit_bias": {str(stop): 1e6}}
    (choice,) = service.complete([prompt], **request).json["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == alone.detokenize(prompt)
    lists = choice["logprobs"]
    assert len(lists["tokens"]) == len(prompt) + 1
    assert lists["tokens"][-1] == alone.bundle.tokenizer.token_text(stop)
    assert lists["token_logprobs"][-1] == lists["top_logprobs"][-1][lists["tokens"][-1]]
    assert lists["text_offset"][-1] == len(choice["text"])


def test_a_generated_token_scores_as_it_does_later_in_a_prompt(service: Service) -> None:
    prompt = service.served.tokenizer.encode(TEXT)
    first = service.complete([prompt], max_tokens=12, logprobs=0, seed=3, ignore_eos=True).json
    generated = first["choices"][0]["logprobs"]["token_logprobs"]
    ids = [t.id for t in service_tokens(service, prompt, 12, 3)]
    again = service.complete([[*prompt, *ids]], max_tokens=0, logprobs=0, echo=True).json
    assert again["choices"][0]["logprobs"]["token_logprobs"][len(prompt) :] == generated


def service_tokens(service: Service, prompt: list[int], n: int, seed: int) -> list[Any]:
    bias = dict.fromkeys(service.served.stop_ids, -math.inf)
    return list(service.lm.stream(prompt, max_tokens=n, seed=seed, logit_bias=bias))


def test_only_scoring(service: Service, alone: pophood.LM) -> None:
    answer = service.complete(TEXT, max_tokens=0, echo=True, logprobs=2).json
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (TEXT, "length")
    values = alone.score(TEXT).log_probabilities
    assert choice["logprobs"]["token_logprobs"] == [None, *map(float, values[1:])]
    assert answer["usage"]["completion_tokens"] == 0
    empty = service.complete(TEXT, max_tokens=0).json
    assert [one["text"] for one in empty["choices"]] == [""]


@pytest.mark.parametrize("form", ["text", "texts", "ids", "lists"])
def test_every_form_of_a_prompt_continues_as_the_library_does(
    service: Service, alone: pophood.LM, form: str
) -> None:
    texts = [TEXT, "a", "The house"]
    ids = [alone.tokenize(text) for text in texts]
    prompt = {"text": TEXT, "texts": texts, "ids": ids[0], "lists": ids}[form]
    answer = service.complete(prompt, max_tokens=9, seed=11, n=2, temperature=1.1).json
    samples = [
        one.completion
        for text in (texts if form in ("texts", "lists") else texts[:1])
        for one in alone.samples(text, 2, max_tokens=9, seed=11, temperature=1.1)
    ]
    assert [choice["text"] for choice in answer["choices"]] == samples
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(samples)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids if len(samples) > 2 else ids[:1]))


def test_many_prompts_are_one_answer(service: Service, alone: pophood.LM) -> None:
    prompts = [[i % 500, (7 * i) % 500, 3] for i in range(100)]
    answer = service.complete(prompts, max_tokens=3, seed=1).json
    assert len(answer["choices"]) == 100
    for i in (0, 1, 50, 99):
        assert answer["choices"][i]["text"] == alone.generate(prompts[i], max_tokens=3, seed=1).completion
    assert service.client.open_requests == 0


def test_start_tokens_belong_to_texts_alone(started: Service) -> None:
    tokenizer = started.served.tokenizer
    start = list(tokenizer.start_ids)
    assert start
    ids = tokenizer.encode("Hi there", add_start=False)
    counts = [
        started.complete(prompt, max_tokens=1, **fields).json["usage"]["prompt_tokens"] - len(ids)
        for prompt, fields in (("Hi there", {}), ("Hi there", {"add_special_tokens": False}), (ids, {}))
    ]
    assert counts == [1, 0, 0]
    lists = started.complete("Hi there", max_tokens=0, echo=True, logprobs=1).json["choices"][0]
    assert lists["text"] == "Hi there"
    assert lists["logprobs"]["tokens"][0] == tokenizer.token_text(start[0])
    assert lists["logprobs"]["text_offset"][:2] == [0, 0]
    assert lists["logprobs"]["token_logprobs"][1] is not None


def test_special_tokens_of_a_text_are_read_unless_told_otherwise(service: Service) -> None:
    text = "<|im_start|>user"
    counts = [
        service.complete(text, max_tokens=1, **fields).json["usage"]["prompt_tokens"]
        for fields in ({}, {"parse_special": False})
    ]
    tokenizer = service.served.tokenizer
    assert counts == [len(tokenizer.encode(text, parse_special=True)), len(tokenizer.encode(text))]
    assert counts[0] < counts[1]
    repeated = service.complete(text, max_tokens=0, echo=True, logprobs=0).json["choices"][0]
    assert repeated["text"] == text
    assert repeated["logprobs"]["text_offset"][1] == len("<|im_start|>")


def test_an_empty_prompt_is_the_start_token(service: Service, started: Service) -> None:
    for one in (service, started):
        answer = one.complete("", max_tokens=2, echo=True, logprobs=1, ignore_eos=True, seed=1).json
        assert answer["usage"]["prompt_tokens"] == 1
        lists = answer["choices"][0]["logprobs"]
        assert lists["text_offset"][:2] == [0, 0]
        assert lists["tokens"][0] in one.served.tokenizer.specials.values()


def test_undecodable_tokens_and_equal_names() -> None:
    from pophood.generate import TokenScore
    from pophood.openai.logprobs import Speller, prompt_entries
    from tests.generate.mock import MockTokenizer

    tokenizer: Any = MockTokenizer([b"a", b"\xe2\x80", b"a", b"\xff", b"b"])
    speller = Speller(tokenizer)
    assert [speller.name(i) for i in range(4)] == ["a", "bytes:\\xe2\\x80", "a", "bytes:\\xff"]
    scores = [
        TokenScore(0, None),
        TokenScore(2, -3.0, ((0, -0.5), (4, -2.0))),
        TokenScore(0, -0.25, ((0, -0.25), (2, -4.0))),
        TokenScore(1, -7.0, ((3, -1.0), (1, -7.0))),
    ]
    lists = speller.legacy(prompt_entries(speller, [0, 2, 0, 1], scores, "aaa\ufffd", added=0))
    assert lists["top_logprobs"] == [
        None,
        {"a": -0.5, "b": -2.0},
        {"a": -0.25},
        {"bytes:\\xff": -1.0, "bytes:\\xe2\\x80": -7.0},
    ]
    assert lists["token_logprobs"] == [None, -3.0, -0.25, -7.0]


def test_numbers_survive_json(service: Service, alone: pophood.LM) -> None:
    answer = service.complete(TEXT, max_tokens=0, echo=True, logprobs=0).json
    sent = answer["choices"][0]["logprobs"]["token_logprobs"][1:]
    assert np.array_equal(np.array(sent, np.float32), alone.score(TEXT).log_probabilities[1:])
