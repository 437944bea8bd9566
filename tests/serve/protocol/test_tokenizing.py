"""/tokenizer_info, /tokenize, /detokenize and /v1/models, as vLLM's clients and lm-eval read them."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Model

from tests.serve.protocol.service import Service

TALK = [{"role": "user", "content": "Hi <|im_end|>"}]


@pytest.mark.parametrize("base", ["", "/v1"])
def test_what_lm_eval_probes_at_the_root(service: Service, base: str) -> None:
    info = service.ask(f"{base}/tokenizer_info").json
    assert info["eos_token"] == "<|im_end|>"
    assert {"bos_token", "pad_token", "chat_template"} <= info.keys()
    assert service.lm.chat_template is not None
    assert info["chat_template"] == service.lm.chat_template.source
    ends = service.ask(f"{base}/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False}).json
    assert ends["tokens"] == [service.served.tokenizer.id_of("<|im_end|>")]
    text = " A text\nof \U0001f600"
    tokens = service.ask(f"{base}/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]
    assert tokens == service.served.tokenizer.encode(text, add_start=False)
    assert service.ask(f"{base}/detokenize", {"tokens": tokens}).json == {"prompt": text}


def test_start_tokens_are_added_to_a_text_unless_told_otherwise(started: Service) -> None:
    tokenizer = started.served.tokenizer
    with_start, without = (
        started.ask("/tokenize", {"prompt": "Hi", **fields}).json["tokens"]
        for fields in ({}, {"add_special_tokens": False})
    )
    assert with_start == [*tokenizer.start_ids, *without]
    assert started.ask("/detokenize", {"tokens": with_start}).json["prompt"].endswith("Hi")
    info = started.ask("/tokenizer_info").json
    assert info["bos_token"] == "<|begin_of_text|>"


def test_the_whole_answer_of_tokenize(service: Service) -> None:
    tokens = service.served.tokenizer.encode("Hi")
    told = service.ask("/tokenize", {"prompt": "Hi", "return_token_strs": True, "model": "tiny"}).json
    names = [service.served.tokenizer.token_text(id_) for id_ in tokens]
    assert told == {
        "count": len(tokens),
        "max_model_len": service.served.window,
        "tokens": tokens,
        "token_strs": names,
    }
    assert service.ask("/tokenize", {"prompt": ""}).json["tokens"] == []
    long = service.ask("/tokenize", {"prompt": "\x01" * 5_000}).json
    assert long["count"] == 5_000, "counting has no limit of length"


def test_a_conversation_is_counted_as_the_model_reads_it(service: Service) -> None:
    rendered = service.ask("/v1/chat/completions/render", {"messages": TALK}).json
    told = service.ask("/tokenize", {"messages": TALK}).json
    assert told["tokens"] == rendered["prompt_token_ids"]
    ended = service.ask("/tokenize", {"messages": TALK, "add_generation_prompt": False}).json
    assert ended["tokens"] == told["tokens"][: ended["count"]]
    end = service.served.tokenizer.id_of("<|im_end|>")
    assert ended["tokens"].count(end) == 1, "a special token that a user spells is text"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": TALK}, "prompt"),
        ({"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"messages": TALK, "parse_special": True}, "parse_special"),
        ({"messages": TALK, "add_special_tokens": True}, "add_special_tokens"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "a", "truncate": 5}, "truncate"),
    ],
)
def test_wrong_forms_of_tokenize(service: Service, fields: dict[str, Any], param: str) -> None:
    told = service.ask("/tokenize", fields)
    assert (told.status, told.error["param"]) == (400, param)


@pytest.mark.parametrize("tokens", [None, "a", [1.5], [True], [-1], [512], [2**70], [[1]]])
def test_wrong_ids(service: Service, tokens: Any) -> None:
    told = service.ask("/detokenize", {"tokens": tokens})
    assert (told.status, told.error["param"]) == (400, "tokens")


def test_models(service: Service) -> None:
    told = service.ask("/v1/models").json
    assert told["object"] == "list"
    (one,) = told["data"]
    Model.model_validate(one, strict=True)
    assert one["id"] == one["name"] == "tiny/random"
    assert one["sampling_defaults"]["temperature"] == 0.8
    assert [adapter["id"] for adapter in one["adapters"]] == ["one", "two"]
    assert one["capabilities"]["chat"] is True
    for name in ("tiny/random", "tiny"):
        assert service.ask(f"/v1/models/{name}").json == one
    missing = service.ask("/v1/models/gpt-4o/mini")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


def test_a_completion_model_says_that_it_cannot_chat(untemplated: Service) -> None:
    (one,) = untemplated.ask("/v1/models").json["data"]
    assert one["capabilities"]["chat"] is False
    info = untemplated.ask("/tokenizer_info").json
    assert (info["eos_token"], info["chat_template"]) == ("<|endoftext|>", None)
