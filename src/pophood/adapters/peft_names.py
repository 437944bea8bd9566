"""Parses the tensor names of a PEFT adapter into modules and halves of pairs, however it was saved.

PEFT's own `save_pretrained` writes "base_model.model.<module>.lora_A.weight". A raw state dict keeps the name
of the adapter ("lora_A.default.weight"); torch.compile, FSDP and checkpointing insert their wrappers; and a
model that PEFT wrapped twice repeats the root. PEFT warns that such keys are missing and computes with an
adapter of zeros; here they are understood. A tensor that is not half of a plain LoRA pair is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pophood.errors import BadFile, Unsupported, short

ROOT = "base_model.model."
_HALF = re.compile(r"(.+)\.lora_(A|B)(?:\.([A-Za-z0-9_-]+))?\.weight", re.ASCII)
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # anywhere
_OUTER = "module."  # torch's DataParallel, around the whole model
_MERGE = "merge it with PEFT (merge_and_unload) and name the resulting folder"
_FOREIGN = (  # (pattern, description, advice)
    (r".*\.lora_magnitude_vector(\..+)?", "DoRA's magnitudes", _MERGE),
    (r".*\.lora_embedding_[AB](\..+)?", "an adapter of the token matrix", _MERGE),
    (r".*\.lora_B(\..+)?\.bias", "a bias of an adapter", _MERGE),
    (
        r".*\.lora_[ab]",
        "one of mlx-lm's names",
        "write a whole model with `mlx_lm.fuse`, and name the resulting folder",
    ),
    (
        r".*(embed_tokens|lm_head|wte)(\.modules_to_save(\..+)?|\.base_layer)?\.weight",
        "a whole matrix, as PEFT saves it when the vocabulary was changed",
        _MERGE,
    ),
    (r".*\.bias", "a bias, which is not adapted", _MERGE),
    (r".*\.modules_to_save\..*", "a whole module", _MERGE),
)


def halves_of(names: Iterable[str], place: Path) -> dict[str, dict[str, str]]:
    """Group tensor names by module: "model.layers.0.self_attn.q_proj" -> {"A": tensor's name, "B": ...}.

    Raises Unsupported, naming a tensor that is not half of a pair, or for two adapters in one file, and
    BadFile for a half that occurs twice.
    """
    halves: dict[str, dict[str, str]] = {}
    adapters: set[str] = set()
    for name in names:
        match = _HALF.fullmatch(_unwrapped(name))
        if match is None:
            raise Unsupported(f"{place}: holds {short(name)}{_explanation(name)}")
        module, half, adapter = match[1], match[2], match[3]
        adapters.add(adapter or "default")
        if half in halves.setdefault(module, {}):
            if len(adapters) == 1:
                raise BadFile(
                    f"{place}: holds {short(halves[module][half])} and {short(name)}, which are the same"
                    " matrix of the same module: keep one"
                )
        else:
            halves[module][half] = name
    if len(adapters) > 1:
        raise Unsupported(
            f"{place}: holds the adapters {', '.join(map(short, sorted(adapters)))}; wanted one: save each in"
            " its own folder"
        )
    if not halves:
        raise BadFile(f"{place}: holds no lora_A and no lora_B: it is not an adapter, or damaged")
    return halves


def _unwrapped(name: str) -> str:
    """Remove PEFT's root and the wrappers of other libraries from a tensor's name."""
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    plain = plain.removeprefix(_OUTER)
    while plain.startswith(ROOT):
        plain = plain.removeprefix(ROOT)
    return plain


def _explanation(name: str) -> str:
    for pattern, meaning, advice in _FOREIGN:
        if re.fullmatch(pattern, name):
            return f", {meaning}; only lora_A and lora_B of linear layers are read: {advice}"
    return f"; only lora_A and lora_B of linear layers are read: {_MERGE}"
