"""The README's pictures: there, small, well formed, described; and the recording's commands, which exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from PIL import Image

from docs.pictures import animation
from docs.pictures.recorder import PROMPT, Piece, record
from docs.pictures.screen import Screen
from pophood.cli.app import pophood
from tests.conftest import ROOT

LARGEST = 300_000  # bytes
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = sorted(set(re.findall(r'(?:src|srcset)="([^"]+)"|!\[[^\]]*\]\(([^)\s]+)\)', README)))
NAMES = [one or other for one, other in PICTURES]
SPACE = "{http://www.w3.org/2000/svg}"


def test_the_readme_shows_a_page_a_view_a_report_and_a_terminal() -> None:
    stems = {re.sub(r"-(?:light|dark)$", "", Path(name).stem) for name in NAMES}
    assert {"terminal", "run", "attention", "report"} <= stems


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_there_small_and_well_formed(name: str) -> None:
    path = ROOT / name
    assert ROOT / "docs" / "images" in path.parents
    assert 1_000 < path.stat().st_size < LARGEST
    if path.suffix == ".svg":
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag == f"{SPACE}svg" and root.get("viewBox")
        assert [child.tag for child in root[:2]] == [f"{SPACE}title", f"{SPACE}desc"]
        assert not [one for one in root.iter() if one.tag in (f"{SPACE}script", f"{SPACE}foreignObject")]
    else:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and image.width >= 1000


def test_every_picture_has_words_and_both_themes() -> None:
    images = re.findall(r"<img\b[^>]*>", README)
    assert images
    for image in images:
        words = re.search(r'alt="([^"]+)"', image)
        assert words and len(words[1]) > 40, image
    for picture in re.findall(r"<picture>.*?</picture>", README, re.DOTALL):
        light, dark = re.search(r'src="([^"]+)"', picture), re.search(r'srcset="([^"]+)"', picture)
        assert light and dark and "(prefers-color-scheme: dark)" in picture
        assert dark[1] == light[1].replace("-light", "-dark") != light[1]


def recorded() -> list[str]:
    """The commands of the recording, from its description."""
    root = ElementTree.parse(ROOT / "docs" / "images" / "terminal.svg").getroot()
    text = root.findtext(f"{SPACE}desc") or ""
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def parse(words: list[str]) -> None:
    """Read a command line as the program does, without running it; raises click's error."""
    command: click.Command = pophood
    context = click.Context(command, info_name=words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        if not isinstance(command, click.Group):
            command.make_context(name, list(rest), parent=context)
        else:
            context = click.Context(command, info_name=name, parent=context)


def test_the_recorded_commands_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shakespeare.txt").write_text("To be")
    (tmp_path / "shakespeare-lora").mkdir()
    verbs = [shlex.split(line)[1] for line in recorded()]
    assert {"run", "look", "tune"} <= set(verbs)
    for line in recorded():
        assert line.startswith("pophood ")
        parse(shlex.split(line))
    for wrong in ("pophood ruin x", "pophood look nothing", "pophood tune x.txt --no-such-option"):
        with pytest.raises(click.ClickException):
            parse(shlex.split(wrong))


def test_a_screen_shows_what_a_terminal_shows() -> None:
    screen = Screen(5, 2)
    screen.feed("abc\rX\r\n\x1b[1A\x1b[2K\x1b[31mde\x1b[0mf\x1b[?25l")
    assert screen.lines() == ["def", ""]
    assert [style.colour for _, style in screen.rows()[0]] == ["#ff7b72", "#ff7b72", None]
    screen.feed("ghijk\nlm")
    assert screen.lines() == ["ijk", "   lm"], "wrapped, scrolled; a line feed keeps its column"
    with pytest.raises(ValueError, match="does not know"):
        screen.feed("\x1b[2J")
    with pytest.raises(ValueError, match="fills one cell"):
        screen.feed("日")


def test_waits_are_cut_and_the_last_screen_stays() -> None:
    pieces = [
        Piece(0.0, "go", True),
        Piece(600.0, "\r\none\r\n", False),
        Piece(1200.0, f"<&\r\n{PROMPT}", False),
    ]
    shown, length = animation.frames([pieces], 20, 4)
    assert length < 20 and [frame.second for frame in shown] == sorted({frame.second for frame in shown})
    text = animation.svg(shown, length, 20, "a & b", "$ go <x>")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SPACE}desc") == "$ go <x>"
    assert "<&" in {one.text for one in root.iter(f"{SPACE}text")}
    assert f"translateY({-17 * 4 * (len(shown) - 1)}px)" in text, "without animations the last screen is seen"


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: no pseudo-terminals")
def test_a_shell_is_recorded(tmp_path: Path) -> None:
    recording = record(
        ["echo $((6*7))", "pwd"], tmp_path, {"PATH": "/usr/bin:/bin"}, 80, 5, {str(tmp_path): "~"}
    )
    screen = Screen(80, 8)
    screen.feed(PROMPT + "".join(piece.text for pieces in recording for piece in pieces))
    assert screen.lines()[:5] == ["❯ echo $((6*7))", "42", "❯ pwd", "~", "❯"]
