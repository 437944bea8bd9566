"""Tables of the names that each family of models uses for its configuration and tensors. No forward code.

A new architecture is one file of tables here and an entry in FAMILIES. No file is opened here, and nothing
from a model's folder is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pophood.config import ModelConfig
from pophood.errors import BadFile, Unsupported, short
from pophood.families.decoders import GRANITE, OLMO2, SMOLLM3
from pophood.families.eleuther import NEO, NEOX
from pophood.families.family import Family, TensorName, TensorSource, has_own_output, locate, same_bytes
from pophood.families.gemma import GEMMA2, GEMMA3
from pophood.families.gpt2 import GPT2
from pophood.families.keys import GGUF_PLACE, MOST_ENTRIES, read_keys, require
from pophood.families.llama import LLAMA, MINISTRAL, MISTRAL
from pophood.families.phi import PHI3
from pophood.families.qwen import QWEN2, QWEN3
from pophood.families.refused import words_for
from pophood.families.standard import GGUF_FILE_KEYS, MOST_PARAMETERS, NEEDED, TOKEN_ROWS
from pophood.formats.tensors import Tensor

__all__ = [
    "FAMILIES",
    "Family",
    "TensorName",
    "TensorSource",
    "config_from_gguf",
    "config_from_hf",
    "family_of",
    "gguf_family",
    "has_own_output",
    "locate",
    "text_config",
    "text_tensors",
]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(GPT2, LLAMA, MISTRAL, MINISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3),
        *(PHI3, OLMO2, GRANITE, SMOLLM3, NEOX, NEO),
    )
}

# Multimodal models of which the text part is computed: model_type -> the family of that part.
MULTIMODAL = {"gemma3": GEMMA3}
_TEXT_PREFIXES = {"language_model.model.": "model.", "model.language_model.": "model.", "language_model.": ""}
_OTHER_PARTS = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)


def family_of(config: ModelConfig) -> Family:
    """Return the family of a config: `family_of(gpt2).strip("transformer.wte.weight") == "wte.weight"`."""
    return FAMILIES[config.architecture]


def gguf_family(config: ModelConfig) -> Family:
    """Return the family whose tables read the model's GGUF files: Llama's for a Mistral."""
    return _GGUF_FAMILIES[family_of(config).gguf_name]


def config_from_hf(config_json: Mapping[str, Any]) -> ModelConfig:
    """Read a parsed Hugging Face `config.json`, with transformers' defaults for absent keys.

    Raises Unsupported, naming an unknown architecture, key or value, and BadFile, naming a missing, wrong or
    contradictory value.
    """
    _refuse_packed(config_json)
    config_json = text_config(config_json)
    family = _hf_family(config_json)
    fields = {**family.hf_defaults, **read_keys(family.hf_keys, config_json, "config.json")}
    require(fields, NEEDED, family.hf_keys, "config.json")
    return _bounded(family.build(family.name, fields))


def text_config(config_json: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table of the text model of a multimodal model, and that of any other model unchanged."""
    family = MULTIMODAL.get(str(config_json.get("model_type")))
    if family is None:
        return config_json
    inner = config_json.get("text_config")
    if not isinstance(inner, dict):
        raise BadFile(f"config.json: text_config is {short(inner)}; wanted the table of the text model")
    return {**inner, "model_type": family.name, "architectures": [family.classes[0]]}


def text_tensors(
    config_json: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the tensors of the text model of a multimodal folder, and the names of the others."""
    if str(config_json.get("model_type")) not in MULTIMODAL:
        return tensors, []
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OTHER_PARTS):
            continue
        prefix = next((prefix for prefix in _TEXT_PREFIXES if name.startswith(prefix)), "")
        plain = _TEXT_PREFIXES.get(prefix, "") + name.removeprefix(prefix)
        if plain in kept:
            raise BadFile(
                f"the file has {short(plain)} twice, under two prefixes: use another copy of the model"
            )
        kept[plain] = tensor
    return kept, [name for name in tensors if name.startswith(_OTHER_PARTS)]


def config_from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Read the config from a GGUF file's metadata and tensors, with llama.cpp's defaults for absent keys.

    The output is tied if output.weight is missing or equals token_embd.weight. Raises what `config_from_hf`
    raises.
    """
    family = _gguf_family(metadata)
    prefix = f"{family.gguf_name}."
    outside = {key: value for key, value in metadata.items() if key in GGUF_FILE_KEYS}
    read_keys(GGUF_FILE_KEYS, outside, GGUF_PLACE)
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    own[TOKEN_ROWS] = _token_matrix(tensors).shape[0]
    place = f"{GGUF_PLACE}, {family.gguf_name}"
    fields = {**family.gguf_defaults, **read_keys(family.gguf_keys, own, place, prefix)}
    _add_tensor_facts(family, fields, tensors)
    require(fields, NEEDED, family.gguf_keys, place)
    return _bounded(family.build(family.name, fields))


def _refuse_packed(config_json: Mapping[str, Any]) -> None:
    """Refuse a folder whose matrices another program packed in its own format, and name that program."""
    for key in ("quantization", "quantization_config", "compression_config"):
        packing = config_json.get(key)
        if not packing:
            continue
        mlx = key == "quantization" or "quantization" in config_json
        method = packing.get("quant_method") if isinstance(packing, dict) else None
        by = "MLX" if mlx else short(method) if isinstance(method, str) else "another program"
        raise Unsupported(
            f"config.json: {key} is {short(packing)}: the matrices are packed in a format of {by}; pophood"
            " reads F32, F16 and BF16 in safetensors, and the packed types of GGUF: use the original model,"
            " or a GGUF file of it"
        )


def _hf_family(config_json: Mapping[str, Any]) -> Family:
    """Find the family by model_type, or by class for very old files without one; both must be known."""
    classes = config_json.get("architectures")
    if classes is None:
        classes = []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise BadFile(f"config.json: architectures is {short(classes)}; wanted a list of class names")
    kind = config_json.get("model_type")
    if kind is None:
        kind = next((family.name for family in FAMILIES.values() if set(classes) & set(family.classes)), None)
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise Unsupported(
            f"config.json: model_type is {short(kind)} (architectures: {short(classes)})"
            f"{words_for(kind)}; {_COMPUTED}"
        )
    if classes and not set(classes) & set(family.classes):
        raise Unsupported(
            f"config.json: architectures is {short(classes)}; pophood computes {family.classes[0]} of {kind}"
        )
    return family


def _gguf_family(metadata: Mapping[str, Any]) -> Family:
    kind = metadata.get("general.architecture")
    family = _GGUF_FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise Unsupported(
            f"GGUF metadata: general.architecture is {short(kind)}{words_for(kind)}; {_COMPUTED}"
        )
    return family


def _token_matrix(tensors: Mapping[str, Tensor]) -> Tensor:
    token = tensors.get("token_embd.weight")
    if token is None or len(token.shape) != 2:
        raise BadFile(
            "the GGUF file has no matrix token_embd.weight: it is not a language model, or incomplete"
        )
    return token


def _add_tensor_facts(family: Family, fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Add the facts that GGUF states by its tensors: a tied output, which biases exist, divisors for RoPE."""
    output = tensors.get("output.weight")
    fields["tied_output"] = output is None or same_bytes(_token_matrix(tensors), output)
    fields["qkv_bias"] = "blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors
    fields["attn_out_bias"] = "blk.0.attn_output.bias" in tensors
    fields["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    for name in family.gguf_config_tensors & set(tensors):
        divisors = tensors[name]
        if divisors.size > MOST_ENTRIES:
            raise BadFile(f"{name} has {divisors.size:,} values, far more than half a head")
        fields[_DIVISORS[name]] = tuple(float(d) for d in divisors.decode().ravel())


def _bounded(config: ModelConfig) -> ModelConfig:
    if config.n_params > MOST_PARAMETERS:
        raise BadFile(
            f"the configuration describes {config.n_params:,} parameters, more than the limit of"
            f" {MOST_PARAMETERS:,}: it is damaged"
        )
    return config


_GGUF_FAMILIES = {family.gguf_name: family for family in FAMILIES.values() if family.gguf_keys}
_DIVISORS = {
    "rope_freqs.weight": "rope_divisors",
    "rope_factors_short.weight": "rope_divisors",
    "rope_factors_long.weight": "rope_long_divisors",
}

_COMPUTED = (
    f"pophood computes {', '.join(FAMILIES)}: choose a model of one of these, or run this one in the program"
    " that it was made for"
)
