"""Pace: how many tokens of prompts one pass reads, so that texts that are being written do not wait long."""

from __future__ import annotations

from dataclasses import dataclass

ROOM = 512  # tokens of one pass: enough for the full speed of the matrix products
LEAST = 8
LONGEST = 2.0  # seconds of one pass, so that a call that is cancelled ends soon
SLOWDOWN = 2.5  # times a pass that only writes: with prompts beside it, it may take so long
NEW = 0.25  # weight of the newest measurement


@dataclass(slots=True)
class Pace:
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
