"""A game against the model: guess the next word of a text. This module deals and scores the rounds.

Player and model see the same text and know that a whole word follows. Places are chosen by the entropy of the
model's prediction, between 1 bit (sure) and 6 bits (lost), regardless of the answer. The same rule judges
both guesses.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.views.surprise import place_of
from pophood.model.lm import LM
from pophood.model.score import logit_rows
from pophood.sampling.randomness import uniforms
from pophood.sampling.softmax import Floats, entropy, log_sum_exp, ranked

ROUNDS, MOST_ROUNDS = 10, 100
OPENING = 24  # tokens before the first round
SPACING = 16  # tokens per round on average
GAP = 4  # minimum number of tokens between two rounds
SURE, LOST = 1.0, 6.0  # bits of entropy; a round is preferably between the two
HINTS, SEARCHED = 5, 200  # words shown as hints, and how many of the likeliest tokens are searched for them
ALONE, HELPED = 3, 1  # points for the right word without and with hints


@dataclass(frozen=True, slots=True)
class Guess:
    """A token and its probability among all tokens."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Round:
    """One word to guess. `before` is the text up to it; `hints` are the model's likeliest words."""

    before: str
    answer: str  # the next token, with its leading space
    hints: tuple[Guess, ...]
    probability: float  # of the answer, by the model
    rank: int  # of the answer, from 1
    bits: float  # the entropy of the model's prediction
    logits: Floats = field(repr=False, compare=False)

    @property
    def guess(self) -> Guess:
        """The model's guess."""
        return self.hints[0]


@dataclass(frozen=True, slots=True)
class Turn:
    """A played round: the player's guess ("" to pass), and whether the player saw the hints."""

    round: Round
    guess: str
    helped: bool

    @property
    def right(self) -> bool:
        """True if the player's guess was right."""
        return same(self.guess, self.round.answer)

    @property
    def points(self) -> int:
        """The player's points."""
        return (HELPED if self.helped else ALONE) if self.right else 0

    @property
    def model_right(self) -> bool:
        """True if the model's guess was right."""
        return same(self.round.guess.text, self.round.answer)

    @property
    def model_points(self) -> int:
        """The model's points."""
        return ALONE if self.model_right else 0


@dataclass(frozen=True, slots=True)
class Game:
    """A dealt game. It has fewer rounds than requested if the text has too few suitable words."""

    rounds: tuple[Round, ...]
    seed: int
    text: str  # the text or the part of it that the rounds come from


def same(guess: str, answer: str) -> bool:
    """Return True if the first word of a guess is the answer, regardless of case and punctuation.

    >>> same("madrid", " Madrid"), same("Madrid, which", " Madrid"), same("", " Madrid")
    (True, True, False)
    """
    words = guess.split()
    return bool(words) and _bare(words[0]) == _bare(answer) != ""


def _bare(word: str) -> str:
    letters = unicodedata.normalize("NFC", word.strip()).casefold()
    return letters.strip("".join(c for c in set(letters) if not c.isalnum()))


def deal(lm: LM, text: str, rounds: int = ROUNDS, *, seed: int = 0) -> Game:
    """Choose a part of the text and `rounds` words in it; the same seed deals the same game.

    Raises BadInput for a text with too few words.

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
    for i, row in _rows(lm, ids[: places[-1] + 1], set(places)):  # a second pass saves memory
        log_probability, rank = place_of(row, ids[i])
        before = b"".join(pieces[start:i]).decode("utf-8", "replace")
        probability = math.exp(log_probability)
        dealt.append(Round(before, texts[i], _hints(lm, row), probability, rank, bits[i], row.copy()))
    whole = b"".join(pieces[start:]).decode("utf-8", "replace")
    return Game(tuple(dealt), seed, whole)


def probability_of(lm: LM, played: Round, guess: str) -> Guess | None:
    """Return the model's probability of the first token of the player's guess; None for an empty guess."""
    space = " " if played.answer.startswith(" ") else ""
    ids = [id_ for word in guess.split()[:1] for id_ in lm.tokenize(space + word, add_start=False)]
    if not ids:
        return None
    text = lm.bundle.tokenizer.token_text(ids[0])
    return Guess(text, math.exp(float(played.logits[ids[0]]) - log_sum_exp(played.logits)))


def whole_words(texts: Sequence[str]) -> list[int]:
    """Return the indices of tokens that are whole words: a space and letters, with no letter after them.

    >>> whole_words(["The", " mother", " and", " sis", "ter", ".", " It"])
    [1, 2, 6]
    """
    return [
        i
        for i, (text, following) in enumerate(itertools.pairwise([*texts, " "]))
        if _is_word(text) and not _continues(following)
    ]


def _is_word(text: str) -> bool:
    return text[:1] == " " and len(text) > 2 and text[1:].isalpha()


def _continues(following: str) -> bool:
    return following[:1].isalnum() or following[:1] in ("'", "’", "-", "\ufffd", "_")


def choose(bits: dict[int, float], rounds: int, seed: int) -> list[int]:
    """Draw up to `rounds` places by the seed, at least GAP apart, and return them in ascending order.

    `bits` is the entropy at each place. Those between SURE and LOST are preferred, then those nearest to
    them.

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
    """Return the token ids of the part of the text to play with, and the number of its start tokens."""
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
    """Return the tokens that begin a line, or those that begin a sentence if there is only one line."""
    lines, sentences = [], []
    for i, piece in enumerate(pieces):
        if piece.endswith(b"\n"):
            lines.append(i + 1)
        elif piece.rstrip().endswith((b".", b"!", b"?")):
            sentences.append(i + 1)
    return lines or sentences


def _rows(lm: LM, ids: list[int], wanted: set[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Run the model over the text and yield (place, the logits that predict it) for the wanted places."""
    for place, rows in logit_rows(lm.engine, ids):
        yield from ((i, row) for i, row in enumerate(rows, place) if i in wanted)


def _hints(lm: LM, row: Floats) -> tuple[Guess, ...]:
    """Return the likeliest tokens that are words, or simply the likeliest tokens if no word is among them."""
    mass = log_sum_exp(row)
    spell = lm.bundle.tokenizer.token_text
    likeliest = [(i, spell(i)) for i in ranked(row, min(SEARCHED, len(row))).tolist()]
    words = [(i, text) for i, text in likeliest if _is_word(text)] or likeliest
    return tuple(Guess(text, math.exp(float(row[i]) - mass)) for i, text in words[:HINTS])
