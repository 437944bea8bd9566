"""/v1/chat/completions beside the library: answers, choices, log-probabilities, adapters, the dry run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

import pophood
from pophood.adapters.adapter import Adapter
from pophood.text.chat.thoughts import thought_tags
from tests.serve.protocol.reader import model_of
from tests.serve.protocol.service import Service
from tests.test_adapters import random_adapter
from tests.tiny_thinker import thinker

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who was \U0001f600?"},
    {"role": "assistant", "content": "A house"},
    {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
]


def said(run: Any) -> str:
    return "".join(token.text for token in run)


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in answer["choices"]]


def test_an_answer_is_the_librarys(service: Service, alone: pophood.LM) -> None:
    request = {"messages": TALK, "seed": 5, "max_tokens": 20, "temperature": 0.9, "top_p": 0.95}
    answer = service.ask("/v1/chat/completions", request).json
    model_of(ChatCompletion, answer)
    own = alone.chat(TALK, seed=5, max_tokens=20, temperature=0.9, top_p=0.95)
    assert texts(answer) == [said(own)]
    assert answer["usage"]["prompt_tokens"] == len(own.prompt_ids)
    assert answer["model"] == "tiny/random"
    assert answer["system_fingerprint"] == "pophood-test"


def test_choice_i_is_the_sample_i_of_the_seed(service: Service, alone: pophood.LM) -> None:
    answer = service.chat("Hi", n=4, seed=77, max_tokens=12).json
    for i, text in enumerate(texts(answer)):
        one = service.chat("Hi", n=1, first_sample=i, seed=77, max_tokens=12).json
        assert texts(one) == [text]
        assert said(alone.chat("Hi", seed=77, first_sample=i, max_tokens=12)) == text
    assert len(set(texts(answer))) > 1


def test_a_seed_that_was_drawn_is_told_and_repeats_the_answer(service: Service) -> None:
    for fields in ({}, {"seed": -1}, {"seed": None}):
        first = service.chat("Hi", max_tokens=9, **fields).json
        assert texts(service.chat("Hi", max_tokens=9, seed=first["seed"]).json) == texts(first)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_the_limit_has_three_names(service: Service, name: str) -> None:
    answer = service.chat("Hi", seed=1, ignore_eos=True, **{name: 7}).json
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["finish_reason"] == "length"


def test_without_a_limit_an_answer_may_fill_the_window(service: Service) -> None:
    for fields in ({}, {"max_tokens": -1}, {"max_tokens": 10_000}):
        answer = service.chat("Hi", seed=1, ignore_eos=True, **fields).json
        # The last token is not read again, so it needs no place.
        assert answer["usage"]["total_tokens"] == service.served.window + 1
        assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stop_ends_an_answer(service: Service) -> None:
    stop = service.served.stop_ids[0]
    answer = service.chat("Hi", seed=1, logit_bias={str(stop): 1e6}, max_tokens=9).json
    assert (texts(answer), answer["choices"][0]["finish_reason"]) == ([""], "stop")
    assert answer["usage"]["completion_tokens"] == 1
    whole = texts(service.chat("Hi", seed=2, max_tokens=20).json)[0]
    cut = texts(service.chat("Hi", seed=2, max_tokens=20, stop=whole[5:7]).json)[0]
    assert cut == whole[: whole.index(whole[5:7])]


def test_log_probabilities_are_the_librarys(service: Service, alone: pophood.LM) -> None:
    request = {"seed": 9, "max_tokens": 10, "temperature": 0.7, "logprobs": True, "top_logprobs": 3}
    content = service.chat("Hi", **request).json["choices"][0]["logprobs"]["content"]
    tokens = list(alone.chat("Hi", seed=9, max_tokens=10, temperature=0.7, details="top", top=3))
    assert len(content) == len(tokens)
    for entry, token in zip(content, tokens, strict=True):
        assert token.log_probability is not None
        assert entry["logprob"] == pytest.approx(token.log_probability, rel=1e-6)
        assert [math.exp(one["logprob"]) for one in entry["top_logprobs"]] == pytest.approx(
            [one[3] for one in token.top or ()], rel=1e-5
        )


def test_adapters_are_named_by_requests_and_mixed_in_one_batch(service: Service, chatml_folder: Any) -> None:
    choices: list[list[tuple[str, float]]] = [
        [],
        [("one", 1.0)],
        [("two", 0.5)],
        [("one", 2.0), ("two", 1.0)],
    ]
    fields = {"messages": [{"role": "user", "content": "Hi"}], "seed": 4, "max_tokens": 12}
    requests = [
        fields | {"adapters": [{"name": name, "scale": scale} for name, scale in pairs]} for pairs in choices
    ]
    answers = service.ask_all([("/v1/chat/completions", one) for one in [*requests, fields]])
    lm = pophood.load(chatml_folder)
    known: dict[str, Adapter] = {"one": random_adapter(lm, 1), "two": random_adapter(lm, 2)}
    found = []
    for pairs, told in zip([*choices, []], answers, strict=True):
        lm.use_adapters([(known[name], scale) for name, scale in pairs])
        assert texts(told.json) == [said(lm.chat("Hi", seed=4, max_tokens=12))]
        found += texts(told.json)
    assert len(set(found)) == 4
    assert texts(service.chat("Hi", seed=4, max_tokens=12, adapters=[{"name": "one"}]).json) == [found[1]]


def test_an_unknown_adapter_is_404_by_name(service: Service) -> None:
    told = service.chat("Hi", adapters=[{"name": "one"}, {"name": "three"}])
    assert told.status == 404
    assert (told.error["code"], told.error["param"]) == ("adapter_not_found", "adapters[1].name")
    assert "'three'" in told.error["message"]
    assert "'one', 'two'" in told.error["message"]


def test_the_dry_run_shows_what_the_model_reads(service: Service, alone: pophood.LM) -> None:
    rendered = service.ask("/v1/chat/completions/render", {"messages": TALK}).json
    assert alone.chat_template is not None
    assert rendered["prompt"] == alone.chat_template.render(TALK)
    assert tuple(rendered["prompt_token_ids"]) == alone.chat(TALK, max_tokens=1).prompt_ids
    assert rendered["prompt_tokens"] == len(rendered["prompt_token_ids"]) == len(rendered["token_strs"])
    assert (rendered["fits"], rendered["max_model_len"]) == (True, service.served.window)
    long = service.ask("/v1/chat/completions/render", {"messages": [{"role": "user", "content": "x" * 400}]})
    assert (long.status, long.json["fits"]) == (200, False)
    ended = {"messages": TALK, "add_generation_prompt": False}
    assert not service.ask("/v1/chat/completions/render", ended).json["prompt"].endswith("assistant\n")


def test_what_the_template_leaves_out_is_told(service: Service) -> None:
    messages = [{"role": "user", "name": "Ada", "content": "Hi"}]
    for path in ("/v1/chat/completions", "/v1/chat/completions/render"):
        answer = service.ask(path, {"messages": messages, "max_tokens": 1}).json
        assert answer["warnings"] == [
            "the chat template writes nothing of 'name' in message 1 (user): the model does not see it"
        ]
    assert "warnings" not in service.chat("Hi", max_tokens=1).json


def test_a_thought_is_shown_and_its_template_variable_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = thinker(tmp_path_factory.mktemp("thinker") / "m")
    with Service(pophood.load(folder)) as service:
        tags = thought_tags(service.served.tokenizer.specials)
        bias = {str(next(iter(tags))): 1e6}
        answer = service.chat("Hi", max_tokens=2, logit_bias=bias, logprobs=True).json["choices"][0]
        assert answer["message"]["content"] == 2 * next(iter(tags.values()))
        data = bytes(byte for entry in answer["logprobs"]["content"] for byte in entry["bytes"])
        assert data.decode() == answer["message"]["content"]
        talk: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
        path = "/v1/chat/completions/render"
        both = [
            service.ask(path, talk | {"chat_template_kwargs": {"enable_thinking": value}}).json["prompt"]
            for value in (True, False)
        ]
        assert both[0] != both[1]
        told = service.ask(path, talk | {"chat_template_kwargs": {"enable_thunking": True}})
        assert (told.status, told.error["param"]) == (400, "chat_template_kwargs")


def test_a_model_without_a_template_says_so(untemplated: Service) -> None:
    for path in ("/v1/chat/completions", "/v1/chat/completions/render", "/tokenize"):
        told = untemplated.ask(path, {"messages": [{"role": "user", "content": "Hi"}]})
        assert (told.status, told.error["code"]) == (400, "no_chat_template")
    assert untemplated.complete("Hi", max_tokens=2).status == 200


def test_cached_tokens_are_counted(service: Service) -> None:
    words = "A conversation that nobody has had before, in which nobody says much " * 2
    first = service.chat(words, max_tokens=4, seed=1).json
    again = service.chat(words, max_tokens=4, seed=1).json
    assert texts(first) == texts(again)
    cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == again["timings"]["cache_n"] == again["usage"]["prompt_tokens"] - 1
    assert again["timings"]["prompt_n"] == 1
    assert again["timings"]["predicted_n"] == again["usage"]["completion_tokens"]
