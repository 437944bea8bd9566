"""Reads LoRA adapters from PEFT's folders (adapter_config.json, adapter_model.safetensors).

What changes the numbers is read (rank, alpha, rsLoRA, patterns of ranks and alphas) or refused by its name
(DoRA, biases, saved modules, embeddings, starts that rewrite the base...). Dropout and the list of modules do
not: the tensors say which matrices are changed. Every release of PEFT adds keys; one that is not known here
is passed over while it is null, false, [] or {}, which ask for nothing, and refused with any other value.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from pophood.adapters.adapter import Adapter, Pair
from pophood.adapters.lora_parts import split
from pophood.adapters.module_pattern import ModulePatterns, PatternError
from pophood.adapters.peft_names import halves_of
from pophood.errors import BadFile, NotFound, PophoodError, Unsupported
from pophood.families import FAMILIES
from pophood.families.family import numbered
from pophood.families.keys import Key, Only, Used, count, flag, harmless, read_keys, real, section, short
from pophood.formats import Tensor, identify, open_safetensors
from pophood.formats.json_file import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_RANK, MOST_ALPHA = 1 << 16, 1e9
_REWRITES = "the adapter belongs to a base that its start has rewritten: save it converted to plain LoRA"
_EXTRA = "it changes more than products of two small matrices say: train it without, or merge it with PEFT"

KEYS: dict[str, Key] = {
    "peft_type": Only(("LORA",), "only LoRA is computed"),
    "r": Used("rank", count(MOST_RANK)),
    "lora_alpha": Used("alpha", real(-MOST_ALPHA, MOST_ALPHA)),
    "use_rslora": Used("rslora", flag),
    "rank_pattern": Used("rank_pattern", section),
    "alpha_pattern": Used("alpha_pattern", section),
    "base_model_name_or_path": Used("base", str),
    **harmless("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "runtime_config"),
    **harmless("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout"),
    **harmless("fan_in_fan_out", "megatron_core", "qalora_group_size", "eva_config", "ensure_weight_tying"),
    # ms-swift's: the type of the adapter while it learned, and learning rates of LoRA+.
    **harmless("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr"),
    "init_lora_weights": Only((True, False, "gaussian", "eva", "orthogonal"), _REWRITES),
    "loftq_config": Only(({},), _REWRITES),
    "corda_config": Only(({},), _REWRITES),
    "lora_ga_config": Only(({},), _REWRITES),
    "bias": Only(("none",), "biases are not adapted"),
    "modules_to_save": Only(([],), "whole modules lie in the folder: merge it with PEFT"),
    "layer_replication": Only(([],), "blocks are not repeated"),
    "trainable_token_indices": Only(([], {}), "rows of the token matrix are not adapted"),
    "target_parameters": Only(([],), _EXTRA),
    "alora_invocation_tokens": Only(([],), "an adapter works from the first token on"),
    **dict.fromkeys(("use_dora", "lora_bias", "use_qalora", "use_bdlora"), Only((False,), _EXTRA)),
    **dict.fromkeys(("megatron_config", "velora_config", "monteclora_config"), Only(({},), _EXTRA)),
    **dict.fromkeys(("arrow_config", "kasa_config"), Only(({},), _EXTRA)),
}
_LINEAR = re.compile(r"blocks\.\{i\}\.(?:attn|mlp)\.[a-z]+\.weight|output\.weight")


def read_adapter(path: str | Path) -> Adapter:
    """The adapter in a folder that PEFT (or `write_adapter`) wrote.

    Raises NotFound without its two files, BadFile for damage, Unsupported by name for what is not plain LoRA.
    Where patterns give a matrix another scale than the rest, its B carries the ratio.
    """
    folder = Path(path)
    place = folder / WEIGHTS
    said = _said(folder)
    if not place.is_file():
        raise _no_weights(folder)
    pairs = _pairs(open_safetensors(place).tensors, place)
    own_scales = _OwnScales(said, folder / CONFIG)
    scale = _scale(said["alpha"], said["rank"], said)
    targets: dict[str, Pair] = {}
    for module, (a, b) in pairs.items():
        own = own_scales.of(module, len(a))
        if not math.isclose(own, scale, rel_tol=1e-12):
            b = (b * np.float64(own / scale if scale else 0.0)).astype(np.float32)
        canonical = _canonical(module)
        if canonical is None:
            raise Unsupported(
                f"{place}: changes {short(module)}, which is no matrix of attention or feed-forward in"
                f" {', '.join(FAMILIES)}: train an adapter for those only"
            )
        if len(b) % len(canonical):
            raise BadFile(f"{place}: {short(module)} has {len(b):,} outputs, wanted a multiple of 3")
        for k, pair in split((a, b), len(canonical)).items():
            targets[canonical[k]] = pair
    base = {"name": said["base"]} if said.get("base") else {}
    return Adapter(folder.name, said["rank"], said["alpha"], scale, targets, base)


def _said(folder: Path) -> dict[str, Any]:
    """The fields of adapter_config.json that are used, with PEFT's defaults for absent ones."""
    place = folder / CONFIG
    if not place.is_file():
        raise _no_config(folder)
    given = read_json(place)
    if "peft_type" not in given and ("fine_tune_type" in given or "lora_parameters" in given):
        raise Unsupported(
            f"{place}: is an adapter of mlx-lm; wanted one that PEFT or pophood wrote: write a whole model"
            f" with `mlx_lm.fuse --adapter-path {folder}`, and name the folder that it writes"
        )
    asked = {
        key: value
        for key, value in given.items()
        if not _asks_nothing(value) or isinstance(KEYS.get(key), Used)
    }
    return {"rank": 8, "alpha": 8.0} | read_keys(KEYS, asked, str(place))


def _asks_nothing(value: object) -> bool:
    return value is None or value is False or value == [] or value == {}


def _no_config(folder: Path) -> NotFound:
    """The error for a folder without adapter_config.json, with the place where it is, if that is near."""
    if not folder.exists():
        return NotFound(f"{folder}: no such folder: name the one that PEFT or `pophood tune` wrote")
    missing = f"{folder}: holds no {CONFIG}"
    if (folder / "config.json").is_file():
        return NotFound(f"{missing}; it is a whole model: name it as the model, with -m or --model")
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if inside:
        ways = " or ".join(str(folder / name) for name in (inside[0], inside[-1])[: len(inside)])
        return NotFound(
            f"{missing}, but there are adapters in folders below: name one of them, such as {ways}"
        )
    return NotFound(f"{missing}: name the folder that PEFT or `pophood tune` wrote")


def _no_weights(folder: Path) -> PophoodError:
    """The error for a folder without adapter_model.safetensors, by what it holds instead."""
    for name in sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")):
        try:
            identify(folder / name)
        except Unsupported as error:  # a pickle, with the way out
            return error
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".npz"))
    held = f"; it holds {', '.join(others[:4])}" if others else ""
    return NotFound(f"{folder}: holds no {WEIGHTS}{held}: name the folder that PEFT's save_pretrained wrote")


class _OwnScales:
    """The scale of each module, by the patterns of ranks and alphas (PEFT: `get_pattern_key`)."""

    def __init__(self, said: dict[str, Any], place: Path) -> None:
        self._said, self._place = said, place
        self._patterns = {key: self._read(said.get(key) or {}) for key in ("rank_pattern", "alpha_pattern")}

    def of(self, module: str, rank: int) -> float:
        """The scale of one module, whose tensors have this rank; BadFile unless the patterns say the same."""
        own = self._value("rank_pattern", module, self._said["rank"])
        if own != rank:
            raise BadFile(
                f"{self._place.with_name(WEIGHTS)}: the matrices of {short(module)} have rank {rank:,};"
                f" {CONFIG} says {own}: the folder's files do not belong together"
            )
        return _scale(self._value("alpha_pattern", module, self._said["alpha"]), rank, self._said)

    def _read(self, given: dict[str, Any]) -> ModulePatterns:
        for pattern, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_ALPHA:
                raise BadFile(f"{self._place}: {short(pattern)} is {short(value)}; wanted a number")
        try:
            return ModulePatterns(given)
        except PatternError as error:
            raise self._refused(error) from None

    def _value(self, key: str, module: str, default: Any) -> Any:
        try:
            pattern = self._patterns[key].first(module)
        except PatternError as error:
            raise self._refused(error) from None
        return default if pattern is None else self._said[key][pattern]

    def _refused(self, error: PatternError) -> Unsupported:
        return Unsupported(
            f"{self._place}: in rank_pattern or alpha_pattern, {error}: write the names of the modules out"
        )


def _scale(alpha: float, rank: int, said: dict[str, Any]) -> float:
    return float(alpha / (math.sqrt(rank) if said.get("rslora") else rank))


def _pairs(tensors: dict[str, Tensor], place: Path) -> dict[str, Pair]:
    """Module (without PEFT's root) -> its two matrices, checked."""
    pairs = {}
    for module, names in halves_of(tensors, place).items():
        found = {half: tensors[name] for half, name in names.items()}
        a, b = found.get("A"), found.get("B")
        if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            shapes = {key: tensor.shape for key, tensor in found.items()}
            raise BadFile(f"{place}: {short(module)} has {shapes}; wanted A [r, in] and B [out, r]")
        pairs[module] = (a.decode(), b.decode())
        for half in (a, b):
            if half.nonfinite() is not None:
                raise BadFile(f"{place}: {short(half.name)} holds a NaN or infinity: the training went wrong")
    return pairs


def _canonical(module: str) -> list[str] | None:
    """The canonical matrices that a module of Hugging Face's is: three for GPT-2's c_attn."""
    for family in FAMILIES.values():
        pattern, i = numbered(family.strip(module))
        rows = [
            row
            for row in family.tensors
            if row.hf == f"{pattern}.weight" and _LINEAR.fullmatch(row.canonical)
        ]
        if rows:
            return [row.canonical.format(i=i).removesuffix(".weight") for row in rows]
    return None
