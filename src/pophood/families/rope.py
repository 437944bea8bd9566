"""RoPE settings (rotary positions) in both kinds of file: transformers' tables, old and new, and GGUF's keys.

Scaling none, linear, dynamic, llama3, yarn and longrope are computed; others are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pophood.config import Rope
from pophood.errors import BadFile, Unsupported
from pophood.families.family import Fields
from pophood.families.keys import (
    MOST_ENTRIES,
    Key,
    Only,
    Used,
    WantedError,
    choice,
    count,
    flag,
    harmless,
    read_keys,
    real,
    require,
    section,
)

THETA = Used("rope_theta", real(1.0, 1e12))
SHARE = Used("rope_share", real(1e-3, 1.0))
ORIGINAL = Used("rope_original", count(1 << 28))
DEFAULT_THETA = 10_000.0

ROPE_HF_KEYS: dict[str, Key] = {
    "rope_theta": THETA,
    "rope_scaling": Used("rope_scaling", section),  # transformers 4, beside rope_theta
    "rope_parameters": Used("rope_parameters", section),  # transformers 5, with rope_theta in it
    "partial_rotary_factor": SHARE,
    "rope_interleaved": Only((False,), "feature i is rotated with i + D/2"),
}


def numbers(least: float, most: float) -> Callable[[object], tuple[float, ...]]:
    """Return a check for a list of numbers from `least` to `most`."""
    one = real(least, most)

    def check(value: object) -> tuple[float, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= MOST_ENTRIES:
            raise WantedError("a list of numbers")
        return tuple(one(entry) for entry in value)

    return check


_TYPES = {name: name for name in ("default", "linear", "llama3", "dynamic", "yarn", "longrope")}
_TYPE = Used("type", choice(_TYPES | {"su": "longrope"}))
_FACTORS = ("factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow")
_TABLE_KEYS: dict[str, Key] = {
    "rope_type": _TYPE,
    "type": _TYPE,
    "rope_theta": THETA,
    **{key: Used(key, real(1e-3, 1e6)) for key in _FACTORS},
    **{key: Used(key, real(0.0, 1e6)) for key in ("mscale", "mscale_all_dim")},
    **{key: Used(key, numbers(1e-6, 1e9)) for key in ("short_factor", "long_factor")},
    "truncate": Used("truncate", flag),
    "original_max_position_embeddings": Used("original_max_position_embeddings", count(1 << 28)),
    "partial_rotary_factor": SHARE,
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}
_OPTIONAL: dict[str, tuple[str, ...]] = {
    "yarn": ("attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate"),
    "longrope": ("attention_factor", "factor"),
}

ROPE_GGUF_KEYS: dict[str, Key] = {
    "rope.dimension_count": Used("rotary_dim", count(1_024)),
    "rope.freq_base": THETA,
    "rope.scaling.type": Used(
        "rope_type", choice({name: name for name in ("none", "linear", "yarn", "longrope")})
    ),
    "rope.scaling.factor": Used("rope_factor", real(0.0, 1e6)),
    "rope.scale_linear": Used("rope_factor", real(0.0, 1e6)),  # the older spelling
    "rope.scaling.attn_factor": Used("rope_magnitude", real(0.0, 1e3)),
    "rope.scaling.original_context_length": ORIGINAL,
    "rope.scaling.yarn_beta_fast": Used("beta_fast", real(1e-3, 1e6)),
    "rope.scaling.yarn_beta_slow": Used("beta_slow", real(1e-3, 1e6)),
    **harmless("rope.scaling.finetuned"),
}


def rope_of(fields: Fields, head_dim: int, n_positions: int) -> Rope:
    """Build the Rope that the fields of either kind of file describe; raises BadFile or Unsupported."""
    old, new = fields.get("rope_scaling"), fields.get("rope_parameters")
    if old and new and old != new:
        raise BadFile(
            "config.json: rope_scaling and rope_parameters differ, although they mean the same: keep one"
        )
    table = old or new
    rope = rope_of_table(table, fields, n_positions) if table else _of_gguf(fields, head_dim)
    return checked(rope, head_dim)


# What holds a Rope's divisors, in either kind of file.
_DIVISORS = {"none": "rope_freqs.weight", "longrope": "long_factor and short_factor"}


def checked(rope: Rope, head_dim: int) -> Rope:
    """Return a Rope that fits to heads of this size; BadFile for another."""
    rotated = rope.rotated(head_dim)
    if rotated % 2 or not rotated:
        raise BadFile(
            f"{rotated} of a head's {head_dim} features cannot be rotated in pairs (partial_rotary_factor or"
            " rope.dimension_count)"
        )
    for divisors in (rope.divisors, rope.long_divisors):
        if divisors is not None and len(divisors) != rotated // 2:
            raise BadFile(
                f"{_DIVISORS.get(rope.scaling)}: {len(divisors)} divisors of rotary positions;"
                f" wanted {rotated // 2}, one for each pair"
            )
    if rope.scaling == "dynamic" and rotated < 4:
        raise BadFile("rotary positions of type dynamic need two pairs")
    if rope.scaling == "yarn" and (rotated < 4 or rope.theta <= 1.0):
        raise BadFile("rotary positions of type yarn need two pairs and a base above 1")
    return rope


def rope_of_table(table: dict[str, Any], outer: Fields, n_positions: int) -> Rope:
    """Build the Rope of one of transformers' tables; `outer` has what stands beside it."""
    place = "config.json, rope parameters"
    fields = read_keys(_TABLE_KEYS, table, place)
    for key, word in (("rope_theta", "rope_theta"), ("rope_share", "partial_rotary_factor")):
        if outer.get(key) is not None and fields.setdefault(key, outer[key]) != outer[key]:
            raise BadFile(
                f"{place}: {word} is {fields[key]:g} here, {outer[key]:g} in the file itself: keep one"
            )
    theta, share = (
        fields.pop("rope_theta", DEFAULT_THETA),
        fields.pop("rope_share", outer.get("rope_default_share", 1.0)),
    )
    kind = fields.pop("type", "default")
    named = fields.pop("original_max_position_embeddings", n_positions)
    original: int = outer.get("rope_original", named)
    allowed = _NEEDED[kind] + _OPTIONAL.get(kind, ())
    foreign = [key for key, value in fields.items() if key not in allowed and value != 1.0]
    if foreign:
        raise Unsupported(f"{place}: {', '.join(foreign)} mean nothing when rope_type is {kind}: remove them")
    require(fields, _NEEDED[kind], _TABLE_KEYS, place)
    if kind == "default":
        return Rope(theta, share=share)
    if kind == "llama3":
        low, high = fields["low_freq_factor"], fields["high_freq_factor"]
        if high <= low:
            raise BadFile(f"{place}: high_freq_factor {high:g} must be above low_freq_factor {low:g}")
        return Rope(theta, "llama3", fields["factor"], low, high, original, share=share)
    if kind == "yarn":
        return _yarn(theta, share, original, fields)
    if kind == "longrope":
        factor = fields.get("factor", n_positions / original)
        magnitude = fields.get("attention_factor") or _longrope_magnitude(factor, original)
        return Rope(
            theta,
            "longrope",
            original_context=original,
            divisors=fields["short_factor"],
            long_divisors=fields["long_factor"],
            share=share,
            magnitude=magnitude,
        )
    if kind == "dynamic":
        return Rope(theta, "dynamic", fields["factor"], original_context=original, share=share)
    return Rope(theta, "linear", fields["factor"], share=share)


def _longrope_magnitude(factor: float, original: int) -> float:
    return 1.0 if factor <= 1.0 or original < 2 else math.sqrt(1 + math.log(factor) / math.log(original))


def yarn_magnitude(factor: float, multiplier: float = 1.0) -> float:
    """Return YaRN's multiplier of cosines and sines: `yarn_magnitude(1.0) == 1.0`."""
    return 1.0 if factor <= 1.0 else 0.1 * multiplier * math.log(factor) + 1.0


def _yarn(theta: float, share: float, original: int, fields: Fields) -> Rope:
    factor = fields["factor"]
    magnitude = fields.get("attention_factor")
    if magnitude is None:
        one, all_dims = fields.get("mscale"), fields.get("mscale_all_dim")
        magnitude = yarn_magnitude(factor)
        if one and all_dims:
            magnitude = yarn_magnitude(factor, one) / yarn_magnitude(factor, all_dims)
    return Rope(
        theta,
        "yarn",
        factor,
        original_context=original,
        share=share,
        magnitude=magnitude,
        beta_fast=fields.get("beta_fast", 32.0),
        beta_slow=fields.get("beta_slow", 1.0),
        truncate=fields.get("truncate", True),
    )


def _of_gguf(fields: Fields, head_dim: int) -> Rope:
    # As in llama.cpp, an absent type means "linear", and an absent factor or 0 means 1.
    theta, divisors = fields.get("rope_theta", DEFAULT_THETA), fields.get("rope_divisors")
    share = fields.get("rotary_dim", head_dim) / head_dim
    share = fields.get("rope_share", fields.get("rope_default_share", share))
    if share > 1:
        raise BadFile(f"rope.dimension_count is more than the {head_dim} features of a head")
    factor, kind = fields.get("rope_factor") or 1.0, fields.get("rope_type", "linear")
    magnitude = fields.get("rope_magnitude") or 1.0
    positions: int = fields["n_positions"]
    original: int = fields.get("rope_original", positions)
    scaled = kind in ("linear", "yarn") and factor != 1.0
    long_divisors = fields.get("rope_long_divisors")
    if divisors is not None and scaled:
        raise Unsupported(
            "the file scales rotary positions twice, by rope_freqs.weight and by rope.scaling.factor"
        )
    if (kind == "longrope") != (long_divisors is not None) and "rope_type" in fields:
        raise BadFile("rope.scaling.type and the tensors rope_factors_long.weight and _short.weight disagree")
    for name, values in (("rope_freqs.weight", divisors), ("rope_factors_long.weight", long_divisors)):
        if values is not None and not all(1e-6 < d < 1e9 for d in values):
            raise BadFile(f"{name} has {len(values)} divisors; wanted numbers above 0")
    if long_divisors is not None:
        return Rope(
            theta,
            "longrope",
            original_context=original,
            divisors=divisors,
            long_divisors=long_divisors,
            share=share,
            magnitude=magnitude,
        )
    if kind == "yarn" and scaled:
        more = {key: fields[key] for key in ("beta_fast", "beta_slow") if key in fields}
        magnitude *= yarn_magnitude(factor)
        return Rope(
            theta, "yarn", factor, original_context=original, share=share, magnitude=magnitude, **more
        )
    if magnitude != 1.0:
        raise Unsupported(
            f"rope.scaling.attn_factor is {magnitude:g}; pophood computes it with types yarn and longrope"
        )
    if scaled:
        return Rope(theta, "linear", factor, share=share)
    return Rope(theta, share=share, divisors=divisors)
