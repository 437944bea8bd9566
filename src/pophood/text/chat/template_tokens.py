"""Finds the special tokens in a rendered conversation: only those that the template wrote.

A special token that a message spells out stays ordinary text, whether the message has all of it or completes
what the template began. A message contributes in two cases only: a role inside a token whose ends the
template wrote ("<|" ~ role ~ "|>"), and the tags around a thought in the assistant's own text, which the
model knows as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pophood.text.chat.sourced import Sources, runs_of
from pophood.text.chat.thoughts import thought_tags
from pophood.text.vocabulary import any_of

SEVERAL = -1  # owner of characters that come from several messages, or from tools and other variables

Piece = tuple[str | int, int | None]  # text or the id of a special token, and the message that it comes from

_TEMPLATE, _ROLE, _ANSWER, _OTHER = "t", "r", "a", "o"
_OF_TEMPLATE, _OF_ANSWER = re.compile("[tr]+"), re.compile("a+")


def special_places(text: str, specials: Mapping[int, str]) -> list[tuple[int, int, int]]:
    """Return (start, end, id) of every special token in a rendered text, in order."""
    kinds = "".join(_kind(sources) * length for length, sources in runs_of(text))
    plain = str.__str__(text)
    places: list[tuple[int, int, int]] = []
    for wanted, stretches in ((specials, _OF_TEMPLATE), (thought_tags(specials), _OF_ANSWER)):
        if wanted:
            for stretch in stretches.finditer(kinds):
                places += _in_stretch(plain, kinds, stretch.span(), wanted)
    return sorted(places)


def spells_specials(text: str, places: Iterable[tuple[int, int, int]], specials: Mapping[int, str]) -> bool:
    """Return whether ordinary text, outside `places`, looks like a special token."""
    spelled = any_of(specials.values()).finditer(str.__str__(text))
    return [match.span() for match in spelled] != [(start, end) for start, end, _ in places]


def pieces_of(text: str, specials: Mapping[int, str]) -> list[Piece]:
    """Split a rendered text at its special tokens and wherever the message that it comes from changes.

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
            elif stop < end:  # a token continues in the next run
                at = stop
            else:
                pieces.append((id_, owner if _kind(sources) == _ANSWER else None))
                at = end
                start, end, id_ = next(waiting)
    return pieces


def join_pieces(pieces: Iterable[Piece]) -> list[str | int]:
    """Join neighbouring texts, which gives the parts for `Tokenizer.encode_parts`."""
    parts: list[str | int] = []
    for part, _ in pieces:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


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
    """Return the message that characters come from; roles count as the template's words."""
    if not sources or all(source.kind == "role" for source in sources):
        return None
    messages = {source.message for source in sources}
    only = messages.pop()
    return SEVERAL if messages or only is None else only
