"""Writes the models of tests/tiny_values.py with ggml's writer, in llama.cpp's names and layouts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pophood.config import ModelConfig, Rope, tensor_shapes
from pophood.formats.quant import BLOCKS
from tests.tiny_values import Entry, Floats, Values, narrowed, style_of, tiny_config
from tests.tiny_values import quantised as ggml_blocks
from tests.tiny_vocabulary import vocabulary

_GGUF = {
    "embed.token": "token_embd.weight",
    "embed.position": "position_embd.weight",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.out": "attn_output",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "final_norm": "output_norm",
    "blocks.": "blk.",
}

WIDE = {"n_embd": 256, "n_head": 4, "head_dim": 64, "n_inner": 256}  # for blocks of 256 weights


def tiny_gguf(
    path: Path,
    family: str,
    *,
    seed: int = 0,
    dtype: str = "F32",
    quantised: str | None = None,
    duplicate_output: bool = False,
    tokenizer: bool = True,
    keys: dict[str, Any] | None = None,
    part_tensors: int = 0,
    **overrides: Any,
) -> Path:
    """Write the model that `tiny_folder` writes with the same arguments as GGUF; norms and biases are F32.

    `duplicate_output` writes a tied output matrix twice, as older converters did; `keys` are metadata.
    `part_tensors` splits the model into parts of so many tensors, STEM-00001-of-...; `path` is not written.
    Blocks of 256 weights get the sizes of WIDE.
    """
    import gguf

    if quantised in BLOCKS and BLOCKS[quantised].elements == 256:
        overrides = WIDE | overrides
    config = tiny_config(family, **overrides)
    writer = gguf.GGUFWriter(path, config.architecture, split_max_tensors=part_tensors)
    write_metadata(writer, config)
    if tokenizer:
        write_vocabulary(writer, config)
    for key, value in (keys or {}).items():
        write_key(writer, key, value)
    entries = gguf_entries(config, Values(config, seed, dtype, quantised), duplicate_output)
    kinds = [(quantised or dtype) if len(entry.shape) == 2 else "F32" for entry in entries]
    for entry, kind in zip(entries, kinds, strict=True):
        code = gguf.GGMLQuantizationType[kind]
        bytes_shape = gguf.quant_shape_to_byte_shape(entry.shape, code)
        writer.add_tensor_info(entry.name, bytes_shape, np.dtype(np.uint8), math.prod(bytes_shape), code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry, kind in zip(entries, kinds, strict=True):
        values = entry.make()
        if kind in ("F32", "F16", "BF16"):
            writer.write_tensor_data(np.ascontiguousarray(narrowed(values, kind)))
        else:
            writer.write_tensor_data(ggml_blocks(values, kind))
    writer.close()
    return path


def split_gguf(path: Path, folder: Path, tensors: int) -> list[Path]:
    """Write a GGUF file again with ggml's own writer, as parts of so many tensors; return the parts."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    folder.mkdir()
    architecture = fields.pop("general.architecture").contents()
    writer = gguf.GGUFWriter(folder / "m.gguf", architecture, split_max_tensors=tensors)
    for name, field in fields.items():
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("m-*.gguf"))


def gguf_entries(config: ModelConfig, values: Callable[[str], Floats], duplicate_output: bool) -> list[Entry]:
    """Return the tensors of a GGUF file; Llama's q and k have the two rows of a rotary pair side by side."""
    gpt2 = config.architecture == "gpt2"
    entries = []
    for name, shape in tensor_shapes(config).items():
        if gpt2 and (".attn.k." in name or ".attn.v." in name):
            continue  # inside attn_qkv
        own = functools.reduce(lambda n, pair: n.replace(*pair), _GGUF.items(), name)
        make: Callable[[], Floats] = functools.partial(values, name)
        if gpt2 and ".attn.q." in name:
            own = own.replace("attn_q", "attn_qkv")
            shape = (3 * shape[0], *shape[1:])
            make = functools.partial(_fused, values, name)
        elif config.architecture == "llama" and (".attn.q." in name or ".attn.k." in name):
            make = functools.partial(_paired, values, name, config.head_dim)
        entries.append(Entry(own, shape, make))
    if duplicate_output and config.tied_output:
        token = entries[0]
        entries.append(Entry("output.weight", token.shape, token.make))
    if config.rope is not None and config.rope.scaling == "llama3":
        divisors = llama3_divisors(config.rope, config.head_dim)
        entries.append(Entry("rope_freqs.weight", divisors.shape, lambda: divisors))
    return entries


def _fused(values: Callable[[str], Floats], name: str) -> Floats:
    return np.concatenate([values(name.replace(".attn.q.", f".attn.{x}.")) for x in "qkv"])


def _paired(values: Callable[[str], Floats], name: str, head_dim: int) -> Floats:
    # convert_hf_to_gguf.py, LlamaModel.permute: rows i and i + D/2 of a head become neighbours.
    whole = values(name)
    halves = whole.reshape(whole.shape[0] // head_dim, 2, head_dim // 2, *whole.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(whole.shape)


def llama3_divisors(rope: Rope, head_dim: int) -> Floats:
    """Compute `rope_freqs.weight` as llama.cpp's converter does, one float32 number at a time."""
    f = np.float32
    exponents = np.arange(0, head_dim, 2, dtype=f) / f(head_dim)
    divisors = []
    for frequency in f(1.0) / np.power(np.float64(rope.theta), exponents.astype(np.float64)).astype(f):
        wavelength = f(2 * math.pi) / frequency
        if wavelength < rope.original_context / rope.high_freq_factor:
            divisors.append(f(1.0))
        elif wavelength > rope.original_context / rope.low_freq_factor:
            divisors.append(f(rope.factor))
        else:
            smooth = (f(rope.original_context) / wavelength - f(rope.low_freq_factor)) / f(
                rope.high_freq_factor - rope.low_freq_factor
            )
            divisors.append(f(1.0) / ((f(1.0) - smooth) / f(rope.factor) + smooth))
    return np.array(divisors, f)


def write_metadata(writer: Any, config: ModelConfig) -> None:
    """Write the keys that llama.cpp reads, as its converter does."""
    import gguf

    writer.add_name(f"tiny {config.architecture}")
    writer.add_license("apache-2.0")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    writer.add_file_type(0)
    if config.rope is None:
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    if config.rope.scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope.factor)


def write_vocabulary(writer: Any, config: ModelConfig) -> None:
    """Write the tokenizer, padded with unused tokens to the size of the vocabulary, as llama.cpp requires."""
    import gguf

    words = vocabulary(style_of(config), config.vocab_size)
    pads = [f"[PAD{i}]" for i in range(len(words.tokens), config.vocab_size)]
    normal = len(words.tokens) - len(words.style.specials)
    kinds = [gguf.TokenType.NORMAL] * normal + [gguf.TokenType.CONTROL] * len(words.style.specials)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.style.pre)
    writer.add_token_list([*words.tokens, *pads])
    writer.add_token_types([*kinds, *[gguf.TokenType.UNUSED] * len(pads)])
    writer.add_token_merges(words.merges)
    writer.add_eos_token_id(words.ids[words.style.end])
    writer.add_add_bos_token(words.style.start is not None)
    if words.style.start is not None:
        writer.add_bos_token_id(words.ids[words.style.start])
    if words.style.template is not None:
        writer.add_chat_template(words.style.template)


def write_key(writer: Any, key: str, value: Any) -> None:
    """Add one metadata key of a plain type."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
