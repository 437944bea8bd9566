"""Penalties against repetition: of tokens already used, and DRY, of sequences already used.

They are pure functions that lower logits and drop no token. The prompt counts as used, as in llama.cpp, and
as in transformers for the repetition penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pophood.sampling.softmax import Floats, Ids

Breakers = Mapping[int, Sequence[tuple[int, ...]]]  # first token -> tails that complete a breaker

_LOG_LARGEST_FLOAT = 88.7228391  # log of the largest float32; llama.cpp bounds base ** exponent by it
_LARGEST_PENALTY = 1e30  # keeps a penalised logit finite: -inf means forbidden
_LONGEST_TAIL = 20  # tokens of a breaker after its first, as llama.cpp's MAX_SEQ_LEN


def last(history: Sequence[int], window: int) -> NDArray[np.int64]:
    """Return the newest `window` tokens of the history as an array; -1 means all of them."""
    if window == 0:
        return np.empty(0, dtype=np.int64)
    return np.asarray(history[-window:] if window > 0 else history, dtype=np.int64)


def penalise(
    logits: Floats, used: Ids, counts: NDArray[np.int64], repetition: float, presence: float, frequency: float
) -> Floats:
    """Return logits [n] with those at the indices `used` lowered; each was used `counts` times.

    The repetition penalty divides a positive logit and multiplies a negative one (Keskar et al. 2019, CTRL,
    with transformers' correction for negative logits). Then OpenAI's `count * frequency + presence` is
    subtracted. llama.cpp applies them in the same order.

    >>> row, used, counts = np.array([2, -2, 1], dtype=np.float32), np.array([0, 1]), np.array([1, 3])
    >>> penalise(row, used, counts, repetition=2.0, presence=0.5, frequency=0.25).tolist()
    [0.25, -5.25, 1.0]
    """
    changed = logits.copy()
    values = logits[used]
    factor = np.float32(repetition)
    values = np.where(values > 0, values / factor, values * factor)
    taken = counts.astype(np.float32) * np.float32(frequency) + np.float32(presence)
    changed[used] = values - taken
    return changed


def repeat_lengths(
    history: NDArray[np.int64], shortest: int, longest: int, breakers: Breakers
) -> dict[int, int]:
    """Map each token that would extend a repeat to the length of that repeat.

    A repeat is the longest run of tokens that ends the history and occurred before, followed by that token.
    Lengths below `shortest` are left out, those above `longest` cut to it. A repeat does not reach across a
    breaker: only tokens after the last one count. These are the rules of DRY (p-e-w, text-generation-webui
    pull request 5677) as implemented in llama.cpp.

    >>> a, b, c, x = range(4)
    >>> repeat_lengths(np.array([a, b, c, x, a, b, c]), 2, 99, {})  # "a b c" was followed by x
    {3: 3}
    """
    n = len(history)
    limit = min(_since_breaker(history, breakers), n, longest)
    if n <= shortest or limit < shortest:
        return {}
    ends = np.flatnonzero(history[:-1] == history[-1])  # earlier places of the last token
    lengths: dict[int, int] = {}
    length = 1
    while len(ends):
        if length >= shortest:
            for token in history[ends + 1].tolist():
                lengths[token] = length  # lengths only grow, so the last one written is the longest
        if length == limit:
            break
        ends = ends[ends >= length]
        ends = ends[history[ends - length] == history[n - 1 - length]]
        length += 1
    return lengths


def _since_breaker(history: NDArray[np.int64], breakers: Breakers) -> int:
    """Count the tokens after the last breaker."""
    if not breakers:
        return len(history)
    tokens = history.tolist()
    for distance, token in enumerate(reversed(tokens)):
        tails = breakers.get(token)
        if tails is None:
            continue
        after = tokens[len(tokens) - distance :]
        matched = [len(tail) for tail in tails if after[: len(tail)] == list(tail)]
        if matched:
            return distance - max(matched)
    return len(history)


def dry_penalty(length: int, multiplier: float, base: float, allowed: int) -> float:
    """Return the penalty of a token that extends a repeat: multiplier * base ** (length - allowed).

    >>> dry_penalty(4, multiplier=0.8, base=2.0, allowed=2)
    3.2
    """
    return float(min(multiplier * base ** min(length - allowed, longest_exponent(base)), _LARGEST_PENALTY))


def longest_exponent(base: float) -> int:
    """Return the largest exponent for which base ** exponent is a finite float32 (2**31 for a base of 1)."""
    return int(_LOG_LARGEST_FLOAT / math.log(base)) if base > 1.000001 else 2**31


def breakers_of(
    strings: Iterable[str], vocabulary: Sequence[bytes], encode: Callable[[str], Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Return the token sequences that spell a breaker string.

    These are all tokens that contain it, and all tokens that end in its beginning, followed by the tokens of
    its rest (llama.cpp's `get_overlapping_token_sequences`).

    Example: `breakers_of(["\\n"], [b"a", b".\\n"], encode)` is `((1,),)`.
    """
    sequences: dict[tuple[int, ...], None] = {}
    for string in strings:
        mark = string.encode()
        for token, word in enumerate(vocabulary):
            if not mark or mark[0] not in word:
                continue
            if mark in word:
                sequences[(token,)] = None
                continue
            for cut in range(1, len(mark)):
                if word.endswith(mark[:cut]):
                    rest = mark[cut:].decode(errors="ignore")
                    sequences[(token, *list(encode(rest))[:_LONGEST_TAIL])] = None
    return tuple(sequences)
