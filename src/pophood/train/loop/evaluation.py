"""The loss of a model on data, by the engine: what training is to lower, measured without torch.

Masks are respected: only what the model would learn to predict counts, every document is read on its own, and
long texts are cut into the same pieces as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.model.engine import CancelFlag, Engine
from pophood.model.score import log_softmax_at, logit_rows

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.train.data import DataOptions, Examples


@dataclass(frozen=True, slots=True)
class Loss:
    """`loss` in nats per learned token, NaN without any; how many tokens and documents it is the mean of."""

    loss: float
    tokens: int
    documents: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


Stretch = tuple[int, NDArray[np.int64], NDArray[np.bool_]]  # document, ids, which of them count


def stretches(examples: Examples, most_tokens: int | None = None) -> Iterator[Stretch]:
    """What one epoch learns from, stretch by stretch; with `most_tokens`, whole documents spread evenly."""
    pieces = examples.pieces()
    chosen: NDArray[np.int64] = np.arange(len(pieces))
    total = int(pieces.count.sum())
    if most_tokens is not None and total > most_tokens:
        chosen = chosen[:: max(1, math.ceil(total / most_tokens))]
    for number in chosen:
        first, count = int(pieces.first[number]), int(pieces.count[number])
        ids = np.asarray(examples.store.ids[first : first + count + 1], np.int64)
        counts = examples.store.trained(first, first + count + 1).copy()
        counts[0] = False
        yield int(pieces.document[number]), ids, counts


def evaluate(
    lm: LM,
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    options: DataOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Loss:
    """How well a model predicts files: mean loss of what training would learn there. Needs no torch.

    Raises NotFound, BadFile, BadInput for the files.

        pophood.evaluate(lm, "notes.txt").perplexity
    """
    from pophood.train.data import DataOptions, open_data

    options = options or DataOptions(length=min(1024, lm.engine.context))
    data = open_data(paths, lm.bundle.tokenizer, lm.chat_template, replace(options, validation=0))
    return loss_of(lm.engine, data.train, progress=progress)


def loss_of(
    engine: Engine,
    examples: Examples,
    *,
    most_tokens: int | None = None,
    cancel: CancelFlag | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Loss:
    """Mean loss of the engine's model on the learned tokens of some documents.

    `examples.length` must fit the engine's context; `progress(done, total)` counts tokens.
    Raises BadInput where it does not, Cancelled, EngineError.

        loss_of(lm.engine, data.validation).perplexity
    """
    if examples.length > engine.context:
        raise BadInput(
            f"rows of {examples.length:,} positions do not fit {engine.context:,} of context: lower --length"
        )
    whole = int(examples.pieces().count.sum())
    whole = whole if most_tokens is None else min(whole, most_tokens)
    loss, tokens, read, documents = 0.0, 0, 0, set()
    for document, ids, counts in stretches(examples, most_tokens):
        loss -= log_probability(engine, ids, counts, cancel)
        tokens += int(counts.sum())
        read += len(ids) - 1
        documents.add(document)
        if progress is not None:
            progress(min(read, whole), whole)
    return Loss(loss / tokens if tokens else math.nan, tokens, len(documents))


def log_probability(
    engine: Engine, ids: NDArray[np.int64], counts: NDArray[np.bool_], cancel: CancelFlag | None = None
) -> float:
    """The sum of the log-probabilities of the ids that count; logits are made for no earlier token."""
    places = np.flatnonzero(counts)
    places = places[places > 0]
    if not len(places):
        return 0.0
    total, read = 0.0, ids[: int(places[-1]) + 1].tolist()
    for place, logits in logit_rows(engine, read, first=int(places[0]), cancel=cancel):
        rows = np.flatnonzero(counts[place : place + len(logits)])
        total += float(log_softmax_at(logits[rows], ids[place + rows]).sum(dtype=np.float64))
    return total
