"""The game: fair places, one rule for both guesses, and points that add up, on a real text."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pophood
from pophood.errors import BadInput
from pophood.play import GAP, Guess, Round, Turn, choose, deal, probability_of, same, whole_words
from tests.tiny import tiny_folder

STORY = (
    "The farmer had a horse and a cow, and every morning he walked with them to the river. "
    "One day the bridge was gone. He looked at the water, and the water looked back at him, "
    "and so they waited until the evening came and the moon stood over the old mill.\n"
)
WORDS = st.text(st.characters(categories=["L"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("play") / "tiny", "gpt2", seed=5))


def made(answer: str, model: str) -> Round:
    return Round("before", answer, (Guess(model, 0.5),), 0.1, 3, 2.0, np.zeros(4, np.float32))


# ---- judging ----


@pytest.mark.parametrize(
    ("guess", "right"),
    [("Madrid", True), (" madrid ", True), ("MADRID,", True), ("Madrid, which", True), ('"Madrid"', True),
     ("Mad", False), ("Madrids", False), ("in Madrid", False), ("", False), ("...", False)],
)  # fmt: skip
def test_what_counts_as_the_word(guess: str, right: bool) -> None:
    assert same(guess, " Madrid") is right


@given(answer=WORDS, guess=st.one_of(WORDS, st.text(max_size=8)), model=WORDS, helped=st.booleans())
def test_points_add_up(answer: str, guess: str, model: str, helped: bool) -> None:
    turn = Turn(made(f" {answer}", f" {model}"), guess, helped)
    assert turn.points == ((1 if helped else 3) if turn.right else 0)
    assert turn.model_points == (3 if turn.model_right else 0)
    assert turn.right == same(guess, answer)
    same_words = Turn(made(f" {answer}", f" {answer}"), answer, helped=False)
    assert same_words.points == same_words.model_points == 3, "one rule for both"


@given(
    bits=st.dictionaries(st.integers(0, 300), st.floats(0, 15), max_size=80),
    rounds=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
)
def test_places_are_apart_and_the_interesting_ones_come_first(
    bits: dict[int, float], rounds: int, seed: int
) -> None:
    places = choose(bits, rounds, seed)
    assert places == choose(dict(reversed(bits.items())), rounds, seed), "the seed alone decides"
    assert len(places) <= rounds and set(places) <= set(bits) and places == sorted(places)
    assert all(after - before >= GAP for before, after in itertools.pairwise(places))
    left_out = [
        place for place in bits if place not in places and all(abs(place - taken) >= GAP for taken in places)
    ]
    assert not left_out or len(places) == rounds
    if any(not 1 <= bits[place] <= 6 for place in places):
        assert not [place for place in left_out if 1 <= bits[place] <= 6]


def test_only_whole_words_are_asked_for() -> None:
    texts = ["The", " s", "ister", " of", " Spain", "'s", " king", " lives", "-", "in", " 12", " a", " house"]
    assert [texts[i] for i in whole_words(texts)] == [" of", " king", " house"]


# ---- dealing ----


def test_a_game_is_true_to_the_text_and_to_the_model(lm: pophood.LM) -> None:
    game = deal(lm, STORY, 5, seed=1)
    assert len(game.rounds) == 5
    for played in game.rounds:
        assert STORY.startswith(played.before + played.answer)
        row = lm.logits(played.before)[-1].astype(np.float64)
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        answer = lm.tokenize(played.answer)
        assert len(answer) == 1 and played.probability == pytest.approx(probabilities[answer[0]], rel=1e-3)
        assert played.rank == 1 + int((probabilities > probabilities[answer[0]]).sum())
        assert played.bits == pytest.approx(-(probabilities * np.log2(probabilities)).sum(), rel=1e-3)
        assert all(hint.text[0] == " " and hint.text[1:].isalpha() for hint in played.hints)
        assert played.guess.probability == max(hint.probability for hint in played.hints)
        mine = probability_of(lm, played, "horse")
        assert mine is not None and mine.text == " horse"
        assert mine.probability == pytest.approx(probabilities[lm.tokenize(" horse")[0]], rel=1e-3)
        assert probability_of(lm, played, "  ") is None
    assert [played.before for played in deal(lm, STORY, 5, seed=1).rounds] == [p.before for p in game.rounds]


def test_a_long_text_is_entered_at_a_line(lm: pophood.LM) -> None:
    text = "".join(f"Line {i}: {STORY}" for i in range(40))
    games = [deal(lm, text, 4, seed=seed) for seed in range(12)]
    assert all(game.text.startswith("Line ") for game in games)
    assert len({game.text for game in games}) > 6, "the seed chooses the stretch"
    assert all(len(lm.tokenize(game.text)) <= 24 + 4 * 16 for game in games)
    assert len(deal(lm, text, 100, seed=0).rounds) < 100, "a window of 128 tokens has fewer places"


@pytest.mark.parametrize(
    ("text", "rounds", "words"),
    [
        ("", 5, "the text is empty"),
        (" \n", 5, "the text is empty"),
        ("Two words.", 5, "3 tokens and no word to guess at"),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14", 5, "no word to guess at"),
        (STORY, 0, r"rounds must be 1\.\.100, got 0"),
        (STORY, 101, r"rounds must be 1\.\.100, got 101"),
    ],
)
def test_one_line_for_each_mistake(lm: pophood.LM, text: str, rounds: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        deal(lm, text, rounds)


def test_the_real_model_plays_well(smollm2: Path) -> None:
    """On a well-known text the model is often right, and gives the answers a high probability."""
    lm = pophood.load(smollm2)
    text = "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday. " * 2
    rounds = deal(lm, text, 8, seed=2).rounds
    turns = [Turn(played, "", helped=False) for played in rounds]
    assert sum(turn.model_right for turn in turns) >= len(turns) / 2
    mean_bits = -sum(math.log2(played.probability) for played in rounds) / len(rounds)
    assert mean_bits < 4 < math.log2(lm.config.vocab_size)
