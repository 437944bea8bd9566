"""Errors of a line stand in its place; settings have the names of the library, OpenAI's or llama.cpp's."""

from __future__ import annotations

import json
from typing import Any

import pytest

import pophood
from pophood.batch import lines
from tests.batch.answered import SEED, answered, source_of

GOOD: dict[str, Any] = {"prompt": "the cat", "max_tokens": 4}
TALK = [{"role": "user", "content": "Hi"}]


def answer(lm: pophood.LM, line: Any, **defaults: Any) -> dict[str, Any]:
    """Return the answer of one line."""
    (record,) = answered(lm, [line], **defaults)
    return record


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "the line is not JSON: Expecting value"),
        ('{"prompt": "a"', "the line is not JSON"),
        ('{"prompt": NaN}', "NaN is no number of JSON"),
        (b'{"prompt": "\xff"}', "the line is not JSON: 'utf-8' codec"),
        ("[" * 100_000, "the line is not JSON"),
        ("[1]", "the line is [1]; wanted a JSON object"),
        ({}, "the line has none of them; wanted one of prompt, messages, text"),
        ({"prompt": "a", "messages": TALK}, "the line has prompt and messages"),
        ({"input": "a"}, "embeddings come with a later version"),
        ({"text": "a"}, 'text is scored with "score": true'),
        ({"prompt": "a", "score": 1}, "score: got 1; wanted true or false"),
        ({"messages": TALK, "score": True}, "a conversation is answered, not scored"),
        ({"text": "a", "score": True, "temperature": 1}, "`temperature` means nothing beside"),
        ({"text": "a", "score": True, "window": 1}, "window must be 2..128 tokens, got 1"),
        ({"text": "a", "score": True, "window": "1"}, "window: got '1'; wanted a whole number"),
        ({"text": "a", "score": True, "top": 10**6}, "top is 1,000,000; the vocabulary has"),
        ({"text": [10**6], "score": True}, "text: token id 1000000 is not in the vocabulary"),
        ({"prompt": 3}, "prompt: wanted a text or a list of token ids"),
        ({"prompt": None}, "Missing required parameter: 'prompt'."),
        ({"prompt": ["a", "b"]}, "a line has one prompt"),
        ({"prompt": [1, "b"]}, "prompt: wanted a list of token ids"),
        ({"prompt": [10**6]}, "prompt: token id 1000000 is not in the vocabulary"),
        ({"prompt": [1] * 129}, "maximum context length is 128 tokens. However, your prompt resulted in 129"),
        ({"prompt": "\ud800"}, "half a character"),
        ({"messages": []}, "messages: wanted a list of one message or more"),
        ({"messages": "Hi"}, "messages: got 'Hi'; wanted a list"),
        ({"messages": [{"content": "Hi"}]}, "role"),
        ({"messages": TALK, "template": {"enable_thinking": 1}}, "reads no variable 'enable_thinking'"),
        ({**GOOD, "temprature": 1}, "'temprature'. Did you mean `temperature`?"),
        ({**GOOD, "temperature": "1"}, "temperature: got '1'; wanted a number"),
        ({**GOOD, "temperature": -1}, "temperature (divisor of the logits"),
        ({**GOOD, "max_tokens": 0}, "max_tokens is 0; wanted 1 or more, or -1"),
        ({**GOOD, "min_tokens": 9}, "min_tokens is 9, over max_tokens, 4"),
        ({**GOOD, "n": 2, "samples": 2}, "samples and n mean the same: give one"),
        ({**GOOD, "n": 7}, "n is 7; wanted at most 6"),
        ({**GOOD, "stream": True}, "`stream` is not supported in a line"),
        ({**GOOD, "echo": True}, 'come with "score": true'),
        ({**GOOD, "details": "all"}, "details is 'all'; wanted one of plain, probability, top"),
        ({**GOOD, "top": 0}, "top is 0; wanted a whole number, 1 or more"),
        ({**GOOD, "special": 1}, "special: got 1; wanted true or false"),
        ({**GOOD, "stop_ids": "a"}, "stop_ids: wanted a list of token ids"),
        ({**GOOD, "truncate": "right"}, "truncate is 'right'"),
        ({**GOOD, "grammar": "x"}, "the grammar cannot be used"),
        ({**GOOD, "adapters": [{"name": "c"}]}, "The adapter 'c' does not exist; loaded: 'a', 'b'."),
        ({**GOOD, "model": "gpt-5"}, "The model 'gpt-5' does not exist"),
        ({**GOOD, "id": [1]}, "id: got [1]; wanted a text or a whole number"),
        ({**GOOD, "id": 1, "custom_id": 1}, "id and custom_id mean the same"),
        ({"url": "/v1/completions"}, "custom_id: got None; wanted a text"),
    ],
    ids=lambda value: (str(value) if isinstance(value, dict | bytes) else value)[:40],
)
def test_what_is_wrong_with_a_line(lm: pophood.LM, line: Any, said: str) -> None:
    record = answer(lm, line)
    assert said in record["error"]["message"], record
    assert "\n" not in record["error"]["message"]
    assert list(record)[:2] == ["line", "hash"] and "outputs" not in record


def test_errors_have_their_place_and_their_id(lm: pophood.LM) -> None:
    lines: list[Any] = [GOOD | {"id": 1}, "", {"id": "x", "prompt": 3}, GOOD | {"custom_id": "z"}]
    one, two, three = answered(lm, lines)
    assert (one["line"], one["id"]) == (1, 1) and "error" not in one
    assert (two["line"], two["id"], two["error"]["param"]) == (3, "x", "prompt")
    assert (three["line"], three["id"]) == (4, "z") and "error" not in three


def test_a_line_that_is_too_long(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    record = answer(lm, {"prompt": "a" * 100})
    assert record["error"]["message"] == "the line has 114 bytes; wanted at most 16,777,216"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 2}, {"samples": 2}),
        ({"repetition_penalty": 1.5}, {"repeat_penalty": 1.5}),
        ({"penalty_window": 5, "presence_penalty": 1}, {"repeat_last_n": 5, "presence_penalty": 1}),
        ({"max_tokens": 7}, {"n_predict": 7, "max_tokens": None}),
        ({"logprobs": 2}, {"details": "top", "top": 2}),
        ({"logprobs": 0}, {"details": "probability"}),
        ({"details": True, "top": 3}, {"details": "top", "top": 3}),
        ({"special": True}, {"skip_special_tokens": False}),
        ({"top_k": 0}, {"top_k": -1}),
        ({"seed": None}, {"seed": -1}),
        ({"order": ["top_k", "temperature"]}, {"samplers": ["top_k", "temp"]}),
        ({"stop": "a"}, {"stop": ["a"]}),
    ],
)
def test_names_that_mean_the_same(lm: pophood.LM, one: Any, other: Any) -> None:
    base = {**GOOD, "max_tokens": 12, "temperature": 1.5}
    records = [answer(lm, base | fields) for fields in (one, other)]
    assert records[0]["outputs"] == records[1]["outputs"]


def test_the_settings_of_the_run_are_those_of_lines_that_name_none(lm: pophood.LM) -> None:
    from pophood.sampling import SamplingSettings

    plain = {"prompt": "the cat"}
    cold = {"sampling": SamplingSettings(temperature=0), "max_tokens": 5, "stop": ("zzz",), "special": True}
    named = {**plain, "temperature": 0, "max_tokens": 5, "stop": "zzz", "special": True}
    assert answer(lm, plain, **cold)["outputs"] == answer(lm, named)["outputs"]
    assert answer(lm, {**plain, "max_tokens": 3}, **cold)["new_tokens"] == 3
    assert answer(lm, {**plain, "stop_ids": []})["new_tokens"] == 100
    assert answer(lm, {"messages": TALK, "stop_ids": []})["outputs"][0]["finish"] == "context"
    assert answer(lm, {**plain, "stop_ids": []}, endless=True)["outputs"][0]["finish"] == "context"
    assert answer(lm, {**plain, "stop_ids": [], "max_tokens": -1})["outputs"][0]["finish"] == "context"


def test_a_prompt_is_cut_only_where_the_line_says_so(lm: pophood.LM) -> None:
    ids = list(range(3, 203))
    record = answer(lm, {"prompt": ids, "truncate": "left", "max_tokens": 10})
    assert record["prompt_tokens"] == 119 and record["truncated"] == {"kind": "left", "dropped": 81, "at": 0}
    (wanted,) = answered(lm, [{"prompt": ids[81:], "max_tokens": 10}])
    assert record["outputs"] == wanted["outputs"]


def test_special_tokens_in_a_prompt_are_text_unless_asked_for(lm: pophood.LM) -> None:
    text = {"prompt": "a<|im_end|>", "max_tokens": 1}
    plain, parsed = answer(lm, text), answer(lm, text | {"parse_special": True})
    assert plain["prompt_tokens"] > parsed["prompt_tokens"] == 2


def test_an_empty_prompt_begins_with_the_models_own_token(lm: pophood.LM, alone: pophood.LM) -> None:
    prompts: list[Any] = ["", []]
    for prompt in prompts:
        record = answer(lm, {"prompt": prompt, "max_tokens": 3, "seed": 1, "adapters": []})
        alone.use_adapters([])
        assert record["outputs"][0]["completion"] == alone.generate("", max_tokens=3, seed=1).completion


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1)])
def test_texts_without_a_token_to_score(lm: pophood.LM, text: str, tokens: int) -> None:
    record = answer(lm, {"text": text, "score": True})
    assert record["log_probabilities"] == [None] * tokens
    assert (record["scored"], record["mean_nll"], record["perplexity"]) == (0, None, None)


def test_scores_with_the_likeliest_tokens(lm: pophood.LM) -> None:
    record = answer(lm, {"text": "the cat sat", "score": True, "top": 3})
    assert record["top"][0] is None
    for value, likeliest in zip(record["log_probabilities"][1:], record["top"][1:], strict=True):
        numbers = [one["log_probability"] for one in likeliest]
        assert len(numbers) == 3 and numbers == sorted(numbers, reverse=True) and value <= numbers[0]


def test_answers_are_ascii_and_one_line_each(lm: pophood.LM) -> None:
    from pophood.batch.answers import encoded

    for record in answered(lm, [GOOD | {"id": "é\u2028\x85\n"}, {"prompt": "\x00", "id": "b"}]):
        data = encoded(record)
        assert data.isascii() and len(data.splitlines()) == 1 and json.loads(data) == record


def test_a_line_has_the_hash_of_its_bytes(lm: pophood.LM) -> None:
    (record,) = answered(lm, [GOOD])
    (line,) = source_of([GOOD])
    assert (record["line"], record["hash"]) == (1, line.digest)
    assert record["seed"] == answered(lm, ['{"prompt": "b"}'], seed=SEED)[0]["seed"]
