"""The button beside a block of code in a formatted answer copies the code alone, by keyboard too."""

from __future__ import annotations

import json

from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import change
from tests.studio.browser.test_payloads import node
from tests.studio.server import StudioCommand

CODE = 'def hello():\n    print("<b>hello</b>")'
TEXT = f"Run *this*:\n\n```python\n{CODE}\n```\n\nand then that:\n\n```\nls -l\n```\n\nDone."
BUTTONS = "[...document.querySelectorAll('.formatted .block button')]"


def test_blocks_of_code_are_copied(tab: Tab, served: StudioCommand) -> None:
    served.cookie = next(
        f"{cookie['name']}={cookie['value']}" for cookie in tab.page.call("Network.getCookies")["cookies"]
    )
    talk = served.post("/conversations", {"title": "code", "mode": "chat"})["id"]
    token = {"id": 1, "text": TEXT, "logprob": -1.0, "entropy": 1.0, "top": []}
    served.post(f"/conversations/{talk}/nodes", node(900_001, None, "How?"))
    more = {"role": "assistant", "tokens": [token], "prompt": [1]}
    served.post(f"/conversations/{talk}/nodes", node(900_002, "n900001", TEXT, **more))
    tab.open(f"{served.facts['studio']}#/chat/{talk}")
    tab.press("Formatted")
    tab.until(f"{BUTTONS}.length === 2")
    tab.value("navigator.clipboard.writeText = async text => { window.copied = text; }")
    said = "document.querySelector('[role=status].hidden').textContent"

    tab.value(f"{BUTTONS}[0].focus()")
    tab.key("Enter", 13, "\r")
    tab.until(f"window.copied === {json.dumps(CODE)} && {said} === 'Copied'")
    tab.until("document.activeElement.textContent === 'Copied'")
    tab.key("Tab", 9)
    assert tab.value(f"document.activeElement === {BUTTONS}[1]")
    tab.key(" ", 32, " ")
    tab.until("window.copied === 'ls -l'")

    change(tab, "document.querySelector('.bar select')", "es")
    tab.until(f"{BUTTONS}.every(one => one.ariaLabel === 'Copiar el código')")
    tab.value("localStorage.clear()")
    tab.press("Con formato")
    tab.until(f"{BUTTONS}.length === 0")
