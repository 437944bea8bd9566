"""The documentation as a site: strict, complete, alone; its search and axe's rules in Chromium."""

from __future__ import annotations

import http.server
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood import look
from tests import processes
from tests.cli.browser import chromium
from tests.conftest import ROOT
from tests.studio.browser.tab import Tab

if not all(importlib.util.find_spec(name) for name in ("zensical", "mkdocstrings", "griffe")):
    pytest.skip("needs packages: the extra [docs] (make site)", allow_module_level=True)

from docs.site import __main__ as maker
from docs.site import docstrings, pages, reference

FIVE = ("index.html", "look.html", "python/models.html", "commands/run.html", "serve.html")
TUTORIALS = ("tutorials/chat-loop.html", "tutorials/next-token-table.html")
FOUND = (  # links to what the search found, which stands in a shadow root
    "[...document.querySelectorAll('*')].filter(e => e.shadowRoot)"
    ".flatMap(e => [...e.shadowRoot.querySelectorAll('a')]).map(a => a.href)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site that was built as `make site` builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    maker.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Return the address of a plain server of the site's files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Return a tab that has complained about nothing in the end."""
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        tab = Tab(page)
        yield tab
        assert tab.complaints() == []


def visit(tab: Tab, url: str) -> None:
    """Open a page of the site."""
    tab.page.call("Page.navigate", url=url)
    tab.until(f"document.readyState === 'complete' && location.href === '{url}'")


def test_every_page_has_its_place_and_every_name_its_description(site: Path) -> None:
    for place in pages.places().values():
        assert (site / place).with_suffix(".html").is_file(), place
    described = "".join(path.read_text(encoding="utf-8") for path in (site / "python").glob("*.html"))
    names = {f"pophood.{name}" for name in pophood.__all__} - {"pophood.PophoodError"}
    for name in [*names, "pophood.errors.PophoodError", *(f"pophood.look.{view}" for view in look.VIEWS)]:
        assert f'id="{name}"' in described, name
    assert (site / "commands" / "tune.html").is_file()
    assert maker.loaded_from_outside(site) == []


@pytest.mark.parametrize("opened", ["from a server", "as a file"])
def test_search_works_without_a_network(site: Path, address: str, tab: Tab, opened: str) -> None:
    root = address if opened == "from a server" else site.as_uri()
    tab.page.events.clear()
    visit(tab, f"{root}/look.html")
    tab.until("document.querySelector('.md-search__button')")
    tab.value("document.querySelector('.md-search__button').click()")
    tab.until("[...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('input'))")
    tab.page.call("Input.insertText", text="perplexity")
    tab.until(f"{FOUND}.some(a => a.includes('/bench.html'))")
    assert tab.requested() == {address if opened == "from a server" else "file://"}


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_five_pages_and_two_tutorials_under_axe(site: Path, tab: Tab, dark: bool) -> None:
    axe = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    run = (
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations"
        ".filter(v => ['serious', 'critical'].includes(v.impact))"
        ".map(v => v.id + ': ' + v.nodes[0].html + v.nodes[0].failureSummary))"
    )
    for page in FIVE + TUTORIALS:
        tab.look(dark=dark)
        visit(tab, f"{site.as_uri()}/{page}")
        assert (tab.value("document.body.dataset.mdColorScheme") == "slate") == dark
        tab.value(f"{axe};0")
        call = {"expression": run, "returnByValue": True, "awaitPromise": True}
        assert tab.page.call("Runtime.evaluate", **call)["result"]["value"] == [], page
        tab.look(390, 844, dark=dark)
        assert not tab.value("document.documentElement.scrollWidth > innerWidth"), page


@pytest.mark.full
@pytest.mark.parametrize("text", ["[lost](nowhere.md)", "[lost](look.md#nowhere)", "[lost][nowhere]"])
def test_a_broken_link_ends_the_build(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
        (folder / "index.md").write_text(f"# Home\n\n{text}\n")
        shutil.copy(ROOT / "docs" / "look.md", folder)
        return [("Rest", [("Look", "look.md")])] * 2

    monkeypatch.setattr(pages, "write_pages", write)
    monkeypatch.setattr(reference, "write_pages", lambda folder: [("Again", "look.md")])
    with pytest.raises(SystemExit, match=r"does not exist|unresolved"):
        maker.main([str(tmp_path / "site")])
    assert not (tmp_path / "site").exists()


def test_a_public_name_without_a_docstring_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pophood"
    package.mkdir()
    (package / "__init__.py").write_text(
        '"""Package."""\nclass A:\n    """Class."""\n    def told(self):\n        """Method."""\n'
        "    def untold(self): ...\n    def _own(self): ...\n\nclass B(A):\n"
        '    """Child."""\n    def told(self): ...\n'
    )
    monkeypatch.setattr(reference, "PAGES", (("x", "X", "", ("pophood.A", "pophood.B")),))
    assert reference.undocumented(tmp_path) == ["pophood.A.untold"]


def test_what_is_loaded_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<link rel="stylesheet" href="//cdn.example/x.css"><script src="https://cdn.example/x.js"></script>'
        '<img src="a.png" srcset="https://img.example/b.png 2x"><a href="https://example.com">a link</a>'
        '<link rel="canonical" href="https://example.com"><b style="background: url(http://img.example/c)">'
    )
    (tmp_path / "a.css").write_text("@import 'https://fonts.example/f.css'; b { background: url(a.png) }")
    found = maker.loaded_from_outside(tmp_path)
    assert [one.partition("//")[2].partition("/")[0] for one in found] == [
        "fonts.example",
        "cdn.example",
        "cdn.example",
        "img.example",
        "img.example",
    ]


def test_links_and_pictures_lead_to_their_places_on_the_site() -> None:
    where = {"README.md": "index.md", "docs/serve.md": "serve.md", "docs/cli.md": "cli.md"}
    text = (
        "[a](docs/serve.md#keys) [b](benchmarks/results) [c](https://example.com) `[d](docs/serve.md)`\n"
        '<picture><source media="(prefers-color-scheme: dark)" srcset="docs/images/x-dark.png">\n'
        '  <img src="docs/images/x-light.png" alt="x"></picture>'
    )
    assert pages.translated(text, "README.md", where) == (
        "[a](serve.md#keys) b [c](https://example.com) `[d](docs/serve.md)`\n"
        '<img src="images/x-light.png#only-light" alt="x"><img src="images/x-dark.png#only-dark" alt="x">'
    )
    assert pages.moved("cli.md#pophood-look-lens", "docs/serve.md", "serve.md", where) == (
        "commands/look.md#pophood-look-lens"
    )


def test_examples_in_docstrings_become_code() -> None:
    assert docstrings.fenced("Load a model.\n\nlm = load('gpt2')\nlm.next('A')").endswith(
        "```python\nlm = load('gpt2')\nlm.next('A')\n```"
    )
    for prose in ("Return [T, V] logits.", "It takes `x = 1`.", "Raises BadInput.", "    indented = code()"):
        assert docstrings.fenced(prose) == prose


def test_make_has_the_target() -> None:
    shown = processes.run(["make", "-n", "site"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m docs.site" in shown.stdout
