"""A headless Chromium, driven through its debugging pipe. Each message ends with a NUL."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import processes
from tests.needs import tool


class Page:
    """One browser tab: sends commands, returns their results and records events."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def attach(self) -> None:
        """Open a tab and address all further commands to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @contextmanager
    def other(self, address: str) -> Iterator[Page]:
        """Address commands to another open tab, whose address contains `address`."""
        own, self._session = self._session, None
        for _ in range(100):
            targets = self.call("Target.getTargets")["targetInfos"]
            if found := [one["targetId"] for one in targets if address in one["url"]]:
                break
            time.sleep(0.05)
        self._session = self.call("Target.attachToTarget", targetId=found[0], flatten=True)["sessionId"]
        try:
            yield self
        finally:
            self._session = own

    def open(self, path: Path) -> None:
        """Load a file and wait until it has loaded."""
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """Evaluate a JavaScript expression in the page and return its value."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Home": 36, "End": 35}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )

    def mouse(self, kind: str, selector: str) -> None:
        """Move the mouse to the middle of an element ("mouseMoved"), or click it ("click")."""
        box = self.value(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getClientRects()[0])"
        )
        kinds = ("mousePressed", "mouseReleased") if kind == "click" else (kind,)
        for one in kinds:
            self.call("Input.dispatchMouseEvent", type=one, x=box[0], y=box[1], button="left", clickCount=1)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._receive, 1 << 16)
            assert more, "the browser has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Open a tab of a fresh headless Chromium; skip the test if Chromium is not installed."""
    program = tool("chromium")
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()

    def wire() -> None:  # the browser reads commands from descriptor 3 and writes results to 4
        os.dup2(command_out, 10)
        os.dup2(answer_in, 11)
        os.dup2(10, 3)
        os.dup2(11, 4)

    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        "--window-size=1280,900",
        f"--user-data-dir={profile}",
    ]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "pass_fds": (3, 4)}
    with processes.started_bytes(command, preexec_fn=wire, **streams):
        os.close(command_out)
        os.close(answer_in)
        try:
            page = Page(command_in, answer_out)
            page.attach()
            yield page
        finally:
            os.close(command_in)
            os.close(answer_out)
