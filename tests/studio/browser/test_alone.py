"""The page with loopback as its only network: it opens, answers, and opens a token. (small: one path)"""

from __future__ import annotations

from pathlib import Path

from tests.alone import loopback_only
from tests.cli.browser import chromium
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import asked
from tests.studio.server import studio


def test_open_ask_and_click_with_loopback_alone(tiny_model: Path, dist: Path, tmp_path: Path) -> None:
    with (
        loopback_only(),
        studio(tiny_model, home=tmp_path / "home", dist=dist, enters=False) as running,
        chromium(tmp_path / "browser") as page,
    ):
        tab = Tab(page)
        tab.look()
        tab.open(running.facts["link"])
        tab.sees("Ask the model something")
        asked(tab, "Hello", most=6)
        tab.token(2)
        tab.until("document.querySelectorAll('.panel .bars button').length >= 10")
        tab.until("document.querySelectorAll('.panel .head').length >= 2")
        tab.press("Nothing has left this machine")
        tab.sees("pophood doctor --prove-offline")
        assert tab.complaints() == []
        assert tab.requested() == {running.facts["url"]}
