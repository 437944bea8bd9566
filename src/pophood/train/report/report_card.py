"""The report card of a run: losses before and after, samples, forgetting, memorization, and changed matrices.

`report.json` has all of it, `page.py` turns it into an HTML file, and the terminal shows its tables.
`next_commands.py` lists the commands that continue from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import bare, singular_values
from pophood.config import tensor_shapes
from pophood.system import memory_text
from pophood.table import Table, count
from pophood.train.model.build import TrainedWeights, adapter_of
from pophood.train.report.eval_texts import PASSAGES
from pophood.train.report.measures import Measures
from pophood.train.report.next_commands import NextCommand, next_commands
from pophood.train.run.plan import Plan
from pophood.train.run.setup import RunSetup

if TYPE_CHECKING:
    from pophood.train.model.transformer import Model

LARGEST_RANK = 64  # up to this rank, eigenvalues are faster than a singular value decomposition
NOTICEABLE = 0.05  # rise of the loss on general text, in nats per token
ROUNDS = 12  # of the power iteration for a matrix's largest singular value


@dataclass(frozen=True, slots=True)
class Actual:
    """The bytes and seconds that a run took, for comparison with its plan."""

    steps: int
    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one matrix: its Frobenius norm, that norm relative to the matrix's, and its stable rank.

    The stable rank is the squared Frobenius norm over the squared largest singular value: 1 for a change in a
    single direction (Rudelson and Vershynin 2007).
    """

    matrix: str
    norm: float
    share: float
    rank: float


@dataclass(frozen=True, slots=True)
class Card:
    """All that is reported about a run; losses are in nats per token."""

    name: str
    model: str
    method: str
    data: str
    reason: str
    step: int  # of the weights that were kept
    prompts: tuple[str, ...]
    before: Measures
    after: Measures
    loss_before: float | None
    loss_after: float | None
    changes: tuple[Change, ...]
    plan: Plan
    actual: Actual
    warnings: tuple[str, ...]
    commands: tuple[NextCommand, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the card for JSON."""
        return asdict(self) | {
            "plan": self.plan.as_dict(),
            "perplexity_before": _perplexity(self.loss_before),
            "perplexity_after": _perplexity(self.loss_after),
            "headline": self.headline,
            "commands": [{"purpose": one.purpose, "line": one.line()} for one in self.commands],
        }

    @property
    def headline(self) -> str:
        """The run in a few words: the validation perplexity before and after, and the steps between."""
        return headline(self.loss_before, self.loss_after, self.step)

    @property
    def kept(self) -> str:
        """The step whose weights were kept, and why it is not the last one."""
        if self.step == self.actual.steps:
            return f"those after {count(self.step, 'step')}, the last"
        return (
            f"those after step {self.step:,} of {self.actual.steps:,}: their validation loss was the lowest"
        )

    def losses(self) -> Table:
        """Return losses, perplexities and memorization before and after, as a table."""
        rows: list[tuple[object, ...]] = []
        if self.loss_before is not None and self.loss_after is not None:
            rows.append(("validation loss", self.loss_before, self.loss_after))
            rows.append(("validation perplexity", *map(_perplexity, (self.loss_before, self.loss_after))))
        general = (self.before.general, self.after.general)
        rows.append(("loss on general text", *general))
        rows.append(("perplexity on general text", *map(_perplexity, general)))
        if self.before.verbatim is not None and self.after.verbatim is not None:
            rows.append(("training texts by heart", self.before.verbatim, self.after.verbatim))
        return Table(("measure", "before", "after"), tuple(rows), decimals={"before": 3, "after": 3})

    def changed(self) -> Table:
        """Return the changes as a table: one row per kind of matrix, the mean over blocks."""
        kinds: dict[str, list[Change]] = {}
        for change in self.changes:
            kinds.setdefault(bare(change.matrix), []).append(change)
        rows = tuple(
            (
                kind,
                len(changes),
                float(np.mean([change.norm for change in changes])),
                float(np.mean([change.share for change in changes])),
                float(np.mean([change.rank for change in changes])),
                max(changes, key=lambda change: change.share).matrix,
            )
            for kind, changes in kinds.items()
        )
        columns = ("matrix", "count", "norm", "share_of_weight", "stable_rank", "most_in")
        return Table(columns, rows, decimals={"stable_rank": 1})

    def costs(self) -> Table:
        """Return the predicted and the actual costs as a table."""
        plan, actual = self.plan, self.actual
        memory = memory_text(actual.memory) if actual.memory else "not measured here"
        rows = (
            ("steps", f"{plan.steps:,}", f"{actual.steps:,}"),
            ("time", f"{plan.seconds:.0f} s", f"{actual.seconds:.0f} s"),
            ("memory", memory_text(plan.memory), memory),
            ("disk", memory_text(plan.disk), memory_text(actual.disk)),
        )
        return Table(("cost", "predicted", "actual"), rows)

    @property
    def remarks(self) -> Iterator[str]:
        """Lines that help to read the tables."""
        if 0 < len(self.before.passages) < len(PASSAGES):
            yield (
                f"general text is {len(self.before.passages)} of {len(PASSAGES)} passages, for lack of time:"
                " more --minutes read all of them"
            )
        before, after = self.loss_before, self.loss_after
        if before is not None and after is not None and after >= before:
            yield (
                f"the validation loss did not fall ({before:.3f} before, {after:.3f} after): what was learned"
                " does not hold beyond the training text; try more data or fewer steps"
            )
        if (rise := self.after.general - self.before.general) >= NOTICEABLE:
            yield (
                f"on general text the loss rose by {rise:.2f}: the model forgets; fewer minutes, a lower"
                " --learning-rate or a scale below 1 (--adapter DIR:0.5) keep more"
            )


def make_card(
    setup: RunSetup,
    events: Sequence[Mapping[str, Any]],
    plan: Plan,
    before: Measures,
    after: Measures,
    reason: str,
    step: int,
    actual: Actual,
    changes: tuple[Change, ...],
) -> Card:
    """Return the card of a run that has ended; `step` is that of the weights that were kept."""
    evaluated = [event for event in events if event["event"] == "evaluated"]
    return Card(
        name=setup.out.name,
        model=setup.lm.name,
        method=setup.settings.method,
        data=", ".join(path.name for path in setup.paths),
        reason=reason,
        step=step,
        prompts=tuple(prompt.text for prompt in setup.prompts),
        before=before.on(len(after.passages)),
        after=after,
        loss_before=evaluated[0]["loss"] if evaluated else None,
        loss_after=next((event["loss"] for event in reversed(evaluated) if event["step"] == step), None),
        changes=changes,
        plan=plan,
        actual=actual,
        warnings=setup.data.report.warnings,
        commands=next_commands(setup, reason),
    )


def headline(before: float | None, after: float | None, steps: int) -> str:
    """Describe two validation losses and the steps between them, claiming no more than they show.

    >>> headline(3.4843, 3.2809, 22)
    'Perplexity 32.6 to 26.6 in 22 steps'
    >>> headline(3.2809, 3.4843, 1)
    'Perplexity rose from 26.6 to 32.6 in 1 step'
    >>> headline(3.2809, 3.2808, 2)
    'Perplexity stayed at 26.6 in 2 steps'
    >>> headline(None, None, 3)
    'Tuned for 3 steps; nothing to validate with, so no perplexity'
    """
    steps_made = count(steps, "step")
    if before is None or after is None:
        return f"Tuned for {steps_made}; nothing to validate with, so no perplexity"
    if not (math.isfinite(before) and math.isfinite(after)):
        return f"Tuned for {steps_made}; the validation loss is not a number"
    old, new = (_figures(math.exp(min(loss, 700.0))) for loss in (before, after))
    rise = "rose from " if after > before else ""
    change = f"stayed at {old}" if old == new else f"{rise}{old} to {new}"
    return f"Perplexity {change} in {steps_made}"


def _figures(value: float) -> str:
    """Format a perplexity with three significant digits, or all digits before the point.

    >>> _figures(1.0412), _figures(32.61), _figures(2048.3), _figures(3e9)
    ('1.04', '32.6', '2,048', '3e+09')
    """
    if value >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def changes_of(setup: RunSetup, model: Model) -> Iterator[Change]:
    """Yield the change of every trained matrix relative to the base model."""
    weights = setup.lm.weights
    if setup.settings.method == "lora":
        adapter = adapter_of(model, setup.settings, setup.out.name, setup.base)
        for name, (a, b) in adapter.targets.items():
            yield _change(name, *_norms(a, b, adapter.scale), weights)
        return
    trained = TrainedWeights(setup.lm.bundle, model)
    for name, shape in tensor_shapes(setup.lm.config).items():
        if name in trained.changed and len(shape) == 2:
            change = trained[name] - weights[name]
            norm = float(np.linalg.norm(change))
            yield _change(name.removesuffix(".weight"), norm, largest(change), weights)


def _norms(a: NDArray[np.float32], b: NDArray[np.float32], scale: float) -> tuple[float, float]:
    """Return the Frobenius norm and the largest singular value of scale * b @ a, from two r x r matrices.

    >>> _norms(np.eye(2, 3, dtype=np.float32), np.diag([3, 4]).astype(np.float32), 2.0)
    (10.0, 8.0)
    """
    if len(a) > LARGEST_RANK:
        values = singular_values(a, b, scale)
        return float(np.linalg.norm(values)), float(values[0])
    wide, tall = a.astype(np.float64), b.astype(np.float64)
    squares = (tall.T @ tall) @ (wide @ wide.T)  # its eigenvalues are the squared singular values of b @ a
    largest_square = float(np.linalg.eigvals(squares).real.max())
    return scale * math.sqrt(max(float(np.trace(squares)), 0.0)), scale * math.sqrt(max(largest_square, 0.0))


def _change(name: str, norm: float, top: float, weights: Mapping[str, NDArray[np.float32]]) -> Change:
    full = name if name in weights else f"{name}.weight"
    own = float(np.linalg.norm(weights[full]))
    return Change(name, norm, norm / own if own else 0.0, (norm / top) ** 2 if top else 0.0)


def largest(matrix: NDArray[np.float32]) -> float:
    """Return the largest singular value, by power iteration.

    >>> round(largest(np.diag([3.0, 1.0]).astype(np.float32)), 3)
    3.0
    """
    vector: NDArray[np.float64] = np.random.default_rng(0).standard_normal((matrix.shape[1],))
    size = 0.0
    for _ in range(ROUNDS):
        vector = vector / max(float(np.linalg.norm(vector)), 1e-30)
        image = matrix @ vector
        size = float(np.linalg.norm(image))
        vector = matrix.T @ image
    return size


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(min(loss, 700.0))
