"""Sampling values that a model's files suggest: `generation_config.json`, and GGUF's `general.sampling` keys.

They are applied only when the user asks for them. An invalid value does not keep a model from opening: it is
left out and reported. This module opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pophood.errors import short
from pophood.sampling_settings import RANGES

HF_NAMES = {
    name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
}
GGUF_NAMES = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.xtc_probability": "xtc_probability",
    "general.sampling.xtc_threshold": "xtc_threshold",
    "general.sampling.penalty_repeat": "repetition_penalty",
    "general.sampling.penalty_last_n": "penalty_window",
}


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Usable values, and what is wrong with the others, both by the name of the setting in pophood."""

    values: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read_suggestions(metadata: Mapping[str, Any], names: Mapping[str, str], place: str) -> Suggestions:
    """Read the values under the keys of `names` (their key -> our setting); `place` names the file in faults.

    >>> read_suggestions({"top_k": -1, "top_p": 0.9}, HF_NAMES, "generation_config.json")
    Suggestions(values={'top_p': 0.9}, faults={'top_k': 'generation_config.json suggests top_k -1; wanted a \
whole number from 0'})
    """
    suggestions = Suggestions()
    if metadata.get("do_sample") is False:
        suggestions.values["temperature"] = 0.0  # greedy decoding uses no other value
        return suggestions
    for key, ours in names.items():
        value, limits = metadata.get(key), RANGES[ours]
        if value is None:
            continue
        number = isinstance(value, int if limits.whole else int | float) and not isinstance(value, bool)
        if number and limits.low <= value <= limits.high:
            suggestions.values[ours] = value
            continue
        most = f" to {limits.high:g}" if limits.high < 1e9 else ""
        suggestions.faults[ours] = (
            f"{place} suggests {key} {short(value)}; wanted a {'whole ' if limits.whole else ''}number"
            f" from {limits.low:g}{most}"
        )
    return suggestions
