"""The setup of a run: everything that is settled before measuring, and the trainer built from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.errors import BadInput
from pophood.model.lm import LM
from pophood.text.chat.chat_template import ChatTemplate
from pophood.train.data import Data, DataOptions, PackedSampler, open_data
from pophood.train.data.dataset.data_report import OnProgress
from pophood.train.data.dataset.packing import SampledBatches
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.model.build import build_model
from pophood.train.report.measures import SamplePrompt
from pophood.train.run.new_model import NewModel
from pophood.train.settings import TrainSettings
from pophood.train.torch_install import import_torch

if TYPE_CHECKING:
    from pophood.train.checkpoint.save_load import TrainerState
    from pophood.train.loop.trainer import Trainer

VALIDATION_POSITIONS, BRIEF_VALIDATION_POSITIONS = 8192, 2048  # at most, before anything was timed


@dataclass(frozen=True, slots=True)
class RunSetup:
    """All that is settled before a run starts: its model, data, settings and processes."""

    lm: LM
    new_model: NewModel | None  # the model if it is trained from scratch
    paths: tuple[Path, ...]
    out: Path
    settings: TrainSettings
    options: DataOptions
    data: Data
    prompts: tuple[SamplePrompt, ...]
    group: ProcessGroup
    shard: bool

    @property
    def base(self) -> dict[str, str]:
        """The model that is tuned: its absolute path or name, and its architecture."""
        path = Path(self.lm.name)
        name = str(path.absolute()) if path.exists() else self.lm.name
        return {"name": name, "architecture": self.lm.config.architecture}

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template, or the one that the data was encoded with."""
        if self.lm.chat_template is not None or self.data.template is None:
            return self.lm.chat_template
        return ChatTemplate(self.data.template, names=self.lm.bundle.tokenizer.names)

    @property
    def data_key(self) -> str:
        """The name of the data's cache, which is a hash of the content and of how it is read."""
        return Path(self.data.report.cache).name


def read_data(lm: LM, paths: Sequence[Path], options: DataOptions, progress: OnProgress) -> Data:
    """Read the files; raises BadInput if they hold nothing to learn in rows of this length."""
    data = open_data(paths, lm.bundle.tokenizer, lm.chat_template, options, progress)
    if not data.report.trained_tokens:
        raise BadInput(
            f"rows of {options.length:,} positions hold nothing to learn: the answers lie beyond them; raise"
            " --length, or take a model with more positions"
        )
    return data


def validation_batches(setup: RunSetup, positions: int = 0) -> SampledBatches | None:
    """Return validation batches of at most `positions` (0: the default); None without validation data."""
    settings = setup.settings
    if not len(setup.data.validation):
        return None
    positions = positions or (BRIEF_VALIDATION_POSITIONS if settings.brief else VALIDATION_POSITIONS)
    size, length, seed = settings.batch_size, settings.length, settings.seed
    return SampledBatches(setup.data.validation, size, length, seed, positions)


def make_trainer(
    setup: RunSetup,
    *,
    save: Callable[[TrainerState], str],
    should_stop: Callable[[], str | None],
    positions: int = 0,
) -> Trainer:
    """Build the model in torch and its trainer; `positions` are those to validate with (0: the default)."""
    import_torch()
    import torch

    from pophood.train.loop.activation_cache import ActivationCaches
    from pophood.train.loop.trainer import Trainer

    settings, group = setup.settings, setup.group
    torch.set_num_threads(group.threads(setup.lm.engine.threads))
    train = PackedSampler(setup.data.train, settings.batch_size, settings.length, settings.seed)
    validation = validation_batches(setup, positions)
    model = build_model(setup.lm.bundle, settings)
    trainer = Trainer(
        model,
        train,
        validation,
        settings,
        save=save,
        should_stop=should_stop,
        group=group,
        shard=setup.shard,
    )
    if group.alone:  # several processes would have to exchange what each has cached
        trainer.caches = ActivationCaches.of(model, train, validation, settings)
    return trainer


def quantization_message(setup: RunSetup, trainer: Trainer) -> list[str]:
    """Return a line about the loss that an 8-bit base costs; [] for any other base."""
    if setup.settings.base != "q8":
        return []
    from pophood.train.loop.quantization_loss import quantization_report

    few = 1 if setup.settings.brief else 0  # a single batch if there is little time
    batches = validation_batches(setup, few) or trainer.train
    return [quantization_report(trainer.model, setup.lm.bundle.weights, batches)]


def default_out(paths: Sequence[Path], kind: str) -> str:
    """Return `notes-lora` for notes.txt; `kind` is the method, or "scratch"."""
    stem = paths[0].absolute().stem if paths else "tuned"
    return f"{stem or 'tuned'}-{kind}"
