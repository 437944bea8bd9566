"""Invalid command lines: arguments with a dash, lost quotes, options that would have no effect."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import ClassVar

import pytest

import pophood
from pophood import look
from tests.cli.conftest import Program


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("run", "-5 degrees is"), 'pophood run -- "-5 degrees is"'),
        (("run", "-5"), 'pophood run -- "-5"'),
        (("run", "--5 is odd"), 'pophood run -- "--5 is odd"'),
        (("run", "-n5 apples", "-q"), 'pophood run -- "-n5 apples"'),
        (("run", "-hello there"), 'pophood run -- "-hello there"'),
        (("run", "--greedy", "- a list", "-x"), "pophood run --"),
        (("chat", "-1 or 1?"), 'pophood chat -- "-1 or 1?"'),
        (("look", "tokens", "-5 degrees"), 'pophood look tokens -- "-5 degrees"'),
        (("look", "all", "-5 degrees", "--save", "x"), 'pophood look all -- "-5 degrees"'),
        (("show", "-x"), 'pophood show -- "-x"'),
        (("play", "-notes.txt"), 'pophood play -- "-notes.txt"'),
        (("rm", "-old/model"), 'pophood rm -- "-old/model"'),
    ],
)
def test_an_argument_with_a_dash_is_told_of_the_two_dashes(
    program: Program, arguments: tuple[str, ...], shown: str
) -> None:
    done = program(*arguments)
    assert done.code == 2 and done.out == b"" and len(done.said) == 1
    assert "begins with a dash goes behind --" in done.said[0] and shown in done.said[0]


@pytest.mark.parametrize(
    "arguments", [("run", "a", "--temprature", "1"), ("show", "--colour"), ("list", "-x")]
)
def test_a_mistyped_option_is_not_taken_for_an_argument(program: Program, arguments: tuple[str, ...]) -> None:
    done = program(*arguments)
    assert done.code == 2 and "No such option" in done.said[0] and " -- " not in done.said[0]


def test_what_the_line_advises_works(program: Program, base: Path) -> None:
    done = program("run", "-m", str(base), "-n", "2", "--greedy", "-q", "--", "-5 degrees is")
    assert done.code == 0 and done.text.startswith("-5 degrees is")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("run", "The", "capital", "of", "Spain", "-n", "2"), 'pophood run "The capital of Spain"'),
        (("chat", "What", "is", "this?"), 'pophood chat "What is this?"'),
        (("look", "next", "Two", "more", "words"), 'pophood look next "Two more words"'),
    ],
)
def test_lost_quotes_are_told(program: Program, arguments: tuple[str, ...], shown: str) -> None:
    done = program(*arguments)
    assert done.code == 2 and f"needs quotes, as in: {shown}" in done.said[0]


def test_the_printed_command_of_a_view_keeps_its_dash(program: Program, base: Path) -> None:
    options = ("-m", str(base), "--json", "-k", "3")
    shown = json.loads(program("look", "next", *options, "--", "-5 degrees is").text)
    words = shlex.split(shown["command"])
    assert words[-2:] == ["--", "-5 degrees is"]
    assert json.loads(program(*words[1:-2], "--json", *words[-2:]).text) == shown


# Options of another mode ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("look", "tokens", "--languages", "--compare", "x"), "it takes no --compare"),
        (("look", "tokens", "Hello", "--languages"), "it takes no a text"),
        (("look", "norm", "--which", "final", "--layer", "3"), "it takes no --layer"),
        (("look", "norm", "--which", "final", "--layer", "0"), "it takes no --layer"),
        (("look", "next", "--theme", "dark"), "add --save FILE.svg"),
        (("look", "next", "--theme", "dark", "--save", "x.csv"), "add --save FILE.svg"),
        (("look", "next", "--json", "--csv"), "give one"),
        (("talk", "--list", "--slides", "x.html"), "give one of them"),
        (("talk", "--notebook", "x.ipynb", "--slides", "x.html"), "give one of them"),
        (("talk", "--slides", "x.html", "--page", "3"), "it takes no --page or --from"),
        (("talk", "--notebook", "x.ipynb", "--from", "3"), "it takes no --page or --from"),
        (("talk", "--list", "--notes"), "it takes no --notes"),
        (("talk", "--slides", "x.html", "--yes"), "it takes no --yes"),
        (("run", "a", "--dry-base", "2"), "--dry-base changes nothing alone: add --dry-multiplier"),
        (("run", "a", "--dry-breaker", "x", "--dry-window", "9"), "--dry-window, --dry-breaker changes"),
        (("run", "a", "--xtc-threshold", "0.2"), "add --xtc-probability"),
        (("chat", "a", "--penalty-window", "9"), "--presence-penalty or --frequency-penalty"),
        (("run", "a", "--penalty-window", "9", "--repetition-penalty", "1"), "changes nothing alone"),
        (("run", "a", "--json", "--no-prompt"), "--json has the prompt and the completion apart"),
        (("run", "a", "--open"), "add --html FILE"),
        (("chat", "--json"), "give a QUESTION"),
    ],
)
def test_an_option_of_another_mode_is_refused(
    program: Program, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = program(*arguments)
    assert done.code == 2 and done.out == b"", done.text
    assert words in done.said[-1]
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_they_are_taken_where_they_mean_something(program: Program, base: Path) -> None:
    run = ("run", "a", "-m", str(base), "-n", "2", "-q")
    assert program(*run, "--dry-multiplier", "0.8", "--dry-base", "2", "--dry-breaker", "x").code == 0
    assert program(*run, "--frequency-penalty", "0.1", "--penalty-window", "9").code == 0
    assert program(*run, "--xtc-probability", "0.5", "--xtc-threshold", "0.2").code == 0
    assert program("look", "norm", "--which", "final", "-m", str(base)).code == 0
    assert program("look", "tokens", "--languages", "-m", str(base)).code == 0


def test_the_library_refuses_a_text_beside_the_languages(base: Path) -> None:
    lm = pophood.load(base)
    with pytest.raises(pophood.errors.BadInput, match="leave the text out"):
        look.tokens(lm, ["color", "colour"], languages=True)


# Where the output goes -----------------------------------------------------------------------------------


class Places:
    """Commands that write files, each with the option that names the destination."""

    COMMANDS: ClassVar = {
        "run --html": ("run", "a", "-n", "1", "--html", "{}.html"),
        "look --save": ("look", "tokens", "a", "--save", "{}.csv"),
        "look trace": ("look", "trace", "a", "--save", "{}.npz"),
        "talk --notebook": ("talk", "--notebook", "{}.ipynb"),
        "talk --slides": ("talk", "--slides", "{}.html"),
    }


@pytest.mark.parametrize("command", Places.COMMANDS)
@pytest.mark.parametrize("place", ["none/x", "file.txt/x", "folder"])
def test_a_place_that_will_not_do_is_refused_before_a_model_is_opened(
    program: Program, tmp_path: Path, command: str, place: str
) -> None:
    (tmp_path / "file.txt").write_text("mine", encoding="utf-8")
    words = [word.format(place) for word in Places.COMMANDS[command]]
    target = next(word for word in words if word.startswith(place))
    if place == "folder":
        (tmp_path / target).mkdir()
    model = () if command == "talk --notebook" else ("-m", "./no-such-model")
    done = program(*words, *model)
    assert done.code == 2 and done.out == b""
    assert target in done.said[-1] and "no-such-model" not in done.said[-1], "the place comes first"
    assert ".tmp" not in done.said[-1]
    assert (tmp_path / "file.txt").read_text("utf-8") == "mine"


def test_a_gallery_needs_a_folder(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("mine", encoding="utf-8")
    for place in ("file.txt", "file.txt/gallery"):
        done = program("look", "all", "a", "--save", place, "-m", "./no-such-model")
        assert done.code == 2 and place in done.said[-1] and "file" in done.said[-1]


def test_a_conversation_is_saved_where_it_can_be(program: Program, talker: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    talk = b"Hi\n/save folder\n/save none/x.txt\n/save talk.txt\n"
    done = program("chat", "-m", str(talker), "-n", "2", stdin=talk)
    assert done.code == 1
    assert [line for line in done.said if "folder: is a folder; wanted a file" in line]
    assert [line for line in done.said if "the folder none does not exist" in line]
    assert "saved 2 messages to talk.txt" in done.said, "a save that failed loses nothing"


# Counts --------------------------------------------------------------------------------------------------


def test_one_of_a_thing_is_singular(program: Program, base: Path, talker: Path, tmp_path: Path) -> None:
    done = program("run", "a", "-m", str(base), "-n", "1", "--greedy", "-v", "--threads", "1")
    assert "1 token in " in done.said[-1] and any("1 thread," in line for line in done.said)
    tokens = program("look", "tokens", "Hello", "-m", str(base), "--json").text
    assert "in 1 token of" in tokens and "1 tokens" not in tokens
    saved = program("chat", "-m", str(talker), "--system", "Hi", stdin=b"/save one.txt\n")
    assert "saved 1 message to one.txt" in saved.said
    views = ("tokens", "hidden", "lens", "before", "surprise", "next")
    for view in views:
        text = program("look", view, "Hello", "-m", str(base)).text
        assert not re.search(r"\b1 (token|text|word|block|row)s\b", text), view
