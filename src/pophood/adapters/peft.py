"""Reads LoRA adapters from PEFT's folders (adapter_config.json, adapter_model.safetensors).

Settings that affect the result are read (rank, alpha, rsLoRA, patterns of ranks and alphas) or refused by
name (DoRA, biases, saved modules, embeddings, initialisations that rewrite the base...). Dropout and the list
of modules do not: the tensors show which matrices are changed. Every release of PEFT adds keys; an unknown
one is ignored while it is null, false, [] or {}, which ask for nothing, and refused with any other value.
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
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, NotFound, PophoodError, Unsupported, short
from pophood.families import FAMILIES
from pophood.families.family import TensorName, rows_by_head, split_block
from pophood.families.keys import Key, Only, Used, count, flag, harmless, read_keys, real, section
from pophood.formats import Tensor, identify, open_safetensors
from pophood.formats.json_file import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_RANK, MOST_ALPHA = 1 << 16, 1e9
_REWRITES = "the adapter belongs to a base that its initialisation rewrote: save it converted to plain LoRA"
_EXTRA = "it changes more than a product of two small matrices can: train without it, or merge it with PEFT"

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
    # From ms-swift: the type of the adapter during training, and learning rates of LoRA+.
    **harmless("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr"),
    "init_lora_weights": Only((True, False, "gaussian", "eva", "orthogonal"), _REWRITES),
    **dict.fromkeys(("loftq_config", "corda_config", "lora_ga_config"), Only(({},), _REWRITES)),
    "bias": Only(("none",), "biases are not adapted"),
    "modules_to_save": Only(([],), "the folder has whole modules: merge it with PEFT"),
    "layer_replication": Only(([],), "blocks are not repeated"),
    "trainable_token_indices": Only(([], {}), "rows of the token matrix are not adapted"),
    "target_parameters": Only(([],), _EXTRA),
    "alora_invocation_tokens": Only(([],), "an adapter works from the first token on"),
    **dict.fromkeys(("use_dora", "lora_bias", "use_qalora", "use_bdlora"), Only((False,), _EXTRA)),
    **dict.fromkeys(("megatron_config", "velora_config", "monteclora_config"), Only(({},), _EXTRA)),
    **dict.fromkeys(("arrow_config", "kasa_config"), Only(({},), _EXTRA)),
}
_LINEAR = re.compile(r"blocks\.\{i\}\.(?:attn|mlp)\.[a-z]+\.weight|output\.weight")


def read_adapter(path: str | Path, config: ModelConfig | None = None) -> Adapter:
    """Read the adapter in a folder that PEFT (or `write_adapter`) wrote, for a model of this config.

    Without a config, matrices that a file joins are taken to have parts of the same size, as in GPT-2.

    Raises NotFound without its two files, BadFile for damage, Unsupported, naming the setting, for anything
    but plain LoRA. If patterns give a matrix another scale than the rest, its B includes the ratio.
    """
    folder = Path(path)
    place = folder / WEIGHTS
    settings = _settings(folder)
    if not place.is_file():
        raise _no_weights(folder)
    pairs = _pairs(open_safetensors(place).tensors, place)
    own_scales = _OwnScales(settings, folder / CONFIG)
    scale = _scale(settings["alpha"], settings["rank"], settings)
    targets: dict[str, Pair] = {}
    for module, (a, b) in pairs.items():
        own = own_scales.of(module, len(a))
        if not math.isclose(own, scale, rel_tol=1e-12):
            b = (b * np.float64(own / scale if scale else 0.0)).astype(np.float32)
        rows = _rows(module)
        if not rows:
            raise Unsupported(
                f"{place}: changes {short(module)}, which is not a matrix of attention or feed-forward in"
                f" {', '.join(FAMILIES)}: train an adapter for those only"
            )
        canonical = [row.canonical.format(i=split_block(module)[1]) for row in rows]
        sizes = _sizes(canonical, config, len(b))
        if sum(sizes) != len(b):
            raise BadFile(
                f"{place}: {short(module)} has {len(b):,} outputs, wanted a multiple of {len(sizes)}"
            )
        if rows[0].by_head:
            if config is None:
                raise Unsupported(f"{place}: {short(module)} is split by heads: open it with its model")
            b = np.concatenate([rows_by_head(b, *row.part, config.head_dim) for row in rows])
        for k, pair in split((a, b), sizes).items():
            targets[canonical[k].removesuffix(".weight")] = pair
    base = {"name": settings["base"]} if settings.get("base") else {}
    return Adapter(folder.name, settings["rank"], settings["alpha"], scale, targets, base)


def _settings(folder: Path) -> dict[str, Any]:
    """Read the settings of adapter_config.json that are used, with PEFT's defaults for absent ones."""
    place = folder / CONFIG
    if not place.is_file():
        raise _no_config(folder)
    content = read_json(place)
    if "peft_type" not in content and ("fine_tune_type" in content or "lora_parameters" in content):
        raise Unsupported(
            f"{place}: is an adapter of mlx-lm; wanted one that PEFT or pophood wrote: write a whole model"
            f" with `mlx_lm.fuse --adapter-path {folder}`, and name the resulting folder"
        )
    requests = {
        key: value
        for key, value in content.items()
        if not _asks_nothing(value) or isinstance(KEYS.get(key), Used)
    }
    return {"rank": 8, "alpha": 8.0} | read_keys(KEYS, requests, str(place))


def _asks_nothing(value: object) -> bool:
    return value is None or value is False or value == [] or value == {}


def _no_config(folder: Path) -> NotFound:
    """Return the error for a folder without adapter_config.json; it names nearby folders that have one."""
    if not folder.exists():
        return NotFound(f"{folder}: there is no such folder: name the one that PEFT or `pophood tune` wrote")
    missing = f"{folder}: holds no {CONFIG}"
    if (folder / "config.json").is_file():
        return NotFound(f"{missing}; it is a whole model: name it as the model, with -m or --model")
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if inside:
        examples = " or ".join(str(folder / name) for name in (inside[0], inside[-1])[: len(inside)])
        return NotFound(f"{missing}, but folders in it hold adapters: name one of them, such as {examples}")
    return NotFound(f"{missing}: name the folder that PEFT or `pophood tune` wrote")


def _no_weights(folder: Path) -> PophoodError:
    """Return the error for a folder without adapter_model.safetensors; it says what is there instead."""
    for name in sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")):
        try:
            identify(folder / name)
        except Unsupported as error:  # a pickle, with advice
            return error
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".npz"))
    instead = f"; it holds {', '.join(others[:4])}" if others else ""
    return NotFound(
        f"{folder}: holds no {WEIGHTS}{instead}: name the folder that PEFT's save_pretrained wrote"
    )


class _OwnScales:
    """The scale of each module, from the patterns of ranks and alphas (`get_pattern_key` in PEFT)."""

    def __init__(self, settings: dict[str, Any], place: Path) -> None:
        self._settings, self._place = settings, place
        self._patterns = {
            key: self._read(settings.get(key) or {}) for key in ("rank_pattern", "alpha_pattern")
        }

    def of(self, module: str, rank: int) -> float:
        """Return the scale of a module; BadFile if the rank of its tensors is not that of the patterns."""
        own = self._value("rank_pattern", module, self._settings["rank"])
        if own != rank:
            raise BadFile(
                f"{self._place.with_name(WEIGHTS)}: the matrices of {short(module)} have rank {rank:,};"
                f" {CONFIG} says {own}: the folder's files do not belong together"
            )
        return _scale(self._value("alpha_pattern", module, self._settings["alpha"]), rank, self._settings)

    def _read(self, patterns: dict[str, Any]) -> ModulePatterns:
        for pattern, value in patterns.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_ALPHA:
                raise BadFile(f"{self._place}: {short(pattern)} is {short(value)}; wanted a number")
        try:
            return ModulePatterns(patterns)
        except PatternError as error:
            raise self._refused(error) from None

    def _value(self, key: str, module: str, default: Any) -> Any:
        try:
            pattern = self._patterns[key].first(module)
        except PatternError as error:
            raise self._refused(error) from None
        return default if pattern is None else self._settings[key][pattern]

    def _refused(self, error: PatternError) -> Unsupported:
        return Unsupported(
            f"{self._place}: in rank_pattern or alpha_pattern, {error}: write out the names of the modules"
        )


def _scale(alpha: float, rank: int, settings: dict[str, Any]) -> float:
    return float(alpha / (math.sqrt(rank) if settings.get("rslora") else rank))


def _pairs(tensors: dict[str, Tensor], place: Path) -> dict[str, Pair]:
    """Return the two matrices of each module (named without PEFT's root), checked."""
    pairs = {}
    for module, names in halves_of(tensors, place).items():
        halves = {half: tensors[name] for half, name in names.items()}
        a, b = halves.get("A"), halves.get("B")
        if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            shapes = {key: tensor.shape for key, tensor in halves.items()}
            raise BadFile(f"{place}: {short(module)} has {shapes}; wanted A [r, in] and B [out, r]")
        pairs[module] = (a.decode(), b.decode())
        for half in (a, b):
            if half.nonfinite() is not None:
                raise BadFile(f"{place}: {short(half.name)} holds a NaN or infinity: its training failed")
    return pairs


def base_of(path: str | Path) -> str | None:
    """Return the name of the model that the adapter in a folder was trained on, if the folder says it."""
    base = _settings(Path(path)).get("base")
    return str(base) if base else None


def _rows(module: str) -> list[TensorName]:
    """Return the canonical matrices of a Hugging Face module: three for GPT-2's c_attn, none if unknown."""
    for family in FAMILIES.values():
        pattern, _ = split_block(family.strip(module))
        rows = [
            row
            for row in family.tensors
            if row.hf == f"{pattern}.weight" and _LINEAR.fullmatch(row.canonical)
        ]
        if rows:
            return rows
    return []


def _sizes(canonical: list[str], config: ModelConfig | None, outputs: int) -> list[int]:
    """Return the outputs of each part; equal ones where the model has others, as a later check says."""
    shapes = {} if config is None else tensor_shapes(config)
    sizes = [shapes[name][0] for name in canonical if name in shapes]
    if len(sizes) == len(canonical) and sum(sizes) == outputs:
        return sizes
    return [outputs // len(canonical)] * len(canonical)
