"""A family of models as data: the names in its files, and the layouts that must be converted.

`locate` pairs every canonical tensor with its place in a file, and reports tensors that are missing, left
over or of the wrong shape. There is no forward code here, and no file is opened: tensors come in as views.
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
from pophood.errors import BadFile, Unsupported, short
from pophood.families.keys import Key
from pophood.formats.quant import BLOCKS
from pophood.formats.tensors import Tensor

FileFormat = Literal["safetensors", "gguf"]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TensorName:
    """One kind of tensor under its three names; `{i}` stands for the number of the block.

    `part` = (k, n): the file's tensor holds n canonical ones side by side, and this is number k.
    They need not have the same number of rows.
    """

    canonical: str
    hf: str
    gguf: str
    part: tuple[int, int] = (0, 1)
    conv1d: bool = False  # Hugging Face's GPT-2 stores [in, out]; all others [out, in]
    by_head: bool = False  # the n parts of a Hugging Face tensor are side by side within each head (GPT-NeoX)
    less_one: bool = False  # Hugging Face stores the gain minus 1 (Gemma)
    gguf_pairs: bool = False  # GGUF permutes the rows of each head to 0, D/2, 1, D/2+1... (adjacent pairs)


@dataclass(frozen=True, slots=True)
class Family:
    """The tables for the files of one family.

    `build` makes a config from the fields that the key tables name.
    """

    name: str  # model_type in config.json, and the architecture in `pophood show`
    classes: tuple[str, ...]  # values of "architectures" in config.json that compute the same
    build: Callable[[str, Fields], ModelConfig]  # (architecture, fields)
    tensors: tuple[TensorName, ...]
    hf_keys: Mapping[str, Key]
    hf_defaults: Mapping[str, Any]  # transformers' defaults for absent keys
    hf_prefix: str  # optional before every name but lm_head
    hf_ignored: frozenset[str]  # tensors that are not parameters: masks and tables made from the config
    gguf_name: str = ""  # general.architecture; "": llama.cpp has no such models
    gguf_keys: Mapping[str, Key] = field(default_factory=dict)  # empty: GGUF has another name for the family
    gguf_defaults: Mapping[str, Any] = field(default_factory=dict)
    gguf_config_tensors: frozenset[str] = frozenset()  # tensors that carry configuration
    gguf_ignored: frozenset[str] = frozenset()
    gguf_unsaid: Callable[[ModelConfig], str] = lambda _config: ""  # why GGUF cannot express a model, or ""

    def strip(self, hf_name: str) -> str:
        """Remove the prefix that some files have before a Hugging Face name and others lack."""
        return hf_name.removeprefix(self.hf_prefix)


@dataclass(frozen=True, slots=True, eq=False)
class TensorSource:
    """The place of one canonical tensor in a file, and its conversion to [out, in]."""

    tensor: Tensor  # restricted to this tensor's rows, unless it is stored [in, out]
    columns: slice | None = None  # this tensor's outputs, if it is stored [in, out]
    pairs: int = 0  # features that are rotated, if the rows are permuted for RoPE (GGUF's Llama)
    head_rows: tuple[int, int, int] | None = None  # (k, n, D): rows k D..(k + 1) D of every n D
    less_one: bool = False  # the gain is stored minus 1

    def stored(self) -> tuple[str, NDArray[Any]]:
        """Return ("F32" | "F16" | "BF16", values as [out, in] or [n]); BF16 as raw uint16 bits.

        The values are a read-only view of the mapped file wherever strides can express it; quantised types
        (decoded to "F32") and the q and k rows of GGUF's Llama are new arrays.
        """
        values = self.tensor.values()
        kind = self.tensor.type if self.tensor.type in ("F32", "F16", "BF16") else "F32"
        if self.columns is not None:
            values = values.T[self.columns]
        elif self.head_rows is not None:
            values = rows_by_head(values, *self.head_rows)
        elif self.pairs:
            values = unpermute_rope_rows(values, self.pairs)
        elif self.less_one:
            kind, values = "F32", self.tensor.decode().reshape(values.shape) + np.float32(1.0)
        values.flags.writeable = False
        return kind, values

    def blocks(self) -> NDArray[np.uint8]:
        """Return a quantised matrix as it is stored: [out, bytes of a row's blocks], read-only."""
        rows = self.tensor.data.reshape(self.tensor.shape[0], -1)
        rows = unpermute_rope_rows(rows, self.pairs) if self.pairs else rows
        rows = rows_by_head(rows, *self.head_rows) if self.head_rows else rows
        rows.flags.writeable = False
        return rows


def rows_by_head(values: NDArray[Any], part: int, parts: int, head_dim: int) -> NDArray[Any]:
    """Take one of the parts that lie side by side within each head: rows part D..(part + 1) D of every n D.

    >>> rows_by_head(np.arange(8), part=1, parts=2, head_dim=2).tolist()
    [2, 3, 6, 7]
    """
    whole = values.reshape(-1, parts, head_dim, *values.shape[1:])
    return np.ascontiguousarray(whole[:, part]).reshape(-1, *values.shape[1:])


def unpermute_rope_rows(values: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Reorder the rows of each head from 0, D/2, 1, D/2+1... (GGUF's Llama) to 0, 1, 2...; returns a copy.

    llama.cpp's converter permutes them because its RoPE rotates adjacent features, while transformers rotates
    i with i + D/2. In the original order, one RoPE serves every family.

    >>> unpermute_rope_rows(np.array([0, 2, 1, 3]), head_dim=4).tolist()
    [0, 1, 2, 3]
    """
    paired = values.reshape(values.shape[0] // head_dim, head_dim // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(values.shape)


def split_block(name: str) -> tuple[str, int]:
    """Split off the number of the block, or -1: `split_block("h.3.ln_1.bias") == ("h.{i}.ln_1.bias", 3)`."""
    match = _BLOCK_NUMBER.search(name)
    if match is None:
        return name, -1
    return f"{name[: match.start()]}.{{i}}.{name[match.end() :]}", int(match[1])


_BLOCK_NUMBER = re.compile(r"\.(0|[1-9][0-9]{0,3})\.", re.ASCII)


def locate(
    family: Family, config: ModelConfig, file_format: FileFormat, tensors: Mapping[str, Tensor]
) -> dict[str, TensorSource]:
    """Find every tensor of the config: canonical name -> TensorSource, in `tensor_shapes` order.

    Raises BadFile, naming tensors that are missing, left over, duplicated or of the wrong shape, and
    Unsupported, naming one of a type that is not decoded.
    """
    files = _by_plain_name(family, tensors) if file_format == "safetensors" else dict(tensors)
    if file_format == "safetensors" and config.tied_output:
        _settle_tied_output(family, files)
    wanted = {
        canonical: ((row.hf if file_format == "safetensors" else row.gguf).format(i=i), row)
        for canonical, (row, i) in rows_of(family, config).items()
    }
    used = {name for name, _ in wanted.values()}
    missing = list(dict.fromkeys(name for name, _ in wanted.values() if name not in files))
    ignored = family.hf_ignored if file_format == "safetensors" else _gguf_ignored(family, config)
    left = [name for name in files if name not in used and not _ignores(ignored, name, config.n_layer)]
    if missing or left:
        output = wanted.get("output.weight", ("", None))[0]
        alone = file_format == "safetensors" and missing == [output] and not left
        raise BadFile(_mismatch(missing, left, config, alone))
    shapes = tensor_shapes(config)
    rows: dict[str, list[int]] = {}  # of the parts of every tensor of the file, in order
    for canonical, (name, _) in sorted(wanted.items(), key=lambda item: item[1][1].part):
        rows.setdefault(name, []).append(shapes[canonical][0])
    return {
        canonical: _source(files[name], row, shapes[canonical], file_format, config.head_dim, rows[name])
        for canonical, (name, row) in wanted.items()
    }


def rows_of(family: Family, config: ModelConfig) -> dict[str, tuple[TensorName, int]]:
    """Map each canonical name to its row in the family's table and the number of its block (or -1)."""
    table = {row.canonical: row for row in family.tensors}
    patterns = {name: split_block(name) for name in tensor_shapes(config)}
    return {name: (table[pattern], i) for name, (pattern, i) in patterns.items()}


def _by_plain_name(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    files: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = family.strip(name)
        if plain in files:
            raise BadFile(
                f"the file has {short(plain)} twice, with and without {family.hf_prefix!r}: use another copy"
                " of the model"
            )
        files[plain] = tensor
    return files


def _settle_tied_output(family: Family, files: dict[str, Tensor]) -> None:
    """Keep one of a tied model's token and output matrices.

    A file may have either, or both if they are equal.
    """
    names = {row.canonical: row.hf for row in family.tensors}
    token, output = names["embed.token"], names["output.weight"]
    if output in files and token not in files:
        files[token] = files[output]
    files.pop(output, None)


def has_own_output(family: Family, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a safetensors model has an output matrix that differs from its token matrix.

    Merging adapters of both matrices into a model that ties them produces such a file, although config.json
    still says that they are tied. transformers 5 then uses both (`tie_weights` in modeling_utils.py).
    """
    files = _by_plain_name(family, tensors)
    names = {row.canonical: row.hf for row in family.tensors}
    token, output = files.get(names["embed.token"]), files.get(names["output.weight"])
    return token is not None and output is not None and not same_bytes(token, output)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same type, shape and bytes; the first few bytes often decide."""
    if (one.type, one.shape) != (other.type, other.shape):
        return False
    edges = [0, 4096, *range(1 << 20, one.nbytes, 1 << 20), one.nbytes]
    pieces = itertools.starmap(slice, itertools.pairwise(edges))
    return all(np.array_equal(one.data[piece], other.data[piece]) for piece in pieces)


def _gguf_ignored(family: Family, config: ModelConfig) -> frozenset[str]:
    # A tied config came from a file whose output.weight, if any, equals its token matrix.
    tied = {"output.weight"} if config.tied_output else set()
    return family.gguf_ignored | family.gguf_config_tensors | tied


def _ignores(ignored: frozenset[str], name: str, n_layer: int) -> bool:
    pattern, i = split_block(name)
    return pattern in ignored and i < n_layer


def _mismatch(missing: list[str], left: list[str], config: ModelConfig, output_alone: bool) -> str:
    parts = []
    if missing:
        parts.append(f"the file lacks {listed(missing)}")
    if left:
        model = f"a {config.architecture} of {config.n_layer} blocks"
        parts.append(f"it has {listed(left)}, which {model} does not have")
    advice = "the file is incomplete, or belongs to another model: fetch it again"
    if output_alone:
        advice += ", or, if its output is the token matrix, set tie_word_embeddings to true in config.json"
    return f"tensors and configuration disagree: {'; '.join(parts)}: {advice}"


def listed(names: Iterable[str]) -> str:
    """List the first few names for a message: `listed("abcdef") == "'a', 'b', 'c', 'd' and 2 more"`."""
    names = list(names)
    shown = ", ".join(short(name) for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4:,} more"


def _source(
    tensor: Tensor,
    row: TensorName,
    shape: tuple[int, ...],
    file_format: FileFormat,
    head_dim: int,
    rows: list[int],
) -> TensorSource:
    part, parts = row.part
    whole = (sum(rows), *shape[1:])
    stored_in_out = row.conv1d and file_format == "safetensors"
    expected = whole[::-1] if stored_in_out else whole
    if tensor.shape != expected:
        raise BadFile(
            f"tensor {short(tensor.name)} has shape {short(tensor.shape)}; the configuration says"
            f" {expected}: one of them belongs to another model"
        )
    if tensor.type not in BLOCKS:
        raise Unsupported(
            f"tensor {short(tensor.name)} holds {short(tensor.type)}; pophood computes with"
            f" {', '.join(BLOCKS)}: use a model in one of these types"
        )
    start = sum(rows[:part])
    stop = start + shape[0]
    if stored_in_out:
        return TensorSource(tensor, columns=slice(start, stop))
    if row.by_head and file_format == "safetensors":
        return TensorSource(tensor, head_rows=(part, parts, head_dim))
    if row.less_one and file_format == "safetensors":
        return TensorSource(tensor, less_one=True)
    if parts > 1:
        row_bytes = tensor.nbytes // whole[0]
        tensor = replace(tensor, shape=shape, data=tensor.data[start * row_bytes : stop * row_bytes])
    return TensorSource(tensor, pairs=head_dim if row.gguf_pairs and file_format == "gguf" else 0)
