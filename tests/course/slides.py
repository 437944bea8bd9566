"""A deck in a browser: its slides at a size, what is cut off, and how pictures fill their places."""

from __future__ import annotations

import time
from typing import Any

from tests.cli.browser import Page

SIZES = ((1280, 720), (1920, 1080))
SMALLEST_TEXT = 11.0  # CSS pixels of a slide 720 pixels high
NOW = """(() => {
  const slide = document.querySelector('.slide.now'), body = slide.querySelector('.body');
  const box = body.getBoundingClientRect(), whole = slide.getBoundingClientRect();
  const seen = [...body.querySelectorAll('*')].filter(e => e.getClientRects().length);
  const out = (e, r, b = e.getBoundingClientRect()) =>
    b.right > r.right + 1 || b.bottom > r.bottom + 1 || b.left < r.left - 1 || b.top < r.top - 1;
  const wider = e => e.matches('pre, .scroll') && e.scrollWidth > e.clientWidth + 1;
  const cut = seen.filter(e => out(e, box) || wider(e));
  const inside = !out(document.body, {left: 0, top: 0, right: innerWidth, bottom: innerHeight}, whole);
  const pictures = seen.filter(e => e.matches('.picture img')).map(e => {
    const [w, h] = [e.getAttribute('width'), e.getAttribute('height')];
    const scale = Math.min(e.clientWidth / w, e.clientHeight / h);
    const column = e.closest('.column'), last = column.lastElementChild.getBoundingClientRect();
    const below = column.getBoundingClientRect().bottom - last.bottom;
    const [width, share] = [scale * w / column.clientWidth, scale * h / body.clientHeight];
    return {width, share, below: below / whole.height};
  });
  const texts = seen.filter(e => e.matches('p, li, td, pre'));
  const size = Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize)));
  return {
    id: slide.id, inside, pictures, size: size * 720 / whole.height,
    cut: cut.map(e => e.outerHTML.slice(0, 120)),
  };
})()"""

CUT_IN_PRINT = """[...document.querySelectorAll('.slide')].filter(slide => {
  const box = slide.querySelector('.body').getBoundingClientRect();
  const seen = [...slide.querySelectorAll('.body *')].filter(e => e.getClientRects().length);
  const out = r => r.bottom > box.bottom + 1 || r.right > box.right + 1;
  return slide.offsetHeight !== 720 || seen.some(e => out(e.getBoundingClientRect()));
}).map(slide => slide.id)"""


def sized(page: Page, width: int, height: int) -> None:
    """Give the window a size, and wait until the slides are fitted to it."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **metrics)


def loaded(page: Page) -> None:
    """Wait until the whole deck is there."""
    while not page.value("document.readyState === 'complete' && document.querySelector('.now') !== null"):
        time.sleep(0.05)


def ids(page: Page) -> list[str]:
    """Return the ids of all slides."""
    found: list[str] = page.value("[...document.querySelectorAll('.slide')].map(s => s.id)")
    return found


def faults(page: Page) -> list[tuple[str, Any]]:
    """Walk through all slides and return what is cut, too small, or leaves room that a picture could fill."""
    found: list[tuple[str, Any]] = []
    loaded(page)
    for number, slide in enumerate(ids(page)):
        page.press("ArrowRight" if number else "Home")  # Chromium ignores many changes of the address
        page.value("document.querySelectorAll('.now details').forEach(d => { d.open = true; })")
        facts = page.value(NOW)
        assert facts["id"] == slide
        if facts["cut"] or not facts["inside"]:
            found.append((slide, facts["cut"] or "outside the window"))
        if facts["size"] is not None and facts["size"] < SMALLEST_TEXT:
            found.append((slide, f"text of {facts['size']:.1f} pixels"))
        found += [(slide, one) for one in facts["pictures"] if not fills(one)]
    return found


def fills(picture: dict[str, float]) -> bool:
    """Return True if a picture is as wide as its column, or takes all of the height that is left in it."""
    return picture["width"] > 0.98 or (picture["below"] < 0.01 and picture["share"] > 0.29)
