"""Log-probabilities in OpenAI's two shapes, and the tokens of a choice brought in line with its text.

A token's text may come later than the token: a character is not complete, or a stop text may have begun. Its
entry comes with its text then, and entries of what is never shown (a stop text) are left out, so that the
joined bytes of the entries are the text. A token that ends the text stays, with no bytes.
"""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pophood.generate import Token
from pophood.generate.prefix import TokenScore
from pophood.text.tokenizer import TextStream, Tokenizer

LEAST = -9999.0  # OpenAI's number for a token that cannot come
Likely = tuple[int, float]  # token id and log-probability


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token with its log-probability (nats; None for the first of a text) and its likeliest rivals.

    `data` are the bytes that it adds to the text, `offset` the number of characters before it.
    """

    id: int
    data: bytes
    offset: int
    logprob: float | None
    top: tuple[Likely, ...]


class Speller:
    """Names of tokens, as answers write them. `hidden` ids add nothing to the text."""

    def __init__(self, tokenizer: Tokenizer, hidden: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.hidden = hidden

    def name(self, id_: int) -> str:
        r"""Return a token's text; one that is no whole character as OpenAI spells it: "bytes:\xe2\x80"."""
        if id_ in self.tokenizer.specials:
            return self.tokenizer.specials[id_]
        data = self.tokenizer.token_bytes(id_)
        try:
            return data.decode("utf-8") if data else self.tokenizer.token_text(id_)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def data(self, id_: int) -> bytes:
        """Return the bytes that a token adds to a text."""
        return b"" if id_ in self.hidden else self.tokenizer.token_bytes(id_)

    # ---- the two shapes ----

    def chat(self, entries: Iterable[TokenEntry]) -> list[dict[str, Any]]:
        """Return the entries of a chat's `logprobs.content`."""
        return [
            self._named(entry.id, entry.logprob, entry.data)
            | {"top_logprobs": [self._named(id_, value, self.data(id_)) for id_, value in entry.top]}
            for entry in entries
        ]

    def _named(self, id_: int, logprob: float | None, data: bytes) -> dict[str, Any]:
        return {"token": self.name(id_), "logprob": logprob, "bytes": list(data)}

    def legacy(self, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        """Return the `logprobs` of a completion: four lists of equal length.

        The token itself is among its likeliest, with the identical number. Two tokens of one name share a
        key, which keeps the larger number.
        """
        likeliest: list[dict[str, float] | None] = []
        for entry in entries:
            if entry.logprob is None:
                likeliest.append(None)
                continue
            table: dict[str, float] = {}
            for id_, value in (*entry.top, (entry.id, entry.logprob)):
                name = self.name(id_)
                table[name] = max(value, table.get(name, value))
            likeliest.append(table)
        return {
            "tokens": [self.name(entry.id) for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": likeliest,
            "text_offset": [entry.offset for entry in entries],
        }


class Aligner:
    """Pairs the tokens of one choice with its text, as both arrive."""

    def __init__(
        self,
        speller: Speller,
        stops: Container[int],
        *,
        continues: bool,
        offset: int,
    ) -> None:
        """`stops` end the text and are not shown; with `continues` other text comes before it."""
        self._speller, self._stops = speller, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = not continues
        self._offset = offset  # of the first character, in the whole text
        self._decoded = self._out = 0  # characters: of all tokens, of the text that came
        self._done = 0  # characters of the entries that were returned
        self._part = b""  # of a character, where those entries end
        self._waiting: deque[tuple[TokenEntry, int, bytes]] = deque()  # with `_decoded` and `_part` after it

    def push(self, token: Token, top: tuple[Likely, ...]) -> list[TokenEntry]:
        """Take a token with the text that came with it; return the entries whose text is out."""
        data = b"" if token.id in self._stops else self._speller.data(token.id)
        if self._at_start and data:
            data, self._at_start = self._speller.tokenizer.without_first_space(data), False
        entry = TokenEntry(token.id, data, self._offset + self._decoded, logprob_of(token), top)
        self._decoded += len(self._decoder.decode(data))
        self._waiting.append((entry, self._decoded, self._decoder.getstate()[0]))
        self._out += len(token.text)
        if token.finish is not None:
            return self._rest(token.finish == "stop_string")
        ready = []
        # An entry that ends inside a character waits for the whole of it.
        while self._waiting and self._waiting[0][1] + bool(self._waiting[0][2]) <= self._out:
            entry, self._done, self._part = self._waiting.popleft()
            ready.append(entry)
        return ready

    def _rest(self, cut: bool) -> list[TokenEntry]:
        """Return what waits at the end of the choice; with `cut`, without what a stop text hides."""
        waiting = [entry for entry, _, _ in self._waiting]
        self._waiting.clear()
        if not cut:
            return waiting
        left = self._bytes_of(b"".join(entry.data for entry in waiting), self._out - self._done)
        rest: list[TokenEntry] = []
        for entry in waiting:
            if left <= 0:
                break
            rest.append(replace(entry, data=entry.data[:left]))
            left -= len(entry.data)
        return rest

    def _bytes_of(self, data: bytes, characters: int) -> int:
        """Return how many bytes of `data` give so many characters, after `_part`."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self._part)
        most = found = 0
        for n in range(len(data) + 1):
            if n:
                most += len(decoder.decode(data[n - 1 : n]))
            if most + bool(decoder.getstate()[0]) == characters:
                found = n
            if most > characters:
                break
        return found


def rounded(value: float) -> float:
    """Return a log-probability at single precision, as scores of a text have it; JSON has no infinity."""
    return float(np.float32(value)) if math.isfinite(value) else LEAST


def logprob_of(token: Token) -> float | None:
    """Return the log-probability of a generated token, in nats."""
    return None if token.log_probability is None else rounded(token.log_probability)


def top_of(token: Token, k: int) -> tuple[Likely, ...]:
    """Return the k likeliest tokens at the place of a generated one, the likeliest first."""
    if not k or token.top is None or token.log_mass is None:
        return ()
    return tuple((id_, rounded(logit - token.log_mass)) for id_, _, logit, _ in token.top[:k])


def prompt_entries(
    speller: Speller, ids: Sequence[int], scores: Sequence[TokenScore], text: str, *, added: int
) -> list[TokenEntry]:
    """Return the entries of a prompt whose text is `text`; its first `added` tokens are not part of that.

    Scores are at single precision already.
    """
    stream = TextStream(speller.tokenizer, special=True)
    characters = 0
    entries = []
    for place, (id_, score) in enumerate(zip(ids, scores, strict=True)):
        data = b"" if place < added else speller.tokenizer.token_bytes(id_)
        value = None if score.log_probability is None else max(score.log_probability, LEAST)
        top = tuple((other, max(x, LEAST)) for other, x in score.top)
        entries.append(TokenEntry(id_, data, min(characters, len(text)), value, top))
        if place >= added:
            characters += len(stream.push(id_))
    return entries
