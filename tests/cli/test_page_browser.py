"""The page of `run --html` in a real browser: mouse, keyboard, no scripts, no network requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pophood.web import built_script
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


def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until this element has the focus; what the drawing script adds lies in between."""
    for _ in range(12):
        page.press("Tab")
        if page.value(FOCUSED) == wanted:
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


def test_cards_come_by_mouse_and_by_keyboard_with_and_without_scripts(page: Page) -> None:
    assert page.value("document.title") == "gpt2 <b> continues “The <i>capital”"
    assert page.value(CARDS) == ["o1t1c"], "the page opens with the first token's card"
    page.mouse("mouseMoved", "#o1t3")
    assert page.value(CARDS) == ["o1t1c", "o1t3c"], "the card under the mouse lies on top"
    page.mouse("mouseMoved", "h1")
    assert page.value(CARDS) == ["o1t1c"]
    tab_to(page, "o1t1")
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
    tab_to(page, "o1t1")
    for key, wanted in (("ArrowRight", "o1t2"), ("End", "o1t8"), ("ArrowLeft", "o1t7"), ("Home", "o1t1")):
        page.press(key)
        assert page.value(FOCUSED) == wanted
    tab_to(page, "o2t1")  # a text is one tab stop
    page.press("Escape")
    assert page.value(CARDS) == []
    assert page.value("history.length") == 2, "no history entry per token"


def test_a_screen_reader_hears_word_and_probability(page: Page) -> None:
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    links = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "link"]
    assert links[0] == "Madrid, probability 90.0 %"
    assert links[1] == "line break, probability 30.0 %"
    assert len(links) == 16


def test_colours_and_curves_are_drawn_where_the_script_is_built(page: Page) -> None:
    if built_script("run") is None or not page.value("document.documentElement.dataset.drawn"):
        return  # the page is whole without it, as the other tests show
    colour = "document.getElementById('o1t5').style.backgroundColor"
    assert page.value("document.querySelectorAll('.ph-stage canvas').length") == 2
    assert page.value(colour) == ""
    page.value("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'c'}))")
    assert page.value("document.querySelector('.colour select').selectedOptions[0].text") == "surprisal"
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", page.value(colour)), "a token of 23 bits is coloured"
    said = "document.querySelector('.ph-stage').getAttribute('aria-label')"
    assert "surprisal: 0.152 at 1" in page.value(said), page.value(said)
    page.value("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'c'}))")
    page.value("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'c'}))")
    assert page.value(colour) == "", "the page's own shades are back"
