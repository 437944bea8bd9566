"""From fields to settings: llama.cpp's names and pophood's are the same samplers; the server's defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pophood.generate import GenerateSettings
from pophood.openai.errors import ApiError
from pophood.openai.model import ServedModel
from pophood.openai.requests import ChatFields, read_fields
from pophood.openai.settings import OTHER_NAMES, limit_of, settings_of
from pophood.sampling import SamplingSettings, breakers_of
from tests.serve.protocol.service import Service

TALK = [{"role": "user", "content": "Hi"}]


def request(**fields: Any) -> ChatFields:
    return read_fields({"messages": TALK} | fields, ChatFields)


def settings(served: ServedModel, **fields: Any) -> GenerateSettings:
    return settings_of(request(**fields), served, max_tokens=9, logprobs=None, seed=1, kind="completion")


@pytest.fixture
def served(service: Service) -> ServedModel:
    return service.served


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_k": -1}, {"top_k": 0}),
        (
            {"repeat_penalty": 1.2, "repeat_last_n": 32, "presence_penalty": 0.1, "frequency_penalty": 0.2},
            {
                "repetition_penalty": 1.2,
                "penalty_window": 32,
                "presence_penalty": 0.1,
                "frequency_penalty": 0.2,
            },
        ),
        (
            {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3, "dry_penalty_last_n": 50},
            {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3, "dry_window": 50},
        ),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, {"xtc_probability": 0.5, "xtc_threshold": 0.2}),
        ({"typical_p": 0.9, "min_p": 0.05, "top_p": 0.8}, {"typical_p": 0.9, "min_p": 0.05, "top_p": 0.8}),
        ({"repeat_penalty": 1.2, "repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"logit_bias": {"7": 2, "8": False}}, {"logit_bias": {7: 2.0, 8: -math.inf}}),
        (
            {"samplers": ["penalties", "top_n_sigma", "top_k", "typ_p", "temperature"]},
            {"order": ("bias", "penalties", "top_k", "typical", "temperature")},
        ),
        ({"samplers": "top_k;temperature"}, {"order": ("bias", "top_k", "temperature")}),
        ({"order": "top-k, bias, temperature"}, {"order": ("top_k", "bias", "temperature")}),
        ({"min_tokens": 4}, {"min_tokens": 4}),
    ],
)
def test_fields_become_the_librarys_settings(
    served: ServedModel, fields: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert settings(served, **fields).sampling == SamplingSettings(**wanted)


@pytest.mark.parametrize("ours", OTHER_NAMES)
def test_two_names_of_one_sampler_must_agree(served: ServedModel, ours: str) -> None:
    with pytest.raises(ApiError, match="they mean the same") as caught:
        settings(
            served,
            **{ours: 5 if "window" in ours else 1.5, OTHER_NAMES[ours]: 6 if "window" in ours else 1.6},
        )
    assert caught.value.param == OTHER_NAMES[ours]


def test_limits_must_agree() -> None:
    assert limit_of(request()) is None
    assert limit_of(request(max_tokens=5, n_predict=5)) == 5
    with pytest.raises(ApiError, match="max_tokens is 5 and max_completion_tokens is 6"):
        limit_of(request(max_tokens=5), ("max_completion_tokens", 6))


def test_breakers_are_found_once(served: ServedModel) -> None:
    tokenizer = served.tokenizer
    words = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    wanted = breakers_of(["\n", "ab"], words, lambda text: tokenizer.encode(text, add_start=False))
    fields = {"dry_multiplier": 1.0, "dry_sequence_breakers": ["\n", "ab"]}
    assert settings(served, **fields).sampling.dry_breakers == wanted
    assert served.breakers(["\n", "ab"]) is served.breakers(("\n", "ab"))


def test_the_servers_own_defaults_are_changed_one_by_one(service: Service) -> None:
    own = ServedModel(
        "m",
        service.served.tokenizer,
        None,
        8,
        512,
        "f",
        sampling=SamplingSettings(temperature=0.3, min_p=0.1),
    )
    assert settings(own, top_k=5).sampling == SamplingSettings(temperature=0.3, min_p=0.1, top_k=5)


def test_ends_of_a_text(served: ServedModel) -> None:
    assert settings(served).stop_ids is None
    assert settings(served, stop_token_ids=[3]).stop_ids == tuple(sorted({3, *served.stop_ids}))
    forbidden = settings(served, ignore_eos=True, logit_bias={"3": 1}).sampling.logit_bias
    assert forbidden == {3: 1.0} | dict.fromkeys(served.stop_ids, -math.inf)


def test_a_range_is_told_with_its_field(served: ServedModel) -> None:
    with pytest.raises(ApiError, match=r"top_p .* is 1\.5; wanted a number from 0 to 1") as caught:
        settings(served, top_p=1.5)
    assert caught.value.param == "top_p"
    with pytest.raises(ApiError, match="the order leaves out its step 'min_p'"):
        settings(served, min_p=0.5, order=["top_k"])


def test_a_range_is_told_under_the_name_that_the_request_has(served: ServedModel) -> None:
    with pytest.raises(ApiError) as caught:
        settings(served, repeat_penalty=-1)
    assert caught.value.param == "repeat_penalty"
