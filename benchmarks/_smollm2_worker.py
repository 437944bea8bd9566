"""One side of benchmarks/tune_smollm2.py: answers each line with a whole run's validation losses and seconds.

Both sides get the ids and the learned positions that pophood made of the seed tasks. The peer's loop is that
of transformers' Trainer with its defaults: shuffled batches padded to their longest example, AdamW (fused,
no decay), a linear schedule to 0, clip_grad_norm_ 1.0, gradients set to None.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import KEPT
from _sides import SEED_TASKS, Ids, say
from numpy.typing import NDArray

from pophood.export.job import export_adapter
from pophood.model.bundle import Bundle, open_bundle
from pophood.train.data import IGNORED, Data, DataOptions, Examples, PackedSampler, open_data
from pophood.train.loop.trainer import Trainer
from pophood.train.model.build import adapter_of, build_model
from pophood.train.run.timing import plan_steps
from pophood.train.settings import TrainSettings

HELD = 20  # of the 175 tasks
Example = tuple[Ids, Ids]  # inputs, and what follows each or -100
Curve = list[tuple[int, float, float]]  # steps, seconds of them, validation loss


class Ours:
    """pophood's runs, as `pophood tune` makes them: packed rows, LoRA on all matrices of the blocks.

    What was learned is measured in float32, as the peer's is, whatever a run multiplies in.
    """

    def __init__(self, bundle: Bundle, data: Data, length: int) -> None:
        self.bundle, self.data, self.length = bundle, data, length
        self.judge = self._trainer(TrainSettings(length=length, steps=1, precision="f32"))

    def _trainer(self, settings: TrainSettings) -> Trainer:
        rows, length, seed = settings.batch_size, settings.length, settings.seed
        train = PackedSampler(self.data.train, rows, length, seed)
        held = PackedSampler(self.data.validation, rows, length, seed, shuffle=False)
        return Trainer(build_model(self.bundle, settings), train, held, settings)

    def validation(self, trainer: Trainer) -> float:
        """The mean over the learned tokens of the held-out tasks."""
        self.judge.put({f"trained.{name}": value for name, value in trainer.trained.items()})
        loss = self.judge.validation_loss()
        assert loss is not None
        return loss

    def run(
        self, *, seed: int, rate: float, batch: int, epochs: float, every: int, until: float, to: str
    ) -> Curve:
        """Up to the first validation loss that is no more than `until`; what was learned goes to `to`."""
        settings = TrainSettings(
            batch_size=batch, length=self.length, learning_rate=rate, epochs=epochs, seed=seed
        )
        trainer = self._trainer(settings)
        trainer.steps = plan_steps(trainer)
        curve: Curve = [(0, 0.0, self.validation(trainer))]
        seconds = 0.0
        while trainer.step < trainer.steps and curve[-1][2] > until:
            begin = time.perf_counter()
            trainer._one_step(begin)
            seconds += time.perf_counter() - begin
            if trainer.step % every == 0 or trainer.step == trainer.steps:
                curve.append((trainer.step, seconds, self.validation(trainer)))
        base = {"name": "smollm2", "architecture": self.bundle.config.architecture}
        export_adapter(self.bundle.config, adapter_of(trainer.model, settings, "seed-tasks", base), to)
        return curve


class Theirs:
    """PEFT's runs in float32, on padded batches."""

    def __init__(self, folder: Path, data: Data) -> None:
        self.folder, self.train, self.held = folder, examples(data.train), examples(data.validation)

    def run(
        self, *, seed: int, rate: float, batch: int, epochs: float, every: int, most: int | None = None
    ) -> Curve:
        """All epochs, or `most` steps of them."""
        from peft import LoraConfig, get_peft_model
        from transformers import get_linear_schedule_with_warmup

        torch.manual_seed(seed)
        model: Any = get_peft_model(
            self._base(), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, eps=1e-8, weight_decay=0.0, fused=True)
        per_epoch = -(-len(self.train) // batch)
        steps = max(1, round(epochs * per_epoch))
        schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
        curve: Curve = [(0, 0.0, self.validation(model))]
        seconds, last = 0.0, min(steps, most or steps)
        for step in range(1, last + 1):
            epoch, index = divmod(step - 1, per_epoch)
            order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
            chosen = order[index * batch : (index + 1) * batch]
            begin = time.perf_counter()
            loss = loss_of(model, [self.train[i] for i in chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            seconds += time.perf_counter() - begin
            if step % every == 0 or step == last:
                curve.append((step, seconds, self.validation(model)))
        return curve

    def check(self, adapter: str) -> float:
        """The validation loss with an adapter from the disk."""
        from peft import PeftModel

        return self.validation(PeftModel.from_pretrained(self._base(), adapter))

    @torch.no_grad()
    def validation(self, model: Any) -> float:
        """The mean over the learned tokens of the held-out tasks."""
        was, total, count = model.training, 0.0, 0
        model.eval()
        for start in range(0, len(self.held), 4):
            group = self.held[start : start + 4]
            learned = sum(int((targets != IGNORED).sum()) for _, targets in group)
            total += loss_of(model, group).item() * learned
            count += learned
        model.train(was)
        return total / count

    def _base(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.float32, attn_implementation="sdpa"
        )


def examples(side: Examples) -> list[Example]:
    """One per task, up to its last learned id; those with nothing to learn are left out, as pophood does."""
    found = []
    pieces, store = side.pieces(), side.store
    for first, count in zip(pieces.first.tolist(), pieces.count.tolist(), strict=True):
        ids = np.array(store.ids[first : first + count + 1], np.int64)
        learned = store.trained(first + 1, first + count + 1)
        found.append((ids[:-1], np.where(learned, ids[1:], IGNORED)))
    return found


def loss_of(model: Any, group: list[Example]) -> torch.Tensor:
    """The mean loss of a padded batch."""
    longest = max(len(ids) for ids, _ in group)
    tokens, targets, mask = (np.zeros((len(group), longest), np.int64) for _ in range(3))
    targets[:] = IGNORED
    for row, (ids, wanted) in enumerate(group):
        tokens[row, : len(ids)], targets[row, : len(ids)], mask[row, : len(ids)] = ids, wanted, 1
    labels = torch.from_numpy(targets)
    return model(  # type: ignore[no-any-return]
        input_ids=torch.from_numpy(tokens),
        attention_mask=torch.from_numpy(mask),
        labels=labels,
        shift_labels=labels,
    ).loss


def templated(folder: Path) -> Iterator[NDArray[np.int64]]:
    """The ids of every task by transformers' tokenizer and the exported chat template."""
    from transformers import AutoTokenizer

    from pophood.train.data.read.layouts import items_of

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for line in SEED_TASKS.read_text(encoding="utf-8").splitlines():
        for item in items_of(json.loads(line), "tasks", {}):
            text = tokenizer.apply_chat_template(item.messages, tokenize=False)
            yield np.array(tokenizer(text, add_special_tokens=False).input_ids, np.int64)


def same_ids(folder: Path, bundle: Bundle) -> list[int]:
    """Return the number of tasks whose ids are equal in both tokenizers, and the number of all."""
    options = DataOptions(length=bundle.config.n_positions, validation=0, cache=KEPT / "data")
    whole = open_data(SEED_TASKS, bundle.tokenizer, bundle.chat_template, options).train
    theirs = list(templated(folder))
    same = [np.array_equal(ours.ids, ids) for ours, ids in zip(whole, theirs, strict=True)]
    return [sum(same), len(same)]


def main() -> None:
    """Serve one side."""
    said = json.loads(sys.argv[1])
    torch.set_num_threads(said["threads"])
    folder = Path(said["folder"])
    bundle = open_bundle(folder)
    options = DataOptions(length=said["length"], validation=HELD, seed=0, cache=KEPT / "data")
    data = open_data(SEED_TASKS, bundle.tokenizer, bundle.chat_template, options)
    if said["side"] == "pophood":
        run: Any = Ours(bundle, data, said["length"])
        say(train=len(data.train), held=len(data.validation), learned=data.report.trained_tokens)
    else:
        run = Theirs(folder, data)
        say(same_ids=same_ids(folder, bundle), train=len(run.train), held=len(run.held))
    for line in sys.stdin:
        what = json.loads(line)
        if "check" in what:
            say(loss=run.check(what["check"]))
        else:
            say(curve=run.run(**what))


if __name__ == "__main__":
    main()
