"""Pages whose figures are drawn by the scripts of studio/pages: pickers, sliders, keys, labels, saving."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood import look, web
from pophood.look import data
from pophood.look.figures import has_drawings, page
from pophood.look.view import View
from tests.cli.browser import Page, chromium
from tests.look.pictures import picture_model

COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
HOSTILE = "</script><script>window.ran=1</script><img src=x onerror=window.ran=1>&amp;"
STAGE = "document.querySelector('.ph-stage').getAttribute('aria-label')"
SAID = "document.querySelector('.ph-said').textContent"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    if not has_drawings():
        pytest.skip("needs tool: a built studio (make studio)")
    return picture_model(tmp_path_factory)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def opened(tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[View], Page]:
    """A function that saves a view as a page, without matplotlib's picture, and opens it."""
    monkeypatch.setattr(page, "has_matplotlib", lambda: False)

    def opening(view: View) -> Page:
        view.save(tmp_path / "view.html")
        tab.events.clear()
        tab.open(tmp_path / "view.html")
        assert tab.value("document.documentElement.dataset.drawn") == "yes"
        return tab

    return opening


def frame(tab: Page) -> None:
    """Wait until the page has drawn."""
    tab.call(
        "Runtime.evaluate",
        expression="new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))",
        awaitPromise=True,
    )


def change(tab: Page, selector: str, value: str) -> None:
    """Give a slider or a picker a value, as a person does."""
    kind = "change" if selector.startswith("select") else "input"
    tab.value(
        f"(one => {{ one.value = {value!r}; one.dispatchEvent(new Event({kind!r}, {{bubbles: true}})) }})"
        f"(document.querySelectorAll({selector.split('#')[0]!r})[{selector.split('#')[1]}])"
    )
    frame(tab)


def test_attention_has_pickers_for_every_layer_and_head(
    lm: pophood.LM, opened: Callable[[View], Page]
) -> None:
    tab = opened(look.attention(lm, layer=0, head=3))
    assert tab.value(STAGE).startswith("layer 0, head 3")
    assert tab.value("document.querySelectorAll('select').length") == 2
    change(tab, "select#0", "2")
    change(tab, "select#1", "7")
    label = tab.value(STAGE)
    assert label.startswith("layer 2, head 7")
    pattern = look.attention(lm, layer=2, head=7).pattern[7]
    tab.value("document.querySelector('.ph-stage').focus()")
    for key in ("ArrowRight", "Home"):
        tab.press(key)
    for _ in range(5):
        tab.press("ArrowDown")
    said = re.fullmatch(r"“ is”, “The”: ([\d.e-]+)", tab.value(SAID))
    assert said is not None, tab.value(SAID)
    assert float(said[1]) == pytest.approx(float(pattern[-1, 0]), rel=2e-3)
    tab.press("Escape")
    assert tab.value(SAID) == ""


def test_the_grid_of_roles_chooses_a_head(
    lm: pophood.LM, opened: Callable[[View], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_role", lambda view, layer, head: "induction" if head == layer else "")
    tab = opened(look.attention(lm, layer=1, head=2))
    tab.value("[...document.querySelectorAll('.ph-stage')].at(-1).focus()")
    tab.press("ArrowLeft")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    tab.press("Enter")
    frame(tab)
    assert tab.value(STAGE).startswith("layer 2, head 2")
    picked = "[...document.querySelectorAll('select')].map(one => one.selectedIndex)"
    assert tab.value(picked) == [2, 2]


def test_sliders_give_the_engine_s_own_probabilities(lm: pophood.LM, opened: Callable[[View], Page]) -> None:
    tab = opened(look.next(lm))
    for number, (name, value) in enumerate([("temperature", 0.5), ("top_k", 20), ("top_p", 0.5)]):
        change(tab, f"input[type=range]#{number}", str(value))
        asked: dict[str, Any] = dict([("temperature", 0.5), ("top_k", 20), ("top_p", 0.5)][: number + 1])
        effect = look.next(lm, **asked).left[-1]
        shown = [float(p) for p in re.findall(r": ([\d.]+) %;", tab.value(STAGE))][:3]
        wanted = [100 * p for p in effect.probabilities[:3]]
        assert shown == pytest.approx(wanted, rel=6e-3, abs=1e-3), name
        facts = tab.value("document.querySelector('.ph-facts').textContent")
        assert facts.startswith(f"{effect.tokens:,} of {lm.config.vocab_size:,} tokens can be drawn"), facts


def files_saved(tab: Page, number: int) -> list[Any]:
    """Press all buttons that save a figure, and return the names of the files, and their kinds with texts."""
    tab.value(
        "window.saved = []; URL.createObjectURL = blob => { saved.push(blob); return 'about:blank#' };"
        "HTMLAnchorElement.prototype.click = function () { saved.push(this.download) };"
        f"document.querySelectorAll('.ph-save')[{number}]"
        ".querySelectorAll('button').forEach(one => one.click())"
    )
    wait = (
        "new Promise(done => { const look = () => saved.length > 7 ? done() : setTimeout(look, 20); look() })"
    )
    tab.call("Runtime.evaluate", expression=wait, awaitPromise=True)
    read = (
        "Promise.all(saved.map(async one => one instanceof Blob ? [one.type, await one.text()] : one))"
        ".then(JSON.stringify)"
    )
    answer = tab.call("Runtime.evaluate", expression=read, awaitPromise=True, returnByValue=True)
    saved: list[Any] = json.loads(answer["result"]["value"])
    return saved


@pytest.mark.full
@pytest.mark.parametrize("name", look.VIEWS)
def test_every_figure_of_every_view_saves_as_four_files(
    lm: pophood.LM, opened: Callable[[View], Page], name: str
) -> None:
    view = getattr(look, name)(lm)
    tab = opened(view)
    frame(tab)
    for number, figure in enumerate(look.figures_data(view)):
        saved = files_saved(tab, number)
        texts = dict(one for one in saved if isinstance(one, list))
        endings = {name.rpartition(".")[2] for name in saved if isinstance(name, str)}
        assert endings == {"csv", "html", "png", "svg"}, figure["title"]
        assert texts["image/svg+xml"].startswith("<svg ") and "NaN" not in texts["image/svg+xml"]
        assert texts["text/csv"].count("\n") > 1
        assert "<table" in texts["text/html"] and "data:image/svg+xml" in texts["text/html"]
        assert texts["image/png"][1:4] == "PNG" and len(texts["image/png"]) > 1000
    assert [event for event in tab.events if event.get("method") in COMPLAINTS] == []


def test_pointing_shows_a_label_and_saving_writes_four_files(
    lm: pophood.LM, opened: Callable[[View], Page], tmp_path: Path
) -> None:
    tab = opened(look.lens(lm))
    tab.mouse("mouseMoved", ".ph-stage canvas")
    assert "block" in tab.value("document.querySelector('.ph-tip').textContent")
    assert not tab.value("document.querySelector('.ph-tip').hidden")
    saved = files_saved(tab, 0)
    names = {name for name in saved if isinstance(name, str)}
    assert names == {f"the-guess-after-every-block.{kind}" for kind in ("png", "svg", "csv", "html")}
    texts = dict(one for one in saved if isinstance(one, list))
    assert texts["image/svg+xml"].startswith("<svg ") and "<title" in texts["image/svg+xml"]
    assert texts["text/csv"].startswith("layer,position,token,guess,probability\n")
    assert "Content-Security-Policy" in texts["text/html"]
    assert texts["image/png"][1:4] == "PNG"


@pytest.mark.parametrize("name", ["surprise", "attention", "lens"])
def test_script_in_a_text_is_text(lm: pophood.LM, opened: Callable[[View], Page], name: str) -> None:
    tab = opened(getattr(look, name)(lm, HOSTILE))
    frame(tab)
    assert tab.value("window.ran ?? 0") == 0
    assert [event for event in tab.events if event.get("method") in COMPLAINTS] == []
    if name == "surprise":
        assert tab.value("document.querySelector('.ph-tokens').textContent") == HOSTILE


def test_drawings_follow_the_theme(lm: pophood.LM, opened: Callable[[View], Page]) -> None:
    tab = opened(look.residual(lm))
    corner = (
        "(canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data])"
        "(document.querySelector('.ph-stage canvas'))"
    )
    for scheme, colour in (("dark", [13, 17, 23, 255]), ("light", [255, 255, 255, 255])):
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        frame(tab)
        assert tab.value(corner) == colour


def test_a_page_without_scripts_has_plain_pictures_and_says_so(
    lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = look.next(lm)
    assert "a plain picture" not in page.page(view).lower()
    monkeypatch.setattr(page, "built_script", lambda name: None)
    plain = page.page(view)
    assert "A plain picture: this installation has no scripts that draw." in plain
    assert "data-figure" not in plain and "<figure>" in plain


def test_a_page_with_scripts_needs_no_matplotlib(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "has_matplotlib", lambda: False)
    text = page.page(look.next(lm))
    assert "data-figure" in text and "Everything in one picture" not in text


def test_a_block_of_json_cannot_end_its_script() -> None:
    assert "</" not in web.json_block({"a": "</script><!--"})
    assert json.loads(web.json_block({"a": "</script>"})) == {"a": "</script>"}
