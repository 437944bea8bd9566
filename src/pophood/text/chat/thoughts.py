"""The tags around a model's reasoning ("thoughts"): which tokens they are, and whether a prompt opens one.

Publishers write them in many ways (`<think>`, `[THINK]`, `<|START_THINKING|>`, `<seed:think>`), some as
special tokens, which are usually hidden in text. A thought is part of the answer, so its tags are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_INSIDE = r"[^\s<>\[\]\u25c1\u25b7]"  # between the brackets: <think>, [THINK], and Kimi's triangles
_TAG = re.compile(
    rf"[<\[\u25c1](?:{_INSIDE}*(?![a-z]){_INSIDE})?(?:think|thinking|thought|reasoning)"
    rf"(?:(?![a-z]){_INSIDE}+)?[>\]\u25b7]",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"/|(?<![a-z])end(?![a-z])", re.IGNORECASE)


def is_thought_tag(text: str) -> bool:
    """Return whether a token's text opens or closes a thought.

    >>> [is_thought_tag(text) for text in ("<think>", "[/THINK]", "<|END_THINKING|>", "<|im_end|>", "think")]
    [True, True, True, False, False]
    """
    return _TAG.fullmatch(text) is not None


def closes_thought(tag: str) -> bool:
    """Return whether a tag ends a thought.

    >>> closes_thought("</think>"), closes_thought("<think>")
    (True, False)
    """
    return _CLOSING.search(tag) is not None


def thought_tags(specials: Mapping[int, str]) -> dict[int, str]:
    """Return the special tokens that open or close a thought: `{151667: "<think>", 151668: "</think>"}`."""
    return {id_: text for id_, text in specials.items() if is_thought_tag(text)}


def thoughts_in(text: str) -> list[str]:
    """Return the thought tags of a text, in order.

    >>> thoughts_in("<think>so</think>Yes")
    ['<think>', '</think>']
    """
    return _TAG.findall(text)


def opened_thought(prompt: str) -> str:
    """Return the tag at the end of a prompt that opens a thought (the answer then continues it), else "".

    >>> opened_thought("<|im_start|>assistant\\n<think>\\n")
    '<think>'
    """
    end = prompt.rstrip()
    tags = (match[0] for match in _TAG.finditer(end, max(len(end) - 80, 0)) if match.end() == len(end))
    tag = next(tags, "")
    return "" if closes_thought(tag) else tag
