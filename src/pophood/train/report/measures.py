"""What the engine measures of a model before and after a run: general text, samples, what is by heart."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pophood.model.engine import Engine
from pophood.model.score import greedy
from pophood.train.loop.evaluation import log_probability
from pophood.train.report.eval_texts import PASSAGES
from pophood.train.report.samples import TOKENS, Prompt, sample

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.train.data import Data, Examples

GIVEN, FOLLOWED, TRIED = 16, 32, 8  # tokens of a training text given, room after them; how many texts
BY_HEART = 16  # tokens in a row that are the training text's own
LEAST_TOKENS = 8  # of a sample, however little time there is
SAMPLES, GENERAL, VERBATIM = "samples", "general text", "texts by heart"  # the parts, in their order
SHARE = 0.4  # of the seconds that measuring may take, for samples and for general text
Losses = Sequence[Sequence[float]]  # of each passage, the sum in nats and the number of tokens


@dataclass(frozen=True, slots=True)
class Measures:
    """One model on general text (nats per token), on texts that it learns from, and its samples."""

    general: float
    verbatim: float | None  # share of the tried training texts that it goes on with word by word
    samples: tuple[str, ...]
    seconds: float
    passages: Losses = ()  # of general text, those that were read
    tokens: int = TOKENS  # of a sample at most
    texts: int = TRIED  # from the training data that were tried at most

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"samples": list(self.samples)}

    def on(self, count: int) -> Measures:
        """These measures with the loss on the first `count` passages alone."""
        if count >= len(self.passages):
            return self
        passages = self.passages[:count]
        return replace(self, passages=passages, general=mean_loss(passages))


def measure(
    lm: LM, data: Data, prompts: Sequence[Prompt], seconds: float | None = None, like: Measures | None = None
) -> Generator[str, None, Measures]:
    """Measure the model that the engine holds now; yields the name of each part as it begins.

    In about `seconds` less is measured where the machine is slow: shorter samples, then fewer passages.
    `like` is an earlier measurement, of which this one measures no more.
    """
    begin, budget = time.perf_counter(), math.inf if seconds is None else seconds
    most, read, texts = (TOKENS, len(PASSAGES), TRIED) if like is None else _amounts(like)
    yield SAMPLES
    samples, tokens = timed_samples(lm, prompts, budget * SHARE, most)
    yield GENERAL
    passages = passage_losses(lm, budget * SHARE, read)
    yield VERBATIM
    known = None
    if like is None and time.perf_counter() - begin > budget:
        texts //= 2
    if like is None or time.perf_counter() - begin < budget:
        known = verbatim(lm.engine, data.train, texts)
    took = time.perf_counter() - begin
    return Measures(mean_loss(passages), known, tuple(samples), took, passages, tokens, texts)


def _amounts(like: Measures) -> tuple[int, int, int]:
    return like.tokens, len(like.passages) or len(PASSAGES), like.texts


def mean_loss(passages: Losses) -> float:
    """Nats per token over passages."""
    return sum(total for total, _ in passages) / max(sum(tokens for _, tokens in passages), 1)


def passage_losses(lm: LM, seconds: float = math.inf, most: int = len(PASSAGES)) -> list[tuple[float, int]]:
    """The losses on the bundled passages that can be read in some seconds, at least one of them."""
    begin, found = time.perf_counter(), list[tuple[float, int]]()
    for passage in PASSAGES[:most]:
        if found and time.perf_counter() - begin >= seconds:
            break
        ids = np.array(lm.tokenize(passage)[: lm.engine.context], np.int64)
        counts = np.ones(len(ids), np.bool_)
        counts[0] = False
        found.append((-log_probability(lm.engine, ids, counts), len(ids) - 1))
    return found


def timed_samples(
    lm: LM, prompts: Sequence[Prompt], seconds: float = math.inf, most: int = TOKENS
) -> tuple[list[str], int]:
    """Samples that take about some seconds together, and their tokens: as many as the first has time for."""
    if math.isinf(seconds) or not prompts:
        return sample(lm, prompts, most), most
    least, begin = min(LEAST_TOKENS, most), time.perf_counter()
    short = sample(lm, prompts[:1], least)
    each = (time.perf_counter() - begin) / least  # a little too long: the prompt is in it
    left = seconds - (time.perf_counter() - begin)
    tokens = int(min(most, left / (each * len(prompts)))) if each else most
    if tokens <= least:
        return short + sample(lm, prompts[1:], least), least
    return sample(lm, prompts, tokens), tokens


def verbatim(engine: Engine, examples: Examples, most: int = TRIED) -> float | None:
    """The share of some training texts whose beginning the model goes on with as they do, token by token.

    16 tokens are given, and the greedy continuation is compared until it differs: 16 alike count (as
    "extractable", Carlini et al. 2021). None when no training text is long enough.
    """
    pieces = examples.pieces()
    long = np.flatnonzero(pieces.count > GIVEN + BY_HEART)
    if not len(long):
        return None
    chosen = long[np.linspace(0, len(long) - 1, min(most, len(long))).astype(np.int64)]
    texts = []
    for number in chosen:
        first, count = int(pieces.first[number]), int(pieces.count[number])
        ids = np.asarray(examples.store.ids[first : first + count], np.int64)
        trained = np.flatnonzero(examples.store.trained(first, first + count))
        start = max(GIVEN, int(trained[0]) if len(trained) else 0)
        if start + BY_HEART <= count and start + FOLLOWED < engine.context:
            texts.append((ids[:start].tolist(), ids[start : start + FOLLOWED].tolist()))
    if not texts:
        return None
    alike = _go_on_alike(engine, [given for given, _ in texts], [theirs for _, theirs in texts])
    return sum(alike) / len(alike)


def _go_on_alike(engine: Engine, prompts: Sequence[list[int]], texts: Sequence[list[int]]) -> list[bool]:
    """Whether the likeliest continuation of each prompt has the first tokens of its text; computed side by
    side, each until it differs."""
    alike = [True] * len(prompts)
    for place, tokens in enumerate(greedy(engine, prompts, BY_HEART)):
        for number, token in list(tokens.items()):
            if token != texts[number][place]:
                alike[number] = False
                del tokens[number]
    return alike
