"""Special tokens in a rendered conversation: those that the template wrote, and no others.

A special token that a message spells out stays ordinary text, whole or where message and template make one
together. Two things of a message may count: a role inside a token whose ends are the template's
("<|" ~ role ~ "|>"), and the tags of a thought in the assistant's own text, which are tokens to the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pophood.text.chat.sourced import Sources, runs_of
from pophood.text.chat.thoughts import thought_tags

SEVERAL = -1  # the owner of characters that come from more than one message, or from no message

Piece = tuple[str | int, int | None]  # text or a special token's id, and the message it comes from

_TEMPLATE, _ROLE, _ANSWER, _OTHER = "t", "r", "a", "o"
_OF_TEMPLATE, _OF_ANSWER = re.compile("[tr]+"), re.compile("a+")


def special_places(text: str, specials: Mapping[int, str]) -> list[tuple[int, int, int]]:
    """Start, end and id of every special token in a rendered text, in order."""
    kinds = "".join(_kind(sources) * length for length, sources in runs_of(text))
    plain = str.__str__(text)
    found: list[tuple[int, int, int]] = []
    for wanted, stretches in ((specials, _OF_TEMPLATE), (thought_tags(specials), _OF_ANSWER)):
        if wanted:
            for stretch in stretches.finditer(kinds):
                found += _in_stretch(plain, kinds, stretch.span(), wanted)
    return sorted(found)


def spells_specials(text: str, places: Iterable[tuple[int, int, int]], specials: Mapping[int, str]) -> bool:
    """Whether the text has special tokens that are not at `places`: ordinary text that looks like them."""
    spelled = any_of(specials.values()).finditer(str.__str__(text))
    return [match.span() for match in spelled] != [(start, end) for start, end, _ in places]


def pieces_of(text: str, specials: Mapping[int, str]) -> list[Piece]:
    """A rendered text cut at its special tokens and where it comes from another message.

    >>> pieces_of("a<s>b", {1: "<s>"})
    [('a', None), (1, None), ('b', None)]
    """
    plain, places = str.__str__(text), special_places(text, specials)
    pieces: list[Piece] = []
    at = 0
    waiting = iter([*places, (len(plain), len(plain), -1)])
    start, end, id_ = next(waiting)
    for length, sources in runs_of(text):
        owner, stop = _owner(sources), at + length
        while at < stop:
            if at < start:
                cut = min(start, stop)
                pieces.append((plain[at:cut], owner))
                at = cut
            elif stop < end:  # a token goes on in the next run
                at = stop
            else:
                pieces.append((id_, owner if _kind(sources) == _ANSWER else None))
                at = end
                start, end, id_ = next(waiting)
    return pieces


def join_pieces(pieces: Iterable[Piece]) -> list[str | int]:
    """The pieces for `Tokenizer.encode_parts`: neighbouring texts put together."""
    parts: list[str | int] = []
    for part, _ in pieces:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern of any of these texts, the longest first; of none, one that never matches."""
    longest_first = sorted((text for text in texts if text), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _in_stretch(
    plain: str, kinds: str, stretch: tuple[int, int], wanted: Mapping[int, str]
) -> Iterator[tuple[int, int, int]]:
    pattern, ids = any_of(wanted.values()), {text: id_ for id_, text in wanted.items()}
    at, stop = stretch
    while (match := pattern.search(plain, at, stop)) is not None:
        start, end = match.span()
        shorter = [text for text in ids if text and plain.startswith(text, start, end)]
        for text in sorted(shorter, key=len, reverse=True):
            end = start + len(text)
            if _ROLE not in (kinds[start], kinds[end - 1]):
                yield start, end, ids[text]
                at = end
                break
        else:
            at = start + 1


def _kind(sources: Sources) -> str:
    if not sources:
        return _TEMPLATE
    kinds = {source.kind for source in sources}
    if kinds == {"role"}:
        return _ROLE
    return _ANSWER if kinds == {"answer"} and len(sources) == 1 else _OTHER


def _owner(sources: Sources) -> int | None:
    """The message that characters come from; roles are the template's words."""
    if not sources or all(source.kind == "role" for source in sources):
        return None
    messages = {source.message for source in sources}
    only = messages.pop()
    return SEVERAL if messages or only is None else only
