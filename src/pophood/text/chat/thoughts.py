"""The tags between which a model thinks: which special tokens they are, and where a prompt opens one.

Publishers write them in many ways (`<think>`, `[THINK]`, `<|START_THINKING|>`, `<seed:think>`), some as
special tokens, which text usually hides. A thought is part of an answer, so its tags are shown.
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
    """Whether a token's text opens or closes a thought.

    >>> [is_thought_tag(text) for text in ("<think>", "[/THINK]", "<|END_THINKING|>", "<|im_end|>", "think")]
    [True, True, True, False, False]
    """
    return _TAG.fullmatch(text) is not None


def closes_thought(tag: str) -> bool:
    """Whether a tag is the one that ends a thought: `closes_thought("</think>")`."""
    return _CLOSING.search(tag) is not None


def thought_tags(specials: Mapping[int, str]) -> dict[int, str]:
    """The special tokens that open or close a thought: `{151667: "<think>", 151668: "</think>"}`."""
    return {id_: text for id_, text in specials.items() if is_thought_tag(text)}


def thoughts_in(text: str) -> list[str]:
    """Every tag of a thought in a text, in order: `thoughts_in("<think>so</think>Yes")`."""
    return _TAG.findall(text)


def opened_thought(prompt: str) -> str:
    """The tag at the end of a prompt that opens a thought, which the answer then goes on with; else "".

    >>> opened_thought("<|im_start|>assistant\\n<think>\\n")
    '<think>'
    """
    end = prompt.rstrip()
    found = next(
        (match[0] for match in _TAG.finditer(end, max(len(end) - 80, 0)) if match.end() == len(end)), ""
    )
    return "" if closes_thought(found) else found
