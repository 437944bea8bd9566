"""Output that differs between a terminal and a pipe: samples on one line, coloured bars; split tables."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pophood.cli.terminal.display import Display
from pophood.cli.terminal.outputs import RETURN
from pophood.cli.terminal.tables import width
from pophood.cli.terminal.view_screen import rows
from pophood.table import Table
from tests.cli.conftest import Program
from tests.cli.terminal import QUICK, terminal

# Make the tiny model generate only line breaks and the letter a.
BREAKS = ("-n", "6", "--seed", "1", "--top-k", "2", "--temperature", "100", "--logit-bias", "198=1000",
          "--logit-bias", "64=1000")  # fmt: skip
COLOUR = "\x1b[38;"


def shown(arguments: tuple[str, ...], settings: dict[str, str], folder: Path, end: str, **more: str) -> str:
    with terminal(arguments, settings | more, folder, QUICK) as screen:
        return screen.until(end).replace("\r\n", "\n")


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", RETURN), ("ascii", "\\n")])
def test_samples_stay_on_their_lines(
    program: Program, base: Path, settings: dict[str, str], tmp_path: Path, encoding: str, mark: str
) -> None:
    arguments = ("run", "One", "-m", str(base), "--samples", "4", *BREAKS)
    text = shown(arguments, settings, tmp_path, "tokens in ", PYTHONIOENCODING=encoding, NO_COLOR="1")
    lines = [line for line in text.splitlines() if line.startswith("Output ")]
    assert [line[:11] for line in lines] == [f"Output  {number}: " for number in (1, 2, 3, 4)]
    assert sum(line.count(mark) for line in lines) > 4
    piped = program(*arguments).text
    texts = [line.replace(mark, "\n") for line in lines]
    wanted = "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
    assert piped == wanted, "a pipe gets the very text"


def test_a_prompt_of_several_lines_stays_on_the_line_of_its_sample(
    base: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "two.txt").write_bytes(b"One\r\ntwo\nthree")
    arguments = ("run", "-f", "two.txt", "-m", str(base), "--samples", "2", "-n", "1", "--seed", "1")
    text = shown(arguments, settings, tmp_path, "tokens in ", NO_COLOR="1")
    assert text.count(f": One{RETURN}two{RETURN}three") == 2


def test_one_sample_keeps_its_lines(base: Path, settings: dict[str, str], tmp_path: Path) -> None:
    text = shown(("run", "One", "-m", str(base), *BREAKS), settings, tmp_path, "tokens in ")
    assert RETURN not in text


def test_bars_are_coloured_at_a_terminal(
    program: Program, base: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    for command in (("demo",), ("look", "next"), ("look", "parameters")):
        arguments = (*command, "-m", str(base))
        with terminal(arguments, settings, tmp_path, QUICK, columns=160) as screen:
            text = screen.rest()
        assert re.search(r"\x1b\[38;5;\d+m[█▏▎▍▌▋▊▉]+\x1b\[0m", text), command
        plain = program(*arguments).text
        assert "\x1b[" not in plain
        assert re.search("[█▏▎▍▌▋▊▉]", plain)
    with terminal(("demo", "-m", str(base)), settings | {"NO_COLOR": "1"}, tmp_path, QUICK) as screen:
        text = screen.rest()
    assert "\x1b[38" not in text
    assert re.search("[█▏▎▍▌▋▊▉]", text)


def test_coloured_bars_line_up() -> None:
    table = Table(
        ("token_id", "token_text", "p"), ((1, " a", 0.5), (22, " bcd", 0.25), (3, "", 0.0)), bars="p"
    )
    full = Display(80, "full", True, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    none = Display(80, "none", True, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    coloured = rows(table, full)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == rows(table, none)
    assert coloured.count("\x1b[38") == 2, "no bar, no colour"


@pytest.mark.parametrize("columns", [40, 48, 60])
def test_a_table_that_is_split_keeps_the_text_of_the_tokens_in_each_part(columns: int) -> None:
    numbers = tuple(f"a_long_number_{i}" for i in range(6))
    table = Table(
        ("position", *numbers[:3], "token_text", *numbers[3:]),
        tuple((row, *[1.5] * 3, f" word{row}", *[2.5] * 3) for row in range(3)),
    )
    display = Display(columns, "none", True, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    parts = rows(table, display).split("\n\n")
    assert len(parts) > 1
    for part in parts:
        head, *body = part.splitlines()
        assert head.split()[:2] == ["position", "token_text"]
        assert ['" word0"' in body[0], '" word1"' in body[1], '" word2"' in body[2]] == [True] * 3
        assert max(map(width, part.splitlines())) <= columns
    assert sorted(name for part in parts for name in part.splitlines()[0].split()[2:]) == sorted(numbers)


def test_a_split_table_without_tokens_keeps_its_first_column() -> None:
    table = Table(("part", *(f"a_long_number_{i}" for i in range(4))), (("norm", 1.5, 2.5, 3.5, 4.5),))
    display = Display(40, "none", True, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    parts = rows(table, display).split("\n\n")
    assert len(parts) > 1 and all(part.startswith("part") for part in parts)
