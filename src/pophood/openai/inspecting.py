"""`inspect`: the field of a request that asks for the insides of the model, and their JSON in the answer.

    {"top": 10, "entropy": true, "lens": {"top": 3, "layers": [0, 5, 11]}, "attention": [[5, 1]],
     "residual_norms": true, "prompt": [4, 9]}

Numbers are written as the shortest text that gives the same single-precision number again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput, short
from pophood.generate import BestTokens, GenerateSettings, Inside, Inspect, Token
from pophood.generate.inside import MOST_LISTED
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.logprobs import Speller, logprob_of
from pophood.openai.model import ServedModel

FIELD = "inspect"
NAMES = ("top", "entropy", "lens", "attention", "residual_norms", "prompt")
MOST_HEADS = 4_096

Json = dict[str, Any]


def read_inspect(value: object, served: ServedModel) -> Inspect | None:
    """Return what a request asks for; None, false and {} ask for nothing. Raises ApiError."""
    if value in (None, False, {}):
        return None
    if not isinstance(value, dict):
        raise _wrong("", f"got {short(value)}; wanted an object with {', '.join(NAMES)}")
    if unknown := [name for name in value if name not in NAMES]:
        raise _wrong("", f"has {short(unknown[0])}; wanted {', '.join(NAMES)}")
    lens, layers = _lens(value.get("lens"))
    try:
        inspect = Inspect(
            top=_count("top", value.get("top"), 0),
            entropy=_flag("entropy", value.get("entropy")),
            lens=lens,
            layers=layers,
            attention=_heads(value.get("attention")),
            residual_norms=_flag("residual_norms", value.get("residual_norms")),
            prompt=_part(value.get("prompt")),
        )
        if served.layers is not None and served.heads is not None:
            inspect.check(served.layers, served.heads, served.vocab_size)
    except BadInput as error:
        raise of_pophood(error, FIELD) from error
    return inspect


def check_bound(
    prompts: Sequence[int], settings: GenerateSettings, served: ServedModel, *, generates: bool
) -> None:
    """Raise ApiError if more values are asked for than one request is told, for prompts of these lengths.

    Without `max_tokens` nobody knows how long the answer gets: it is told until the bound is reached.
    """
    inspect, layers, most = settings.inspect, served.layers, settings.max_tokens
    if inspect is None or layers is None:
        return
    for tokens in prompts:
        asked = sum(inspect.values(position, layers) for position in inspect.asked(tokens))
        if generates and most is not None:
            end = min(tokens + most, served.window + 1)
            each = sum(inspect.values(position, layers) for position in range(tokens, end))
            asked += settings.samples * each
        if asked > inspect.bound:
            every = f" for each of {len(prompts):,} prompts" if len(prompts) > 1 else ""
            wanted = f"wanted {inspect.bound:,} at most{every}"
            raise _wrong("", f"{asked:,} values; {wanted}: ask for fewer tokens, heads or blocks")


def divided(settings: GenerateSettings, prompts: int) -> GenerateSettings:
    """Return settings whose bound on values is that of one of so many prompts."""
    if settings.inspect is None or prompts == 1:
        return settings
    return replace(settings, inspect=replace(settings.inspect, bound=settings.inspect.bound // prompts))


def writer_of(settings: GenerateSettings, served: ServedModel, prompts: int = 1) -> InsideWriter | None:
    """Return what writes the insides of a request with so many prompts; None if it asks for none."""
    if settings.inspect is None:
        return None
    return InsideWriter(settings.inspect, Speller(served.tokenizer), prompts)


class InsideWriter:
    """Writes the insides of one request as JSON, and counts what was told."""

    def __init__(self, inspect: Inspect, speller: Speller, prompts: int = 1) -> None:
        self.inspect = inspect
        self._speller, self._prompts = speller, prompts
        self.told = 0  # values
        self.truncated = False

    @property
    def facts(self) -> Json:
        """The field of the whole answer: the bound on its values, how many there are, whether some lack."""
        bound = self._prompts * self.inspect.bound
        return {"bound": bound, "values": self.told, "truncated": self.truncated}

    def of_token(self, token: Token) -> list[Json]:
        """Return the record of a generated token, or nothing beyond the bound."""
        if token.inside is None:
            self.truncated = True
            return []
        logprob = logprob_of(token)
        known = {} if logprob is None else {"logprob": float(str(np.float32(logprob)))}
        return [self._record(token.inside, token.id, "answer") | known]

    def of_prompt(self, prompt: Sequence[int], insides: Iterable[Inside]) -> list[Json]:
        """Return the records of tokens of a prompt."""
        return [self._record(inside, prompt[inside.position], "prompt") for inside in insides]

    def _record(self, inside: Inside, id_: int, part: str) -> Json:
        record: Json = {
            "position": inside.position,
            "part": part,
            "id": id_,
            "token": self._speller.name(id_),
        }
        if inside.top is not None:
            record["top"] = self._listed(inside.top)
        if inside.entropy is not None:
            record["entropy"] = float(str(np.float32(inside.entropy)))
        if inside.lens is not None:
            record["lens"] = [{"layer": layer, "top": self._listed(best)} for layer, best in inside.lens]
        if inside.attention is not None:
            record["attention"] = [
                {"layer": layer, "head": head, "weights": shortest(weights)}
                for (layer, head), weights in zip(self.inspect.attention, inside.attention, strict=True)
            ]
        if inside.residual_norms is not None:
            record["residual_norms"] = shortest(inside.residual_norms)
        self.told += values_of(inside)
        return record

    def _listed(self, listed: BestTokens) -> list[Json]:
        columns = listed.ids.tolist(), shortest(listed.logits), shortest(listed.log_probabilities)
        return [
            {"id": id_, "token": self._speller.name(id_), "logit": logit, "logprob": logprob}
            for id_, logit, logprob in zip(*columns, strict=True)
        ]


def shortest(values: NDArray[np.float32]) -> list[float]:
    """Return numbers whose JSON is the shortest that gives the same single-precision numbers again.

    >>> shortest(np.array([0.1, 1e-9, 3], np.float32))
    [0.1, 1e-09, 3.0]
    """
    return [float(str(value)) for value in values]


def values_of(inside: Inside) -> int:
    """Return how many values a record has, as `Inspect.values` counts them."""
    listed = [one.ids for one in (inside.top, inside.lens) if one is not None]
    arrays = (inside.attention, inside.residual_norms)
    return (
        4 * sum(ids.size for ids in listed)
        + (inside.entropy is not None)
        + sum(array.size for array in arrays if array is not None)
    )


# ---- reading ----


def _wrong(place: str, what: str) -> Exception:
    return invalid(f"{FIELD}{place and '.'}{place}: {what}", FIELD, "invalid_value")


def _flag(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, f"got {short(value)}; wanted true or false")
    return bool(value)


def _count(name: str, value: object, low: int) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= MOST_LISTED:
        raise _wrong(name, f"got {short(value)}; wanted a whole number from {low} to {MOST_LISTED}")
    return value


def _lens(value: object) -> tuple[int, tuple[int, ...] | None]:
    """Return how many tokens a lens lists after each block, and the blocks; None for all of them."""
    if value is None or isinstance(value, bool):
        return int(bool(value)), None
    if not isinstance(value, dict) or set(value) - {"top", "layers"}:
        raise _wrong("lens", f"got {short(value)}; wanted true, or an object with top and layers")
    layers = value.get("layers")
    if layers is not None:
        layers = _whole_numbers("lens.layers", layers)
        if sorted(set(layers)) != list(layers) or not layers:
            raise _wrong("lens.layers", "wanted one block or more, each once, in ascending order")
    return _count("lens.top", value.get("top"), 1) or 1, layers


def _heads(value: object) -> tuple[tuple[int, int], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_HEADS:
        raise _wrong(
            "attention", f"got {short(value)}; wanted a list of [block, head], {MOST_HEADS:,} at most"
        )
    heads = [_whole_numbers(f"attention[{place}]", pair) for place, pair in enumerate(value)]
    for place, pair in enumerate(heads):
        if len(pair) != 2:
            raise _wrong(f"attention[{place}]", f"got {short(list(pair))}; wanted [block, head]")
    if len(set(heads)) < len(heads):
        raise _wrong("attention", "names a head twice")
    return tuple((layer, head) for layer, head in heads)


def _part(value: object) -> bool | tuple[int, int]:
    if value is None or isinstance(value, bool):
        return bool(value)
    part = _whole_numbers("prompt", value)
    if len(part) != 2 or part[0] > part[1]:
        raise _wrong("prompt", f"got {short(value)}; wanted true, false, or [first, end] of its tokens")
    return part[0], part[1]


def _whole_numbers(place: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(one) is not int or not 0 <= one < 2**31 for one in value):
        raise _wrong(place, f"got {short(value)}; wanted whole numbers from 0")
    return tuple(value)
