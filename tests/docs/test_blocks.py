"""Every fenced block of every page is run, or a table says which test has it, or why none can."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from pophood.course import load_course
from pophood.course.pages import SECTIONS
from pophood.course.parse import parse_page
from tests.conftest import ROOT
from tests.docs.blocks import Block, all_blocks, blocks_of
from tests.docs.plan import FILES, INSTEAD, LONG, NOT_RUN, TESTED_BY, Table
from tests.docs.story import Story

RUNNABLE = ("python", "sh")
TABLES = {"TESTED_BY": TESTED_BY, "NOT_RUN": NOT_RUN, "LONG": LONG, "FILES": FILES}


def listed(block: Block, table: Table) -> list[str]:
    """Return what a table says about a block."""
    return [said for name, said in table.get(block.page, {}).items() if block.named(name)]


def places(block: Block) -> list[str]:
    """Return everything that is said of a block: exactly one thing, if the tables are right."""
    return [said for table in (TESTED_BY, NOT_RUN, FILES) for said in listed(block, table)]


def told(block: Block) -> bool:
    """Return True for a block that is run here."""
    return block.kind in RUNNABLE and not places(block)


LONG_PAGES = sorted({block.page for block in all_blocks() if told(block) and listed(block, LONG)})
QUICK_PAGES = sorted({block.page for block in all_blocks() if told(block) and not listed(block, LONG)})


def test_every_block_names_its_language() -> None:
    assert [str(block) for block in all_blocks() if not block.kind] == []


def test_every_block_is_run_or_listed_once() -> None:
    assert len(all_blocks()) > 150
    wrong = [
        (str(block), places(block)) for block in all_blocks() if not told(block) and len(places(block)) != 1
    ]
    assert wrong == []


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_lists_is_there(name: str) -> None:
    lost = [
        (page, entry)
        for page, entries in TABLES[name].items()
        for entry in entries
        if not any(block.page == page and block.named(entry) for block in all_blocks())
    ]
    assert lost == []
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in INSTEAD}
    assert [text for page, changes in INSTEAD.items() for text in changes if text not in texts[page]] == []


def test_the_tests_that_are_named_exist() -> None:
    for test in {said for entries in TESTED_BY.values() for said in entries.values()}:
        file, _, function = test.partition("::")
        assert f"\ndef {function}(" in (ROOT / file).read_text(encoding="utf-8"), test


def tell(page: str, folder: Path, smollm2: Path, *, whole: bool) -> None:
    """Run the page's blocks in order, the long ones only if `whole`."""
    blocks = [block for block in all_blocks() if block.page == page]
    with Story(page, blocks, folder, smollm2) as story:
        for block in blocks:
            if told(block) and (whole or not listed(block, LONG)):
                story.tell(block)


@pytest.mark.parametrize("page", QUICK_PAGES)
def test_the_blocks_of_a_page_run_in_order(page: str, tmp_path: Path, smollm2: Path) -> None:
    tell(page, tmp_path, smollm2, whole=False)


@pytest.mark.full
@pytest.mark.parametrize("page", LONG_PAGES)
def test_the_long_blocks_of_a_page_run_too(page: str, tmp_path: Path, smollm2: Path) -> None:
    if page == "docs/batch.md" and find_spec("ray") is None:
        pytest.skip("needs packages: the extra [ray] (make test-full)")
    tell(page, tmp_path, smollm2, whole=True)


@pytest.mark.parametrize("text", ["```sh\nfalse\ntrue\n```\n", "```python\nassert not lm\n```\n"])
def test_a_block_that_fails_is_found(text: str, tmp_path: Path, smollm2: Path) -> None:
    (block,) = blocks_of(text, "a.md")
    assert told(block)
    with Story("a.md", [block], tmp_path, smollm2) as story, pytest.raises((AssertionError, NameError)):
        story.tell(block)


def test_the_page_of_a_course_that_is_shown_is_one() -> None:
    (block,) = (one for one in all_blocks() if one.page == "docs/course.md" and one.kind == "markdown")
    page = parse_page("en/01-tokens.md", block.text, "# Text becomes tokens\n\nFive.\n", load_course().words)
    assert page.title == "Text becomes tokens" and tuple(page.sections) == SECTIONS
