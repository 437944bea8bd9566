"""One pass of the scheduler: the tokens that are fed, how many are of prompts, the scores of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pophood.generate.choose import Sample
from pophood.generate.decoder import Distribution
from pophood.generate.prefix import KEPT_EVERY, TokenScore
from pophood.generate.request import Running

ROOM = 512  # tokens of one pass: enough for the full speed of the matrix products
LEAST = 4  # tokens of a prompt that every pass reads, so that the prompt ends
LONGEST = 2.0  # seconds of one pass, so that a call that is cancelled ends soon
SLOWDOWN = 2.0  # times a pass that only writes: with prompts beside it, it may take so long
NEW = 0.25  # weight of the newest measurement


@dataclass(slots=True)
class PrefillPace:
    """Learns the seconds of a pass and of a token of a prompt from the passes that were made.

    With `slowdown` None prompts are read at full speed whatever waits: a batch whose texts nobody watches. No
    result depends on the number of tokens in a pass.
    """

    slowdown: float | None = SLOWDOWN
    writing_seconds: float = 0.0  # of a pass in which every text gets one token; 0: not known yet
    token_seconds: float = 0.0  # that each token of a prompt adds to a pass

    def room(self, writing: int) -> int:
        """Return how many tokens of prompts the next pass reads beside `writing` texts."""
        most = whole = ROOM - writing
        if self.token_seconds > 0:
            most = min(most, int(LONGEST / self.token_seconds))
        if writing and self.slowdown is not None:
            known = self.writing_seconds > 0 and self.token_seconds > 0
            spare = (self.slowdown - 1) * self.writing_seconds
            most = min(most, int(spare / self.token_seconds) if known else 4 * LEAST)
        return max(most, min(LEAST, whole), 1)

    def note(self, writing: int, reading: int, seconds: float) -> None:
        """Learn from a pass that took `seconds`."""
        if not reading:
            self.writing_seconds = _average(self.writing_seconds, seconds)
        elif reading >= LEAST:
            own = seconds - (self.writing_seconds if writing else 0.0)
            self.token_seconds = _average(self.token_seconds, max(own, seconds / 4) / reading)


def _average(old: float, new: float) -> float:
    return new if old == 0 else old + NEW * (new - old)


class Fed(NamedTuple):
    """Tokens of one sequence in a step: the newest of a sample, or some of a prompt."""

    running: Running
    sample: Sample
    ids: Sequence[int]
    rows: int  # of its last tokens whose distribution is needed

    @property
    def writes(self) -> bool:
        """True if a token is chosen from its last row."""
        running = self.running
        if not running.reading:
            return True
        return running.request.generates and running.read + len(self.ids) == running.to_read


def writing(running: Running, sample: Sample) -> Fed:
    """Return the piece of a text that is being written: its newest token, and those that a grammar forces."""
    constraint = sample.constraint
    if constraint is None:
        return Fed(running, sample, sample.ids[-1:], 1)
    fed = constraint.fed
    return Fed(running, sample, [sample.ids[-1], *fed], len(fed) + 1)


def next_kept(running: Running) -> int:
    """Return the next place in a prompt whose attention windows the prefix cache keeps.

    Those are multiples of KEPT_EVERY, the end, and where the prompt parts from others.
    """
    multiple = (running.read // KEPT_EVERY + 1) * KEPT_EVERY
    parts = running.known if running.known > running.read else multiple
    return min(multiple, parts, running.to_read)


def masks_of(pieces: Sequence[Fed], vocab_size: int) -> NDArray[np.uint32] | None:
    """Return the tokens that grammars allow in each row, [rows, ceil(V / 32)]; None without grammars."""
    if all(piece.sample.constraint is None for piece in pieces):
        return None
    rows = sum(piece.rows for piece in pieces)
    allowed = np.full((rows, -(-vocab_size // 32)), 0xFFFFFFFF, np.uint32)
    place = 0
    for piece in pieces:
        place += piece.rows
        if piece.sample.constraint is None or not piece.writes:
            continue
        written = 1 if piece.running.reading else piece.rows  # the others are scores of a prompt
        piece.sample.constraint.fill(allowed[place - written : place])
    return allowed


def targets_of(piece: Fed) -> list[int]:
    """Return the token that follows each row in its prompt, 0 where none does."""
    if piece.running.request.scores is None:
        return [0] * piece.rows
    start = piece.running.read + 1
    following = piece.running.request.prompt[start : start + piece.rows]
    return [*following, *[0] * (piece.rows - len(following))]


def scores_of(piece: Fed, found: Distribution, start: int, k: int) -> list[TokenScore]:
    """Return the scores of the prompt's tokens that the rows predict, rounded to f32 as `LM.score` does."""
    following = piece.running.request.prompt[piece.running.read + 1 : piece.running.read + 1 + piece.rows]
    if not following or found.target_logits is None:
        return []
    rows = slice(start, start + len(following))
    own = (found.target_logits[rows] - found.log_mass[rows]).astype(np.float32).tolist()
    top = (found.logits[rows, :k] - found.log_mass[rows, None]).astype(np.float32).tolist()
    ids = found.ids[rows, :k].tolist()
    return [
        TokenScore(token, value, tuple(zip(i, x, strict=True)))
        for token, value, i, x in zip(following, own, ids, top, strict=True)
    ]
