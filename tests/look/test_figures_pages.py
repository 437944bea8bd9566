"""The folder of `look all`: every view's picture and page, opened in a real browser, judged by axe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from pophood import look
from pophood.look import figures
from pophood.look.figures import gallery
from pophood.look.figures import page as page_module
from pophood.look.figures.gallery import Gallery, write_gallery
from pophood.look.source import PROMPT
from pophood.look.view import View
from tests.cli.browser import Page, chromium
from tests.look.pictures import faults, picture_model

SERIOUS = ("serious", "critical")
JUDGE = (
    "axe.run({resultTypes: ['violations']}).then(found => JSON.stringify(found.violations.map("
    "v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 200))])))"
)


@dataclass(frozen=True, slots=True)
class Made:
    """The folder, the written views, and the faults of their figures."""

    folder: Path
    gallery: Gallery
    faults: dict[str, list[str]]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("gallery") / "new"
    found: dict[str, list[str]] = {}
    drawn: dict[str, Figure] = {}
    steps: list[tuple[int, int]] = []

    def draw(view: View, theme: str) -> Figure:
        figure = figures.draw(view, theme)
        found[view.name] = faults(figure)
        drawn[view.name] = figure
        return figure

    def draw_again(view: View, theme: str) -> Figure:
        """Draw the dark picture of a page; for most views reuse the light one, which halves the time."""
        return figures.draw(view, theme) if view.name in ("attention", "next") else drawn[view.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "draw", draw)
        patch.setattr(page_module, "draw", draw_again)
        lm = picture_model(tmp_path_factory)
        written = write_gallery(lm, PROMPT, folder, lambda done, total: steps.append((done, total)))
    return Made(folder, written, found, steps)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


def visit(tab: Page, page: Path) -> None:
    """Open a page and forget the events of the page before."""
    tab.events.clear()
    tab.open(page)


def test_every_view_is_there_and_nothing_else(made: Made) -> None:
    assert made.gallery.failed == {}
    assert list(made.gallery.written) == list(look.VIEWS)
    expected = {"index.html", *(f"{name}.{kind}" for name in look.VIEWS for kind in ("svg", "html"))}
    assert {path.name for path in made.folder.iterdir()} == expected
    assert made.progress == [(i, len(look.VIEWS)) for i in range(len(look.VIEWS) + 1)]


@pytest.mark.parametrize("name", look.VIEWS)
def test_a_picture_is_legible_and_described(made: Made, name: str) -> None:
    assert made.faults[name] == []
    view = made.gallery.written[name]
    text = (made.folder / f"{name}.svg").read_text("utf-8")
    root = ElementTree.fromstring(text)
    title, description = root[0].text or "", root[1].text or ""
    assert (title, description) == (view.title, view.alt)
    assert re.search(r"\d", description), "the main numbers are in the words"
    assert not re.findall(r'(?:href|src)="(?!#|data:)', text), "nothing from elsewhere"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_without_a_complaint_or_a_request(made: Made, tab: Page, scheme: str) -> None:
    axe = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    tab.call("Emulation.setEmulatedMedia", features=features)
    found: dict[str, Any] = {}
    names = (
        ["*.html"] if scheme == "light" else ["index.html", "attention.html"]
    )  # the colours are the same on all pages
    for page in (page for name in names for page in sorted(made.folder.glob(name))):
        visit(tab, page)
        if page.stem in ("attention", "index"):  # the other pages have the same kind of tables
            tab.value("document.querySelectorAll('details').forEach(part => part.open = true)")
        tab.value(f"{axe};0")
        answer = tab.call("Runtime.evaluate", expression=JUDGE, awaitPromise=True, returnByValue=True)
        violations = json.loads(answer["result"]["value"])
        found |= {f"{page.name}: axe": v for v in violations if v[0] in SERIOUS}
        complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        found |= {f"{page.name}: console": e for e in tab.events if e.get("method") in complaints}
        requests = [e for e in tab.events if e.get("method") == "Network.requestWillBeSent"]
        urls = {e["params"]["request"]["url"] for e in requests}
        outside = {url for url in urls if not url.startswith(("data:", made.folder.as_uri()))}
        found |= {f"{page.name}: request": url for url in outside}
        loaded = tab.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        found |= {} if loaded else {f"{page.name}: images": "not shown"}
    assert found == {}


def test_a_page_has_all_that_a_reader_needs(made: Made, tab: Page) -> None:
    view = made.gallery.written["attention"]
    visit(tab, made.folder / "attention.html")
    assert tab.value("document.title") == view.title
    assert tab.value("document.querySelector('figure img').alt") == view.alt
    shown = tab.value("document.body.innerText")
    assert all(note in shown for note in view.notes)
    assert PROMPT in shown and "Computed at: f32".replace(": ", "\n") in shown.replace(":\n", "\n")
    assert tab.value("document.querySelectorAll('table caption').length") == len(view.tables())
    assert tab.value("[...document.querySelectorAll('th')].every(cell => cell.scope == 'col')")
    command = tab.value("document.getElementById('command').textContent")
    assert command.startswith("pophood look attention 'The capital of Spain is' -m ")
    assert "look.attention(lm, 'The capital of Spain is')" in tab.value(
        "document.getElementById('python').textContent"
    )
    assert tab.value("[...document.querySelectorAll('button')].every(button => !button.hidden)")
    tab.value("document.querySelector('button[data-copy]').click()")
    assert tab.value("document.body.scrollWidth <= window.innerWidth"), "nothing sticks out"


def test_the_index_links_and_shows_all(made: Made, tab: Page) -> None:
    visit(tab, made.folder / "index.html")
    links = tab.value("[...document.querySelectorAll('li > a')].map(a => a.getAttribute('href'))")
    assert links == [f"{name}.html" for name in look.VIEWS]
    assert tab.value("document.images.length") == len(look.VIEWS)
    assert str(made.folder) not in (made.folder / "index.html").read_text("utf-8"), "the folder may move"


def test_a_view_that_fails_is_named_and_the_rest_written(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(lm: object) -> View:
        raise ValueError("no <such> thing")

    monkeypatch.setattr(look, "VIEWS", ("scale", "next", "parameters"))
    monkeypatch.setattr(look, "scale", broken)
    monkeypatch.setattr(gallery, "draw", lambda view, theme: None)
    monkeypatch.setattr(gallery, "svg_of", lambda figure, view, theme: b"<svg/>")
    monkeypatch.setattr(gallery, "page", lambda view, figure: "page")
    made = write_gallery(picture_model(tmp_path_factory), "x" * 5000, tmp_path)
    assert list(made.written) == ["parameters"]
    assert "please report it: ValueError: no <such> thing" in made.failed["scale"]
    assert "the context window holds 256" in made.failed["next"]
    index = (tmp_path / "index.html").read_text("utf-8")
    assert "no &lt;such&gt; thing" in index and 'href="parameters.html"' in index
