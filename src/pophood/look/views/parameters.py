"""Parameters: the number of parameters in each part of a model, from its configuration alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pophood.config import ModelConfig
from pophood.look.blocks import Block, Lines
from pophood.look.math.model_parts import ModelPart, parts_of
from pophood.look.source import ViewSource, model_title
from pophood.look.view import View
from pophood.model.lm import LM
from pophood.phrases import phrase
from pophood.table import Table

BAR = 50  # characters of the bar on a terminal


@dataclass(frozen=True)
class ParametersView(View):
    """The parts of a model and the number of parameters in each."""

    config: ModelConfig
    parts: tuple[ModelPart, ...]

    @property
    def total(self) -> int:
        """The number of parameters, a tied output matrix counted once: 124,439,808 for GPT-2 small."""
        return sum(part.parameters for part in self.parts)

    @property
    def groups(self) -> dict[str, int]:
        """Parameters by group: token embedding, positions, attention, feed-forward, norms, output matrix."""
        sums: Counter[str] = Counter()
        for part in self.parts:
            sums[part.group] += part.parameters
        return dict(sums.most_common())

    @property
    def headline(self) -> str:
        return phrase(
            "Where the {total:,} parameters of {model} are",
            total=self.total,
            model=model_title(self.source.model),
        )

    @property
    def alt(self) -> str:
        model, total = model_title(self.source.model), self.total
        shares = [f"{phrase(group)} {n:,} ({share_text(n / total)})" for group, n in self.groups.items()]
        return phrase(
            "Bars of the parameters of {model}, {total:,} together: {shares}.",
            model=model,
            total=total,
            shares=", ".join(shares),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        config, per_block = self.config, self._per_block()
        output = phrase("The output matrix is its own, not tied to the token embedding.")
        if config.tied_output:
            saved = config.vocab_size * config.n_embd
            output = phrase(
                "The output matrix W_O ({features} x {vocabulary}) is the token embedding "
                "again (tied): counted once. Counted twice, the total would be {total:,}.",
                features=config.n_embd,
                vocabulary=config.vocab_size,
                total=self.total + saved,
            )
        return (
            output,
            phrase(
                "Each of the {layers} blocks has {per_block:,} parameters.",
                layers=config.n_layer,
                per_block=per_block,
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `parameters` by part, and `groups`."""
        rows = tuple(
            (phrase(part.name), part.tensors, part.shape_text, part.parameters, part.parameters / self.total)
            for part in self.parts
        )
        groups = tuple(
            (phrase(group), numbers, numbers / self.total) for group, numbers in self.groups.items()
        )
        columns = ("part", "tensors", "shape", "parameters", "share")
        return {
            "parameters": Table(columns, rows, bars="share", title=self.title),
            "groups": Table(("group", "parameters", "share"), groups, bars="share"),
        }

    def picture(self) -> tuple[Block, ...]:
        return (
            Lines(self.title, *_bar({phrase(group): n for group, n in self.groups.items()})),
            self.tables()["parameters"],
        )

    def _per_block(self) -> int:
        outside = {
            "token embedding",
            "position embedding",
            "final norm",
            "output matrix",
        }
        inside = sum(part.parameters for part in self.parts if part.name not in outside)
        return inside // self.config.n_layer


def parameters(lm: LM) -> ParametersView:
    """Return the number of parameters in each part of the model; no weight is read.

    look.parameters(lm).total                       # 124,439,808 for GPT-2 small
    print(look.parameters(lm).tables()["groups"])
    """
    return ParametersView(ViewSource.of(lm), lm.config, parts_of(lm.config))


def share_text(share: float) -> str:
    """Format a share in percent; a small one keeps two digits: `share_text(0.00031) == "0.031%"`."""
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"


def _bar(groups: dict[str, int]) -> tuple[str, str]:
    """Return a stacked bar with its legend, in block characters and in ASCII."""
    total = sum(groups.values())
    width = max(len(group) for group in groups)
    texts = []
    for marks in ("█▓▒░▚▞", "#=+-:."):
        cells = [round(BAR * numbers / total) for numbers in groups.values()]
        bar = "".join(mark * cell for mark, cell in zip(marks, cells, strict=False))
        legend = [
            f"{mark} {group:<{width}}  {numbers:>15,}  {share_text(numbers / total):>7}"
            for mark, (group, numbers) in zip(marks, groups.items(), strict=False)
        ]
        texts.append("\n".join([bar, *legend]))
    return texts[0], texts[1]
