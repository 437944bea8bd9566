"""RoPE settings (rotary positions) in both kinds of file: transformers' tables, old and new, and GGUF's keys.

Scaling none, linear and llama3 are computed, dynamic up to the length where it starts; yarn, longrope and
others are refused by name.
"""

from __future__ import annotations

from typing import Any

from pophood.config import Rope
from pophood.errors import BadFile, Unsupported
from pophood.families.family import Fields
from pophood.families.keys import Key, Only, Used, choice, count, harmless, read_keys, real, require, section

THETA = Used("rope_theta", real(1.0, 1e12))
DEFAULT_THETA = 10_000.0
WHOLE = Only((1.0,), "partial rotation of heads is not computed")

ROPE_HF_KEYS: dict[str, Key] = {
    "rope_theta": THETA,
    "rope_scaling": Used("rope_scaling", section),  # transformers 4, beside rope_theta
    "rope_parameters": Used("rope_parameters", section),  # transformers 5, with rope_theta in it
    "partial_rotary_factor": WHOLE,
    "rope_interleaved": Only((False,), "feature i is rotated with i + D/2"),
}

_TYPE = Used("type", choice({name: name for name in ("default", "linear", "llama3", "dynamic")}))
_TABLE_KEYS: dict[str, Key] = {
    "rope_type": _TYPE,
    "type": _TYPE,
    "rope_theta": THETA,
    **{key: Used(key, real(1e-3, 1e6)) for key in ("factor", "low_freq_factor", "high_freq_factor")},
    "original_max_position_embeddings": Used("original_max_position_embeddings", count(1 << 28)),
    "partial_rotary_factor": WHOLE,
}
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "dynamic": ("factor",),
}

ROPE_GGUF_KEYS: dict[str, Key] = {
    "rope.dimension_count": Used("rotary_dim", count(1_024)),
    "rope.freq_base": THETA,
    "rope.scaling.type": Used("rope_type", choice({"none": "none", "linear": "linear"})),
    "rope.scaling.factor": Used("rope_factor", real(0.0, 1e6)),
    "rope.scale_linear": Used("rope_factor", real(0.0, 1e6)),  # the older spelling
    "rope.scaling.attn_factor": Only((0, 1), "scores are not scaled with the context"),
    # Only used by types of scaling that are refused above.
    **harmless("rope.scaling.original_context_length", "rope.scaling.finetuned"),
}


def rope_of(fields: Fields, head_dim: int, n_positions: int) -> Rope:
    """Build the Rope that the fields of either kind of file describe; raises BadFile or Unsupported."""
    old, new = fields.get("rope_scaling"), fields.get("rope_parameters")
    if old and new and old != new:
        raise BadFile(
            "config.json: rope_scaling and rope_parameters differ, although they mean the same: keep one"
        )
    table = old or new
    if table:
        return _of_table(table, fields.get("rope_theta"), n_positions)
    return _of_gguf(fields, head_dim)


def _of_table(table: dict[str, Any], outer_theta: float | None, n_positions: int) -> Rope:
    place = "config.json, rope parameters"
    fields = read_keys(_TABLE_KEYS, table, place)
    theta = fields.pop("rope_theta", outer_theta)
    if outer_theta is not None and theta != outer_theta:
        raise BadFile(f"{place}: rope_theta is {theta:g} here, {outer_theta:g} in the file itself: keep one")
    theta = DEFAULT_THETA if theta is None else theta
    kind = fields.pop("type", "default")
    context = fields.pop("original_max_position_embeddings", n_positions)
    foreign = [key for key, value in fields.items() if key not in _NEEDED[kind] and value != 1.0]
    if foreign:
        raise Unsupported(f"{place}: {', '.join(foreign)} mean nothing when rope_type is {kind}: remove them")
    require(fields, _NEEDED[kind], _TABLE_KEYS, place)
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "linear", fields["factor"])
    if kind == "dynamic":
        return Rope(theta, "dynamic", fields["factor"], original_context=context)
    low, high = fields["low_freq_factor"], fields["high_freq_factor"]
    if high <= low:
        raise BadFile(f"{place}: high_freq_factor {high:g} must be above low_freq_factor {low:g}")
    return Rope(theta, "llama3", fields["factor"], low, high, context)


def _of_gguf(fields: Fields, head_dim: int) -> Rope:
    # As in llama.cpp, an absent type means "linear", and an absent factor or 0 means 1.
    theta, divisors = fields.get("rope_theta", DEFAULT_THETA), fields.get("rope_divisors")
    factor = fields.get("rope_factor") or 1.0
    scaled = fields.get("rope_type", "linear") == "linear" and factor != 1.0
    if divisors is None:
        return Rope(theta, "linear", factor) if scaled else Rope(theta)
    if scaled:
        raise Unsupported(
            "the file scales rotary positions twice, by rope_freqs.weight and by rope.scaling.factor"
        )
    if len(divisors) != head_dim // 2 or not all(1e-6 < d < 1e9 for d in divisors):
        raise BadFile(
            f"rope_freqs.weight has {len(divisors)} divisors; wanted {head_dim // 2} numbers above 0"
        )
    return Rope(theta, divisors=divisors)
