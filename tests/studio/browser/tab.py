"""A tab of the studio in a headless Chromium: waits, clicks, types, and records what a page must not do."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from tests.cli.browser import Page

PATIENCE = 30.0  # seconds: a test that takes seconds takes minutes on a busy machine
NAMED = """(name => [...document.querySelectorAll('button, a, summary, label')].find(e =>
  ((e.getAttribute('aria-label') || e.textContent).trim() === name) && e.getClientRects().length))"""


class Tab:
    """The page of a studio."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.page.call("Emulation.setFocusEmulationEnabled", enabled=True)

    # ---- where it is ----

    def open(self, address: str) -> None:
        """Load an address."""
        self.page.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && document.querySelector('#app')")

    def look(self, width: int = 1280, height: int = 900, dark: bool = False, calm: bool = False) -> None:
        """Set the window's size, the colours and the motion that the person asks for."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.page.call("Emulation.setDeviceMetricsOverride", **metrics)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.page.call("Emulation.setEmulatedMedia", features=features)

    def value(self, expression: str) -> Any:
        """Evaluate an expression."""
        return self.page.value(expression)

    def until(self, expression: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.page.value(f"Boolean({expression})"):
                    return
            except AssertionError:  # the page is between two documents
                pass
            assert time.monotonic() < end, f"in vain: {expression}\n{self.text()[:2000]}"
            time.sleep(0.05)

    def text(self) -> str:
        """Return the text that is in sight."""
        return str(self.page.value("document.body.innerText"))

    def sees(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait for a text."""
        self.until(f"document.body.innerText.includes({json.dumps(text)})", seconds)

    # ---- what a person does ----

    def press(self, name: str) -> None:
        """Click a button or link by the name that a screen reader says."""
        self.until(f"{NAMED}({json.dumps(name)})")
        self.value(f"{NAMED}({json.dumps(name)}).click()")

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        self.page.mouse("click", selector)

    def token(self, index: int) -> None:
        """Open a token of an answer. One that is a part of a character has no width, so there is no mouse."""
        selector = f".tokens .t[data-i='{index}']"
        self.until(f'document.querySelector("{selector}")')
        self.value(f'document.querySelector("{selector}").click()')

    def write(self, selector: str, text: str) -> None:
        """Focus a field and type a text."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.page.call("Input.insertText", text=text)

    def key(self, key: str, code: int, text: str = "") -> None:
        """Press a key where the focus is."""
        facts: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        down = {**facts, "type": "keyDown", "text": text} if text else {**facts, "type": "rawKeyDown"}
        self.page.call("Input.dispatchKeyEvent", **down)
        self.page.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def picture(self, path: Path) -> None:
        """Write a PNG of what is in sight."""
        path.write_bytes(base64.b64decode(self.page.call("Page.captureScreenshot")["data"]))

    # ---- what must not happen ----

    def complaints(self) -> list[str]:
        """Return errors of scripts, warnings, and reports of the content security policy."""
        self.value("0")
        methods = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"])[:600] for event in self.page.events if event["method"] in methods]

    def requested(self) -> set[str]:
        """Return the origins that the page asked for anything."""
        self.value("0")
        urls = [
            event["params"]["request"]["url"]
            for event in self.page.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return {"/".join(url.split("/")[:3]) for url in urls if not url.startswith(("data:", "blob:"))}
