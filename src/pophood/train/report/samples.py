"""Samples from fixed prompts, before, during and after a run, by the engine; torch is idle meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pophood.errors import EngineError
from pophood.text.chat.chat_template import encode_chat

if TYPE_CHECKING:
    from pophood.model.bundle import Bundle
    from pophood.model.lm import LM
    from pophood.text.chat.chat_template import ChatTemplate
    from pophood.train.data import Data, Example

WORDS = 12  # tokens of a plain text that make a prompt
LONGEST = 200  # tokens of a prompt that the data gives
TOKENS = 60  # of a sample before and after
GLIMPSE = 30  # of one on the way
SEED = 42


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where a sample starts: its ids, and the same for people."""

    ids: tuple[int, ...]
    text: str


def prompts_of(
    data: Data, bundle: Bundle, template: ChatTemplate | None, given: Sequence[str] = (), n: int = 2
) -> list[Prompt]:
    """The person's own prompts, else the beginnings of documents that the model does not train on.

    A question of a conversation is asked through the template; of a text the first words are taken.
    """
    if given:
        chats = data.report.completions_only
        return [_asked(text, bundle, template if chats else None) for text in given]
    found: dict[tuple[int, ...], Prompt] = {}
    for examples in (data.validation, data.train):
        for number in range(min(len(examples), 50)):
            prompt = _beginning(examples[number], bundle)
            if len(found) < n and prompt is not None:
                found.setdefault(prompt.ids, prompt)
    return list(found.values())


def _asked(text: str, bundle: Bundle, template: ChatTemplate | None) -> Prompt:
    if template is None:
        return Prompt(tuple(bundle.tokenizer.encode(text)), text)
    ids = encode_chat(bundle.tokenizer, template, [{"role": "user", "content": text}])
    return Prompt(tuple(ids), text)


def _beginning(example: Example, bundle: Bundle) -> Prompt | None:
    learned = np.flatnonzero(example.trained)
    ids = example.ids.tolist()
    if not len(learned):
        return None
    first = int(learned[0])
    if first <= 1:  # a text, learned from its beginning
        ids = ids[: min(WORDS, len(ids) - 1)]
    elif first <= LONGEST:
        ids = ids[:first]
    else:
        return None
    return Prompt(tuple(ids), bundle.tokenizer.decode(ids).strip()) if ids else None


def sample(lm: LM, prompts: Sequence[Prompt], max_tokens: int = TOKENS) -> list[str]:
    """One continuation of every prompt, by the same seed, so that only the model makes a difference.

    Of a prompt that leaves no room in the model's context, the end is gone on with.
    """
    texts, context = [], lm.engine.context
    for prompt in prompts:
        ids = list(prompt.ids if len(prompt.ids) < context else prompt.ids[-max(1, context // 2) :])
        room = max(1, min(max_tokens, context - len(ids)))
        try:
            made = lm.generate(ids, max_tokens=room, seed=SEED, temperature=0.7, top_k=40)
            texts.append(made.completion)
        except EngineError as error:
            texts.append(f"({error})")
    return texts
