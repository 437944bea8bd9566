"""The loss of a model on data, measured by the engine, without torch.

It is the loss that training lowers: only tokens count that the model would learn to predict, documents do not
see each other, and long texts are cut into the same pieces as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.model.engine import CancelFlag, Engine
from pophood.model.lm import LM
from pophood.model.score import log_softmax_at, logit_rows
from pophood.train.data import DataOptions, Examples, open_data


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss in nats per learned token, NaN without any, over a number of tokens and documents."""

    loss: float
    tokens: int
    documents: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


Stretch = tuple[int, NDArray[np.int64], NDArray[np.bool_]]  # document, ids, whether each counts


def stretches(examples: Examples, most_tokens: int | None = None) -> Iterator[Stretch]:
    """Yield the pieces of an epoch with the tokens that count; `most_tokens` selects pieces spread evenly."""
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
    """Measure how well a model predicts files, at f32: the mean loss that training on them would lower.

    Raises NotFound, BadFile, BadInput for the files.

        pophood.evaluate(lm, "notes.txt").perplexity
    """
    options = options or DataOptions(length=min(1024, lm.engine.context))
    data = open_data(paths, lm.bundle.tokenizer, lm.chat_template, replace(options, validation=0))
    return loss_of(lm.at("f32").engine, data.train, progress=progress)


def loss_of(
    engine: Engine,
    examples: Examples,
    *,
    most_tokens: int | None = None,
    cancel: CancelFlag | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Loss:
    """Return the mean loss of the engine's model on the learned tokens of some documents.

    `progress(done, total)` counts tokens. Raises BadInput if `examples.length` exceeds the engine's context,
    Cancelled, EngineError.

        loss_of(lm.engine, data.validation).perplexity
    """
    if examples.length > engine.context:
        raise BadInput(
            f"rows of {examples.length:,} positions do not fit into a context of {engine.context:,}: lower"
            " --length"
        )
    total = int(examples.pieces().count.sum())
    total = total if most_tokens is None else min(total, most_tokens)
    loss, tokens, read, documents = 0.0, 0, 0, set()
    for document, ids, counts in stretches(examples, most_tokens):
        loss -= log_probability(engine, ids, counts, cancel)
        tokens += int(counts.sum())
        read += len(ids) - 1
        documents.add(document)
        if progress is not None:
            progress(min(read, total), total)
    return Loss(loss / tokens if tokens else math.nan, tokens, len(documents))


def log_probability(
    engine: Engine, ids: NDArray[np.int64], counts: NDArray[np.bool_], cancel: CancelFlag | None = None
) -> float:
    """Return the summed log-probability of the ids that count; logits start at the first of them."""
    places = np.flatnonzero(counts)
    places = places[places > 0]
    if not len(places):
        return 0.0
    total, read = 0.0, ids[: int(places[-1]) + 1].tolist()
    for place, logits in logit_rows(engine, read, first=int(places[0]), cancel=cancel):
        rows = np.flatnonzero(counts[place : place + len(logits)])
        total += float(log_softmax_at(logits[rows], ids[place + rows]).sum(dtype=np.float64))
    return total
