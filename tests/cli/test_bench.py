"""`pophood bench`: figures as text, data and files, wrong options in one line, Ctrl-C with what there is."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pophood import load as pophood_load
from pophood.bench import measure
from pophood.bench.settings import Work
from pophood.bench.timing import Timer
from pophood.cli.app import pophood
from tests.cli.conftest import Program
from tests.cli.terminal import CTRL_C, QUICK, terminal
from tests.conftest import ROOT

FEW = ("--prompt", "8", "--tokens", "2", "--depth", "1,4", "--batch", "1,2", "-t", "1", "-r", "2")
SHORT = (*FEW, "--no-start")


@pytest.fixture(autouse=True)
def small_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "READ_BYTES", 1 << 22)


def test_a_benchmark_prints_sentences_a_table_and_a_new_process(program: Program, base: Path) -> None:
    done = program("bench", str(base), *FEW)
    assert done.code == 0, done.said
    lines = done.text.splitlines()
    assert "generates" in lines[0] and "tokens/s here with 1 thread" in lines[0]
    assert [line.split(":")[0] for line in lines if ": " in line and "tokens/s" in line][:4] == [
        "Prefill of 8 tokens",
        "Decode after 1 token",
        "Decode after 4 tokens",
        "Decode of 2 texts together",
    ]
    for start in ("Start: ", "Memory: ", "Machine: with 1 thread", "work ", "Medians of 2 rounds"):
        assert any(line.startswith(start) for line in lines), start
    assert "Best number of threads" not in done.text, "only one was tried"
    assert any(line.startswith("measuring, warming up: prefill of 8") for line in done.said)


def test_data_goes_to_stdout_and_files_and_is_compared_with(
    program: Program, base: Path, tmp_path: Path
) -> None:
    done = program("bench", "-m", str(base), *SHORT, "--json", "--save", "a.json", "--save", "a.svg")
    assert done.code == 0, done.said
    found = json.loads(done.text)
    assert found == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found["complete"] is True and found["start"] is None
    rates = {(one["work"]["kind"], one["work"]["depth"], one["work"]["batch"]) for one in found["rates"]}
    assert rates == {("prefill", 0, 1), ("decode", 1, 1), ("decode", 4, 1), ("decode", 1, 2)}
    assert all(one["rate"]["median"] > 0 for one in found["rates"])
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    again = program("bench", str(base), *SHORT, "--csv", "--compare", "a.json")
    rows = list(csv.DictReader(io.StringIO(again.text)))
    assert [float(row["earlier"]) for row in rows] == [one["rate"]["median"] for one in found["rates"]]
    assert all(float(row["ratio"]) > 0 for row in rows)
    assert "Compared with a.json." in again.said, "notes do not get lost beside data"
    text = program("bench", str(base), *SHORT, "--compare", "a.json", "--precision", "q8").text
    assert "times the earlier" in text and "Different precision: f32 there, q8 here." in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--threads", "1,x"), "'1,x' is not a list of whole numbers, as in 1,2,4"),
        (("--threads", ""), "'' is not a list of whole numbers"),
        (("--threads", "0"), "threads is 0; wanted 1 to 1,024"),
        (("--depth", "-1"), "depth is -1; wanted at least 0"),
        (("--tokens", "0"), "tokens is 0; wanted at least 1"),
        (("--rounds", "0"), "rounds is 0; wanted 1 to 100"),
        (("--batch", "1,1000"), "batch is 1,000; wanted 1 to 256"),
        (("--prompt", "129"), "a prompt of 129 tokens exceeds the context window, 128"),
        (("--depth", "127", "--tokens", "2"), "are 129; the context window holds 128"),
        (("-m", "gpt2"), "two models"),
        (("--save", "a.npz"), "a.npz: a benchmark has tables, no arrays: save it as .csv or .json"),
        (("--save", "a.txt"), "a.txt: the ending '.txt' names no format"),
        (("--compare", "none.json"), "'none.json' does not exist"),
        (("--json", "--csv"), "--json and --csv both take stdout"),
        (("--theme", "dark"), "--theme dark colours a picture"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line(
    program: Program, base: Path, words: tuple[str, ...], complaint: str
) -> None:
    done = program("bench", str(base), *words)
    assert done.code == 2 and done.out == b"", done.text
    assert complaint in done.said[-1] and done.said[-1].startswith("pophood: ")


def test_a_file_of_something_else_is_refused_before_a_model_is_loaded(
    program: Program, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "view.json").write_text('{"view": "next"}', encoding="utf-8")
    done = program("bench", str(base), "--compare", "view.json")
    assert done.code == 2 and len(done.said) == 1
    assert done.said[0].startswith("pophood: view.json: is not what `pophood bench --json` writes")


def test_without_a_model_it_says_what_to_do(program: Program) -> None:
    done = program("bench")
    assert done.code == 1 and done.out == b"" and "pophood pull" in done.said[-1]


def test_ctrl_c_prints_the_figures_so_far(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def rate(self: Timer, work: Work) -> float:
        calls.append(work)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return 42.0

    monkeypatch.setattr(Timer, "rate", rate)
    done = program("bench", str(base), *SHORT)
    assert done.code == 130
    assert "stopped; the figures so far:" in done.said
    assert "Prefill of 8 tokens: 42.0 tokens/s" in done.text
    assert "Decode after 1 token: 42.0 tokens/s" in done.text
    assert "Decode after 4" not in done.text and "Stopped early" in done.text


@pytest.mark.parametrize(
    ("moment", "more"), [("round 1 of 100", ["--no-start"]), ("warming up: a new process", [])]
)
def test_ctrl_c_at_a_terminal_ends_it_at_once(
    moment: str, more: list[str], base: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """A terminal sends Ctrl-C to the new process too, which is not left behind (tests/conftest.py)."""
    with terminal(["bench", str(base), "-r", "100", *more], settings, tmp_path, program=QUICK) as screen:
        screen.until(moment)
        screen.type(CTRL_C)
        screen.until("stopped; the figures so far:")
        screen.until("Stopped early")
        assert screen.ended() == 130
        assert "Traceback" not in screen.text


def test_a_busy_machine_is_told_of_at_once_and_at_the_end(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure.Benchmark, "others", lambda self: 1.5)
    done = program("bench", str(base), *SHORT, "--json")
    assert "other programs are busy (1.5 processors): these figures will be low" in done.said
    assert any(line.startswith("Other programs used 1.5 of") for line in done.said)
    assert json.loads(done.text)["others"] == 1.5
    monkeypatch.setattr(measure.Benchmark, "others", lambda self: None)
    assert not any("ther programs" in line for line in program("bench", str(base), *SHORT, "--json").said)


def test_a_file_that_cannot_be_written_costs_no_figures(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pophood.bench.view import BenchView

    def full(self: BenchView, path: Path, theme: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(BenchView, "save", full)
    done = program("bench", str(base), *SHORT, "--save", "a.csv")
    assert done.code == 1 and "a.csv: No space left on device" in done.said[-1]
    assert "Prefill of 8 tokens" in done.text


def test_every_setting_is_an_option() -> None:
    import click

    from pophood.bench.settings import BenchSettings
    from pophood.settings import settings_of

    command = pophood.get_command(click.Context(pophood), "bench")
    assert command is not None
    names = {parameter.name for parameter in command.params}
    assert {one.name for one in settings_of(BenchSettings)} <= names


# docs/bench.md ----------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


TEXTS = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def forms_of(text: str) -> list[str]:
    """Return the lines of a text with every number as 0, without units and names that may differ."""
    lines = [re.sub(r"[\d.,]+\d|\d", "0", line) for line in text.splitlines()]
    lines = [re.sub(r"e[+-]0|^\S+ generates|(?<=0) (?:[kMG]B|bytes)|(?<=0) tokens?", "", x) for x in lines]
    lines = [re.sub(r"\([+-]", "(", line) for line in lines]
    lines = [line.replace(" 0 threads", " 0 thread") for line in lines]  # one may be the fastest
    return [line for line in lines if line and not line.startswith("Best")]


def test_the_commands_of_the_page_do_what_it_says(program: Program, base: Path, tmp_path: Path) -> None:
    assert len(COMMANDS) >= 8
    (tmp_path / "notes.txt").write_text("Notes on a small model, and more of them.", encoding="utf-8")
    quick = {"prompt": "8", "tokens": "2", "depth": "1", "threads": "1", "rounds": "1"}
    for command in COMMANDS:
        command, _, target = command.partition(" > ")
        words = [str(base) if word == "smollm2" else word for word in shlex.split(command)]
        if "--quality" not in words:
            words += [word for name, value in quick.items() if f"--{name}" not in words
                      for word in (f"--{name}", value)]  # fmt: skip
            words += [] if "--no-start" in words else ["--no-start"]
        done = program(*words[1:])
        assert done.code == 0, (command, done.said)
        if target:
            (tmp_path / target).write_bytes(done.out)
        if "--quality" in words:
            assert forms_of(done.text)[1:] == forms_of(TEXTS[1])[1:]
    assert {"before.json", "bench.svg", "bench.html"} <= {path.name for path in tmp_path.iterdir()}
    assert "times the earlier" in done.text


def test_the_text_of_the_page_has_the_form_of_what_is_printed(program: Program, base: Path) -> None:
    words = ("--prompt", "9", "--tokens", "2", "--depth", "1,4", "--batch", "4,8", "--threads", "1,2")
    printed = program("bench", str(base), *words, "--rounds", "2", "--precision", "q8", COLUMNS="400").text

    wanted = forms_of(TEXTS[0])
    assert len(wanted) == 9 and forms_of(printed)[: len(wanted)] == wanted


def test_the_program_of_the_page_runs(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "load", lambda name: pophood_load(base) if name == "smollm2" else None)
    names: dict[str, Any] = {}
    exec(PROGRAMS[1], names)
    out = capsys.readouterr().out
    assert out.startswith(names["view"].title) and "prefill of 64" in out
    assert (tmp_path / "bench.svg").stat().st_size > 1000


def test_the_program_about_quality_on_the_page_runs(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = pophood_load(base, precision="q8")
    exec(PROGRAMS[0], {"lm": lm, "text": "Notes on a small model, and more of them."})
    steps, figures = capsys.readouterr().out.splitlines()
    assert steps.startswith("0 of") and 0 < float(figures.split()[0]) < 1
