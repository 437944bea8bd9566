"""Against repetition: penalties on tokens already used, and DRY on sequences already used.

Each is a pure function that changes logits and keeps all tokens. "Already used" counts the prompt too, as in
llama.cpp and transformers (for the repetition penalty).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pophood.sampling.softmax import Floats, Ids

Breakers = Mapping[int, Sequence[tuple[int, ...]]]  # first token -> the rests that complete a breaker

_LOG_LARGEST_FLOAT = 88.7228391  # llama.cpp's bound on base ** exponent in float32
_LARGEST_PENALTY = 1e30  # a penalised logit stays finite: only a forbidden one is -inf
_LONGEST_TAIL = 20  # tokens of a breaker after its first, as llama.cpp's MAX_SEQ_LEN


def last(history: Sequence[int], window: int) -> NDArray[np.int64]:
    """The newest `window` tokens of the history as an array; -1 means all of them."""
    if window == 0:
        return np.empty(0, dtype=np.int64)
    return np.asarray(history[-window:] if window > 0 else history, dtype=np.int64)


def penalise(
    logits: Floats, used: Ids, counts: NDArray[np.int64], repetition: float, presence: float, frequency: float
) -> Floats:
    """Logits [n] with those at `used` lowered; `counts` says how often each was used.

    Repetition divides a positive logit and multiplies a negative one (Keskar et al. 2019, CTRL, with
    transformers' correction for negative logits); then OpenAI's `count * frequency + presence` is taken off.
    The order of the two is llama.cpp's.

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
    """Token -> length of the sequence at the end of the history after which it already came once.

    Only lengths from `shortest` up count, and `longest` is enough to know. A repeat does not reach across a
    breaker: what stands after the last one limits the length. These are the rules of DRY (p-e-w,
    text-generation-webui pull request 5677) as llama.cpp has them.

    >>> a, b, c, x = range(4)
    >>> repeat_lengths(np.array([a, b, c, x, a, b, c]), 2, 99, {})  # "a b c" was followed by x
    {3: 3}
    """
    n = len(history)
    limit = min(_since_breaker(history, breakers), n, longest)
    if n <= shortest or limit < shortest:
        return {}
    ends = np.flatnonzero(history[:-1] == history[-1])  # where a repeat of the last token ends
    found: dict[int, int] = {}
    length = 1
    while len(ends):
        if length >= shortest:
            for token in history[ends + 1].tolist():
                found[token] = length  # lengths only grow, so the last one written is the longest
        if length == limit:
            break
        ends = ends[ends >= length]
        ends = ends[history[ends - length] == history[n - 1 - length]]
        length += 1
    return found


def _since_breaker(history: NDArray[np.int64], breakers: Breakers) -> int:
    if not breakers:
        return len(history)
    tokens = history.tolist()
    for distance, token in enumerate(reversed(tokens)):
        rests = breakers.get(token)
        if rests is None:
            continue
        after = tokens[len(tokens) - distance :]
        matched = [len(rest) for rest in rests if after[: len(rest)] == list(rest)]
        if matched:
            return distance - max(matched)
    return len(history)


def dry_penalty(length: int, multiplier: float, base: float, allowed: int) -> float:
    """multiplier * base ** (length - allowed): what a token costs that would extend a repeat of `length`.

    >>> dry_penalty(4, multiplier=0.8, base=2.0, allowed=2)
    3.2
    """
    return float(min(multiplier * base ** min(length - allowed, longest_exponent(base)), _LARGEST_PENALTY))


def longest_exponent(base: float) -> int:
    """The largest exponent at which base ** exponent is a finite float32 (no bound for a base of 1)."""
    return int(_LOG_LARGEST_FLOAT / math.log(base)) if base > 1.000001 else 2**31


def breakers_of(
    strings: Iterable[str], vocabulary: Sequence[bytes], encode: Callable[[str], Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Token sequences that spell a breaker string: every token that contains it, and every token that ends
    in its beginning, followed by the tokens of its rest (llama.cpp's `get_overlapping_token_sequences`).

    Example: `breakers_of(["\\n"], [b"a", b".\\n"], encode)` is `((1,),)`.
    """
    found: dict[tuple[int, ...], None] = {}
    for string in strings:
        mark = string.encode()
        for token, word in enumerate(vocabulary):
            if not mark or mark[0] not in word:
                continue
            if mark in word:
                found[(token,)] = None
                continue
            for cut in range(1, len(mark)):
                if word.endswith(mark[:cut]):
                    rest = mark[cut:].decode(errors="ignore")
                    found[(token, *list(encode(rest))[:_LONGEST_TAIL])] = None
    return tuple(found)
