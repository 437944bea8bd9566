"""Measures of a model before and after a run, by the engine: samples, loss on general text, memorization.

Samples are made during the run too, from the same prompts; torch is idle meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pophood.errors import EngineError
from pophood.model.bundle import Bundle
from pophood.model.engine import Engine
from pophood.model.lm import LM
from pophood.model.score import greedy
from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.train.data import Data, Example, Examples
from pophood.train.loop.evaluation import log_probability
from pophood.train.report.eval_texts import PASSAGES

T = TypeVar("T")

WORDS = 12  # tokens at the start of a plain text that become a prompt
LONGEST = 200  # tokens of a prompt from the data
TOKENS = 60  # of a sample before or after the run
GLIMPSE = 30  # of a sample during the run
SEED = 42
GIVEN, FOLLOWED, TRIED = 16, 32, 8  # tokens of a training text as prompt, tokens after it, number of texts
BY_HEART = 16  # equal tokens that count as knowing a training text by heart
FEWEST_TOKENS = 8  # of a sample, however little time there is
SAMPLES, GENERAL, VERBATIM = "samples", "general text", "texts by heart"  # the parts in order
SHARE = 0.4  # of the seconds for measuring: for samples, and again for general text
Losses = Sequence[Sequence[float]]  # per passage: the sum in nats and the number of tokens


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """The start of a sample, as ids and as text."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of a model at one moment."""

    general: float  # loss on general text, nats per token
    verbatim: float | None  # share of some training texts that the model continues word by word
    samples: tuple[str, ...]
    seconds: float  # taken by measuring
    passages: Losses = ()  # the passages of general text that were read
    tokens: int = TOKENS  # at most, of a sample
    texts: int = TRIED  # at most, from the training data

    def on(self, count: int) -> Measures:
        """Return these measures with the loss on the first `count` passages only."""
        if count >= len(self.passages):
            return self
        passages = self.passages[:count]
        return replace(self, passages=passages, general=mean_loss(passages))


def measure(
    lm: LM,
    data: Data,
    prompts: Sequence[SamplePrompt],
    seconds: float | None,
    start: Callable[[str], T],
    like: Measures | None = None,
) -> Generator[T, None, Measures]:
    """Measure the model in the engine, and yield `start(part)` before each part but the first, the samples.

    Takes about `seconds`; on a slow machine samples are shorter, then fewer passages are read. `like` is an
    earlier measurement, of which this one measures no more.
    """
    begin, budget = time.perf_counter(), math.inf if seconds is None else seconds
    most, read, texts = TOKENS, len(PASSAGES), TRIED
    if like is not None:
        most, read, texts = like.tokens, len(like.passages) or read, like.texts
    samples, tokens = timed_samples(lm, prompts, budget * SHARE, most)
    yield start(GENERAL)
    passages = passage_losses(lm, budget * SHARE, read)
    yield start(VERBATIM)
    known = None
    if like is None and time.perf_counter() - begin > budget:
        texts //= 2
    if like is None or time.perf_counter() - begin < budget:
        known = verbatim(lm.engine, data.train, texts)
    elapsed = time.perf_counter() - begin
    return Measures(mean_loss(passages), known, tuple(samples), elapsed, passages, tokens, texts)


def mean_loss(passages: Losses) -> float:
    """Return the nats per token over passages."""
    return sum(total for total, _ in passages) / max(sum(tokens for _, tokens in passages), 1)


def passage_losses(lm: LM, seconds: float = math.inf, most: int = len(PASSAGES)) -> list[tuple[float, int]]:
    """Return the losses on the bundled passages that can be read in a time, and at least one."""
    begin, losses = time.perf_counter(), list[tuple[float, int]]()
    for passage in PASSAGES[:most]:
        if losses and time.perf_counter() - begin >= seconds:
            break
        ids = np.array(lm.tokenize(passage)[: lm.engine.context], np.int64)
        counts = np.ones(len(ids), np.bool_)
        counts[0] = False
        losses.append((-log_probability(lm.engine, ids, counts), len(ids) - 1))
    return losses


def timed_samples(
    lm: LM, prompts: Sequence[SamplePrompt], seconds: float = math.inf, most: int = TOKENS
) -> tuple[list[str], int]:
    """Return samples that take about `seconds` together, and their length, which the first one determines."""
    if math.isinf(seconds) or not prompts:
        return sample(lm, prompts, most), most
    least, begin = min(FEWEST_TOKENS, most), time.perf_counter()
    short = sample(lm, prompts[:1], least)
    each = (time.perf_counter() - begin) / least  # a little too much, since it includes the prompt
    left = seconds - (time.perf_counter() - begin)
    tokens = int(min(most, left / (each * len(prompts)))) if each else most
    if tokens <= least:
        return short + sample(lm, prompts[1:], least), least
    return sample(lm, prompts, tokens), tokens


def verbatim(engine: Engine, examples: Examples, most: int = TRIED) -> float | None:
    """Return the share of some training texts that the model continues word by word.

    None if all are too short.

    The prompt is 16 tokens, and the text counts if the next 16 tokens of the greedy continuation are equal
    ("extractable" in Carlini et al. 2021).
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
    equal = _continue_equally(engine, [prompt for prompt, _ in texts], [text for _, text in texts])
    return sum(equal) / len(equal)


def _continue_equally(engine: Engine, prompts: Sequence[list[int]], texts: Sequence[list[int]]) -> list[bool]:
    """Return whether the greedy continuation of each prompt starts with the first tokens of its text."""
    equal = [True] * len(prompts)
    for place, tokens in enumerate(greedy(engine, prompts, BY_HEART)):
        for number, token in list(tokens.items()):
            if token != texts[number][place]:
                equal[number] = False
                del tokens[number]
    return equal


def prompts_of(
    data: Data, bundle: Bundle, template: ChatTemplate | None, texts: Sequence[str] = (), n: int = 2
) -> list[SamplePrompt]:
    """Return the user's own prompts, or else `n` beginnings of documents, held-out ones first.

    A prompt from a conversation is its question in the chat template, and one from a text its first words.
    """
    if texts:
        chats = data.report.completions_only
        return [_encoded(text, bundle, template if chats else None) for text in texts]
    prompts: dict[tuple[int, ...], SamplePrompt] = {}
    for examples in (data.validation, data.train):
        for number in range(min(len(examples), 50)):
            prompt = _beginning(examples[number], bundle)
            if len(prompts) < n and prompt is not None:
                prompts.setdefault(prompt.ids, prompt)
    return list(prompts.values())


def _encoded(text: str, bundle: Bundle, template: ChatTemplate | None) -> SamplePrompt:
    if template is None:
        return SamplePrompt(tuple(bundle.tokenizer.encode(text)), text)
    ids = encode_chat(bundle.tokenizer, template, [{"role": "user", "content": text}])
    return SamplePrompt(tuple(ids), text)


def _beginning(example: Example, bundle: Bundle) -> SamplePrompt | None:
    learned = np.flatnonzero(example.trained)
    ids = example.ids.tolist()
    if not len(learned):
        return None
    first = int(learned[0])
    if first <= 1:  # a plain text, which is learned from its start
        ids = ids[: min(WORDS, len(ids) - 1)]
    elif first <= LONGEST:
        ids = ids[:first]
    else:
        return None
    return SamplePrompt(tuple(ids), bundle.tokenizer.decode(ids).strip()) if ids else None


def sample(lm: LM, prompts: Sequence[SamplePrompt], max_tokens: int = TOKENS) -> list[str]:
    """Return a continuation of every prompt, always with the same seed, so that only the model differs.

    A prompt that leaves no room in the model's context is cut to its end.
    """
    texts, context = [], lm.engine.context
    for prompt in prompts:
        ids = fitting(prompt.ids, context)
        room = max(1, min(max_tokens, context - len(ids)))
        try:
            generation = lm.generate(ids, max_tokens=room, seed=SEED, temperature=0.7, top_k=40)
            texts.append(generation.completion)
        except EngineError as error:
            texts.append(f"({error})")
    return texts


def fitting(ids: Sequence[int], context: int) -> list[int]:
    """Return a prompt that leaves room for an answer: one that does not is cut to its end.

    >>> fitting((1, 2, 3), 8), fitting((1, 2, 3, 4), 4)
    ([1, 2, 3], [3, 4])
    """
    return list(ids if len(ids) < context else ids[-max(1, context // 2) :])
