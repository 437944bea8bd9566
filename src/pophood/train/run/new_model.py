"""A model from nothing: a vocabulary from the data and random weights, as the LM that `Tuning` teaches.

Its words (config.json, tokenizer.json and the like) are kept as bytes and written into the run's folder when
it begins. Its weights are in memory alone and follow from the seed: a resumed run has them again to the bit,
without a copy on the disk. Sizes, vocabulary and first weights are `data/scratch.py`. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pophood.config import ModelConfig
from pophood.errors import BadInput
from pophood.export.hf.hf_config import from_config, generation_json, token_ids
from pophood.export.hf.hf_folder import WEIGHTS, write_weights
from pophood.export.merged import Merged
from pophood.export.types import Types
from pophood.families import family_of
from pophood.families.family import Source
from pophood.formats.tensors import Tensor
from pophood.model.bundle import Bundle, Weights
from pophood.model.engine import Engine
from pophood.model.lm import LM
from pophood.system import atomic_write
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from pophood.train.data import DataOptions
from pophood.train.run.scratch import (
    LEAST_VOCABULARY,
    SIZES,
    initial_weights,
    scratch_config,
    train_tokenizer,
)

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Scratch:
    """A model from nothing: `lm` has random weights, `files` are those of its folder but for the weights."""

    size: str  # of SIZES
    lm: LM
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Write config.json and the tokenizer into a folder that is there."""
        for name, content in self.files.items():
            atomic_write(folder / name, content)

    def write_weights(self, folder: Path, weights: Weights, template: str | None) -> None:
        """Write what the weights have become beside them, and the data's chat template."""
        write_weights(Merged(self.lm.config, weights), folder / WEIGHTS, Types("f32"))
        if template is not None:
            atomic_write(folder / "chat_template.jinja", template.encode())


def from_scratch(
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    size: str,
    *,
    vocabulary: int | None = None,
    seed: int = 42,
    data: DataOptions | None = None,
    **engine: Any,
) -> Scratch:
    """Make a model of a size of SIZES, its vocabulary trained on files, its weights random by a seed.

    `vocabulary`: tokens at most (None: the size's suggestion). `engine`: threads, context, precision.
    Raises BadInput for an unknown size and too small a vocabulary; NotFound, BadFile for the files.

        scratch = from_scratch("notes.txt", "gpt2-tiny")
        for event in Tuning(scratch, "notes.txt"): print(event)
    """
    scratch_config(size, LEAST_VOCABULARY)  # refuses an unknown size before anything is read
    wanted = SIZES[size].vocab_size if vocabulary is None else vocabulary
    files = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
    with TemporaryDirectory(prefix="pophood-", ignore_cleanup_errors=True) as place:
        tokenizer = train_tokenizer(files, Path(place), wanted, data)
        words = {name: (Path(place) / name).read_bytes() for name in TOKENIZER}
    return _made(size, seed, tokenizer, words, Path(place), engine)


def scratch_for(
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    out: str | PathLike[str],
    size: str | None,
    *,
    resume: bool = False,
    vocabulary: int | None = None,
    **options: Any,
) -> Scratch | None:
    """What a run into `out` begins with, or began with if it is resumed; None where it is not from scratch.

    `options` are those of `from_scratch`. Raises BadInput for what contradicts itself.
    """
    size = size or (size_of_run(out) if resume else None)
    if vocabulary is not None and (size is None or resume):
        why = "the run has one already" if resume else "it is for a model from scratch"
        raise BadInput(f"a vocabulary of {vocabulary:,} is not to be had here: {why}: leave out --vocabulary")
    if size is None:
        return None
    if resume:
        engine = {name: value for name, value in options.items() if name not in ("seed", "data")}
        return again(out, size, **engine)
    return from_scratch(paths, size, vocabulary=vocabulary, **options)


def size_of_run(folder: str | PathLike[str]) -> str | None:
    """The size that the run in a folder began from nothing with; None for any other run, or none."""
    from pophood.train.run.folder import FACTS, RunFolder

    if not (Path(folder) / FACTS).is_file():
        return None
    size = RunFolder(Path(folder)).facts().get("from_scratch")
    return size if isinstance(size, str) else None


def again(folder: str | PathLike[str], size: str | None = None, **engine: Any) -> Scratch:
    """The model that the run in a folder began with: the tokenizer is there, the weights are made anew.

    `size`: what the caller takes it for. Raises NotFound without a run, BadInput for another one.
    """
    from pophood.train.run.folder import RunFolder

    place = Path(folder)
    facts = RunFolder(place).facts()
    there = facts.get("from_scratch")
    if there is None or (size is not None and size != there):
        whose = f"is of {there} from scratch" if there else "did not begin from scratch"
        raise BadInput(f"{fspath(folder)}: the run {whose}: leave out --from-scratch {size}")
    words = {name: (place / name).read_bytes() for name in TOKENIZER}
    return _made(
        there, int(facts["settings"]["seed"]), load_text_folder(place).tokenizer, words, place, engine
    )


def _made(
    size: str,
    seed: int,
    tokenizer: Tokenizer,
    words: Mapping[str, bytes],
    place: Path,
    options: Mapping[str, Any],
) -> Scratch:
    config = scratch_config(size, tokenizer.vocab_size)
    weights = _in_memory(config, seed)
    bundle = Bundle(
        name=f"{size} from scratch",
        path=place,
        file_format="safetensors",
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        chat_template=None,
        suggested={},
        licence=None,
        source=None,
        precisions=weights.precisions,
    )
    engine = Engine(config, **options)
    engine.load(weights)
    settings = from_config(config) | token_ids(bundle)
    settings |= {"architectures": [family_of(config).classes[0]], "torch_dtype": "float32"}
    files = {"config.json": settings, "generation_config.json": generation_json(bundle)}
    encoded = {name: json.dumps(value, indent=2).encode() for name, value in files.items()}
    return Scratch(size, LM(bundle, engine), {**encoded, **words})


def _in_memory(config: ModelConfig, seed: int) -> Weights:
    """Weights that no file holds."""
    sources = {}
    for name, values in initial_weights(config, seed):
        data = values.reshape(-1).view(np.uint8)
        data.flags.writeable = False
        sources[name] = Source(Tensor(name, "F32", values.shape, data))
    return Weights(family_of(config), sources)
