"""`inspect` of requests: the values are those of `LM.trace`, streamed or not, beside others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.generate import GenerateSettings
from pophood.openai.logprobs import Speller
from tests.serve.protocol.reader import lines_of, read_stream
from tests.serve.protocol.service import Service

IDS = [5, 9, 13, 2, 7, 7, 30, 11, 4, 60]
EVERYTHING: dict[str, Any] = {
    "top": 4,
    "entropy": True,
    "lens": {"top": 2, "layers": [0, 1]},
    "attention": [[1, 3], [0, 1]],
    "residual_norms": True,
    "prompt": True,
}


def exact(number: float) -> np.float32:
    """Return a number at single precision, of which it must be the shortest text."""
    value = np.float32(number)
    assert repr(number) == repr(float(str(value)))
    return value


def check(records: list[dict[str, Any]], ids: list[int], lm: pophood.LM) -> None:
    """Compare records with a trace of all tokens."""
    trace = lm.trace(ids, ["blocks.*.resid_post", "blocks.0.resid_pre", "*.pattern", "logits"])
    spell = Speller(lm.bundle.tokenizer).name
    with lm.engine.sequence() as sequence:
        rows = lm.engine.summary([(sequence, ids)], k=4, rows="all")
    for record in records:
        row = record["position"] - 1
        assert record["id"] == ids[row + 1] and record["token"] == spell(ids[row + 1])
        best = np.lexsort((np.arange(trace.logits.shape[1]), -trace.logits[row]))[:4]
        assert [one["id"] for one in record["top"]] == best.tolist()
        assert [exact(one["logit"]) for one in record["top"]] == trace.logits[row, best].tolist()
        logprobs = (trace.logits[row, best] - rows.log_mass[row]).astype(np.float32)
        assert [exact(one["logprob"]) for one in record["top"]] == logprobs.tolist()
        assert [one["token"] for one in record["top"]] == [spell(int(i)) for i in best]
        assert exact(record["entropy"]) == np.float32(rows.entropy[row])
        streams = [trace["blocks.0.resid_pre"][row], *trace.layers("resid_post")[:, row]]
        norms = [np.float32(np.sqrt(np.square(one.astype(np.float64)).sum())) for one in streams]
        assert [exact(one) for one in record["residual_norms"]] == norms
        for one in record["attention"]:
            own = trace[f"blocks.{one['layer']}.attn.pattern"][one["head"], row, : row + 1]
            assert [exact(weight) for weight in one["weights"]] == own.tolist()
        assert [one["layer"] for one in record["lens"]] == [0, 1]
        for one in record["lens"]:
            found = lm.engine.unembed(trace[f"blocks.{one['layer']}.resid_post"][row : row + 1], 2)
            assert [best["id"] for best in one["top"]] == found.ids[0].tolist()
            assert [exact(best["logit"]) for best in one["top"]] == found.logits[0].tolist()


def test_records_of_a_completion_equal_a_trace(service: Service, alone: pophood.LM) -> None:
    body = {"prompt": IDS, "max_tokens": 5, "seed": 1, "ignore_eos": True}
    plain = service.ask("/v1/completions", body).json["choices"][0]
    told = service.ask_all(
        [("/v1/completions", body | {"inspect": EVERYTHING})]
        + [("/v1/completions", {"prompt": "Once", "max_tokens": 12, "seed": n}) for n in range(5)]
    )
    choice, records = told[0].json["choices"][0], told[0].json["choices"][0]["inspect"]
    assert choice["text"] == plain["text"] and "inspect" not in plain
    assert [one["part"] for one in records] == ["prompt"] * 9 + ["answer"] * 5
    assert [one["position"] for one in records] == list(range(1, 15))
    check(records, IDS + [one["id"] for one in records[9:]], alone)
    assert all("inspect" not in other.json["choices"][0] for other in told[1:])
    layers, heads = alone.config.n_layer, len(EVERYTHING["attention"])
    values = sum(4 * (4 + 2 * 2) + 1 + heads * p + layers + 1 for p in range(1, 15))
    assert told[0].json["inspect"] == {"bound": 1 << 20, "values": values, "truncated": False}


def test_a_stream_has_the_same_records_with_their_tokens(service: Service) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "seed": 4, "n": 2}
    asked = talk | {"inspect": EVERYTHING | {"prompt": [3, 6]}, "ignore_eos": True}
    whole = service.ask("/v1/chat/completions", asked).json
    body = service.ask("/v1/chat/completions", asked | {"stream": True}).body
    read_stream(body, size=2, include_usage=False, chat=True)
    pieces = [json.loads(line) for line in lines_of(body) if line != "[DONE]"]
    records: dict[int, list[Any]] = {0: [], 1: []}
    for piece in pieces:
        for choice in piece["choices"]:
            records[choice["index"]] += choice.get("inspect", [])
    assert records == {choice["index"]: choice["inspect"] for choice in whole["choices"]}
    assert [one["position"] for one in records[0]][:4] == [3, 4, 5, records[1][0]["position"]]
    assert all(one["part"] == "answer" for one in records[1])
    assert pieces[-1]["inspect"] == whole["inspect"]


def test_a_token_has_its_own_log_probability_whatever_its_text_waits_for(service: Service) -> None:
    """A stop string holds text and entries of `logprobs` back; records come at once."""
    asked = {"prompt": IDS, "max_tokens": 12, "seed": 3, "temperature": 2, "ignore_eos": True, "logprobs": 0}
    whole = service.ask("/v1/completions", asked).json["choices"][0]
    more = {"inspect": {"top": 1}, "stream": True, "stop": [whole["text"] + "never"]}
    body = service.ask("/v1/completions", asked | more).body
    pieces = [json.loads(line) for line in lines_of(body) if line != "[DONE]"]
    records = [one for piece in pieces for choice in piece["choices"] for one in choice.get("inspect", [])]
    assert [exact(one["logprob"]) for one in records] == whole["logprobs"]["token_logprobs"]


def test_a_prompt_alone(service: Service, alone: pophood.LM) -> None:
    body = {"prompt": [IDS, IDS[:4]], "max_tokens": 0, "inspect": EVERYTHING}
    for more in ({}, {"echo": True, "logprobs": 1}):
        told = service.ask("/v1/completions", body | more).json
        for choice, ids in zip(told["choices"], (IDS, IDS[:4]), strict=True):
            assert [one["position"] for one in choice["inspect"]] == list(range(1, len(ids)))
            check(choice["inspect"], ids, alone)
        assert told["inspect"]["bound"] == 1 << 20


def test_beyond_the_bound_tokens_have_no_record(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered(settings: GenerateSettings, _: int) -> GenerateSettings:
        assert settings.inspect is not None
        return replace(settings, inspect=replace(settings.inspect, bound=100))

    monkeypatch.setattr("pophood.openai.completions.divided", lowered)
    inspect = {"attention": [[0, 0]], "top": 1}  # 4 and the position
    fields = {"prompt": IDS, "ignore_eos": True, "inspect": inspect}
    told = service.ask("/v1/completions", fields | {"max_tokens": -1}).json
    assert [one["position"] for one in told["choices"][0]["inspect"]] == [10, 11, 12, 13, 14, 15]
    assert told["inspect"] == {"bound": 100, "values": 99, "truncated": True}
    assert told["usage"]["completion_tokens"] > 200
    assert service.ask("/v1/completions", fields | {"max_tokens": 7}).status == 400
    assert service.ask("/v1/completions", fields | {"max_tokens": 6}).json["inspect"]["truncated"] is False


def test_a_grammar_leaves_the_models_own_distribution(service: Service, alone: pophood.LM) -> None:
    inspect = EVERYTHING | {"prompt": False}
    asked = {"guided_regex": "(ab|ba){8}", "max_tokens": 20, "temperature": 0, "inspect": inspect}
    told = service.complete(IDS, **asked).json["choices"][0]
    records = told["inspect"]
    assert [one["position"] for one in records] == list(range(len(IDS), len(IDS) + len(records)))
    assert "".join(one["token"] for one in records).startswith(told["text"])
    check(records, IDS + [one["id"] for one in records], alone)


@pytest.mark.parametrize(
    ("inspect", "said"),
    [
        (1, "inspect: got 1; wanted an object with top"),
        ({"tops": 1}, "inspect: has 'tops'"),
        ({"top": 21}, "inspect.top: got 21; wanted a whole number from 0 to 20"),
        ({"top": True}, "inspect.top: got True"),
        ({"top": 0}, "nothing is asked for"),
        ({"prompt": True}, "nothing is asked for"),
        ({"entropy": 1}, "inspect.entropy: got 1; wanted true or false"),
        ({"lens": 3}, "inspect.lens: got 3"),
        ({"lens": {"top": 0}}, "inspect.lens.top: got 0"),
        ({"lens": {"layers": [1, 0]}}, "inspect.lens.layers: wanted"),
        ({"lens": {"layers": []}}, "inspect.lens.layers: wanted"),
        ({"lens": {"layers": [9]}}, "block 9 does not exist: wanted 0 to 1"),
        ({"attention": [[0, 9]]}, "head 9 does not exist"),
        ({"attention": [[0]]}, "inspect.attention[0]: got [0]"),
        ({"attention": [[0, 0], [0, 0]]}, "names a head twice"),
        ({"attention": "all"}, "inspect.attention: got 'all'"),
        ({"top": 1, "prompt": [3]}, "inspect.prompt: got [3]"),
        ({"top": 1, "prompt": [3, 2]}, "inspect.prompt"),
        ({"top": 1, "prompt": [-1, 2]}, "inspect.prompt: got [-1, 2]"),
    ],
)
def test_what_is_wrong_is_named(service: Service, inspect: Any, said: str) -> None:
    told = service.complete(IDS, inspect=inspect)
    assert told.status == 400 and told.error["param"] == "inspect"
    assert said in told.error["message"]


@pytest.mark.parametrize("inspect", [None, False, {}])
def test_nothing_asked_is_nothing_told(service: Service, inspect: Any) -> None:
    told = service.complete(IDS, max_tokens=2, inspect=inspect)
    assert told.status == 200
    assert "inspect" not in told.json and "inspect" not in told.json["choices"][0]


def test_more_than_the_bound_is_refused(service: Service) -> None:
    heads = [[layer, head] for layer in range(2) for head in range(4)]
    many = [IDS * 20] * 200
    told = service.complete(many, max_tokens=1, inspect={"attention": heads, "prompt": True})
    assert told.status == 400 and told.error["param"] == "inspect"
    assert "values; wanted 5,242 at most for each of 200 prompts" in told.error["message"]


def test_a_lines_numbers_are_json(service: Service) -> None:
    text = service.complete(IDS, max_tokens=1, inspect={"entropy": True}).body.decode()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
