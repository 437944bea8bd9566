"""How far the predictions of a model computed one way are from those of another way, along a text.

KL divergence, flipped tokens and perplexity, over windows of the text that both read. The other way is
usually the same model at f32; it may be any model with the same vocabulary. Nothing is timed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.bench.measure import BenchStep
from pophood.errors import BadInput
from pophood.model.engine import CancelFlag
from pophood.model.lm import LM
from pophood.model.score import logit_rows

TOKENS, WINDOW = 4096, 512
ROWS = 32  # rows of logits that are compared at once: 39 MB in float64 at a vocabulary of 151,936
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ComputedModel:
    """A model as it was loaded, the bytes of its packed weights, and its perplexity on the text."""

    model: str
    precision: str
    kv: str
    weight_bytes: int
    perplexity: float

    @classmethod
    def of(cls, lm: LM, losses: Doubles) -> ComputedModel:
        """Return the facts of a loaded model, from its negative log-likelihoods [T] in nats."""
        engine = lm.engine
        perplexity = float(np.exp(losses.mean()))
        return cls(lm.name, engine.precision, engine.kv, engine.weight_bytes, perplexity)


@dataclass(frozen=True, slots=True)
class Quality:
    """The comparison of two ways to compute predictions at the same `positions` of a text.

    `kl_mean` and `kl_99`, the 99th percentile, are of KL(other || this) in nats per token. `flipped` is the
    share of positions at which the likeliest token differs. `complete` is False after Ctrl-C.
    """

    this: ComputedModel
    other: ComputedModel
    positions: int
    window: int
    kl_mean: float
    kl_99: float
    flipped: float
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and numbers."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what was found, in plain sentences."""
        from pophood.system import size_text

        this, other = self.this, self.other
        more = 100 * (this.perplexity / other.perplexity - 1)
        return [
            f"KL divergence: {self.kl_mean:.3g} nats per token on average, {self.kl_99:.3g} at the 99th "
            "percentile.",
            f"Flipped tokens: {100 * self.flipped:.2f} % of the positions have another likeliest token.",
            f"Perplexity: {this.perplexity:.2f} beside {other.perplexity:.2f} ({more:+.2f} %).",
            f"Weights: {size_text(this.weight_bytes)} beside {size_text(other.weight_bytes)}.",
        ]


@dataclass
class Comparison:
    """A comparison of two loaded models along token ids; `run` yields its steps, `quality` has the figures.

    Raises BadInput for vocabularies of different sizes, and for fewer than two tokens.

        comparison = Comparison(lm, lm.at("f32"), lm.tokenize(text)[:4096])
        for step in comparison.run(): print(step.what)
        print(comparison.quality().kl_mean)
    """

    this: LM
    other: LM
    ids: Sequence[int]
    window: int = WINDOW
    cancel: CancelFlag | None = None
    _parts: list[tuple[Doubles, ...]] = field(default_factory=list)  # losses, other losses, KL, flips
    _complete: bool = False

    def __post_init__(self) -> None:
        sizes = [lm.config.vocab_size for lm in (self.this, self.other)]
        if sizes[0] != sizes[1]:
            raise BadInput(
                f"{self.this.name} has a vocabulary of {sizes[0]:,} tokens, {self.other.name} one of "
                f"{sizes[1]:,}: only models with the same vocabulary can be compared"
            )
        if len(self.ids) < 2:
            raise BadInput(f"the text has {len(self.ids)} tokens; a prediction needs two: give a longer text")
        self.window = min(self.window, self.this.engine.context, self.other.engine.context)

    def run(self) -> Iterator[BenchStep]:
        """Compare window by window; each step is yielded before it is done."""
        starts = range(0, len(self.ids) - 1, self.window)
        for number, start in enumerate(starts):
            words = f"{start:,} of {len(self.ids):,} tokens are compared"
            yield BenchStep(number, len(starts), 1, words)
            self._compare(self.ids[start : start + self.window])
        self._complete = True

    def _compare(self, ids: Sequence[int]) -> None:
        """Read one window with both models, and add what differs."""
        sides = (logit_rows(lm.engine, ids, cancel=self.cancel) for lm in (self.this, self.other))
        for (place, ours), (_, theirs) in zip(*sides, strict=True):
            for first in range(0, len(ours), ROWS):
                part = slice(first, first + ROWS)
                targets = np.asarray(ids[place + first : place + first + len(ours[part])])
                self._add(ours[part], theirs[part], targets)

    def _add(self, ours: Floats, theirs: Floats, targets: NDArray[np.int64]) -> None:
        """Add rows of logits [n, V], and the tokens [n] that follow."""
        q, p = log_softmax(ours), log_softmax(theirs)
        rows = np.arange(len(targets))
        flips = (ours.argmax(-1) != theirs.argmax(-1)).astype(np.float64)
        self._parts.append((-q[rows, targets], -p[rows, targets], divergence(p, q), flips))

    def quality(self) -> Quality:
        """Return the figures so far. Raises BadInput if there are none yet."""
        if not self._parts:
            raise BadInput("nothing was compared yet")
        losses, others, values, flips = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return Quality(
            ComputedModel.of(self.this, losses),
            ComputedModel.of(self.other, others),
            len(values),
            self.window,
            float(values.mean()),
            float(np.percentile(values, 99)),
            float(flips.mean()),
            self._complete,
        )


def log_softmax(logits: Floats) -> Doubles:
    """Return log-probabilities in float64: [n, V] -> [n, V].

    >>> log_softmax(np.zeros((1, 2), np.float32)).round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide


def divergence(p: Doubles, q: Doubles) -> Doubles:
    """Return KL(p || q) in nats of rows of log-probabilities: [n, V], [n, V] -> [n].

    >>> divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])).round(4).tolist()
    [0.1438]
    """
    values: Doubles = (np.exp(p) * (p - q)).sum(-1)
    return values
