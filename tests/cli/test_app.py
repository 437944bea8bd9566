"""The program's entry point: commands, help, exit codes, one-line messages for every mistake."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pophood.cli.app import VERBS, explain, pophood
from pophood.cli.options.tune import TuneArgs
from pophood.errors import BadFile, BadInput, Cancelled, ContextOverflow, NotFound, OutOfMemory
from pophood.sampling import RANGES, STEPS, SamplingSettings
from pophood.settings import settings_of
from pophood.train.settings import DataOptions, LoraSettings, TrainSettings
from tests import processes

PRINTS_DATA = {"run", "chat", "pull", "list", "use", "show", "rm", "doctor", "demo"}


def verb(name: str) -> click.Command:
    command = pophood.get_command(click.Context(pophood), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_an_example_and_the_common_options(name: str) -> None:
    text = CliRunner().invoke(pophood, [name, "--help"]).output
    assert f"Example: pophood {name}" in " ".join(text.split())
    for option in ("-q", "-v", "--help", *(["--json"] if name in PRINTS_DATA else [])):
        assert option in text
    first = (verb(name).help or "").split("\n\n")[0]
    assert " ".join(first.split()) == VERBS[name]


def test_help_lists_every_verb_and_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom pophood.cli.app import pophood\n"
        "try: pophood.main(['--help'])\nexcept SystemExit: pass\n"
        "loaded = [m for m in sys.modules if m.startswith('pophood.')]\n"
        "print(loaded, file=sys.stderr)"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, words in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(words)}", done.stdout, re.MULTILINE)
    assert set(re.findall(r"'pophood\.([\w.]+)'", done.stderr)) <= {
        "_moved",
        "cli",
        "cli.app",
        "cli.terminal",
        "cli.terminal.console",
        "errors",
    }


def test_bare_pophood_fits_twelve_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path))
    result = CliRunner().invoke(pophood, [])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 12
    shown = set(re.findall(r"^  pophood (\w+)", result.output, re.MULTILINE))
    assert len(shown) == 5
    assert shown <= set(VERBS)
    assert "odel" in result.output.splitlines()[1]


OTHER_FIELDS = {"order", "logit_bias", "dry_breakers"}  # options of their own form


def test_sampling_options_are_the_settings_of_the_library() -> None:
    listed = {one.name: one for one in settings_of(SamplingSettings)}
    assert {*listed, *OTHER_FIELDS} == {one.name for one in fields(SamplingSettings)}
    assert set(listed) == set(RANGES)
    helps = {name: str(vars(option).get("help")) for option in verb("run").params for name in option.opts}
    for name, one in listed.items():
        assert (one.kind is int) == RANGES[name].whole
        assert f"(default {getattr(SamplingSettings(), name):g})" in helps[f"--{one.flag}"]
    assert {"--order", "--logit-bias", "--dry-breaker"} <= set(helps)
    assert f"(default {', '.join(STEPS)})" in helps["--order"]


def test_tune_without_options_has_the_settings_of_the_library() -> None:
    assert TuneArgs().train_settings() == TrainSettings()
    assert TuneArgs(from_scratch="gpt2-tiny").train_settings() == TrainSettings(method="full")
    assert TuneArgs().data_options() == DataOptions()
    options = {name for option in verb("tune").params for name in (*option.opts, *option.secondary_opts)}
    for settings in (TrainSettings, LoraSettings, DataOptions):
        for one in settings_of(settings):
            assert {f"--{flag}" for flag in one.flag.split("/")} <= options
    assert TrainSettings().patience == 4


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BadInput("top_k is -1"), 2, "top_k is -1"),
        (ContextOverflow(1100, 1024), 2, "1,100"),
        (BadFile("x.gguf: cut off"), 1, "x.gguf: cut off"),
        (NotFound("gpt2: not here"), 1, "gpt2"),
        (OutOfMemory("needs 6 GiB"), 1, "6 GiB"),
        (MemoryError(), 1, "memory"),
        (KeyboardInterrupt(), 130, None),
        (Cancelled("stopped"), 130, None),
        (click.Abort(), 130, None),
        (SystemExit(3), 3, None),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.txt"), 1, "x.txt: No such file"),
        (click.UsageError("no such thing"), 2, "no such thing. See `pophood --help`"),
        (click.exceptions.Exit(0), 0, None),
        (KeyError("oops"), 1, None),
    ],
)
def test_exit_codes_and_words(error: BaseException, code: int, words: str | None) -> None:
    got, said = explain(error)
    assert got == code
    assert (said is None) == (words is None)
    assert words is None or words in (said or "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["shwo"], "No such command 'shwo'. Did you mean 'show'? See `pophood --help`"),
        (["--colour"], "No such option '--colour'. See `pophood --help`"),
        (["show", "--colour"], "No such option '--colour'. See `pophood show --help`"),
        (["run", "a", "b"], "Got unexpected extra argument (b). See `pophood run --help`"),
        (["run", "a", "--top-k", "many"], "Invalid value for '--top-k': 'many' is not a valid integer."),
        (["run", "a", "--samples", "0"], "Invalid value for '--samples': 0 is not in the range"),
        (["run", "a", "--top-k", "-1"], "is -1; wanted"),
        (["run", "a", "--top-p", "1.5"], "is 1.5; wanted"),
        (["run", "a", "--temperature", "nan"], "is nan; wanted"),
        (["run", "a", "--order", "top_k,sort"], "'sort'"),
        (["run", "a", "--greedy", "--temperature", "1"], "--greedy and --temperature 1 contradict"),
        (["run", "a", "--min-tokens", "9", "--max-tokens", "3"], "min_tokens is 9"),
        (["run", "a", "--stop", ""], "stop holds ''"),
        (["run", "a", "-v", "-q"], "-v and -q contradict"),
        (["run", "a", "--open"], "--open shows the page that --html writes"),
        (["run", "a", "--html", "no/such/folder/x.html"], "does not exist"),
        (["run", "a", "--file", __file__], "a prompt and --file were both given"),
        (["run", "--file", "no-such-file"], "'no-such-file' does not exist"),
        (["run", "a", "-m", "gpt22"], "did you mean gpt2"),
        (["run", "a", "-m", "./nowhere"], "there is no such file or folder"),
        (["chat", "--json"], "--json prints one answer"),
        (["use", "gpt2", "--none"], "contradict"),
        (["rm", "no-such-model"], "no-such-model: not in pophood's store"),
        (["pull", "no such/../model"], "is not a model's name"),
        (["show", "own/er/x"], "own/er/x"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1_or_2(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path))
    monkeypatch.setenv("POPHOOD_OFFLINE", "1")
    result = CliRunner().invoke(pophood, arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("pophood: ")
    assert line in result.stderr


def test_our_own_mistake_is_one_line_and_with_v_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("oops")

    monkeypatch.setattr("pophood.hub.list_models", broken)
    brief = CliRunner().invoke(pophood, ["list"])
    assert brief.exit_code == 1
    assert brief.stderr.splitlines() == [
        "pophood: a bug in pophood, please report it: KeyError: 'oops' (-v shows where)"
    ]
    assert "Traceback" in CliRunner().invoke(pophood, ["list", "-v"]).stderr


@pytest.mark.parametrize("arguments", [["show", "gpt2"], ["--help"], ["show", "gpt2", "--json"]])
def test_a_reader_that_leaves_is_no_news(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = processes.run(
        [sys.executable, "-m", "pophood", *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and b"Broken" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="another operating system: no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = processes.run(
            [sys.executable, "-m", "pophood", "show", "gpt2", "-q"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"pophood: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: no POSIX shell")
def test_closed_streams_are_no_crash() -> None:
    command = f"{shlex.quote(sys.executable)} -m pophood show gpt2 <&- >&- 2>&-"
    assert processes.run(["sh", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [["show", "gpt2"], ["list"], ["run", "--help"], []])
def test_output_survives_every_console(encoding: str, arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "NO_COLOR": "1", "PYTHONUTF8": "0"}
    done = processes.run(
        [sys.executable, "-m", "pophood", *arguments], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    done.stdout.decode(encoding)
