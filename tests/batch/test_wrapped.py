"""OpenAI's batch lines: the shape of answers, as openai's own types read them, and the errors."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

import pophood
from pophood.batch.answering import Answering
from pophood.batch.answers import AnswerFile
from pophood.batch.model import BatchModel, LineDefaults
from tests.batch.answered import SEED, answered, source_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def line(url: str, body: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"custom_id": "q7", "method": "POST", "url": url, "body": body} | (more or {})


def body_of(lm: pophood.LM, url: str, body: dict[str, Any], **defaults: Any) -> Any:
    """Return the body of the answer, whose frame is checked."""
    (record,) = answered(lm, [line(url, body)], **defaults)
    assert list(record) == ["line", "hash", "id", "custom_id", "response", "error"]
    assert record["custom_id"] == "q7" and record["error"] is None and record["id"].startswith("batch_req_")
    assert record["response"]["request_id"].startswith("req_")
    assert (record["response"]["status_code"] == 200) != ("error" in record["response"]["body"])
    return record["response"]["body"]


def test_a_chat_is_answered_as_the_library_answers_it(lm: pophood.LM, alone: pophood.LM) -> None:
    asked = TALK | {"max_tokens": 9, "seed": 3, "n": 2, "logprobs": True, "top_logprobs": 2, "adapters": []}
    told = ChatCompletion.model_validate(body_of(lm, CHAT, asked, created=1_700_000_000))
    alone.use_adapters([])
    run = alone.chat(TALK["messages"], max_tokens=9, seed=3, samples=2, details="probability")
    tokens = list(run)
    for choice in told.choices:
        its = [token for token in tokens if token.sample == choice.index]
        assert choice.message.content == "".join(token.text for token in its)
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
    assert told.usage is not None and told.usage.completion_tokens == len(tokens)
    assert (told.created, told.model, told.object) == (1_700_000_000, lm.bundle.name, "chat.completion")
    assert str(told.system_fingerprint).startswith("pophood-")


def test_completions_of_several_prompts_with_echo(lm: pophood.LM) -> None:
    prompts = ["the cat", "a dog"]
    asked = {"prompt": prompts, "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    body = body_of(lm, COMPLETIONS, asked)
    for choice in body["choices"]:
        assert choice["logprobs"]["token_logprobs"].pop(0) is None
        assert choice["logprobs"]["top_logprobs"].pop(0) is None
    told = Completion.model_validate(body)
    for choice, prompt in zip(told.choices, prompts, strict=True):
        assert choice.text.startswith(prompt) and choice.logprobs is not None
        (score,) = answered(lm, [{"text": prompt, "score": True}])
        n = len(score["token_ids"]) - 1
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs.token_logprobs[:n] == score["log_probabilities"][1:]
        assert len(choice.logprobs.token_logprobs) == n + 1


def test_openais_defaults_hold_unless_the_run_has_others(lm: pophood.LM) -> None:
    def tokens(url: str, body: dict[str, Any], **defaults: Any) -> int:
        usage = body_of(lm, url, body | {"ignore_eos": True}, **defaults)["usage"]
        assert usage.keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}
        return int(usage["completion_tokens"])

    text = {"prompt": "the cat"}
    assert tokens(COMPLETIONS, text) == 16
    assert tokens(COMPLETIONS, text | {"max_tokens": 3}) == 3
    assert tokens(COMPLETIONS, text, max_tokens=7) == 7
    assert tokens(CHAT, TALK | {"max_completion_tokens": 4}) == 4
    assert tokens(CHAT, TALK, max_tokens=2) == 2


def test_nothing_is_random_in_an_answer(lm: pophood.LM) -> None:
    lines = [line(CHAT, TALK | {"max_tokens": 5}), line(COMPLETIONS, {"prompt": "a"}, {"custom_id": "q8"})]
    one, other = answered(lm, lines), answered(lm, lines, together=2)
    assert one == other
    assert one[0]["id"] != one[1]["id"] != answered(lm, lines, seed=SEED + 1)[1]["id"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "a", "model": "gpt-5"}, 404, "model_not_found"),
        ({"prompt": [1] * 129}, 400, "context_length_exceeded"),
        ({"prompt": "a", "temperature": "1"}, 400, "invalid_value"),
        ({"prompt": "a", "suffix": "b"}, 400, "unsupported_parameter"),
        ({"prompt": "a", "stream": True}, 400, None),
        ({"prompt": "a", "adapters": [{"name": "c"}]}, 404, "adapter_not_found"),
        ({"messages": []}, 400, "missing_required_parameter"),
    ],
)
def test_what_is_wrong_with_a_body(
    lm: pophood.LM, body: dict[str, Any], status: int, code: str | None
) -> None:
    (record,) = answered(lm, [line(COMPLETIONS, body)])
    assert (record["response"]["status_code"], record["error"], record["custom_id"]) == (status, None, "q7")
    error = record["response"]["body"]["error"]
    assert error.keys() >= {"message", "type", "param", "code"} and error["code"] == code


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"url": "/v1/embeddings"}, "embeddings come with a later version"),
        ({"url": "https://example.com/v1/completions"}, "wanted /v1/chat/completions, /v1/completions or"),
        ({"url": None}, "url: got None; wanted a text"),
        ({"method": "GET"}, "method: got 'GET'; wanted POST"),
        ({"body": "a"}, "body: got 'a'; wanted an object"),
        ({"priority": 1}, "the line has 'priority'"),
    ],
)
def test_what_is_wrong_with_a_frame(lm: pophood.LM, more: dict[str, Any], said: str) -> None:
    (record,) = answered(lm, [line(COMPLETIONS, {"prompt": "a"}, more)])
    assert record["response"]["status_code"] == 400
    assert said in record["response"]["body"]["error"]["message"]


def test_a_response_is_the_chat_in_other_words(lm: pophood.LM) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "seed": 3}
    asked = [
        line("/v1/chat/completions", talk, {"custom_id": "chat"}),
        line("/v1/responses", {"input": "Hi", "max_output_tokens": 5, "seed": 3}, {"custom_id": "response"}),
        line("/v1/responses", {"input": "Hi", "store": True}, {"custom_id": "stored"}),
    ]
    chat, response, stored = (record["response"] for record in answered(lm, asked))
    (item,) = response["body"]["output"]
    assert item["content"][0]["text"] == chat["body"]["choices"][0]["message"]["content"]
    assert response["body"]["usage"]["output_tokens"] == chat["body"]["usage"]["completion_tokens"]
    assert stored["status_code"] == 400 and stored["body"]["error"]["param"] == "store"


def test_aliases_are_names_too(lm: pophood.LM) -> None:
    asked = [
        line(COMPLETIONS, {"prompt": "a", "model": name}, {"custom_id": name})
        for name in ("gpt-4o-mini", lm.name, "other")
    ]
    told = [record["response"]["status_code"] for record in answered(lm, asked, aliases=["gpt-4o-mini"])]
    assert told == [200, 200, 404]


def test_a_custom_id_that_comes_again_is_refused_and_both_lines_are_named(
    lm: pophood.LM, tmp_path: Path
) -> None:
    """The answers are the same if the run was stopped between the two lines."""
    ids = ["a", "b", "a", "\ud800", "\ud800", "b"]
    lines = [
        line(COMPLETIONS, {"prompt": f"the {i}", "max_tokens": 2}, {"custom_id": one})
        for i, one in enumerate(ids)
    ]
    records = answered(lm, lines)
    assert [record["response"]["status_code"] for record in records] == [200, 200, 400, 200, 400, 400]
    errors = [record["response"]["body"].get("error") for record in records]
    assert errors[5]["message"] == "custom_id: 'b' of line 6 is that of line 2 already"
    assert {(one["param"], one["code"]) for one in errors if one} == {("custom_id", "duplicate_custom_id")}
    assert len(answered(lm, [{"prompt": "a", "custom_id": "a"}] * 2)) == 2, "lines of our own may repeat ids"
    model = BatchModel(lm, LineDefaults(seed=SEED))
    path, kept = tmp_path / "answers.jsonl", 0
    for more in (1, 2, 2, 1):
        with AnswerFile(path) as answers:
            source = source_of(lines)
            answers.begin(model.facts(), source)
            assert answers.done == kept
            with Answering(model, ids=answers.custom_ids) as answering:
                for record in islice(answering.records(source), more):
                    answers.write(record)
        kept += more
    assert [json.loads(text) for text in path.read_text().splitlines()] == records
