"""SamplingSettings: every setting that affects the choice of a token, with its range and its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from types import MappingProxyType

from pophood.errors import BadInput
from pophood.settings import setting

SEED_LIMIT = 2**64  # a seed is one word of the random generator's key
STEPS = ("bias", "penalties", "dry", "top_k", "typical", "top_p", "min_p", "xtc", "temperature")
GREEDY = 1e-5  # at temperatures up to this one the likeliest token is taken without a draw

_MANY, _INF = 2**31, math.inf


@dataclass(frozen=True, slots=True)
class Range:
    """The range of a setting, the value that switches it off, and the step of the chain that reads it."""

    low: float
    high: float
    off: float | None
    step: str
    meaning: str
    whole: bool = False


def _whole(low: int, off: float | None, step: str, meaning: str) -> Range:
    """Return the range of a whole number without an upper limit that matters."""
    return Range(low, _MANY, off, step, meaning, whole=True)


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "temperature": Range(0, _INF, 1.0, "temperature", "divisor of the logits, 0 for the likeliest token"),
        "top_k": _whole(0, 0, "top_k", "how many of the likeliest tokens to keep"),
        "top_p": Range(0, 1, 1.0, "top_p", "probability that the kept likeliest tokens reach"),
        "min_p": Range(0, 1, 0.0, "min_p", "least probability kept, as a part of the largest"),
        "typical_p": Range(0, 1, 1.0, "typical", "probability that the kept typical tokens reach"),
        "repetition_penalty": Range(0.001, _INF, 1.0, "penalties", "divisor of used tokens' logits"),
        "presence_penalty": Range(-_INF, _INF, 0.0, "penalties", "taken off used tokens' logits"),
        "frequency_penalty": Range(-_INF, _INF, 0.0, "penalties", "taken off the logit for every use"),
        "penalty_window": _whole(-1, None, "penalties", "newest tokens that count, -1 for all"),
        "dry_multiplier": Range(0, _INF, 0.0, "dry", "strength against repeated sequences"),
        "dry_base": Range(1, _INF, None, "dry", "growth of that strength with the length of the repeat"),
        "dry_allowed_length": _whole(1, None, "dry", "length of repeat that costs nothing yet"),
        "dry_window": _whole(-1, None, "dry", "newest tokens searched for repeats, -1 for all"),
        "xtc_probability": Range(0, 1, 0.0, "xtc", "how often the top choices are excluded"),
        "xtc_threshold": Range(0, 0.5, None, "xtc", "probability from which a token is a top choice"),
        "min_tokens": _whole(0, 0, "", "tokens before anything may end the text"),
    }
)


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """The settings for choosing a token from logits, checked when they are created.

    A step that is missing from `order` is off. `logit_bias` is added to the logits of its tokens; -inf
    forbids one. `dry_breakers` are token sequences across which DRY counts no repeat (`breakers_of` finds
    them). Raises BadInput.

    Example: `SamplingSettings(temperature=0.7, min_p=0.05, top_k=0)`
    """

    temperature: float = setting(
        0.8, "Divide the logits by X: below 1 bolder, above 1 more varied, 0 takes the likeliest"
    )
    top_k: int = setting(40, "Keep the N likeliest tokens; 0 keeps all")
    top_p: float = setting(1.0, "Keep the fewest likeliest tokens whose probabilities sum to X; 1 keeps all")
    min_p: float = setting(0.0, "Keep tokens at least X times as likely as the likeliest")
    typical_p: float = setting(
        1.0, "Keep the fewest tokens of typical surprisal whose probabilities sum to X; 1 keeps all"
    )
    repetition_penalty: float = setting(
        1.0, "Divide the positive logits of used tokens, multiply the negative ones; 1 is off"
    )
    presence_penalty: float = setting(0.0, "Subtract X from the logit of every used token")
    frequency_penalty: float = setting(0.0, "Subtract X from a token's logit for each of its uses")
    penalty_window: int = setting(64, "Number of recent tokens that count as used; -1 is all")
    dry_multiplier: float = setting(0.0, "Strength of DRY, a penalty on repeated sequences")
    dry_base: float = setting(1.75, "Growth of that penalty with the length of the repeat")
    dry_allowed_length: int = setting(2, "Longest repeat without a penalty")
    dry_window: int = setting(-1, "Number of recent tokens to search for repeats; -1 is all")
    xtc_probability: float = setting(0.0, "Probability with which XTC excludes the top choices")
    xtc_threshold: float = setting(0.1, "Probability from which a token is a top choice")
    min_tokens: int = setting(0, "New tokens before a stop can end the text")
    dry_breakers: tuple[tuple[int, ...], ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    order: tuple[str, ...] = STEPS

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            _check_range(name, getattr(self, name), allowed)
        for token, value in self.logit_bias.items():
            if not _is_whole(token) or token < 0:
                raise BadInput(f"logit_bias names the token {token!r}; wanted a token id, 0 or more")
            if not _is_number(value) or math.isnan(value) or value == math.inf:
                raise BadInput(
                    f"logit_bias of token {token} is {value!r}; wanted a number, or -inf to forbid it"
                )
        for breaker in self.dry_breakers:
            if not breaker or not all(_is_whole(token) for token in breaker):
                raise BadInput(f"dry_breakers holds {breaker!r}; wanted sequences of one token id or more")
        _check_order(self)

    @property
    def greedy(self) -> bool:
        """True if the likeliest token is taken without a draw."""
        return "temperature" in self.order and self.temperature <= GREEDY


def parse_order(text: str) -> tuple[str, ...]:
    """Parse an order: names separated by commas, semicolons or spaces, which `SamplingSettings` checks.

    >>> parse_order("top-k; temperature")
    ('top_k', 'temperature')
    """
    return tuple(text.replace(",", " ").replace(";", " ").replace("-", "_").split())


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float)):
        return True
    import numpy as np

    return isinstance(value, (np.integer, np.floating))


def _is_whole(value: object) -> bool:
    # NumPy registers its integers as Integral.
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_range(name: str, value: float, allowed: Range) -> None:
    fits = _is_whole(value) if allowed.whole else _is_number(value) and math.isfinite(value)
    if fits and allowed.low <= value <= allowed.high:
        return
    wanted = "a whole number" if allowed.whole else "a number"
    if allowed.high in (math.inf, _MANY):
        wanted += "" if math.isinf(allowed.low) else f", {allowed.low:g} or more"
    else:
        wanted += f" from {allowed.low:g} to {allowed.high:g}"
    off = "" if allowed.off is None else f" ({allowed.off:g} switches it off)"
    raise BadInput(f"{name} ({allowed.meaning}) is {value!r}; wanted {wanted}{off}")


def _check_order(settings: SamplingSettings) -> None:
    steps = ", ".join(STEPS)
    order: object = settings.order
    if isinstance(order, str):
        raise BadInput(f"order is the text {order!r}; wanted a sequence of steps of {steps}")
    for name in settings.order:
        if name not in STEPS:
            raise BadInput(f"the order names the step {name!r}, which does not exist; the steps are {steps}")
        if settings.order.count(name) > 1:
            raise BadInput(f"the order names the step {name!r} twice; wanted each at most once of {steps}")
    defaults = {f.name: f.default for f in fields(SamplingSettings)}
    for name, allowed in RANGES.items():
        value = getattr(settings, name)
        asked = allowed.off is not None and value not in (allowed.off, defaults[name])
        if asked and allowed.step and allowed.step not in settings.order:
            raise BadInput(
                f"{name} is {value:g}, but the order leaves out its step {allowed.step!r}; add the step"
            )
    if settings.logit_bias and "bias" not in settings.order:
        raise BadInput("logit_bias is given, but the order leaves out its step 'bias'; add the step")
