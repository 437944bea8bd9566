"""`pophood play FILE`: a game in which the user guesses the next word of a text, against the model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.app import DONE, INTERRUPTED
from pophood.cli.options.shared import ModelChoice, json_option, model_options, text_option, verb
from pophood.cli.screens.generation import model_facts
from pophood.cli.session import open_model
from pophood.cli.terminal.answers import Answers
from pophood.cli.terminal.console import Console, facts_of
from pophood.cli.terminal.tables import count
from pophood.errors import BadInput
from pophood.plaintext import read_text
from pophood.table import show

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.play import Game, Round, Turn

TAIL = 500  # characters of context that a round shows; the first round shows the whole beginning
RULES = """\
Type the next word of the text. A right guess is worth 3 points, or 1 point after ?, which lists the model's
five likeliest words (a number picks one). Enter passes, q ends. The model guesses too, for 3 points."""


@verb()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@text_option("--rounds", type=click.IntRange(1, 100), default=10, help="Number of words to guess.")
@text_option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    help="Deal the same game again (default: random, and printed).",
)
@json_option
@model_options
def play_command(
    console: Console,
    file: Path,
    rounds: int,
    seed: int | None,
    as_json: bool,
    choice: ModelChoice,
) -> int:
    """Guess the next word of a text, against the model.

    You and the model see the same text. The words to guess are single tokens that the model finds neither
    obvious nor hopeless. Guesses may also come through a pipe. With --json the game is printed on stderr and
    its result on stdout.

    Example: pophood play notes.txt --rounds 5
    """
    from pophood.play import deal
    from pophood.sampling import draw_seed

    text = read_text(file).replace("\r\n", "\n")
    if not text.strip():
        raise BadInput(f"{file} is empty: give a text with a paragraph or more")
    lm = open_model(console, choice)
    game = deal(lm, text, rounds, seed=draw_seed() if seed is None else seed)
    if len(game.rounds) < rounds:
        console.say(f"{file} has room for {count(len(game.rounds), 'round')} of {rounds}")
    say = console.say if as_json else console.out
    turns, ended = _play(say, lm, game)
    say("")
    say(_scores(turns, lm.name))
    if as_json:
        console.json(_as_dict(lm, file, game, turns, ended))
    console.say(f"seed {game.seed}")
    return INTERRUPTED if ended == "interrupted" else DONE


def _play(say: Callable[[str], None], lm: LM, game: Game) -> tuple[list[Turn], str]:
    """Play the game and return its turns and how it ended: all, quit, input or interrupted."""
    answers = Answers(sys.stdin)
    turns: list[Turn] = []
    say(RULES)
    try:
        for number, played in enumerate(game.rounds, 1):
            say("")
            say(f"--- {number} of {len(game.rounds)}")
            say(_tail(played.before, whole=number == 1))
            turn = _turn(say, answers, played)
            if isinstance(turn, str):
                return turns, turn
            turns.append(turn)
            say(_verdict(turn, lm))
    except KeyboardInterrupt:
        return turns, "interrupted"
    return turns, "all"


def _turn(say: Callable[[str], None], answers: Answers, played: Round) -> Turn | str:
    """Ask for one guess, after hints on request; return "quit" or "input" if the game ends instead."""
    from pophood.play import Turn

    helped = False
    while True:
        line = answers.ask("number or word? " if helped else "next word? ")
        if line is None:
            return "input"
        guess = line.strip()
        if guess.lower() in ("q", "quit"):
            return "quit"
        if guess == "?":
            helped = True
            for number, hint in enumerate(played.hints, 1):
                say(f"  {number}  {show(hint.text)} {hint.probability:.4f}")
            continue
        if helped and guess.isascii() and guess.isdigit() and 1 <= int(guess[:9]) <= len(played.hints):
            guess = played.hints[int(guess) - 1].text.strip()
        return Turn(played, guess, helped)


def _verdict(turn: Turn, lm: LM) -> str:
    from pophood.play import probability_of

    played = turn.round
    mine = "you passed"
    thought = probability_of(lm, played, turn.guess)
    if turn.guess:
        mine = f'you "{turn.guess}": {"right" if turn.right else "no"}, {count(turn.points, "point")}'
    if thought is not None and not turn.right:
        mine += f" (the model gave {show(thought.text)} {thought.probability:.4f})"
    its = "right" if turn.model_right else "no"
    return (
        f"The text goes on {show(played.answer)}.\n"
        f"  {mine}\n"
        f"  the model {show(played.guess.text)} {played.guess.probability:.4f}: {its}, "
        f"{count(turn.model_points, 'point')}; it gave {show(played.answer)} {played.probability:.4f}, "
        f"number {played.rank:,}"
    )


def _tail(text: str, whole: bool) -> str:
    if whole or len(text) <= TAIL:
        return f"{text.lstrip()} ___"
    return f"…{text[-TAIL:].partition(' ')[2]} ___"


def _scores(turns: list[Turn], name: str) -> str:
    if not turns:
        return "No round was played."
    mine, its = sum(turn.points for turn in turns), sum(turn.model_points for turn in turns)
    right, model_right = sum(turn.right for turn in turns), sum(turn.model_right for turn in turns)
    verdict = "a draw" if mine == its else "you win" if mine > its else f"{name} wins"
    return (
        f"After {count(len(turns), 'round')}: you {count(mine, 'point')} ({right} right), "
        f"{name} {count(its, 'point')} ({model_right} right): {verdict}"
    )


def _as_dict(lm: LM, file: Path, game: Game, turns: list[Turn], ended: str) -> dict[str, Any]:
    return {
        **model_facts(lm),
        "file": str(file),
        "seed": game.seed,
        "rounds": len(game.rounds),
        "ended": ended,
        "points": sum(turn.points for turn in turns),
        "model_points": sum(turn.model_points for turn in turns),
        "turns": [
            {
                **facts_of(turn.round, "before", "answer"),
                **facts_of(turn, "guess", "helped", "right", "points"),
                "model_guess": turn.round.guess.text,
                "model_guess_probability": turn.round.guess.probability,
                "model_points": turn.model_points,
                "answer_probability": turn.round.probability,
                "answer_rank": turn.round.rank,
                "entropy_bits": turn.round.bits,
            }
            for turn in turns
        ],
    }
