"""Every output with numbers names the adapters in use, and the printed command includes them."""

from __future__ import annotations

import contextlib
import html
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pophood.course.shell import with_model
from pophood.export.adapter_writers import write_adapter
from pophood.model.bundle import open_bundle
from tests.cli.conftest import Program
from tests.export.adapters import random_adapter

VIEWS = [
    "architecture", "parameters", "scale", "tokens", "embeddings", "positions", "before", "hidden", "norm",
    "residual", "dropout", "attention", "feedforward", "output", "next", "surprise", "lens",
]  # fmt: skip


@pytest.fixture(scope="session")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two adapters of the completion model; one has a name that a shell would split."""
    folder = tmp_path_factory.mktemp("tuned")
    config = open_bundle(base).config
    write_adapter(folder / "notes-lora", random_adapter(config), config)
    write_adapter(folder / "it's mine: v2", random_adapter(config, rank=2), config)
    return folder


def told(program: Program, *arguments: str) -> dict[str, Any]:
    done = program(*arguments, "--json", "-q")
    assert done.code == 0, done.err
    answer: dict[str, Any] = json.loads(done.text)
    return answer


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_names_its_adapters_and_its_command_repeats_the_numbers(
    program: Program, base: Path, tuned: Path, view: str
) -> None:
    one, two = tuned / "notes-lora", tuned / "it's mine: v2"
    options = ("-m", str(base), "--adapter", str(one), "--adapter", f"{two}:0.5", "--context", "64")
    shown = told(program, "look", view, *options)
    assert shown["title"].endswith(f", with the adapters {one} and {two} x 0.5")
    assert shown["adapters"] == [{"path": str(one), "scale": 1.0}, {"path": str(two), "scale": 0.5}]
    words = shlex.split(shown["command"])
    assert words[0] == "pophood" and words[-2:] == ["--context", "64"]
    again = told(program, *words[1:])
    assert again == shown, "the same numbers, words and command"
    bare = told(program, "look", view, "-m", str(base), "--context", "64")
    assert bare["adapters"] == [] and "adapter" not in bare["title"] + bare["command"] + bare["python"]
    if view in ("next", "output", "surprise", "lens", "attention", "hidden"):
        assert bare["tables"] != shown["tables"], "an adapter changes numbers"


def test_the_python_lines_repeat_the_numbers(
    program: Program, base: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_OFFLINE", "1")
    options = ("-m", str(base), "--adapter", f"{tuned / 'notes-lora'}:-2", "--context", "32")
    shown = told(program, "look", "next", "One two three", "-k", "3", *options)
    made: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(shown["python"], made)
    assert json.loads(made["view"].to_json())["tables"] == shown["tables"]
    assert made["view"].title == shown["title"]


def test_saved_pictures_and_pages_name_it(program: Program, base: Path, tuned: Path, tmp_path: Path) -> None:
    saved = ("--save", "next.svg", "--save", "next.html", "--save", "next.json")
    done = program("look", "next", "-m", str(base), "--adapter", f"{tuned / 'notes-lora'}:0.5", *saved)
    assert done.code == 0
    words = f"with the adapter {tuned / 'notes-lora'} x 0.5"
    assert words in (tmp_path / "next.svg").read_text("utf-8")
    page = (tmp_path / "next.html").read_text("utf-8")
    assert words in page and f"<dd>{tuned / 'notes-lora'} x 0.5</dd>" in page
    assert f"--adapter {tuned / 'notes-lora'}:0.5" in page
    assert f"adapters=[('{tuned / 'notes-lora'}" in html.unescape(page)
    assert json.loads((tmp_path / "next.json").read_text("utf-8"))["title"].endswith(words)
    shown = program("look", "next", "-m", str(base), "--adapter", f"{tuned / 'notes-lora'}:0.5")
    assert words in " ".join(shown.text.split()), "the terminal's title too"


def test_a_run_a_conversation_a_game_and_their_pages_name_it(
    program: Program, base: Path, tuned: Path, tmp_path: Path
) -> None:
    place = str(tuned / "notes-lora")
    named = [{"path": place, "scale": 0.25}]
    options = ("-m", str(base), "--adapter", f"{place}:0.25")
    assert told(program, "run", "One", "-n", "2", *options, "--html", "page.html")["adapters"] == named
    assert f"{place} x 0.25" in (tmp_path / "page.html").read_text("utf-8")
    assert told(program, "run", "One", "-n", "2", "-m", str(base))["adapters"] == []
    picked = program("run", "One", "--pick", *options, "--json", "-q", stdin=b"q\n")
    assert json.loads(picked.text)["adapters"] == named
    (tmp_path / "text.txt").write_text("One two three four five six. " * 9, encoding="utf-8")
    played = program("play", "text.txt", *options, "--json", "-q", stdin=b"q\n")
    assert json.loads(played.text)["adapters"] == named
    demo = program("demo", *options).text
    assert f"run -m {base} --adapter {place}:0.25 " in demo


def test_a_saved_conversation_names_it(program: Program, talker: Path, tmp_path: Path) -> None:
    config = open_bundle(talker).config
    write_adapter(tmp_path / "tuned", random_adapter(config), config)
    talk = b"Hi\n/save talk.json\n"
    options = ("-m", str(talker), "--adapter", "tuned", "-n", "2")
    assert program("chat", *options, stdin=talk).code == 0
    saved = json.loads((tmp_path / "talk.json").read_text("utf-8"))
    assert saved["adapters"] == [{"path": "tuned", "scale": 1.0}]
    assert told(program, "chat", "Hi", *options)["adapters"] == saved["adapters"]


def test_the_lines_of_the_course_keep_it() -> None:
    lines = "pophood look next\npophood show\npophood run 'a b'"
    assert with_model(lines, "gpt2", " --adapter notes-lora").splitlines() == [
        "pophood look next -m gpt2 --adapter notes-lora",
        "pophood show gpt2",
        "pophood run 'a b' -m gpt2 --adapter notes-lora",
    ]


def test_a_benchmark_names_its_adapters_and_starts_a_process_with_them(
    program: Program, base: Path, tuned: Path
) -> None:
    one, two = tuned / "notes-lora", tuned / "it's mine: v2"
    options = ("-m", str(base), "--adapter", str(one), "--adapter", f"{two}:0.5", "--context", "64")
    words = ("-p", "8", "-n", "2", "-d", "1", "--batch", "1", "-t", "1", "-r", "1")
    shown = told(program, "bench", *options, *words)
    assert shown["setup"]["adapters"] == f"{one}, {two} x 0.5"
    assert shown["start"]["seconds"]["median"] > 0 and shown["remarks"] == []
    text = program("bench", *options, *words, "--no-start", COLUMNS="400").text
    assert f"with the adapters {one} and {two} x 0.5" in " ".join(text.split())
