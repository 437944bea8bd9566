"""The slides are complete, self-contained, and work in a browser: keys, themes, no scripts, print, axe."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import pophood
from pophood.course import Course
from pophood.course.deck import deck_html
from pophood.course.deck.parts import Group, arranged, columns, text
from pophood.course.pages import SLIDES
from pophood.look.figures.theme import DARK, LIGHT
from tests.cli.browser import Page, chromium
from tests.course.slides import CUT_IN_PRINT, SIZES, faults, ids, sized
from tests.tiny import tiny_folder

CHOSEN = {2, 10, 23}
SLIDES_OF_DECK = 2 + 2 * len(CHOSEN)
SHOWN = "[...document.querySelectorAll('.slide')].filter(s => getComputedStyle(s).display !== 'none')"
NOW = f"{SHOWN}.map(s => s.id)"


@pytest.fixture(scope="module")
def deck(course: Course, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the deck of three pages of the course, made with a model of two blocks."""
    lm = pophood.load(tiny_folder(tmp_path_factory.mktemp("deck") / "model", "gpt2"))
    pages = tuple(page for page in course.pages if page.number in CHOSEN)
    return deck_html(replace(course, pages=pages), lm, "gpt2")


@pytest.fixture(scope="module", params=["light", "dark"])
def browser(
    request: pytest.FixtureRequest, deck: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, Path]]:
    folder = tmp_path_factory.mktemp("browser")
    file = folder / "talk.html"
    file.write_text(deck, encoding="utf-8")
    file.with_name("blank.html").write_text("<title>blank</title>", encoding="utf-8")
    with chromium(folder / "profile") as tab:
        scheme = [{"name": "prefers-color-scheme", "value": request.param}]
        tab.call("Emulation.setEmulatedMedia", features=scheme)
        yield tab, file


@pytest.fixture
def page(browser: tuple[Page, Path]) -> Iterator[Page]:
    tab, file = browser
    # The blank page comes first, since opening the same address again does not reload it.
    for path in (file.with_name("blank.html"), file):
        tab.events.clear()
        tab.open(path)
    yield tab
    asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert not [url for url in asked if not url.startswith(("data:", file.as_uri()))]
    complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert not [event for event in tab.events if event["method"] in complaints]


def test_it_needs_nothing_from_elsewhere(deck: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', deck)
    assert policy is not None and policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1] and not re.search(r"\sstyle=|\son\w+=|src=\"http|<link", deck)
    for tag in ("style", "script"):
        inner = deck.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_every_page_has_question_outputs_and_answer(deck: str, course: Course) -> None:
    for page in course.pages:
        if page.number in CHOSEN:
            found = re.findall(rf'<section class="[^"]*" id="(p{page.number}(?:r\d+|x|))"', deck)
            assert found == [f"p{page.number}", f"p{page.number}x"]
    assert "The answer: 5." in deck and "1,557,611,200" in deck and "token_text" in deck
    assert deck.count('<img class="light"') == deck.count('<img class="dark"') == 2
    assert "the same in all four\n\n\ndef parameters" in deck, "code keeps its empty lines"
    assert not re.search(r'<img[^>]*alt=""', deck) and 'aside class="notes"' in deck


def test_more_slides_share_the_run_cells() -> None:
    groups = [Group([text("prose", f"before {i}")], text("code", str(i)), []) for i in range(4)]
    two = arranged(2, groups)
    assert [part["text"] for part in two.beside_question][:2] == ["before 0", "0"] and not two.apart
    assert [len(slide) for slide in arranged(4, groups).apart] == [2, 2]
    assert [len(slide) for slide in arranged(5, groups).apart] == [1, 1, 2]
    said, shown = columns(arranged(3, groups).apart[0])
    assert len(said) == 8 and shown == []


def test_most_pages_have_two_slides(course: Course) -> None:
    """A page with more says so in its front matter, and has run cells for them."""
    assert sum(page.slides > SLIDES for page in course.pages) < len(course.pages) / 2
    for page in course.pages:
        assert page.slides <= SLIDES + len(list(page.cells("run", "run")))


def test_its_colours_are_those_of_the_pictures(deck: str) -> None:
    for theme in (LIGHT, DARK):
        assert f"--background: {theme.background}; --surface: {theme.surface}; --text: {theme.text};" in deck


def test_keys_walk_and_lists_open(page: Page) -> None:
    assert page.value(NOW) == ["start"]
    assert page.value("document.documentElement.classList.contains('paged')")
    page.press("ArrowRight")
    assert page.value(NOW) == ["contents-of-the-talk"]
    page.press("ArrowRight")
    assert page.value(NOW) == ["p2"]
    assert page.value("document.activeElement.id") == "p2h", "a reader of the screen hears the new slide"
    page.press("End")
    assert page.value(NOW) == ["p23x"] and page.value("document.getElementById('on').disabled")
    page.press("ArrowLeft")
    assert page.value(NOW) == ["p23"]
    page.press("Home")
    assert page.value(NOW) == ["start"] and page.value("location.hash") == "#start"
    page.mouse("click", "#on")
    assert page.value(NOW) == ["contents-of-the-talk"]
    page.mouse("click", "#list")
    assert page.value("getComputedStyle(document.getElementById('contents')).display") == "block"
    page.press("Escape")
    page.value("location.hash = '#p23x'")
    page.value("new Promise(done => setTimeout(done, 100)).then(() => 1)")
    assert page.value(NOW) == ["p23x"]


def test_one_picture_is_shown_and_the_theme_changes(page: Page) -> None:
    page.value("location.hash = '#p23x'; dispatchEvent(new HashChangeEvent('hashchange'))")
    there = "i => getComputedStyle(i).display !== 'none' && i.offsetWidth > 100"
    images = f"[...{SHOWN}[0].querySelectorAll('img')].filter({there}).map(i => i.className)"
    first = page.value(images)
    assert len(first) == 1
    background = page.value("getComputedStyle(document.body).backgroundColor")
    page.mouse("click", "#theme")
    assert page.value(images) == ["dark" if first == ["light"] else "light"]
    assert page.value("getComputedStyle(document.body).backgroundColor") != background
    assert page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing runs out of the page"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_is_cut_and_pictures_fill_what_is_left(page: Page, size: tuple[int, int]) -> None:
    sized(page, *size)
    assert faults(page) == []
    page.call("Emulation.clearDeviceMetricsOverride")


def test_print_shows_every_slide_in_light(page: Page) -> None:
    page.value("dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert len(page.value(NOW)) == page.value("document.querySelectorAll('.slide').length") == SLIDES_OF_DECK
    assert page.value("getComputedStyle(document.getElementById('bar')).display") == "none"
    dark = "[...document.querySelectorAll('img.dark')].every(i => getComputedStyle(i).display === 'none')"
    assert page.value(dark)
    assert page.value(CUT_IN_PRINT) == []
    page.call("Emulation.setEmulatedMedia", media="")


def test_a_pdf_has_one_sheet_for_each_slide(page: Page) -> None:
    pdf = base64.b64decode(page.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    assert len(re.findall(rb"/Type /Page\b", pdf)) == SLIDES_OF_DECK
    boxes = {tuple(float(x) for x in box.split()) for box in re.findall(rb"/MediaBox \[([^]]*)\]", pdf)}
    assert boxes == {(0.0, 0.0, 960.0, 540.0)}


def test_the_presenters_window_walks_with_the_slides(page: Page) -> None:
    page.value("location.hash = '#p10'; dispatchEvent(new HashChangeEvent('hashchange'))")
    page.mouse("click", "#present")
    with page.other("?presenter") as window:
        assert becomes(window, SHOWN + ".map(s => s.id)", ["p10", "p10x"])
        assert "names from the room" in window.value("document.querySelector('.now .notes').innerText")
        assert re.match(r"\d", window.value("document.getElementById('now').textContent"))
        assert re.match(r"\d+:\d\d$", window.value("document.getElementById('elapsed').textContent"))
        window.press("ArrowRight")
        assert becomes(window, NOW, ["p10x", "p23"])
        assert becomes(window, "document.querySelector('.next').inert", True), "it is only looked at"
    assert becomes(page, NOW, ["p10x"])
    page.press("ArrowLeft")
    with page.other("?presenter") as window:
        assert becomes(window, NOW, ["p10", "p10x"])
        window.value("close()")


def becomes(tab: Page, expression: str, wanted: object) -> bool:
    """Wait until an expression of the page has a value, at most ten seconds; one that throws has none yet."""
    for _ in range(100):
        try:
            if tab.value(expression) == wanted:
                return True
        except AssertionError:  # the window is still being loaded
            pass
        time.sleep(0.1)
    return False


def test_without_scripts_all_slides_stand_below_each_other(deck: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.html"
    file.write_text(deck, encoding="utf-8")
    with chromium(tmp_path / "profile") as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.open(file)
        assert len(tab.value(NOW)) == tab.value("document.querySelectorAll('.slide').length")
        assert tab.value("document.getElementById('bar').hidden")


def test_axe_finds_nothing_serious(deck: str, tmp_path: Path) -> None:
    """axe finds no serious violation. The page's content security policy is removed, as it blocks axe."""
    folder = Path(str(files("axe_core_python")))
    axe = next(folder.rglob("axe.min.js")).read_text(encoding="utf-8")
    file = tmp_path / "talk.html"
    file.write_text(re.sub(r"<meta http-equiv[^>]*>", "", deck), encoding="utf-8")
    with chromium(tmp_path / "profile") as tab:
        still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        tab.call("Emulation.setEmulatedMedia", features=still)
        tab.open(file)
        tab.value(axe + "; 0")
        found = []
        for slide in ("start", "p10", "p23x"):
            tab.value(f"location.hash = '#{slide}'; dispatchEvent(new HashChangeEvent('hashchange'))")
            result = tab.call(
                "Runtime.evaluate",
                expression="axe.run({resultTypes: ['violations']})"
                ".then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))",
                awaitPromise=True,
                returnByValue=True,
            )
            found += [(slide, *v) for v in result["result"]["value"] if v[0] in ("serious", "critical")]
    assert not found


@pytest.mark.full
def test_nothing_of_the_whole_deck_is_cut(course: Course, small: pophood.LM, tmp_path: Path) -> None:
    """All pages with the outputs of smollm2, at both sizes and in print; about two minutes."""
    file = tmp_path / "talk.html"
    file.write_text(deck_html(course, small, "smollm2"), encoding="utf-8")
    wanted = 2 + sum(page.slides for page in course.pages)
    with chromium(tmp_path / "profile") as tab:
        tab.open(file)
        for size in SIZES:
            sized(tab, *size)
            assert faults(tab) == []
        assert len(ids(tab)) == wanted
        pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
        assert len(re.findall(rb"/Type /Page\b", pdf)) == wanted
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert tab.value(CUT_IN_PRINT) == []
