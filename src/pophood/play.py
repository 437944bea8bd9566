"""A game: guess the next word of a text, against the model. Dealing and judging; no printing, no input.

Both see the same text, and both know that a whole word comes. Places are chosen without a look at the answer:
where the model is neither sure (under 1 bit) nor lost (over 6 bits). Both guesses are judged by one rule.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.views.surprise import place_of
from pophood.sampling.randomness import uniforms
from pophood.sampling.softmax import Floats, entropy, log_sum_exp, ranked

if TYPE_CHECKING:
    from pophood.model.lm import LM

ROUNDS, MOST_ROUNDS = 10, 100
OPENING, SPACING, GAP = (
    24,
    16,
    4,
)  # tokens: before the first round, per round on average, between two at least
SURE, LOST = 1.0, 6.0  # bits of entropy between which a place is worth guessing at
HINTS, SEARCHED = 5, 200  # words shown, likeliest tokens searched for them
ALONE, HELPED = 3, 1  # points for the right word: by oneself, and after a look at the hints
ROWS = 128  # logit rows held at once


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that the model thinks of, with its probability among all tokens."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Round:
    """One place to guess at. `before` is all of the text so far; `hints` are the model's likeliest words."""

    before: str
    answer: str  # the token that comes, its leading space kept
    hints: tuple[Guess, ...]
    probability: float  # that the model gives the answer
    rank: int  # of the answer, from 1
    bits: float  # entropy: how open the model thinks it is
    logits: Floats = field(repr=False, compare=False)

    @property
    def guess(self) -> Guess:
        """The model's."""
        return self.hints[0]


@dataclass(frozen=True, slots=True)
class Turn:
    """A round that was played: the player's guess ("" to pass), whether hints were seen, and the points."""

    round: Round
    guess: str
    helped: bool

    @property
    def right(self) -> bool:
        """Whether the player's guess was the word."""
        return same(self.guess, self.round.answer)

    @property
    def points(self) -> int:
        """The player's."""
        return (HELPED if self.helped else ALONE) if self.right else 0

    @property
    def model_right(self) -> bool:
        """Whether the model's likeliest word was the word."""
        return same(self.round.guess.text, self.round.answer)

    @property
    def model_points(self) -> int:
        """The model's."""
        return ALONE if self.model_right else 0


@dataclass(frozen=True, slots=True)
class Game:
    """A dealt game; `rounds` may be fewer than were asked for if the text has no more places."""

    rounds: tuple[Round, ...]
    seed: int
    text: str  # of which the rounds are taken: the file's, or a stretch of it


def same(guess: str, answer: str) -> bool:
    """Whether a guess is the answer: its first word, whatever its case and the marks around it.

    >>> same("madrid", " Madrid"), same("Madrid, which", " Madrid"), same("", " Madrid")
    (True, True, False)
    """
    words = guess.split()
    return bool(words) and _bare(words[0]) == _bare(answer) != ""


def _bare(word: str) -> str:
    letters = unicodedata.normalize("NFC", word.strip()).casefold()
    return letters.strip("".join(c for c in set(letters) if not c.isalnum()))


def deal(lm: LM, text: str, rounds: int = ROUNDS, *, seed: int = 0) -> Game:
    """Choose a stretch of the text and `rounds` places in it; the same seed deals the same game.

    Raises BadInput for a text without enough words.

        deal(lm, open("notes.txt").read()).rounds[0].before
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise BadInput(f"rounds must be 1..{MOST_ROUNDS}, got {rounds}")
    ids, start = _stretch(lm, text, rounds, seed)
    pieces = [lm.bundle.tokenizer.token_bytes(token) for token in ids]
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    opening = start + min(OPENING, max(3, (len(ids) - start) // 4))
    words = [i for i in whole_words(texts) if i >= opening]
    bits = {i: entropy(row) / math.log(2) for i, row in _rows(lm, ids, set(words))}
    places = choose(bits, rounds, seed)
    if not places:
        raise BadInput(
            f"the text has {len(ids) - start:,} tokens and no word to guess at after the first few: "
            "give a file with a paragraph or more"
        )
    dealt = []
    for i, row in _rows(lm, ids[: places[-1] + 1], set(places)):  # once more, to hold these rows only
        log_probability, rank = place_of(row, ids[i])
        before = b"".join(pieces[start:i]).decode("utf-8", "replace")
        chance = math.exp(log_probability)
        dealt.append(Round(before, texts[i], _hints(lm, row), chance, rank, bits[i], row.copy()))
    whole = b"".join(pieces[start:]).decode("utf-8", "replace")
    return Game(tuple(dealt), seed, whole)


def probability_of(lm: LM, played: Round, guess: str) -> Guess | None:
    """What the model thought of the player's guess: its first token there; None for an empty guess."""
    words = guess.split()
    if not words:
        return None
    space = " " if played.answer.startswith(" ") else ""
    ids = lm.tokenize(space + words[0], add_start=False)
    if not ids:
        return None
    text = lm.bundle.tokenizer.token_text(ids[0])
    return Guess(text, math.exp(float(played.logits[ids[0]]) - log_sum_exp(played.logits)))


def whole_words(texts: Sequence[str]) -> list[int]:
    """Where a token is one whole word: letters after a space, and no letter follows.

    >>> whole_words(["The", " mother", " and", " sis", "ter", ".", " It"])
    [1, 2, 6]
    """
    found = []
    for i, text in enumerate(texts):
        follows = texts[i + 1] if i + 1 < len(texts) else " "
        if _is_word(text) and not _goes_on(follows):
            found.append(i)
    return found


def _is_word(text: str) -> bool:
    return text[:1] == " " and len(text) > 2 and text[1:].isalpha()


def _goes_on(follows: str) -> bool:
    return follows[:1].isalnum() or follows[:1] in ("'", "’", "-", "\ufffd", "_")


def choose(bits: dict[int, float], rounds: int, seed: int) -> list[int]:
    """Up to `rounds` places, ascending, at least GAP apart, drawn by the seed.

    Places with an entropy between SURE and LOST come first, then those nearest to it.

    >>> choose({3: 2.0, 4: 2.0, 20: 9.0}, 2, seed=0)[-1]
    20
    """

    def order(place: int) -> tuple[float, float]:
        off = max(SURE - bits[place], bits[place] - LOST, 0.0)
        return off, uniforms(seed, 0, place)[0]

    taken: list[int] = []
    for place in sorted(bits, key=order):
        if len(taken) < rounds and all(abs(place - other) >= GAP for other in taken):
            taken.append(place)
    return sorted(taken)


def _stretch(lm: LM, text: str, rounds: int, seed: int) -> tuple[list[int], int]:
    """Token ids of the part of the text to play with, and how many of them are start tokens."""
    if not text.strip():
        raise BadInput("the text is empty: give a file with a paragraph or more")
    tokenizer = lm.bundle.tokenizer
    head = list(tokenizer.start_ids)
    ids = tokenizer.encode(text, add_start=False)
    room = min(lm.engine.context - len(head), OPENING + SPACING * rounds)
    if room < 2:
        raise BadInput(f"a context of {lm.engine.context:,} tokens is too short for the game")
    if len(ids) > room:
        starts = [0, *_beginnings(tokenizer.token_bytes(token) for token in ids[: len(ids) - room])]
        begin = starts[int(uniforms(seed, 1, 0)[0] * len(starts))]
        ids = ids[begin : begin + room]
    return head + ids, len(head)


def _beginnings(pieces: Iterator[bytes]) -> list[int]:
    """Where a line begins, or where none does, a sentence."""
    lines, sentences = [], []
    for i, piece in enumerate(pieces):
        if piece.endswith(b"\n"):
            lines.append(i + 1)
        elif piece.rstrip().endswith((b".", b"!", b"?")):
            sentences.append(i + 1)
    return lines or sentences


def _rows(lm: LM, ids: list[int], wanted: set[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(place, the logits that predict it) for every place that is wanted; a pass over the text."""
    sequence = lm.engine.new_sequence()
    try:
        for start in range(0, len(ids) - 1, ROWS):
            stop = min(start + ROWS, len(ids) - 1)
            rows = lm.engine.forward([(sequence, ids[start:stop])], rows="all").output
            assert rows is not None
            yield from ((i, rows[i - start - 1]) for i in range(start + 1, stop + 1) if i in wanted)
    finally:
        lm.engine.drop(sequence)


def _hints(lm: LM, row: Floats) -> tuple[Guess, ...]:
    """The likeliest tokens that could be the word; any tokens if there are none near the top."""
    mass = log_sum_exp(row)
    spell = lm.bundle.tokenizer.token_text
    near = [(i, spell(i)) for i in ranked(row, min(SEARCHED, len(row))).tolist()]
    found = [one for one in near if _is_word(one[1])] or near
    return tuple(Guess(text, math.exp(float(row[i]) - mass)) for i, text in found[:HINTS])
