"""A model from scratch: a vocabulary trained on the data and random weights, as an LM that `Tuning` trains.

config.json, the tokenizer and the like are kept as bytes and written into the run's folder when the run
begins. The weights are in memory only and follow from the seed, so a resumed run creates the same ones
without a copy on disk. Sizes, vocabulary and initial weights are in `scratch.py`. No torch.
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
from pophood.families.family import TensorSource
from pophood.formats.tensors import Tensor
from pophood.model.bundle import Bundle, Weights
from pophood.model.engine import Engine
from pophood.model.lm import LM
from pophood.system import atomic_write
from pophood.text.load import load_text_folder
from pophood.train.data import DataOptions
from pophood.train.run.folder import FACTS, RunFolder
from pophood.train.run.scratch import initial_weights, scratch_config, train_tokenizer

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model with random weights; `files` are all files of its folder except the weights."""

    size: str  # of scratch.SIZES
    lm: LM
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Write config.json and the tokenizer into an existing folder."""
        for name, content in self.files.items():
            atomic_write(folder / name, content)

    def write_weights(self, folder: Path, weights: Weights, template: str | None) -> None:
        """Write trained weights and the chat template of the data into the folder."""
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
) -> NewModel:
    """Create a model of a size of `scratch.SIZES`: train its vocabulary on files, draw its weights by a seed.

    `vocabulary` is the largest number of tokens (None: the size's suggestion), `engine` are threads,
    context and precision. Raises BadInput for an unknown size and too small a vocabulary; NotFound, BadFile
    for the files.

        new_model = from_scratch("notes.txt", "gpt2-tiny")
        for event in Tuning(new_model, "notes.txt"): print(event)
    """
    suggested = scratch_config(size).vocab_size  # raises for an unknown size before files are read
    wanted = suggested if vocabulary is None else vocabulary
    files = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
    with TemporaryDirectory(prefix="pophood-", ignore_cleanup_errors=True) as place:
        train_tokenizer(files, Path(place), wanted, data)
        return _create(size, seed, Path(place), engine)


def new_model_for(
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    out: str | PathLike[str],
    size: str | None,
    *,
    resume: bool = False,
    vocabulary: int | None = None,
    **options: Any,
) -> NewModel | None:
    """Create the new model of a run that writes to `out`, or recreate the model of a resumed run.

    Returns None if that is not from scratch.

    `options` are those of `from_scratch`. Raises BadInput for contradictions.
    """
    size = size or (size_of_run(out) if resume else None)
    if vocabulary is not None and (size is None or resume):
        why = "the run already has one" if resume else "only a model from scratch takes one"
        raise BadInput(f"cannot train a vocabulary of {vocabulary:,} tokens: {why}: leave out --vocabulary")
    if size is None:
        return None
    if resume:
        engine = {name: value for name, value in options.items() if name not in ("seed", "data")}
        return recreate(out, size, **engine)
    return from_scratch(paths, size, vocabulary=vocabulary, **options)


def size_of_run(folder: str | PathLike[str]) -> str | None:
    """Return the size of the new model that the run in a folder trains; None if there is no such run."""
    if not (Path(folder) / FACTS).is_file():
        return None
    size = RunFolder(Path(folder)).read_facts().get("from_scratch")
    return size if isinstance(size, str) else None


def recreate(folder: str | PathLike[str], size: str | None = None, **engine: Any) -> NewModel:
    """Recreate the model with which the run in a folder began.

    Its tokenizer is in the folder, its weights follow from the seed.

    `size` is the size that the caller expects. Raises NotFound if there is no run, BadInput if it is another.
    """
    place = Path(folder)
    facts = RunFolder(place).read_facts()
    own = facts.get("from_scratch")
    if own is None or (size is not None and size != own):
        kind = f"trains {own} from scratch" if own else "did not begin from scratch"
        raise BadInput(f"{fspath(folder)}: the run {kind}: leave out --from-scratch {size}")
    return _create(own, int(facts["settings"]["seed"]), place, engine)


def _create(size: str, seed: int, place: Path, options: Mapping[str, Any]) -> NewModel:
    """Create a model with the tokenizer in a folder."""
    tokenizer = load_text_folder(place).tokenizer
    words = {name: (place / name).read_bytes() for name in TOKENIZER}
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
    return NewModel(size, LM(bundle, engine), {**encoded, **words})


def _in_memory(config: ModelConfig, seed: int) -> Weights:
    """Return random weights in memory, read like those of a file."""
    sources = {}
    for name, values in initial_weights(config, seed):
        data = values.reshape(-1).view(np.uint8)
        data.flags.writeable = False
        sources[name] = TensorSource(Tensor(name, "F32", values.shape, data))
    return Weights(family_of(config), sources)
