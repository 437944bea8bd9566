"""A studio and its page in a headless Chromium, for the benchmarks: what a person does, timed by the page."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from _models import ROOT

from tests.cli.browser import chromium
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_crash import kill_children
from tests.studio.server import StudioCommand, studio

DIST = ROOT / "src" / "pophood" / "studio" / "dist"
PAINTED = "new Promise(seen => requestAnimationFrame(() => setTimeout(() => seen(performance.now()))))"
# Resolves as soon as a condition holds, looking after each change of the page.
WATCH = """const until = condition => new Promise(done => {
  if (condition()) return done();
  const observer = new MutationObserver(() => condition() && (observer.disconnect(), done()));
  observer.observe(document.body, {childList: true, subtree: true, attributeFilter: ['class']});
});"""
ANSWER = f"""(async () => {{
  {WATCH}
  const began = performance.now();
  document.querySelector('.composer .primary').click();
  await until(() => document.querySelector('.growing'));
  await until(() => !document.querySelector('.growing'));
  return [performance.now() - began, document.querySelectorAll('.tokens .t').length];
}})()"""
OPEN = f"""(async index => {{
  {WATCH}
  await {PAINTED};
  const began = performance.now();
  const token = document.querySelector(`.t[data-i='${{index}}']`);
  token.click();
  await until(() => token.matches('.at') && document.querySelector('.panel .lens tbody tr')
    && document.querySelectorAll('.panel .bars button').length >= 10); // and the chosen one
  return await {PAINTED} - began;
}})"""
FRAMES = """((selector, part) => new Promise(done => {
  const list = document.querySelector(selector), seen = document.querySelector(part), gaps = [];
  let last = performance.now(), way = 40, moved = 0, shown = 0;
  const step = now => {
    const before = list.scrollTop, place = seen.getBoundingClientRect();
    gaps.push(now - last); last = now; list.scrollTop += way;
    moved += list.scrollTop !== before;
    shown += place.bottom > 0 && place.top < innerHeight;
    if (list.scrollTop + list.clientHeight >= list.scrollHeight - 1) way = -40;
    if (list.scrollTop <= 0) way = 40;
    gaps.length < 602 ? requestAnimationFrame(step)
      : done({gaps: gaps.slice(2), moved: moved / gaps.length, shown: shown / gaps.length});
  };
  requestAnimationFrame(step);
}))"""
TOKENS = "document.querySelectorAll('.tokens .t').length"

USABLE = f"""window.usable = (async () => {{
  while (!document.querySelector('.composer textarea')) await {PAINTED};
  return await {PAINTED} - performance.getEntriesByType('navigation')[0].responseStart;
}})()"""


class Desk:
    """A tab of a studio, and what its page says of time: milliseconds."""

    def __init__(self, tab: Tab, served: StudioCommand) -> None:
        self.tab, self.served = tab, served
        self._other = ""  # the tab that hides this one

    def measured(self, expression: str) -> Any:
        """The value that a promise of the page gives."""
        facts = {"returnByValue": True, "awaitPromise": True}
        result = self.tab.page.call("Runtime.evaluate", expression=expression, **facts)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]

    def hide(self, hidden: bool) -> None:
        """Put another tab before this one, or take it away."""
        page = self.tab.page
        page.call("Emulation.setFocusEmulationEnabled", enabled=False)  # else the page says that it is seen
        if hidden:
            self._other = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.call("Target.activateTarget", targetId=self._other)
        elif self._other:
            page.call("Target.closeTarget", targetId=self._other)
            self._other = ""
            page.call("Page.bringToFront")
        self.tab.until(f"document.hidden === {'true' if hidden else 'false'}")

    def write(self, text: str) -> None:
        """Begin a text of its own in completion mode; nothing is sent yet."""
        self.tab.press("Complete")
        self.tab.press("New text")
        self.tab.until("!document.querySelector('.turn')")
        self.tab.write(".composer textarea", text)
        self.tab.until("!document.querySelector('.composer .primary').disabled")

    def answered(self) -> tuple[float, int]:
        """Send what is written: milliseconds until the answer has ended, and its tokens."""
        milliseconds, tokens = self.measured(ANSWER)
        return float(milliseconds), int(tokens)

    def opened(self, index: int) -> float:
        """Click a token: milliseconds until its ten likeliest and its lens are painted."""
        milliseconds = float(self.measured(f"{OPEN}({index})"))
        self.tab.until("document.querySelector('.panel .head')")  # the heads come after that
        return milliseconds

    def show(self, turns: list[dict[str, Any]]) -> None:
        """Keep a conversation, and open it."""
        cookies = self.tab.page.call("Network.getCookies")["cookies"]
        self.served.cookie = "; ".join(f"{one['name']}={one['value']}" for one in cookies)
        talk = self.served.post("/conversations", {"title": "long", "mode": "chat"})["id"]
        for turn in turns:
            self.served.post(f"/conversations/{talk}/nodes", turn)
        self._go(f"#/chat/{talk}")
        tokens = sum(len(turn.get("tokens", ())) for turn in turns)
        self.tab.until(f"document.querySelectorAll('.t').length === {tokens}")

    def look(self, view: str, text: str) -> None:
        """Open a view on a text, and wait for its first figure."""
        self._go(f"#/look/{view}?{urlencode({'text': text})}")
        self.tab.until("document.querySelector('.answers canvas')")

    def _go(self, place: str) -> None:
        self.tab.value(f"location.hash = {place!r}")

    def frames(self, selector: str, part: str) -> list[float]:
        """Scroll an element up and down, while a part of it is in sight: milliseconds between frames."""
        told = self.measured(f"{FRAMES}({selector!r}, {part!r})")
        assert told["moved"] > 0.9, f"{selector} stood still in {1 - told['moved']:.0%} of the frames"
        assert told["shown"] > 0.9, f"{part} was out of sight in {1 - told['shown']:.0%} of the frames"
        return [float(gap) for gap in told["gaps"]]

    def pictured(self, selector: str, places: Sequence[int], folder: Path) -> None:
        """Take a picture at each place that an element is scrolled to, and see that they differ."""
        pictures = []
        for place in places:
            self.measured(f"(document.querySelector({selector!r}).scrollTop = {place}, {PAINTED})")
            self.tab.picture(folder / f"scrolled-{place}.png")
            pictures.append((folder / f"scrolled-{place}.png").read_bytes())
        assert len(set(pictures)) == len(places), f"{selector} does not scroll"

    def crashed(self) -> float:
        """Send what is written, and kill the model's process in the middle: milliseconds until it goes on."""
        self.tab.value("document.querySelector('.composer .primary').click()")
        self.tab.until(f"{TOKENS} > 20")
        began = time.perf_counter()
        kill_children(self.served.facts["pid"])
        self.tab.until("document.querySelector('.turns [role=alert]')")
        kept = self.tab.value(TOKENS)
        self.tab.until(f"{TOKENS} > {kept}")
        milliseconds = 1000 * (time.perf_counter() - began)
        self.tab.until("!document.querySelector('.growing')")
        return milliseconds

    def started(self) -> float:
        """Load the page anew: milliseconds from the server's answer until there is a field to write in."""
        self.tab.page.call("Page.enable")
        self.tab.page.call("Network.clearBrowserCache")
        self.tab.page.call("Page.navigate", url="about:blank")
        self.tab.until("location.href === 'about:blank'")
        script = self.tab.page.call("Page.addScriptToEvaluateOnNewDocument", source=USABLE)["identifier"]
        self.tab.open(self.served.facts["studio"])
        milliseconds = float(self.measured("window.usable"))
        self.tab.page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        return milliseconds


@contextmanager
def desk(model: Path, threads: int) -> Iterator[Desk]:
    """Open a studio with a model, and its page."""
    if not (DIST / "index.html").is_file():
        sys.exit("the page is not built: make studio")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        words = ("--threads", str(threads))
        with (
            studio(model, *words, home=home / "home", dist=DIST, enters=False) as served,
            chromium(home / "browser") as page,
        ):
            tab = Tab(page)
            tab.look()
            tab.open(served.facts["link"])
            tab.value("localStorage.clear()")
            for watched in ("Network", "Log", "Runtime", "Page"):  # each piece of a stream would be told
                page.call(f"{watched}.disable")
            yield Desk(tab, served)
