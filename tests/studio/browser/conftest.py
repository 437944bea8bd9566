"""The built page, a studio that serves it with a tiny model, and a tab that must not complain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.browser import Page, chromium
from tests.conftest import ROOT
from tests.studio.browser.tab import Tab
from tests.studio.server import StudioCommand, studio

DIST = ROOT / "src/pophood/studio/dist"


@pytest.fixture(scope="session")
def dist() -> Path:
    """Return the folder of the built page; skip the test if it was not built."""
    if not (DIST / "index.html").is_file():
        pytest.skip("needs tool: a built studio (make studio)")
    return DIST


@pytest.fixture(scope="session")
def served(tiny_model: Path, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioCommand]:
    """Return a studio with a tiny model. A test opens its own links."""
    with studio(tiny_model, home=tmp_path_factory.mktemp("home"), dist=dist, enters=False) as running:
        yield running


@pytest.fixture(scope="session")
def browser(served: StudioCommand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Return a browser that has opened the studio's link, and so has its cookie."""
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        Tab(page).open(served.facts["link"])
        yield page


@pytest.fixture
def tab(browser: Page, served: StudioCommand) -> Iterator[Tab]:
    """Return a tab at the studio's first screen. Complaints, and requests to others, fail the test."""
    browser.events.clear()
    tab = Tab(browser)
    tab.look()
    browser.call("Page.navigate", url="about:blank")
    tab.open(served.facts["studio"])
    yield tab
    assert tab.complaints() == []
    assert tab.requested() <= {served.facts["url"]}
