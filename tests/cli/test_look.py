"""`pophood look`: every view from the command line, on the terminal, as data, and in files."""

from __future__ import annotations

import json
import re
import shlex
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import pophood
from pophood import look
from pophood.cli import session
from pophood.cli.app import pophood as program_group
from pophood.cli.commands.look import VIEWS, look_command
from pophood.look.reproduce import python_code, shell_command
from pophood.look.source import PROMPT
from pophood.look.view import View
from tests import processes
from tests.cli.conftest import Program

REFUSED = [
    (["attention", "--layer", "9"], "there is no layer 9: .* has layers 0..1"),
    (["attention", "--head", "99"], "there is no head 99"),
    (["norm", "--which", "ln_3"], "there is no norm 'ln_3'; the norms are ln_1, ln_2, final"),
    (["next", "-k", "0"], "k must be 1"),
    (["lens", "--token", "Madrid and more"], "Madrid and more"),
    (["dropout", "--p", "2"], "p"),
    (["scale", "--add", "Mine"], "'Mine' is not NAME,PARAMS,YEAR"),
    (["next", ""], "the text is empty"),
    (["atention"], "there is no view 'atention': there are architecture, parameters, .*, trace, all"),
    (["next", "--save", "a.pdf"], r"'\.pdf' names no format: end the name in \.svg"),
    (["next", "--save", "none/a.svg"], "the folder none does not exist"),
    (["next", "--json", "--csv"], "both take stdout"),
    (["trace", "--taps", "blocks.*.attn.nothing"], "no tap matches 'blocks"),
    (["trace", "--save", "a.csv"], r"a trace is written as \.npz"),
    (["hidden", "--file", "latin1.txt"], "not UTF-8: byte 0xE9 at offset 3"),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "attention": {"layer": 1, "head": 2},
    "embeddings": {"words": "cities", "spaced": True, "word": " Spain"},
    "lens": {"token": " Madrid", "position": -2},
    "next": {"k": 5, "top_p": 0.5},
    "norm": {"which": "ln_2"},
    "positions": {"sentences": ("the dog bit the man", "the man bit the dog")},
    "scale": {"add": ["Mine,1.5B,2025", "Other model,2M,2020"]},
    "tokens": {"text": ["one", "two words"]},
}


@pytest.fixture(scope="module")
def lm(base: Path) -> pophood.LM:
    return pophood.load(base)


@pytest.fixture
def looks(program: Program, lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that runs `pophood look ...` with a model that is already loaded."""

    def open_model(console: Any, choice: Any) -> pophood.LM:
        assert choice.precision == "f32"
        return lm

    monkeypatch.setattr(session, "open_model", open_model)
    return lambda *arguments, **more: program("look", *arguments, **more)


def test_the_group_lists_every_view_and_each_has_its_example() -> None:
    assert [name for name in VIEWS if name not in ("trace", "all")] == list(look.VIEWS)
    for name, words in VIEWS.items():
        text = CliRunner().invoke(program_group, ["look", name, "--help"]).output
        assert f"Example: pophood look {name}" in " ".join(text.split())
        assert isinstance(look_command, click.Group)
        view = look_command.get_command(click.Context(look_command), name)
        assert view is not None
        assert " ".join((view.help or "").split("\n\n")[0].split()) == words


@pytest.mark.parametrize("name", look.VIEWS)
def test_every_view_works_bare(looks: Program, lm: pophood.LM, name: str) -> None:
    ended = looks(name)
    assert ended.code == 0, ended.err
    assert ended.said[0] == "computed at f32; run takes f32"
    view = getattr(look, name)(lm)
    head = " ".join(view.title.split())
    assert head.startswith(ended.text.splitlines()[0][:60].rstrip())
    assert "\x1b" not in ended.text, "a pipe has no colours"
    shown = " ".join(ended.text.split())
    assert all(" ".join(note.split()) in shown for note in view.notes)


def test_views_as_data(looks: Program, lm: pophood.LM) -> None:
    facts = json.loads(looks("next", "--json", "-k", "3").text)
    view = look.next(lm, k=3)
    assert (facts["title"], facts["text"]) == (view.title, PROMPT)
    assert [row["token_id"] for row in next(iter(facts["tables"].values()))] == view.top.column("token_id")
    assert looks("next", "--csv", "-k", "3").text == view.to_csv()


def test_views_are_saved_and_opened(looks: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    ended = looks("output", "Hello there", "--save", "a.csv", "--save", "b.svg", "--theme", "dark", "--open")
    assert (ended.code, ended.text) == (0, "")
    assert re.match(r"saved: a\.csv \(table \w+ of .*; \.json has all\)", ended.said[1])
    assert ended.said[2] == "saved: b.svg"
    assert "#0d1117" in (tmp_path / "b.svg").read_text()
    assert opened == [(tmp_path / "b.svg").as_uri()]


def test_a_text_comes_from_a_file_or_stdin(looks: Program, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello there\n")
    from_file = looks("tokens", "--file", "a.txt", "--csv").text
    assert from_file == looks("tokens", "-", "--csv", stdin=b"Hello there\n").text
    assert from_file == looks("tokens", "Hello there", "--csv").text
    facts = json.loads(looks("surprise", "--file", "a.txt", "--json").text)
    assert facts["command"].startswith("pophood look surprise --file a.txt")


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value))
def test_a_wrong_wish_is_one_line(looks: Program, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    ended = looks(*arguments)
    assert ended.code == 2
    assert ended.text == ""
    assert re.search(message, ended.said[-1]), ended.said
    assert len([line for line in ended.said if line.startswith("pophood:")]) == 1


def test_a_trace_is_listed_and_written(looks: Program, lm: pophood.LM, tmp_path: Path) -> None:
    arguments = ("trace", "Hello there", "--taps", "blocks.*.attn.pattern", "--taps", "final_norm")
    listed = looks(*arguments)
    assert listed.said == ["computed at f32: 3 arrays, 0.0 MiB"]
    tokens = len(lm.tokenize("Hello there"))
    rows = [re.split(r"  +", line.strip()) for line in listed.text.splitlines()]
    assert rows[0] == ["name", "axes", "shape", "bytes"]
    assert rows[1][:2] == ["blocks.0.attn.pattern", "head, query, key"]
    written = looks(*arguments, "--save", "t.npz")
    assert (written.text, written.said[-1]) == ("", "saved: t.npz")
    trace = lm.trace("Hello there", ["blocks.*.attn.pattern", "final_norm"])
    with np.load(tmp_path / "t.npz") as arrays:
        assert set(arrays) == {"ids", *trace.arrays}
        assert arrays["ids"].tolist() == lm.tokenize("Hello there")
        for name, axes, shape, size in rows[1:]:
            assert np.array_equal(arrays[name], trace[name])
            assert (shape, size) == (str(arrays[name].shape), str(arrays[name].nbytes))
            assert axes.split(", ") == list(trace.axes(name))
        assert arrays["blocks.0.attn.pattern"].shape[1:] == (tokens, tokens)


def test_all_writes_a_folder_and_names_what_failed(
    looks: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "VIEWS", ("next", "attention"))
    monkeypatch.setattr(look, "attention", lambda lm: 1 / 0)
    ended = looks("all", "Hello there", "--save", "deep/folder")
    assert ended.code == 1
    said = [line for line in ended.said if not line.startswith("drawing: ")]  # progress on a busy machine
    assert said == [
        "computed at f32; run takes f32",
        "attention: a bug in pophood, please report it: ZeroDivisionError: division by zero",
        f"1 view in {Path('deep/folder')}: open {Path('deep/folder/index.html')}",
    ]
    assert {p.name for p in (tmp_path / "deep/folder").iterdir()} == {"index.html", "next.svg", "next.html"}


@pytest.mark.parametrize("name", look.VIEWS)
def test_a_view_says_how_to_make_it_again(
    looks: Program, lm: pophood.LM, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function: Callable[..., View] = getattr(look, name)
    view = function(lm, **OPTIONS.get(name, {}))
    words = shlex.split(shell_command(view.name, view.source, view.options))
    assert words[:2] == ["pophood", "look"] and words[-2:] == ["-m", lm.name]
    again = json.loads(looks(*words[2:], "--json").text)
    assert again == json.loads(view.to_json()) | {"command": again["command"], "python": again["python"]}
    assert again["command"] == shell_command(view.name, view.source, view.options)
    names: dict[str, Any] = {}
    monkeypatch.setattr(pophood, "load", lambda given, precision: lm)
    exec(python_code(view.name, view.source, view.options), names)
    assert names["view"].to_json() == view.to_json()


def test_a_view_is_its_function_whatever_was_imported_before() -> None:
    code = (
        "import pophood.look.views.next, pophood.look.figures.next\n"
        "from pophood.look.views.next import NextView\n"
        "from pophood import look\nassert callable(look.next) and callable(look.output)\n"
        "assert set(look.VIEWS) < set(dir(look))\n"
        "try: look.atention\nexcept AttributeError as error: print(error)"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no attribute 'atention'; the views: architecture, parameters" in done.stdout


def test_looking_at_the_terminal_imports_no_plotting(base: Path, settings: dict[str, str]) -> None:
    code = (
        "import sys\nfrom pophood.cli.app import pophood\n"
        f"try: pophood.main(['look', 'next', '-m', {str(base)!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = ['matplotlib', 'pandas', 'rich.console', 'PIL']\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
