"""Lines that score a text: the log-probability of each of its tokens, as `LM.score` has them, to the bit.

A text that is longer than the context window is read in windows, each of which is a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pophood.batch.model import BatchModel
from pophood.batch.own import check_model
from pophood.batch.shapes import JobResult, LineRequest, OwnShape, finite
from pophood.errors import BadInput, short
from pophood.generate import GenerateSettings
from pophood.model.score import Score, windows_of
from pophood.openai.asked import PromptJob
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.model import AdapterPair
from pophood.openai.requests import CompletionFields, read_fields, read_ids, whole
from pophood.openai.settings import adapters_of

FIELDS = ("score", "text", "prompt", "window", "overlap", "top", "adapters", "model", "parse_special")
COUNT = whole(0)
Windows = Sequence[tuple[int, int, int]]  # start, end, first: see `windows_of`


def scored(data: dict[str, Any], shape: OwnShape, model: BatchModel) -> LineRequest:
    """Return what a line with `"score": true` asks for. Raises ApiError."""
    if unknown := [name for name in data if name not in FIELDS]:
        raise invalid(f'`{unknown[0][:60]}` means nothing beside "score": true: leave it out', unknown[0])
    param = "text" if "text" in data else "prompt"
    known = {name: data[name] for name in ("adapters", "model", "parse_special") if name in data}
    fields = read_fields(known | {"prompt": data[param]}, CompletionFields)
    check_model(fields.model, model)
    adapters = adapters_of(fields.adapters, model.served)
    ids = _ids(fields, param, model)
    numbers = {name: data[name] for name in ("top", "window", "overlap") if data.get(name) is not None}
    for name, value in numbers.items():
        if not COUNT.holds(value):
            raise invalid(f"{name}: got {short(value)}; wanted {COUNT.wanted}", name, "invalid_value")
    top = numbers.pop("top", 0)
    if top > model.served.vocab_size:
        raise invalid(f"top is {top:,}; the vocabulary has {model.served.vocab_size:,} tokens", "top")
    try:
        every = list(windows_of(len(ids), model.served.window, **numbers))
    except BadInput as error:
        raise of_pophood(error, str(error).partition(" ")[0]) from error
    windows = [(start, end, first) for start, end, first in every if end - start > first]
    jobs = tuple(_job(ids[start:end], adapters, top) for start, end, _ in windows)
    return LineRequest(shape, jobs, lambda results: _scores(ids, windows, results, top, model))


def _ids(fields: CompletionFields, param: str, model: BatchModel) -> tuple[int, ...]:
    if not isinstance(fields.prompt, str):
        return read_ids(fields.prompt, param, model.served.vocab_size)
    try:
        parse = bool(fields.parse_special)
        return tuple(model.served.tokenizer.encode(fields.prompt, parse_special=parse))
    except BadInput as error:
        raise of_pophood(error, param) from error


def _job(ids: tuple[int, ...], adapters: tuple[AdapterPair, ...], top: int) -> PromptJob:
    return PromptJob(ids, GenerateSettings(seed=0), adapters, scores=top, generates=False)


def _scores(
    ids: tuple[int, ...], windows: Windows, results: Sequence[JobResult], top: int, model: BatchModel
) -> dict[str, Any]:
    values = np.full(len(ids), np.nan, np.float32)
    likeliest: list[Any] = [None] * len(ids)
    spell = model.served.tokenizer.token_text
    for (start, end, first), result in zip(windows, results, strict=True):
        for place, score in enumerate(result.running.scores[first : end - start], start + first):
            values[place] = np.nan if score.log_probability is None else score.log_probability
            likeliest[place] = [
                {"id": id_, "text": spell(id_), "log_probability": finite(value)} for id_, value in score.top
            ]
    text = Score(list(ids), values)
    return {
        "token_ids": text.token_ids,
        "log_probabilities": [finite(value) for value in values.tolist()],
        **({"top": likeliest} if top else {}),
        "scored": text.scored,
        "mean_nll": finite(text.mean_nll),
        "perplexity": finite(text.perplexity),
    }
