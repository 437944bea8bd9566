"""Scripts in texts, names and tokens: shown as text, none runs, nothing is asked of anybody."""

from __future__ import annotations

import itertools
from typing import Any

from tests.studio.browser.tab import Tab
from tests.studio.server import StudioCommand

RUN = ("window.ran=1", "fetch('http://127.0.0.1:9/')", "top.location='http://127.0.0.1:9/'", "alert(1)")
SHAPES = (
    "<script>{}</script>",
    '<img src=x onerror="{}">',
    '<svg onload="{}"><circle r=9></svg>',
    "<svg><script>{}</script></svg>",
    '<iframe srcdoc="<script>{}</script>"></iframe>',
    "<math><mtext><table><mglyph><style><img src=x onerror={}>",
    '<a href="javascript:{}">x</a>',
    "[x](javascript:{})",
    '![x](http://127.0.0.1:9/a.png "{}")',
    '<details open ontoggle="{}">x</details>',
    '<input autofocus onfocus="{}">',
    '<body onload="{}">',
    '<object data="javascript:{}"></object>',
    "<style>@import 'http://127.0.0.1:9/{}';</style>",
    '<link rel=stylesheet href="http://127.0.0.1:9/{}">',
    '<form action="javascript:{}"><button>x</button></form>',
    '<p style="background:url(http://127.0.0.1:9/)" onclick="{}">x</p>',
    "{{@html '<img src=x onerror={}>'}}",
    "```html\n<script>{}</script>\n```",
    '"><script>{}</script>',
    "'-{}-'",
    "</textarea><script>{}</script>",
    "</title><script>{}</script>",
    "<template><script>{}</script></template>",
    '<base href="http://127.0.0.1:9/"><script>{}</script>',
    '<meta http-equiv=refresh content="0;url=javascript:{}">',
    '<video><source onerror="{}"></video>',
    '<noscript><p title="</noscript><img src=x onerror={}>">',
    '<x-y onpointerenter="{}" tabindex=1 autofocus onfocus="{}">',
    "&lt;script&gt;{}&lt;/script&gt;",
    "\u202e<script>{}</script>",
    '<a href="data:text/html,<script>{}</script>">x</a>',
    "<!--><img src=x onerror={}>-->",
    '<embed src="javascript:{}">',
    "<div id=location>{}</div><a id=document name=cookie>x</a>",
    "<isindex type=image src=1 onerror={}>",
    '<marquee onstart="{}">x</marquee>',
    '<keygen autofocus onfocus="{}">',
    "${{{}}}",
    '<svg><animate onbegin="{}" attributeName=x dur=1s></svg>',
    '<svg><a xlink:href="javascript:{}"><text>x</text></a></svg>',
    "| a |\n|---|\n| <img src=x onerror={}> |",
    '<script src="http://127.0.0.1:9/x.js"></script>{}',
    "<p>{}</p><script type=module>import('http://127.0.0.1:9/')</script>",
    "javascript:{}",
    "<button popovertarget=x>{}</button>",
    "<select><option><script>{}</script></select>",
    '<frameset onload="{}">',
    '<label for=x onclick="{}">x</label>',
    '[![x](x "onerror={}")](javascript:{})',
)
PAYLOADS = [shape.replace("{}", run) for shape, run in itertools.product(SHAPES, RUN)]


def node(number: int, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    """Return a turn."""
    return {"id": f"n{number:06}", "parent": parent, "role": "user", "text": text} | more


def test_payloads_are_shown_as_text(tab: Tab, served: StudioCommand) -> None:
    assert len(PAYLOADS) == 200
    served.cookie = next(
        f"{cookie['name']}={cookie['value']}" for cookie in tab.page.call("Network.getCookies")["cookies"]
    )
    evil = PAYLOADS[0]
    talk = served.post("/conversations", {"title": evil, "mode": "chat", "system": evil})["id"]
    parent = None
    for number, payload in enumerate(PAYLOADS):
        token = {"id": 1, "text": payload, "logprob": -1.0, "entropy": 1.0, "top": [[2, payload, -0.5]]}
        answer: dict[str, Any] = {"role": "assistant", "tokens": [token], "name": payload[:200]}
        more = answer | {"prompt": [1, 2], "finish": payload[:40]}
        more |= {"settings": {"adapter": payload if number > 1 else None}}
        one = node(number, parent, payload, **(more if number % 2 else {}))
        parent = served.post(f"/conversations/{talk}/nodes", one)["id"]
    tab.open(f"{served.facts['studio']}#/chat/{talk}")
    tab.until("document.querySelectorAll('.turn').length === 200")
    shown = tab.value("[...document.querySelectorAll('.said, .tokens')].map(e => e.textContent.trim())")
    assert shown == [payload.strip() for payload in PAYLOADS]
    tab.press("Formatted")
    tab.until("document.querySelectorAll('.formatted').length === 100")
    parts = "script, img, iframe, style, link, object, embed, form, base, meta, svg circle"
    assert tab.value(f"document.querySelectorAll('.turns .formatted :is({parts})').length") == 0
    acts = "a.name.startsWith('on') || /^\\s*(javascript|data):/i.test(a.value)"
    attributes = "[...document.querySelectorAll('.formatted *')].flatMap(e => [...e.attributes])"
    assert tab.value(f"{attributes}.filter(a => {acts}).length") == 0
    tab.press("Formatted")
    tab.click(".turn:nth-of-type(2) .t")
    tab.sees("The ten likeliest here")
    for panel in ("Branches", "Settings"):
        tab.value(f"document.querySelector('.head [aria-label=\"{panel}\"]').click()")
        tab.until("document.querySelector('.panel h2')")
    assert tab.value("window.ran") is None
    assert tab.value("location.href").startswith(served.facts["studio"])
