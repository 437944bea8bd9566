"""The model's process ends in the middle of an answer: the page says so, keeps the text, and goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.needs import linux
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import GROWING, asked, longest
from tests.studio.server import StudioCommand

TOKENS = "document.querySelectorAll('.turn.assistant .t').length"


def kill_children(pid: int) -> None:
    """Kill what a process has started: the model's process."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def endless(tab: Tab) -> None:
    """Let answers go on behind the token that ends them."""
    body = "JSON.stringify({...JSON.parse(options.body), ignore_eos: true})"
    changed = f"path === '/v1/completions' ? {{...options, body: {body}}} : options"
    tab.value(f"(own => {{ window.fetch = (path, options) => own(path, {changed}); }})(window.fetch)")


def test_an_answer_goes_on_after_a_crash(tab: Tab, served: StudioCommand) -> None:
    linux()
    asked(tab, "Go on", most=1)
    longest(tab, 900)
    endless(tab)
    tab.press("Write another answer")
    tab.until(f"{GROWING} && {TOKENS} > 20")
    began = time.monotonic()
    kill_children(served.facts["pid"])
    tab.sees("The model's process ended")
    told, kept = time.monotonic(), tab.value(TOKENS)
    assert kept > 20
    tab.until(f"{TOKENS} > {kept}")
    gone_on = time.monotonic()
    print(f"told {told - began:.2f} s and gone on {gone_on - began:.2f} s after the crash")
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert gone_on - began < (20 if busy else 5)
    assert tab.value(f"{TOKENS}") > kept and tab.value("document.querySelectorAll('.turn').length") == 2
    tab.press("Stop")
    tab.until(f"!{GROWING}")
    early = [one for one in tab.complaints() if "503" not in one and "ERR_" not in one]
    assert early == []  # else than requests that came before the model was back
    tab.page.events.clear()
