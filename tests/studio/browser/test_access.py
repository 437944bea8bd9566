"""Every screen under axe, narrow and wide, light and dark; no sideways scrolling; keys reach everything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import asked

AXE = ROOT / "studio/node_modules/axe-core/axe.min.js"
SCREENS: tuple[str, ...] = ("Chat", "Complete", "Look")
if importlib.util.find_spec("pophood.studio.routes.library"):
    SCREENS += ("Tune", "Models", "Course")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"dark": True},
    "phone": {"width": 390, "height": 844, "calm": True},
    "200 %": {"width": 640, "height": 450, "dark": True},  # a window of 1280 by 900 at 200 % zoom
}


@pytest.fixture(scope="session")
def axe() -> str:
    """Return the script of axe-core; skip the test if the studio's packages are not there."""
    if not AXE.is_file():
        pytest.skip("needs tool: studio/node_modules (make studio)")
    return Path(AXE).read_text(encoding="utf-8")


def findings(tab: Tab, axe: str) -> list[str]:
    """Return the serious findings of axe."""
    tab.value(f"(() => {{ {axe}; window.axe = axe; }})()") if not tab.value("!!window.axe") else None
    run = (
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations"
        ".filter(v => ['serious', 'critical'].includes(v.impact))"
        ".map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 160) + n.failureSummary).join(' | ')))"
    )
    result = tab.page.call("Runtime.evaluate", expression=run, returnByValue=True, awaitPromise=True)
    found: list[str] = result["result"]["value"]
    return found


def sideways(tab: Tab) -> bool:
    """Return whether the page is wider than its window."""
    return bool(tab.value("document.documentElement.scrollWidth > innerWidth"))


def check_screens(tab: Tab, axe: str, look: str) -> None:
    """Look at every screen in one look."""
    tab.look(**LOOKS[look])
    for screen in SCREENS:
        tab.press(screen)
        tab.until("document.querySelector('main h1')")
        assert findings(tab, axe) == [], (screen, look)
        assert not sideways(tab), (screen, look)


def check_panels(tab: Tab, axe: str, look: str) -> None:
    """Look at a conversation with each of its panels in one look."""
    asked(tab, "Hello", most=8)
    tab.value("document.querySelector('.tokens').focus()")
    tab.key("c", 67, "c")
    tab.token(2)
    tab.until("document.querySelectorAll('.panel .head').length >= 2")
    tab.look(**LOOKS[look])
    assert findings(tab, axe) == [], look
    for panel in ("Branches", "What the model reads", "Settings"):
        tab.value(f"document.querySelector('.head [aria-label=\"{panel}\"]').click()")
        tab.until("document.querySelector('.panel h2')")
        assert findings(tab, axe) == [], (panel, look)
        assert not sideways(tab), (panel, look)


def test_screens_on_a_phone(tab: Tab, axe: str) -> None:
    check_screens(tab, axe, "phone")


def test_panels_in_the_dark(tab: Tab, axe: str) -> None:
    check_panels(tab, axe, "dark")


@pytest.mark.full
@pytest.mark.parametrize("look", LOOKS)
def test_every_screen_and_panel(tab: Tab, axe: str, look: str) -> None:
    check_screens(tab, axe, look)
    tab.look()
    tab.press("Chat")
    check_panels(tab, axe, look)


CONTROLS = (
    "[...document.querySelectorAll('button:not(:disabled), a[href], input, select, textarea, summary')]"
)


def test_tab_goes_through_all_controls(tab: Tab) -> None:
    tab.sees("Ask the model something")
    tab.until("document.querySelector('.history .list').innerText")  # the list has come, and is perhaps empty
    tab.until(
        "document.querySelector('.composer .model').innerText.match(/^\\s*\\S.* ·/)"
    )  # so has the state
    tab.value("document.activeElement.blur(); window.reached = new Set()")
    presses = 0
    while presses < tab.value(f"{CONTROLS}.length") + 8:
        tab.key("Tab", 9)
        tab.value("window.reached.add(document.activeElement)")
        presses += 1
    seen = "e.getClientRects().length && !window.reached.has(e)"
    assert tab.value(f"{CONTROLS}.filter(e => {seen}).map(e => e.outerHTML)") == []
