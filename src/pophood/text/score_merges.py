"""ScoreEncoder: SentencePiece-style tokens, merged by score as llama.cpp merges them.

The text, with its spaces written as U+2581, starts as single characters. Among all neighbours that form a
token together, the pair with the highest score is merged first (the leftmost of equals), until no pair is
left. A character that is not a token is written as its bytes (`<0xE2>`). One difference from llama.cpp is
deliberate: a merge never produces a control, unknown or byte token, so no text can spell one.

Source: SentencePiece's BPE (Kudo and Richardson 2018) as in llama.cpp's tokenizer "llama".
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

from pophood.errors import BadInput
from pophood.text.vocabulary import SPACE_MARK, any_of

MOST_CACHED = 50_000  # runs of text whose ids are cached


@dataclass(eq=False, repr=False)
class ScoreEncoder:
    """Encodes text with one vocabulary whose tokens have scores.

    `ids` are the tokens that merges may produce; `scores` are indexed by id; `byte_ids`: byte -> id.
    `literals` are cut out of every text first, `specials` only on request. With `add_space` a space goes
    before the text, and after every token that was cut out.
    """

    ids: Mapping[str, int]
    scores: Sequence[float]
    _: KW_ONLY
    specials: Mapping[str, int]
    literals: Mapping[str, int]
    byte_ids: Mapping[int, int]
    add_space: bool
    _cache: dict[str, list[int]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text; a special token typed in it is read as plain letters."""
        return self.encode_parts([text])

    def encode_special(self, text: str) -> list[int]:
        """Return the ids of text in which special tokens are recognised."""
        return self.encode_parts(cut_out(text, self._special_pattern, self.specials))

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Return the ids of one text in which special tokens are given by id; the rest is ordinary text."""
        output: list[int] = []
        fresh = True  # at the start, or just after a token that was cut out
        for part in parts:
            cut = [part] if isinstance(part, int) else cut_out(part, self._literal_pattern, self.literals)
            for piece in cut:
                if isinstance(piece, int):
                    output.append(piece)
                    fresh = True
                else:
                    spaced = " " + piece if self.add_space and fresh else piece
                    self._encode_plain(spaced.replace(" ", SPACE_MARK), output)
                    fresh = False
        return output

    @cached_property
    def _literal_pattern(self) -> re.Pattern[str]:
        return any_of(self.literals)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return any_of({**self.specials, **self.literals})

    @cached_property
    def _neighbours(self) -> frozenset[str]:
        """Every two characters that are neighbours in some token; a text can be cut between any others."""
        return frozenset(token[i : i + 2] for token in self.ids for i in range(len(token) - 1))

    def _encode_plain(self, text: str, output: list[int]) -> None:
        neighbours, cache = self._neighbours, self._cache
        start = 0
        for end in range(1, len(text) + 1):
            if end < len(text) and text[end - 1 : end + 1] in neighbours:
                continue
            run = text[start:end]
            start = end
            ids = cache.get(run)
            if ids is None:
                ids = self._encode_run(run)
                if len(run) < 64 and len(cache) < MOST_CACHED:
                    cache[run] = ids
            output.extend(ids)

    def _encode_run(self, run: str) -> list[int]:
        known = self.ids
        if len(run) == 1:
            return [known[run]] if run in known else self._as_bytes(run)
        ids: list[int] = []
        for symbol in merge_by_score(list(run), known, self.scores):
            if symbol in known:
                ids.append(known[symbol])
            else:
                ids.extend(self._as_bytes(symbol))
        return ids

    def _as_bytes(self, character: str) -> list[int]:
        try:
            return [self.byte_ids[byte] for byte in character.encode()]
        except KeyError as error:
            raise BadInput(
                f"the vocabulary has neither the character U+{ord(character):04X} nor its bytes: take it out"
            ) from error


def merge_by_score(symbols: list[str], ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """Merge neighbours, the best score first and the leftmost among equals, until no pair forms a token.

    Time grows as n log n in the number of symbols, whatever the scores.

    >>> merge_by_score(list("abab"), {"ab": 0, "ba": 1}, [-1.0, -2.0])
    ['ab', 'ab']
    """
    following = [*range(1, len(symbols)), -1]
    preceding = list(range(-1, len(symbols) - 1))
    queue: list[tuple[float, int, str]] = []

    def consider(left: int) -> None:
        right = following[left]
        if right >= 0:
            union = symbols[left] + symbols[right]
            id_ = ids.get(union)
            if id_ is not None:
                heapq.heappush(queue, (-scores[id_], left, union))

    for left in range(len(symbols)):
        consider(left)
    while queue:
        _, left, union = heapq.heappop(queue)
        right = following[left]
        # Skip stale entries: a symbol that was merged away is "", and one that grew forms another union.
        if right < 0 or not symbols[left] or symbols[left] + symbols[right] != union:
            continue
        symbols[left], symbols[right] = union, ""
        following[left] = following[right]
        if following[left] >= 0:
            preceding[following[left]] = left
        if preceding[left] >= 0:
            consider(preceding[left])
        consider(left)
    return [symbol for symbol in symbols if symbol]


def cut_out(text: str, pattern: re.Pattern[str], ids: Mapping[str, int]) -> list[str | int]:
    """Split a text at its matches and replace them by their ids: `["Hi ", 2, " there"]`."""
    parts: list[str | int] = []
    start = 0
    for match in pattern.finditer(text):
        if match[0] in ids:
            if match.start() > start:
                parts.append(text[start : match.start()])
            parts.append(ids[match[0]])
            start = match.end()
    if start < len(text):
        parts.append(text[start:])
    return parts
