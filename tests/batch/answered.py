"""Lines of all kinds, their answers by `Answering`, and what the library gives for each of them alone."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import pophood
from pophood.batch.answering import Answering
from pophood.batch.lines import LineSource
from pophood.batch.model import BatchModel, LineDefaults
from pophood.generate import Token

Line = dict[str, Any]
SEED = 5
WORDS = ("the", "cat", "chased", "a", "dog,", "and", "then", "both", "sat", "in", "shade.", "Why?")


def written(lines: Sequence[Mapping[str, Any] | str | bytes]) -> bytes:
    """Return lines as a file has them."""
    data = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    return b"".join(one + b"\n" for one in data)


def source_of(lines: Sequence[Mapping[str, Any] | str | bytes]) -> LineSource:
    return LineSource(io.BytesIO(written(lines)), "lines")


def answered(
    lm: pophood.LM,
    lines: Sequence[Mapping[str, Any] | str | bytes],
    *,
    together: int = 6,
    most_samples: int = 6,
    aliases: Sequence[str] = (),
    **defaults: Any,
) -> list[dict[str, Any]]:
    """Return the answers of lines."""
    settings = LineDefaults(**{"seed": SEED, **defaults})
    model = BatchModel(lm, settings, aliases=aliases, most_samples=most_samples)
    with Answering(model, together=together) as answering:
        return list(answering.records(source_of(lines)))


def mixed(lm: pophood.LM, n: int, seed: int) -> list[Line]:
    """Return lines of all kinds, lengths and settings."""
    draw = np.random.default_rng(seed)

    def text(least: int, most: int) -> str:
        return " ".join(draw.choice(WORDS, draw.integers(least, most)).tolist())

    lines: list[Line] = []
    shared = text(20, 21)
    for number in range(n):
        kind = draw.choice(["prompt", "ids", "chat", "score"])
        line: Line = {}
        if kind == "prompt":
            line["prompt"] = (shared if draw.random() < 0.5 else "") + text(1, 20)
        elif kind == "ids":
            line["prompt"] = draw.integers(0, lm.config.vocab_size, draw.integers(1, 60)).tolist()
        elif kind == "chat":
            line["messages"] = [{"role": "user", "content": text(1, 12)}]
        else:
            line |= {"text": text(1, 120), "score": True}
            if draw.random() < 0.4:
                line |= {"window": 40, "overlap": 15}
        if kind != "score":
            line["max_tokens"] = int(draw.integers(1, 25))
            line |= draw.choice(
                [  # type: ignore[arg-type]
                    {"temperature": 0},
                    {},
                    {"top_k": 0, "top_p": 0.9},
                    {"repetition_penalty": 1.3, "temperature": 1.1},
                    {"logit_bias": {"5": 3.0}, "min_tokens": 1},
                    {"stop": ["a", "e"]},
                ]
            )
            line["n"] = int(draw.choice([1, 1, 1, 2, 3]))
            line["details"] = str(draw.choice(["plain", "probability", "top"]))
            line["top"] = 3
            if draw.random() < 0.3:
                line["seed"] = int(draw.integers(1000))
        if draw.random() < 0.5:
            names = draw.permutation(["a", "b"])[: draw.integers(0, 3)].tolist()
            line["adapters"] = [{"name": name, "scale": float(draw.choice([0.5, 1, -1]))} for name in names]
        if draw.random() < 0.5:
            line["id"] = f"line {number}"
        lines.append(line)
    return lines


def check(record: Mapping[str, Any], line: Line, alone: pophood.LM, lm: pophood.LM) -> None:
    """Compare an answer with what `LM.stream`, `LM.chat` or `LM.score` gives for its line."""
    adapters = {adapter.name: adapter for adapter, _ in lm.adapters}
    asked = line.get("adapters", [{"name": name, "scale": 0.5} for name in "ab"])
    alone.use_adapters([(adapters[one["name"]], one["scale"]) for one in asked])
    assert record.get("id") == line.get("id") and "error" not in record, record
    if line.get("score"):
        score = alone.score(
            line["text"], **{name: line[name] for name in ("window", "overlap") if name in line}
        )
        wanted = [None if np.isnan(x) else x for x in score.log_probabilities.tolist()]
        assert record["token_ids"] == score.token_ids
        assert record["log_probabilities"] == wanted
        assert record["scored"] == score.scored
        assert record["perplexity"] == (score.perplexity if score.scored else None)
        return
    settings = {name: value for name, value in line.items() if name not in ("id", "adapters")}
    prompt, messages = settings.pop("prompt", None), settings.pop("messages", None)
    settings["samples"] = settings.pop("n")
    settings["seed"] = line.get("seed", LineDefaults(seed=SEED).seed_of(record["line"]))
    if "logit_bias" in settings:
        settings["logit_bias"] = {int(id_): x for id_, x in settings["logit_bias"].items()}
    run = alone.stream(prompt, **settings) if messages is None else alone.chat(messages, **settings)
    samples: list[list[Token]] = [[] for _ in range(settings["samples"])]
    for token in run:
        samples[token.sample].append(token)
    assert record["seed"] == run.seed and record["prompt_tokens"] == len(run.prompt_ids)
    assert record["new_tokens"] == sum(map(len, samples))
    for output, tokens in zip(record["outputs"], samples, strict=True):
        assert output["completion"] == "".join(token.text for token in tokens)
        assert output["finish"] == tokens[-1].finish
        assert ("tokens" in output) == (line["details"] != "plain")
        for told, token in zip(output.get("tokens", ()), tokens, strict=line["details"] != "plain"):
            assert (told["id"], told["text"]) == (token.id, token.text)
            assert told["log_probability"] == token.log_probability
            assert told["entropy"] == token.entropy
            if line["details"] == "top":
                assert token.top is not None and token.log_mass is not None
                assert [(one["id"], one["text"]) for one in told["top"]] == [one[:2] for one in token.top]
                values = [one["log_probability"] for one in told["top"]]
                assert values == [logit - token.log_mass for _, _, logit, _ in token.top]
