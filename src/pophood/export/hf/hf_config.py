"""Makes config.json and generation_config.json, as transformers reads them, from a model's config.

The result is read back by `families.config_from_hf` and compared: a setting that the file cannot express is
refused by name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pophood.config import ModelConfig
from pophood.errors import BadFile, Unsupported
from pophood.export.hf.hf_families import family_keys
from pophood.export.merged import source_folder
from pophood.families import config_from_hf, family_of, text_config
from pophood.formats.json_file import read_json
from pophood.model.bundle import Bundle

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def config_json(bundle: Bundle, kind: str) -> dict[str, Any]:
    """Return the config of an exported folder: the source folder's, if any, with the new type and class."""
    if bundle.file_format == "safetensors":
        written = dict(text_config(read_json(source_folder(bundle) / "config.json")))
        written.pop("dtype", None)
        if not bundle.config.tied_output:
            written["tie_word_embeddings"] = False  # the source's config may say true although it has both
    else:
        written = from_config(bundle.config) | token_ids(bundle)
    written["architectures"] = [family_of(bundle.config).classes[0]]
    written["torch_dtype"] = DTYPES[kind]
    _check(written, bundle.config)
    return written


def from_config(config: ModelConfig) -> dict[str, Any]:
    """Return config.json for this architecture, in the spelling that transformers 4 and 5 read."""
    return {
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_output,
        **family_keys(config),
    }


def token_ids(bundle: Bundle) -> dict[str, Any]:
    """Return the start and end ids of a model for config.json and generation_config.json."""
    tokenizer = bundle.tokenizer
    ends = sorted(tokenizer.stops)
    start = tokenizer.start_ids[0] if tokenizer.start_ids else None
    if start is None and "bos_token" in tokenizer.names:
        start = tokenizer.id_of(tokenizer.names["bos_token"])
    return {"bos_token_id": start, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}


def generation_json(bundle: Bundle) -> dict[str, Any]:
    """Return generation_config.json: start, ends, and the suggested sampling values that transformers has."""
    content: dict[str, Any] = {key: value for key, value in token_ids(bundle).items() if value is not None}
    known = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
    suggested = {key: value for key, value in bundle.suggested.items() if key in known}
    if suggested.get("temperature") == 0:
        return content | {"do_sample": False}
    if suggested:
        if "top_k" in suggested:
            suggested["top_k"] = int(suggested["top_k"])
        content |= {"do_sample": True, **suggested}
    return content


def _check(written: dict[str, Any], config: ModelConfig) -> None:
    try:
        read = config_from_hf(written)
    except (BadFile, Unsupported) as error:
        raise Unsupported(f"config.json cannot describe this model: {error}: export it as GGUF") from error
    apart = {"rope", "attention", "limit"}
    lost = [
        f.name
        for f in fields(config)
        if f.name not in apart and getattr(config, f.name) != getattr(read, f.name)
    ]
    if lost or config.rotations() != read.rotations():
        raise Unsupported(
            f"config.json of a {config.architecture} cannot express"
            f" {', '.join(lost) or 'its rotary positions and windows'}: export it as GGUF"
        )
