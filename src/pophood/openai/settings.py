"""From the fields of a request to GenerateSettings: samplers in two spellings, limits, stops, adapters.

A sampler has the name that the command line gives it, or llama.cpp's. Given both, they must agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, Literal

from pophood.errors import BadInput, short
from pophood.generate import GenerateSettings
from pophood.openai.errors import invalid, of_pophood, unknown_adapter
from pophood.openai.grammars import grammar_of
from pophood.openai.inspecting import read_inspect
from pophood.openai.model import AdapterPair, ServedModel
from pophood.openai.requests import GeneratingFields, NamedAdapter, read_ids, read_texts
from pophood.sampling import SamplingSettings, parse_order

# Our name -> llama.cpp's, where it differs.
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "repetition_penalty": "repeat_penalty",
        "penalty_window": "repeat_last_n",
        "dry_window": "dry_penalty_last_n",
    }
)
NUMBERS = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "penalty_window", "dry_multiplier", "dry_base", "dry_allowed_length"),
    *("dry_window", "xtc_probability", "xtc_threshold", "min_tokens"),
)
# llama.cpp's names of the steps that it spells differently, and those that do nothing unless asked for.
STEP_NAMES: Mapping[str, str] = MappingProxyType(
    {"typ_p": "typical", "typical_p": "typical", "temp": "temperature"}
)
IDLE_STEPS = ("top_n_sigma",)
MOST_STOPS, MOST_STOP_TEXT = 1_024, 1 << 14  # texts, and characters of all
MOST_BREAKERS, MOST_BREAKER_TEXT = 32, 1 << 10
MOST_ORDER, MOST_ORDER_TEXT = 32, 1 << 10
LARGEST_BIAS = 1e9

Kind = Literal["chat", "completion"]


def settings_of(
    request: GeneratingFields,
    served: ServedModel,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    seed: int,
    kind: Kind,
) -> GenerateSettings:
    """Return the settings of a request. Raises ApiError that names the field that is wrong.

    `logprobs`: None, or how many of the likeliest tokens to report beside each one.
    """
    stop_ids = _stop_ids(request, served)
    sampling = _sampling(request, served, stop_ids or ())
    samples = 1 if request.n is None else request.n
    if samples > served.most_samples:
        raise invalid(f"n is {samples:,}; wanted at most {served.most_samples}", "n")
    try:
        return GenerateSettings(
            sampling=sampling,
            max_tokens=max_tokens,
            samples=samples,
            first_sample=request.first_sample or 0,
            seed=seed,
            stop=read_texts(request.stop, "stop", MOST_STOPS, MOST_STOP_TEXT),
            stop_ids=stop_ids,
            details="plain" if logprobs is None else "top" if logprobs else "probability",
            top=logprobs or 1,
            special=request.skip_special_tokens is False,
            shown=served.shown if kind == "chat" else (),
            grammar=grammar_of(request, served),
            inspect=read_inspect(request.inspect, served),
        )
    except BadInput as error:
        raise of_pophood(error, _field_of(error, request)) from error


def limit_of(request: GeneratingFields, *others: tuple[str, int | None]) -> int | None:
    """Return the largest number of new tokens; None if no field says one, -1 for the end of the window.

    The fields are `max_tokens`, llama.cpp's `n_predict`, and `others`. Raises ApiError if they differ.
    """
    given = [("max_tokens", request.max_tokens), ("n_predict", request.n_predict), *others]
    limit: int | None = _agreed(given)
    return limit


def adapters_of(asked: Sequence[NamedAdapter] | None, served: ServedModel) -> tuple[AdapterPair, ...]:
    """Return the adapters of a request: those that it names, or the usual ones if it says nothing."""
    if asked is None:
        return served.usual_adapters
    for place, one in enumerate(asked):
        if one.name not in served.adapters:
            raise unknown_adapter(one.name, list(served.adapters), f"adapters[{place}].name")
    return tuple((one.name, one.scale) for one in asked)


def _sampling(request: GeneratingFields, served: ServedModel, stop_ids: tuple[int, ...]) -> SamplingSettings:
    """Return the samplers: the server's usual ones, changed by the request."""
    given: dict[str, Any] = {}
    for name in NUMBERS:
        asked = [(name, getattr(request, name))]
        if name in OTHER_NAMES:
            asked.append((OTHER_NAMES[name], getattr(request, OTHER_NAMES[name])))
        value = _agreed(asked)
        if value is not None:
            given[name] = value
    if given.get("top_k") == -1:
        given["top_k"] = 0  # vLLM's way to switch it off
    breakers = _agreed(
        [
            (name, read_texts(getattr(request, name), name, MOST_BREAKERS, MOST_BREAKER_TEXT) or None)
            for name in ("dry_breakers", "dry_sequence_breakers")
        ]
    )
    bias = _bias(request.logit_bias, served)
    if request.ignore_eos:
        bias |= dict.fromkeys(stop_ids or served.stop_ids, -math.inf)
    if bias:
        given["logit_bias"] = bias
    if (order := _order(request)) is not None:
        given["order"] = order
    try:
        if breakers:
            given["dry_breakers"] = served.breakers(breakers)
        return replace(served.sampling, **given)
    except BadInput as error:
        raise of_pophood(error, _field_of(error, request)) from error


def _agreed(fields: list[tuple[str, Any]]) -> Any:
    """Return the value of the fields that have one; ApiError if two differ."""
    given = [(name, value) for name, value in fields if value is not None]
    if not given:
        return None
    for name, value in given[1:]:
        if value != given[0][1]:
            both = f"{given[0][0]} is {short(given[0][1])} and {name} is {short(value)}"
            raise invalid(f"{both}: they mean the same, give one", name)
    return given[0][1]


def _stop_ids(request: GeneratingFields, served: ServedModel) -> tuple[int, ...] | None:
    """Return the tokens that end a text: None for the model's own, these and further ones if asked."""
    if request.stop_token_ids in (None, []):
        return None
    more = read_ids(request.stop_token_ids, "stop_token_ids", served.vocab_size)
    return tuple(sorted({*served.stop_ids, *more}))


def _bias(value: object, served: ServedModel) -> dict[int, float]:
    """Return a bias per token from JSON, whose keys are texts of numbers; `false` forbids a token."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid("logit_bias: wanted an object of token ids and numbers", "logit_bias")
    bias: dict[int, float] = {}
    for key, number in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 12 and int(key) < served.vocab_size):
            wanted = f"a token id from 0 to {served.vocab_size - 1:,}"
            raise invalid(f"logit_bias: the key {short(key)} is not {wanted}", "logit_bias")
        if number is not False and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise invalid(f"logit_bias: token {key} has {short(number)}; wanted a number", "logit_bias")
        if abs(number) > LARGEST_BIAS:
            raise invalid(f"logit_bias: token {key} has {short(number)}; wanted 1e9 at most", "logit_bias")
        bias[int(key)] = -math.inf if number is False else float(number)
    return bias


def _order(request: GeneratingFields) -> tuple[str, ...] | None:
    """Return the order of the samplers, with the bias first if the list does not name it."""
    orders = []
    for name in ("order", "samplers"):
        value = getattr(request, name)
        if value is None:
            continue
        if isinstance(value, str):
            value = list(parse_order(value))
        texts = read_texts(value, name, MOST_ORDER, MOST_ORDER_TEXT)
        steps = [STEP_NAMES.get(step, step) for step in texts if step not in IDLE_STEPS]
        orders.append((name, tuple(steps if "bias" in steps else ["bias", *steps])))
    order: tuple[str, ...] | None = _agreed(orders)
    return order


def _field_of(error: BadInput, request: GeneratingFields) -> str | None:
    """Return the field that a message of the library is about, under the name that the request gives it."""
    if str(error).startswith("the order"):
        return "order" if request.samplers is None else "samplers"
    first = str(error).partition(" ")[0]
    other = OTHER_NAMES.get(first, first)
    if other != first and getattr(request, other) is not None and getattr(request, first) is None:
        return other
    return first if first in {one.name for one in fields(GeneratingFields)} else None
