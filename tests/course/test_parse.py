"""Pages are read strictly: each kind of mistake is an error that names file and line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pophood.cli.app import pophood
from pophood.course import Course, languages, load_course
from pophood.course.pages import KINDS, SECTIONS
from pophood.course.parse import parse_page
from pophood.errors import BadFile, BadInput
from tests.conftest import ROOT

PAGE = """\
---
talk: 16-17
---
# Tokens

A few words.

## Predict

```guess number
How many?
```

```hint
Count.
```

## Run

```python run
lm.tokenize("x")
```

```sh
pophood look tokens
```

## Check

```python check
1 + 1
```

## Explain

Because.
"""
SOLUTION = "# Tokens\n\nTwo.\n"


def parsed(course: Course, text: str, solution: str = SOLUTION) -> object:
    return parse_page("en/01-tokens.md", text, solution, dict(course.words))


def test_a_sound_page_is_read(course: Course) -> None:
    page = parse_page("en/01-tokens.md", PAGE, SOLUTION, dict(course.words))
    assert (page.number, page.name, page.title, page.talk) == (1, "tokens", "Tokens", "16-17")
    assert tuple(page.sections) == SECTIONS
    assert page.guess.label == "number" and page.guess.text == "How many?"
    assert [cell.kind for cell in page.sections["run"]] == ["run", "sh"]
    assert page.check.text == "1 + 1" and PAGE.splitlines()[page.check.line - 1] == "1 + 1"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("---\ntalk", "talk", 1, "begins with a line ---"),
        ("talk: 16-17", "talk: sixteen", 2, "wanted `talk: 16`"),
        ("16-17\n---", "16-17", 3, "wanted --- after"),
        ("16-17\n", "16-17\nslides: 2\n", 3, "or `slides: 3`"),
        ("16-17\n", "16-17\nneeds: luck\n", 3, "or `needs: torch`"),
        ("16-17\n", "16-17\ncontinues: embeddings\nneeds: torch\n", 4, "wanted --- after"),
        ("# Tokens", "Tokens", 4, "wanted a title"),
        ("## Run", "## Rum", 18, "'## Rum'"),
        ("## Check\n", "", 29, "a check cell does not belong in the part 'run'"),
        ("```hint", "```tip", 14, "there is no cell 'tip'"),
        ("guess number", "guess colour", 10, "number, text, yes-no"),
        ("1 + 1", "x = 2", 30, "must end with an expression"),
        ("1 + 1", "1 +", 31, "not Python"),
        ("Count.", "", 14, "is empty"),
        ("Because.", "Be `cause.", 36, "backtick"),
        ("Because.", "Be\n\n**cause.", 38, "** without its partner"),
        ("Because.", "> Because.", 36, "begins something other than a paragraph"),
        ("Because.", "| a | b", 36, "row of a table"),
        ("Because.", "```differs llama\nx\n```", 36, "rotary"),
        ("Because.", "```text\nBecause.", 36, "never closed"),
        ("A few words.", "```sh\nls\n```", 6, "does not belong in the part 'lead'"),
        ("1 + 1", "1 + 1" + " + 1" * 30, 31, "wanted at most 100 in a line of code"),
    ],
)
def test_a_mistake_names_file_and_line(course: Course, old: str, new: str, line: int, words: str) -> None:
    assert PAGE.count(old) == 1
    with pytest.raises(BadFile, match=rf"^en/01-tokens\.md:{line}: .*{re.escape(words)}"):
        parsed(course, PAGE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("16-17\n", "16-17\nslides: 4\n", "wants 4 slides, but has 1 run cells for those between two"),
        ("```hint\nCount.\n```", "", "has 0 hint cells, wanted 1 to 9"),
        ("```sh\npophood look tokens\n```", "", "has 0 sh cells"),
        ("How many?\n```", "How many?\n```\n\n```guess text\nWhich?\n```", "has 2 guess cells, wanted 1"),
        ("Because.\n", "", "has 0 prose cells"),
        ("## Explain\n\nBecause.\n", "", "ends without its section '## Explain'"),
    ],
)
def test_a_page_wants_all_of_its_parts(course: Course, old: str, new: str, words: str) -> None:
    with pytest.raises(BadFile, match=re.escape(words)):
        parsed(course, PAGE.replace(old, new))


def test_a_solution_has_no_guess(course: Course) -> None:
    with pytest.raises(BadFile, match=r"^en/solutions/01-tokens\.md:3: a hint cell does not belong"):
        parsed(course, PAGE, "# Tokens\n\n```hint\nx\n```\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "solutions").mkdir()
    words = ROOT / "src" / "pophood" / "course" / "en" / "words.toml"
    (tmp_path / "words.toml").write_bytes(words.read_bytes())
    (tmp_path / "01-tokens.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "solutions" / "01-tokens.md").write_text(SOLUTION, encoding="utf-8")
    return tmp_path


def test_another_folder_is_another_language(folder: Path) -> None:
    words = (folder / "words.toml").read_text(encoding="utf-8")
    german = words.replace('explain = "Explain"', 'explain = "Erklären"')
    (folder / "words.toml").write_text(german, encoding="utf-8")
    text = PAGE.replace("## Explain", "## Erklären")
    (folder / "01-tokens.md").write_text(text, encoding="utf-8")
    assert load_course("de", folder).pages[0].title == "Tokens"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "01-tokens.md").rename(f / "02-tokens.md"), "wanted a name such as 01-tokens.md"),
        (lambda f: (f / "solutions" / "01-tokens.md").unlink(), "has no solutions/01-tokens.md"),
        (lambda f: (f / "solutions" / "02-x.md").write_text("x"), "there is no page of that name"),
        (lambda f: (f / "words.toml").write_text('title = "x"'), "wanted the keys of en/words.toml"),
        (lambda f: (f / "words.toml").write_text("title"), "words.toml"),
    ],
)
def test_a_folder_is_checked_too(folder: Path, change: Callable[[Path], object], words: str) -> None:
    change(folder)
    with pytest.raises(BadFile, match=re.escape(words)):
        load_course("de", folder)


def test_a_page_goes_on_with_an_earlier_one(folder: Path) -> None:
    def add(name: str, front: str) -> None:
        text = PAGE.replace("talk: 16-17", f"talk: 16-17\n{front}") if front else PAGE
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        (folder / "solutions" / f"{name}.md").write_text(SOLUTION, encoding="utf-8")

    add("02-more", "needs: torch\ncontinues: tokens")
    first, second = load_course("de", folder).pages
    assert (first.needs, first.earlier, first.kept) == ("", None, True)
    assert (second.needs, second.earlier, second.kept) == ("torch", first, False)
    for wrong in ("more", "later", "nothing"):  # a page that continues itself, a later one, a missing one
        add("03-more-still", f"continues: {wrong}")
        with pytest.raises(
            BadFile, match=rf"^de/03-more-still\.md: continues '{wrong}', wanted an earlier page"
        ):
            load_course("de", folder)


def test_an_unknown_language_lists_what_there_is() -> None:
    assert "en" in languages()
    with pytest.raises(BadInput, match=r"no course in 'xx'; the languages are: en"):
        load_course("xx")


def test_every_kind_of_model_is_spoken_of(course: Course) -> None:
    assert {f"kind_{kind}" for kind in KINDS} <= course.words.keys()
    used = {cell.label for page in course.pages for cell in page.cells("differs")}
    assert {"rotary", "rms-norm", "gated-mlp", "grouped-query", "other-family"} <= used


def test_every_shell_line_is_a_command_that_exists(course: Course) -> None:
    """The commands' own parsers accept every shell line, including its options and values. None is run."""
    lines = {line for page in course.pages for cell in page.cells("sh") for line in cell.text.splitlines()}
    assert len(lines) > 20
    for line in sorted(line for line in lines if not line.startswith("for ")):  # loops only generate text
        name, *rest = shlex.split(line)
        assert name == "pophood"
        command: click.Command = pophood
        while isinstance(command, click.Group):
            _, found, rest = command.resolve_command(click.Context(command), rest)
            assert found is not None, line
            command = found
        command.make_context(line, list(rest))
