"""A family of models as data: what its files call the configuration and the tensors, and what must be mended.

`locate` pairs every canonical tensor with its place in a file and names what is missing, left over or of
the wrong shape. No forward code, and no file is opened here: tensors come in as views.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, Unsupported
from pophood.families.keys import Key, short
from pophood.formats.quant import BLOCKS
from pophood.formats.tensors import Tensor

FileFormat = Literal["safetensors", "gguf"]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TensorName:
    """One kind of tensor under its three names; `{i}` stands for the number of the block.

    `part` = (k, n) says that the file's tensor holds n of ours side by side, of which this is number k.
    """

    canonical: str
    hf: str
    gguf: str
    part: tuple[int, int] = (0, 1)
    conv1d: bool = False  # Hugging Face's GPT-2 stores [in, out]; everything else is [out, in]
    gguf_pairs: bool = False  # GGUF's rows of each head go 0, D/2, 1, D/2+1...: partners side by side


@dataclass(frozen=True, slots=True)
class Family:
    """How the files of one family are read. `build` makes a config of the fields that the key tables name."""

    name: str  # config.json's model_type; `show` calls the architecture so
    classes: tuple[str, ...]  # values of config.json's "architectures" that compute the same
    build: Callable[[str, Fields], ModelConfig]  # (architecture, fields)
    tensors: tuple[TensorName, ...]
    hf_keys: Mapping[str, Key]
    hf_defaults: Mapping[str, Any]  # what transformers takes for an absent key
    hf_prefix: str  # may stand before every name but lm_head
    hf_ignored: frozenset[str]  # tensors that are no parameters: masks and tables that follow from the config
    gguf_keys: Mapping[str, Key] = field(
        default_factory=dict
    )  # empty: GGUF knows this family by another name
    gguf_defaults: Mapping[str, Any] = field(default_factory=dict)
    gguf_config_tensors: frozenset[str] = frozenset()  # tensors that carry configuration
    gguf_ignored: frozenset[str] = frozenset()

    def strip(self, hf_name: str) -> str:
        """The Hugging Face name without the prefix that some files have and others lack."""
        return hf_name.removeprefix(self.hf_prefix)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where one canonical tensor lies in a file, and how it is seen as [out, in]."""

    tensor: Tensor  # narrowed to our rows, unless it is stored [in, out]
    columns: slice | None = None  # our outputs, of a tensor stored [in, out]
    pairs: int = 0  # head_dim, where GGUF's rotary pairs must be taken apart

    def stored(self) -> tuple[str, NDArray[Any]]:
        """("F32" | "F16" | "BF16", the values as [out, in] or [n]); BF16 as raw uint16 bits.

        A read-only view of the mapped file wherever strides can say so; quantised types (decoded to "F32")
        and the q and k rows of GGUF's Llama are new arrays.
        """
        values = self.tensor.values()
        kind = self.tensor.type if self.tensor.type in ("F32", "F16", "BF16") else "F32"
        if self.columns is not None:
            values = values.T[self.columns]
        elif self.pairs:
            values = apart(values, self.pairs)
        values.flags.writeable = False
        return kind, values


def apart(values: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Rows of each head from 0, D/2, 1, D/2+1... (GGUF's Llama) to 0, 1, 2... (Hugging Face); a copy.

    llama.cpp's converter moves them because its Llama rotates neighbours, where transformers rotates i with
    i + D/2; with the rows back in place one rotation serves every family.

    >>> apart(np.array([0, 2, 1, 3]), head_dim=4).tolist()
    [0, 1, 2, 3]
    """
    paired = values.reshape(values.shape[0] // head_dim, head_dim // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(values.shape)


def numbered(name: str) -> tuple[str, int]:
    """Split off the number of the block, or -1: `numbered("h.3.ln_1.bias") == ("h.{i}.ln_1.bias", 3)`."""
    match = _NUMBER.search(name)
    if match is None:
        return name, -1
    return f"{name[: match.start()]}.{{i}}.{name[match.end() :]}", int(match[1])


_NUMBER = re.compile(r"\.(0|[1-9][0-9]{0,3})\.", re.ASCII)


def locate(
    family: Family, config: ModelConfig, file_format: FileFormat, tensors: Mapping[str, Tensor]
) -> dict[str, Source]:
    """Canonical name -> Source for every tensor of the config, in `tensor_shapes` order.

    Raises BadFile naming tensors that are missing, left over, doubled or of the wrong shape, Unsupported
    naming one of a type that is not computed with.
    """
    rows = {row.canonical: row for row in family.tensors}
    files = _by_plain_name(family, tensors) if file_format == "safetensors" else dict(tensors)
    if file_format == "safetensors" and config.tied_output:
        _settle_tied_output(family, files)
    wanted: dict[str, tuple[str, TensorName]] = {}
    for canonical in tensor_shapes(config):
        pattern, i = numbered(canonical)
        row = rows[pattern]
        wanted[canonical] = ((row.hf if file_format == "safetensors" else row.gguf).format(i=i), row)
    used = {name for name, _ in wanted.values()}
    missing = list(dict.fromkeys(name for name, _ in wanted.values() if name not in files))
    ignored = family.hf_ignored if file_format == "safetensors" else _gguf_ignored(family, config)
    left = [name for name in files if name not in used and not _ignores(ignored, name, config.n_layer)]
    if missing or left:
        alone = file_format == "safetensors" and missing == [rows["output.weight"].hf] and not left
        raise BadFile(_mismatch(missing, left, config, alone))
    shapes = tensor_shapes(config)
    return {
        canonical: _source(files[name], row, shapes[canonical], file_format, config.head_dim)
        for canonical, (name, row) in wanted.items()
    }


def _by_plain_name(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    files: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = family.strip(name)
        if plain in files:
            raise BadFile(
                f"the file holds {short(plain)} twice, with and without {family.hf_prefix!r}:"
                " take another copy of the model"
            )
        files[plain] = tensor
    return files


def _settle_tied_output(family: Family, files: dict[str, Tensor]) -> None:
    """Keep one of a tied model's token and output matrix: a file may hold either, or both if equal."""
    names = {row.canonical: row.hf for row in family.tensors}
    token, output = names["embed.token"], names["output.weight"]
    if output in files and token not in files:
        files[token] = files[output]
    files.pop(output, None)


def has_own_output(family: Family, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a safetensors model holds an output matrix that differs from its token matrix.

    Adapters of both, merged into a model that ties them, leave such a file with a config.json that still says
    tied; transformers 5 then uses both (`tie_weights` in modeling_utils.py).
    """
    files = _by_plain_name(family, tensors)
    names = {row.canonical: row.hf for row in family.tensors}
    token, output = files.get(names["embed.token"]), files.get(names["output.weight"])
    return token is not None and output is not None and not same_bytes(token, output)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bytes; a little is compared first, then chunks."""
    if (one.type, one.shape) != (other.type, other.shape):
        return False
    edges = [0, 4096, *range(1 << 20, one.nbytes, 1 << 20), one.nbytes]
    return all(
        np.array_equal(one.data[start:stop], other.data[start:stop])
        for start, stop in itertools.pairwise(edges)
    )


def _gguf_ignored(family: Family, config: ModelConfig) -> frozenset[str]:
    # A tied config was read from a file whose output.weight, if any, equals its token matrix.
    tied = {"output.weight"} if config.tied_output else set()
    return family.gguf_ignored | family.gguf_config_tensors | tied


def _ignores(ignored: frozenset[str], name: str, n_layer: int) -> bool:
    pattern, i = numbered(name)
    return pattern in ignored and i < n_layer


def _mismatch(missing: list[str], left: list[str], config: ModelConfig, output_alone: bool) -> str:
    parts = []
    if missing:
        parts.append(f"the file lacks {listed(missing)}")
    if left:
        parts.append(
            f"it holds {listed(left)}, which a {config.architecture} of {config.n_layer} blocks has not"
        )
    advice = "the file is incomplete, or another model's: fetch it again"
    if output_alone:
        advice += ", or, if its output is the token matrix, set tie_word_embeddings to true in config.json"
    return f"tensors and configuration disagree: {'; '.join(parts)}: {advice}"


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names for a message, the first few of them: `listed("abcdef") == "'a', 'b', 'c', 'd' and 2 more"`."""
    names = list(names)
    shown = ", ".join(short(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def _source(
    tensor: Tensor, row: TensorName, shape: tuple[int, ...], file_format: FileFormat, head_dim: int
) -> Source:
    part, parts = row.part
    whole = (shape[0] * parts, *shape[1:])
    stored_in_out = row.conv1d and file_format == "safetensors"
    expected = whole[::-1] if stored_in_out else whole
    if tensor.shape != expected:
        raise BadFile(
            f"tensor {short(tensor.name)} has shape {short(tensor.shape)}; the configuration wants"
            f" {expected}: one of them belongs to another model"
        )
    if tensor.type not in BLOCKS:
        raise Unsupported(
            f"tensor {short(tensor.name)} holds {short(tensor.type)}; pophood computes with"
            f" {', '.join(BLOCKS)}: take the model in one of these types"
        )
    start, stop = part * shape[0], (part + 1) * shape[0]
    if stored_in_out:
        return Source(tensor, columns=slice(start, stop))
    if parts > 1:
        row_bytes = tensor.nbytes // whole[0]
        tensor = replace(tensor, shape=shape, data=tensor.data[start * row_bytes : stop * row_bytes])
    return Source(tensor, pairs=head_dim if row.gguf_pairs and file_format == "gguf" else 0)
