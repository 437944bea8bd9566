"""Bundle: the opened files of one model: configuration, weights, tokenizer, chat template, suggestions.

Weights stay in the mapped file until they are used. Nothing from a model's folder is imported or unpickled.
This module computes nothing and opens no connection: `hub` turns names into the paths that it opens.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.errors import BadFile, BadInput, Unsupported, short
from pophood.families import (
    config_from_gguf,
    config_from_hf,
    family_of,
    has_own_output,
    locate,
    text_config,
    text_tensors,
)
from pophood.families.family import Family, FileFormat, TensorSource, listed, split_block
from pophood.families.keys import GGUF_PLACE
from pophood.formats import identify, open_gguf, open_safetensors, open_sharded
from pophood.formats.json_file import read_json
from pophood.formats.parts import part_of
from pophood.formats.quant import decode
from pophood.formats.sniff import weights_at
from pophood.sampling import GGUF_NAMES, HF_NAMES, read_suggestions
from pophood.system import drop_pages
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.hf.settings import FolderSettings
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import Tokenizer


class Weights(Mapping[str, NDArray[np.float32]]):
    """The tensors of one model by name, decoded on access: `weights["embed.token"]` is [V, C].

    Iterates over the canonical names. Hugging Face's names of the family work too, with or without their
    prefix, in Hugging Face's layout, whatever the file is: `weights["h.0.attn.c_attn.weight"]` is [C, 3C].
    """

    def __init__(self, family: Family, sources: Mapping[str, TensorSource]) -> None:
        self._family = family
        self._sources = dict(sources)
        self._hf_rows: dict[str, list[tuple[str, bool]]] = {}
        for row in family.tensors:
            if row.by_head or row.less_one:
                continue  # not the same values as here
            self._hf_rows.setdefault(row.hf, []).append((row.canonical, row.conv1d))

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return a read-only float32 array, a view of the file if that stores float32.

        Raises BadInput for an unknown name.
        """
        names, transposed = self._resolve(name)
        if not names:
            raise self._unknown(name)
        parts = [self._float32(canonical) for canonical in names]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        values = values.T if transposed else values
        values.flags.writeable = False
        return values

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._resolve(name)[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the tensor, or `default` for an unknown name."""
        if name in self:
            return self[name]
        return default

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """Return the type and the values, [out, in] or [n], of a canonical name as the file stores them.

        They are ("F32", float32), ("F16", float16) or ("BF16", uint16 bits), as read-only views of the mapped
        file where strides can express the layout. Quantised types are decoded to ("F32", new array).
        Example: `weights.stored("embed.token")[1].strides`.
        """
        return self._source(name).stored()

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """Return a quantised matrix as the file stores it: [out, bytes of a row's blocks].

        Example: `weights.blocks("blocks.0.mlp.up.weight").shape == (1536, 360)`: rows of 576 in Q4_1.
        """
        return self._source(name).blocks()

    def rows(self, name: str, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return some rows of a matrix, [len(ids), in]; the others are not decoded.

        Example: `weights.rows("embed.token", [464, 3139])`.
        """
        source, chosen = self._source(name), list(ids)
        if source.columns is not None:  # stored [in, out]
            return self[name][chosen]
        stored = np.ascontiguousarray(source.blocks()[chosen])
        width = source.tensor.shape[-1]
        return decode(source.tensor.type, stored.reshape(-1), stored.shape[0] * width).reshape(-1, width)

    def drop_pages(self) -> None:
        """Take what was read of the mapped files out of memory; reading it again brings it back."""
        mappings = {
            id(mapping): mapping for source in self._sources.values() if (mapping := source.tensor.mapping)
        }
        for mapping in mappings.values():
            drop_pages(mapping)

    def stored_type(self, name: str) -> str:
        """Return the type of a canonical name in the file: "F32", "BF16", "Q4_1"..."""
        return self._source(name).tensor.type

    @property
    def nbytes(self) -> int:
        """Bytes of these tensors in the file; a tied output matrix counts once."""
        return sum(self.precisions.values())

    @property
    def precisions(self) -> dict[str, int]:
        """Bytes of weights by stored type, the largest first: `{"Q4_1": 84934656, "F32": 140544}`."""
        sizes: Counter[str] = Counter()
        for source in self._sources.values():
            outputs = 1.0
            if source.columns is not None:
                outputs = (source.columns.stop - source.columns.start) / source.tensor.shape[-1]
            elif source.head_rows is not None:
                outputs = 1 / source.head_rows[1]
            sizes[source.tensor.type] += round(source.tensor.nbytes * outputs)
        return dict(sizes.most_common())

    def check_finite(self) -> Iterator[tuple[str, tuple[int, ...] | None]]:
        """Yield (canonical name, index of its first NaN or infinity, or None) for every tensor, in order.

        This reads every stored byte once. It decodes only tensors that are not finite.
        """
        sound: dict[int, bool] = {}  # by id of the tensor in the file, which may hold several canonical ones
        for name, source in self._sources.items():
            key = id(source.tensor)
            if key not in sound:
                sound[key] = source.tensor.nonfinite() is None
            places = [] if sound[key] else np.argwhere(~np.isfinite(self._float32(name))).tolist()
            yield name, tuple(places[0]) if places else None

    def _source(self, name: str) -> TensorSource:
        if name not in self._sources:
            raise self._unknown(name)
        return self._sources[name]

    def _float32(self, canonical: str) -> NDArray[np.float32]:
        kind, values = self._sources[canonical].stored()
        if kind == "BF16":
            values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
        floats: NDArray[np.float32] = values.astype(np.float32, copy=False)
        return floats

    def _resolve(self, name: str) -> tuple[list[str], bool]:
        """Return the canonical tensors that `name` consists of, in order, and whether it is [in, out].

        There are none if the name is unknown.
        """
        if name in self._sources:
            return [name], False
        pattern, i = split_block(self._family.strip(name))
        rows = self._hf_rows.get(pattern, [])
        names = [canonical.format(i=i) for canonical, _ in rows]
        if names == ["output.weight"] and "output.weight" not in self._sources:
            names = ["embed.token"]  # tied
        if not all(canonical in self._sources for canonical in names):
            return [], False
        return names, bool(rows and rows[0][1])

    def _unknown(self, name: str) -> BadInput:
        pattern, i = split_block(name)
        last = max(split_block(own)[1] for own in self._sources)
        known = {*(split_block(own)[0] for own in self._sources), *self._hf_rows}
        known |= {self._family.hf_prefix + hf for hf in self._hf_rows}
        near = difflib.get_close_matches(pattern, sorted(known), n=3, cutoff=0.3)
        near_names = ", ".join(match.format(i=min(max(i, 0), last)) for match in near) or "embed.token"
        return BadInput(
            f"no tensor is called {name[:80]!r} in this {self._family.name} of {last + 1} blocks; near it:"
            f" {near_names}"
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """The opened files of one model. `open_bundle("model.gguf").config.n_layer`."""

    name: str
    path: Path
    file_format: FileFormat
    config: ModelConfig
    weights: Weights
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None  # None: a completion model
    suggested: dict[str, float]  # sampling values that the files suggest, applied only on request
    licence: str | None
    source: str | None
    precisions: dict[str, int]  # stored type -> bytes of weights
    suggestion_faults: dict[str, str] = field(default_factory=dict)  # setting -> why it is left out
    remarks: tuple[str, ...] = ()  # a line about each thing in the files that is left out or doubtful


@dataclass(frozen=True, slots=True)
class OpenedWeights:
    """Configuration and weights of a model, without its tokenizer: all that an engine needs."""

    path: Path  # the file of the weights; for several files their index, or the first of them
    file_format: FileFormat
    config: ModelConfig
    weights: Weights
    metadata: Mapping[str, Any]  # the keys of a GGUF file, or a folder's config.json
    remarks: tuple[str, ...] = ()  # as in Bundle


def open_bundle(path: str | PathLike[str]) -> Bundle:
    """Open a model folder (config.json and safetensors) or a .gguf file; weights stay in the mapped file.

    Raises NotFound if it does not exist, BadFile for damaged or contradictory files, Unsupported for valid
    files that pophood does not compute (an architecture, a key, a pickle).

        bundle = open_bundle("models/gpt2")
        bundle.weights["transformer.wte.weight"][464]
    """
    path = Path(path)
    opened = open_weights(path)
    folder, metadata = opened.path.parent, opened.metadata
    with _naming(opened.path if opened.file_format == "gguf" else folder):
        if opened.file_format == "gguf":
            tokenizer, template = load_text_gguf(metadata)
            suggestions = read_suggestions(metadata, GGUF_NAMES, f"{opened.path}: {GGUF_PLACE}")
            name, stops = _file_name(opened.path), list[str]()
            licence, source = _text(metadata, _GGUF_LICENCE), _text(metadata, _GGUF_SOURCE)
        else:
            settings = FolderSettings(folder, metadata)
            tokenizer, template = load_text_folder(settings)
            place = str(folder / "generation_config.json")
            suggestions = read_suggestions(settings.generation, HF_NAMES, place)
            name, stops = _folder_name(folder), _unusable_stops(settings)
            licence, source = _licence_of_card(folder / "README.md"), None
    faults = (f"{fault}: left out" for fault in suggestions.faults.values())
    return Bundle(
        name=name,
        path=path,
        file_format=opened.file_format,
        config=opened.config,
        weights=opened.weights,
        tokenizer=tokenizer,
        chat_template=template,
        suggested=suggestions.values,
        licence=licence,
        source=source,
        precisions=opened.weights.precisions,
        suggestion_faults=suggestions.faults,
        remarks=(*opened.remarks, *tokenizer.notes, *stops, *faults),
    )


def open_weights(path: Path) -> OpenedWeights:
    """Open configuration and weights of a folder or a .gguf file; raises the errors of `open_bundle`."""
    weights_path = weights_at(path)
    kind = identify(weights_path)
    folder = weights_path.parent
    with _naming(weights_path if kind == "gguf" else folder):
        if kind == "gguf":
            gguf = open_gguf(weights_path)
            config = config_from_gguf(gguf.metadata, gguf.tensors)
            weights = Weights(family_of(config), locate(family_of(config), config, "gguf", gguf.tensors))
            return OpenedWeights(weights_path, "gguf", config, weights, gguf.metadata)
        config_json = read_json(folder / "config.json")
        config = config_from_hf(config_json)
        sharded = kind == "index" or part_of(weights_path.name) is not None
        tensors, skipped = text_tensors(
            config_json, (open_sharded if sharded else open_safetensors)(weights_path).tensors
        )
        config_json = dict(text_config(config_json))
        remarks: tuple[str, ...] = ()
        if skipped:
            remarks = (f"{folder}: only the text model is computed: {listed(skipped)} are left out",)
        if config.tied_output and has_own_output(family_of(config), tensors):
            config = replace(config, tied_output=False)
            remarks += (
                f"{folder}: config.json ties the output to the token matrix, but the file holds another"
                " output matrix: both are used, as in transformers 5 (not so in transformers 4)",
            )
        weights = Weights(family_of(config), locate(family_of(config), config, "safetensors", tensors))
        return OpenedWeights(weights_path, "safetensors", config, weights, config_json, remarks)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the model's path to an error that does not name it."""
    try:
        yield
    except (BadFile, Unsupported) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def _file_name(path: Path) -> str:
    """Return a GGUF file's name without its suffix and without the number of a part."""
    part = part_of(path.name)
    return part.stem if part is not None else path.name.removesuffix(".gguf")


def _folder_name(folder: Path) -> str:
    """Return the folder's name; OWNER/NAME for a folder of the Hugging Face cache (models--OWNER--NAME)."""
    folder = folder.absolute()
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return folder.name


_GGUF_LICENCE = ("general.license", "general.license.name")
_GGUF_SOURCE = ("general.repo_url", "general.url", "general.source.repo_url", "general.source.url")


def _unusable_stops(settings: FolderSettings) -> list[str]:
    """Report the stop tokens of the JSON files that are not ids, which the tokenizer leaves out."""
    return [
        f"{settings.folder / name} names the stop token {short(entry)}; wanted a token's id: left out"
        for name, entry in settings.named_stops()
        if entry is not None and type(entry) is not int
    ]


def _text(metadata: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """Return the first of these metadata values that is text, on one line."""
    texts = (metadata.get(key) for key in keys)
    return next((" ".join(text.split())[:200] for text in texts if isinstance(text, str) and text), None)


def _licence_of_card(path: Path) -> str | None:
    """Return the `license:` of a model card's front matter, or None without a card."""
    try:
        if not path.is_file():  # opening a pipe would block
            return None
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return None
    if not head.startswith("---"):
        return None
    front = head[3:].partition("\n---")[0]
    lines = (line.partition(":") for line in front.splitlines())
    return next((value.strip(" '\"") for key, _, value in lines if key == "license" and value.strip()), None)
