"""The page of `run --html` in a real browser: mouse, keyboard, no scripts, no network requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.browser import Page, chromium
from tests.cli.test_page import TEXT

SHOWN = "getComputedStyle(card).display !== 'none'"
CARDS = f"[...document.querySelectorAll('.card')].filter(card => {SHOWN}).map(card => card.id)"
FOCUSED = "document.activeElement.id"


@pytest.fixture(params=["scripts", "no scripts"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    file = tmp_path / "page.html"
    file.write_text(TEXT, encoding="utf-8")
    with chromium(tmp_path / "profile") as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=request.param == "no scripts")
        tab.open(file)
        yield tab
        requests = [
            e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"
        ]
        assert {url.split("#")[0] for url in requests} == {file.as_uri()}
        complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        assert not [event for event in tab.events if event["method"] in complaints]


def test_cards_come_by_mouse_and_by_keyboard_with_and_without_scripts(page: Page) -> None:
    assert page.value("document.title") == "gpt2 <b> continues “The <i>capital”"
    assert page.value(CARDS) == ["o1t1c"], "the page opens with the first token's card"
    page.mouse("mouseMoved", "#o1t3")
    assert page.value(CARDS) == ["o1t1c", "o1t3c"], "the card under the mouse lies on top"
    page.mouse("mouseMoved", "h1")
    assert page.value(CARDS) == ["o1t1c"]
    page.press("Tab")
    assert page.value(FOCUSED) == "o1t1"
    assert page.value(CARDS) == ["o1t1c"]
    page.mouse("click", "#o1t5")
    assert "o1t5c" in page.value(CARDS)
    page.mouse("mouseMoved", "h1")
    assert "o1t5c" in page.value(CARDS), "a click keeps the card"


def test_arrow_keys_walk_and_escape_closes(page: Page) -> None:
    if not page.value("document.documentElement.classList.contains('scripted')"):
        page.press("Tab")
        page.press("Tab")  # without scripts, Tab goes from token to token
        assert page.value(FOCUSED) == "o1t2"
        return
    page.press("Tab")
    for key, wanted in (("ArrowRight", "o1t2"), ("End", "o1t8"), ("ArrowLeft", "o1t7"), ("Home", "o1t1")):
        page.press(key)
        assert page.value(FOCUSED) == wanted
    page.press("Tab")
    assert page.value(FOCUSED) == "o2t1", "a text is one tab stop"
    page.press("Escape")
    assert page.value(CARDS) == []
    assert page.value("history.length") == 2, "no history entry per token"


def test_a_screen_reader_hears_word_and_probability(page: Page) -> None:
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    links = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "link"]
    assert links[0] == "Madrid, probability 90.0 %"
    assert links[1] == "line break, probability 30.0 %"
    assert len(links) == 16
