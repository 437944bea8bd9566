"""ScoreEncoder: SentencePiece-style tokens, merged by score as llama.cpp merges them.

The text, its spaces written as U+2581, starts as single characters. Of all neighbours whose union is a
token, the union with the highest score is made first, the leftmost among equals, until none is left. A
character that is no token is written as its bytes (`<0xE2>`). One difference is on purpose: control,
unknown and byte tokens are never the result of a merge, so no text can spell them.

Source: SentencePiece's BPE (Kudo and Richardson 2018) as in llama.cpp's tokenizer "llama".
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pophood.errors import BadInput
from pophood.text.vocabulary import SPACE_MARK

if TYPE_CHECKING:
    from pophood.text.score_runs import LongRuns

LONG_RUN = 100_000  # characters; from here on the arrays of `score_runs.LongRuns` beat the heap
MOST_REMEMBERED = 50_000  # runs whose ids are kept


class ScoreEncoder:
    """Text to ids for one vocabulary with scores."""

    def __init__(
        self,
        ids: Mapping[str, int],
        scores: Sequence[float],
        *,
        specials: Mapping[str, int],
        literals: Mapping[str, int],
        byte_ids: Mapping[int, int],
        add_space: bool,
    ) -> None:
        """`ids`: the tokens that merges may make, by text; `scores`: by id; `byte_ids`: byte -> id.

        `literals` are cut out of every text first, `specials` where that is asked for. `add_space` puts a
        space before the text, and again after every special token.
        """
        self._ids = ids
        self._scores = scores
        self._specials = specials
        self._literals = literals
        self._byte_ids = byte_ids
        self._add_space = add_space
        self._remembered: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text: special tokens that are typed in it are letters like any others."""
        return self.encode_parts([text])

    def encode_special(self, text: str) -> list[int]:
        """Ids of text in which special tokens count as such."""
        return self.encode_parts(cut_out(text, self._special_pattern, self._specials))

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of one text in which some special tokens are given by id and the rest is ordinary text."""
        output: list[int] = []
        fresh = True  # at the start, or just after a token that was cut out
        for part in parts:
            if isinstance(part, int):
                output.append(part)
                fresh = True
                continue
            for piece in cut_out(part, self._literal_pattern, self._literals):
                if isinstance(piece, int):
                    output.append(piece)
                    fresh = True
                else:
                    spaced = " " + piece if self._add_space and fresh else piece
                    self._encode_plain(spaced.replace(" ", SPACE_MARK), output)
                    fresh = False
        return output

    @cached_property
    def _literal_pattern(self) -> re.Pattern[str]:
        return any_of(self._literals)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return any_of({**self._specials, **self._literals})

    @cached_property
    def _neighbours(self) -> frozenset[str]:
        """Every two characters that stand side by side in some token; between others a text can be cut."""
        return frozenset(
            token[i : i + 2] for token in self._ids if len(token) > 1 for i in range(len(token) - 1)
        )

    def _encode_plain(self, text: str, output: list[int]) -> None:
        neighbours, remembered = self._neighbours, self._remembered
        start = 0
        for end in range(1, len(text) + 1):
            if end < len(text) and text[end - 1 : end + 1] in neighbours:
                continue
            run = text[start:end]
            start = end
            ids = remembered.get(run)
            if ids is None:
                ids = self._encode_run(run)
                if len(run) < 64 and len(remembered) < MOST_REMEMBERED:
                    remembered[run] = ids
            output.extend(ids)

    def _encode_run(self, run: str) -> list[int]:
        known = self._ids
        if len(run) == 1:
            return [known[run]] if run in known else self._as_bytes(run)
        if len(run) >= LONG_RUN:
            symbols = self._long_runs.merge(run)
        else:
            symbols = merge_by_score(list(run), known, self._scores)
        ids: list[int] = []
        for symbol in symbols:
            if symbol in known:
                ids.append(known[symbol])
            else:
                ids.extend(self._as_bytes(symbol))
        return ids

    @cached_property
    def _long_runs(self) -> LongRuns:
        from pophood.text.score_runs import LongRuns

        return LongRuns(self._ids, self._scores)

    def _as_bytes(self, character: str) -> list[int]:
        try:
            return [self._byte_ids[byte] for byte in character.encode()]
        except KeyError as error:
            raise BadInput(
                f"the vocabulary has neither the character U+{ord(character):04X} nor its bytes: take it out"
            ) from error


def merge_by_score(symbols: list[str], ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """Neighbours joined, best score first and leftmost among equals, until no union is a token.

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
        # A symbol that was merged away is ""; one that grew makes another union.
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


def any_of(texts: Mapping[str, int]) -> re.Pattern[str]:
    """A pattern that finds any of these texts, the longest first."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def cut_out(text: str, pattern: re.Pattern[str], ids: Mapping[str, int]) -> list[str | int]:
    """The text with matches replaced by their ids: `["Hi ", 2, " there"]`; one without an id stays text."""
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
