"""Samples from fixed prompts before, during and after a run, made by the engine while torch is idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pophood.errors import EngineError
from pophood.model.bundle import Bundle
from pophood.model.lm import LM
from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.train.data import Data, Example

WORDS = 12  # tokens at the start of a plain text that become a prompt
LONGEST = 200  # tokens of a prompt from the data
TOKENS = 60  # of a sample before or after the run
GLIMPSE = 30  # of a sample during the run
SEED = 42


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """The start of a sample, as ids and as text."""

    ids: tuple[int, ...]
    text: str


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
        ids = list(prompt.ids if len(prompt.ids) < context else prompt.ids[-max(1, context // 2) :])
        room = max(1, min(max_tokens, context - len(ids)))
        try:
            generation = lm.generate(ids, max_tokens=room, seed=SEED, temperature=0.7, top_k=40)
            texts.append(generation.completion)
        except EngineError as error:
            texts.append(f"({error})")
    return texts
