"""The studio's screens, photographed while a person uses them: light, dark, and as wide as a phone.

A server with smollm2 and a fresh home runs for all of them. Each screen is brought into a state that shows
what it is for: an answer with an open token, two branches side by side, a view, a run that has learned.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs.pictures.photograph import SHARPNESS, reduce
from pophood.system import home
from tests.cli.browser import chromium
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import change, written
from tests.studio.server import studio

DIST = Path(__file__).resolve().parent.parent.parent / "src" / "pophood" / "studio" / "dist"
WIDE, PHONE = (1280, 800), (390, 844)  # CSS pixels
QUESTION = "Why is the sky blue?"
BEGINNING = "Once upon a time, there was a lighthouse"
VIEWED = "The capital of Spain is Madrid, and the capital of France is"
TOKENS = 60
COLOURS = 255  # of the palette: shades of many tokens beside those of the page
LONG = 400.0  # seconds: the tuning of a minute
SETTLED = 0.5  # seconds until a window of another size is painted


def screens(images: Path, work: Path, text: Path) -> list[Path]:
    """Write the pictures of every screen into `images`; a run learns `text` for a minute."""
    if not (DIST / "index.html").is_file():
        sys.exit(f"{DIST} has no page: run make studio first")
    images.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with opened(work) as tab:
        for name, show in {
            "chat": chat, "compare": compare, "complete": complete, "look": look, "models": models,
            "course": course, "tune": lambda tab: tune(tab, text),
        }.items():  # fmt: skip
            show(tab)
            paths += photographed(tab, images / name)
    return paths


@contextmanager
def opened(work: Path) -> Iterator[Tab]:
    """Start a studio with smollm2 and open its link in a browser."""
    models = str(home() / "models")
    with (
        studio("smollm2", home=work / "home", dist=DIST, enters=False, POPHOOD_MODELS=models) as running,
        chromium(work / "browser") as page,
    ):
        tab = Tab(page)
        tab.look()
        tab.open(running.facts["link"])
        yield tab
        complaints = tab.complaints()
        if complaints:
            sys.exit(f"the page complained: {complaints[0]}")


def photographed(tab: Tab, stem: Path) -> list[Path]:
    """Write STEM-light.png, STEM-dark.png and STEM-phone.png of what is in sight."""
    paths = []
    for kind, (wide, high) in (("light", WIDE), ("dark", WIDE), ("phone", PHONE)):
        tab.page.call(
            "Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=SHARPNESS,
            mobile=wide < 500,
        )  # fmt: skip
        theme = "dark" if kind == "dark" else "light"
        features = [{"name": "prefers-color-scheme", "value": theme}]
        tab.page.call("Emulation.setEmulatedMedia", features=features)
        tab.until("!document.querySelector('[aria-busy=true]')")
        time.sleep(SETTLED)
        path = stem.with_name(f"{stem.name}-{kind}.png")
        path.write_bytes(base64.b64decode(tab.page.call("Page.captureScreenshot", format="png")["data"]))
        reduce(path, colours=COLOURS)
        paths.append(path)
    tab.look(*WIDE)
    return paths


def chat(tab: Tab) -> None:
    """An answer whose tokens are coloured, with a token open in whose place another one was likelier."""
    settings(tab, {"[...document.querySelectorAll('.panel .slider input[type=number]')].at(-1)": str(TOKENS)})
    ask(tab, QUESTION)
    tab.value("document.querySelector('.tokens').focus()")
    tab.key("c", 67, "c")
    tab.token(telling(tab))
    tab.until("document.querySelectorAll('.panel .head').length === 5")
    tab.value("document.activeElement.blur()")


def telling(tab: Tab) -> int:
    """Return the index of a token that was taken although another one was much likelier."""
    address = "/studio/api/conversations/" + tab.value("location.hash.split('/')[2]")
    asking = f"fetch({json.dumps(address)}).then(answer => answer.json())"
    found = tab.page.call("Runtime.evaluate", expression=asking, awaitPromise=True, returnByValue=True)
    tokens = found["result"]["value"]["nodes"][-1]["tokens"]
    gaps = [token["top"][0][2] if token["id"] != token["top"][0][0] else -99.0 for token in tokens[:-1]]
    return gaps.index(max(gaps))


def compare(tab: Tab) -> None:
    """Two branches side by side: the answer, and one in which another token was taken."""
    tab.value("[...document.querySelectorAll('.panel .bars button')].find(e => !e.ariaCurrent).click()")
    tab.sees("2 of 2")
    written(tab)
    tab.press("Branches")
    tab.until("document.querySelectorAll('.panel input[type=checkbox]').length === 2")
    tab.value("document.querySelectorAll('.panel input[type=checkbox]').forEach(e => e.click())")
    tab.press("Compare two")
    tab.sees("Two branches")
    tab.press("Branches")


def complete(tab: Tab) -> None:
    """A text that the model wrote on, with the settings and the bars of what survives them."""
    tab.press("Complete")
    tab.sees("Begin a text")
    settings(tab, {"[...document.querySelectorAll('.panel .slider input[type=number]')].at(-1)": str(TOKENS)})
    ask(tab, BEGINNING, "Write on")
    tab.press("Settings")
    tab.until("document.querySelector('.panel .bars')")


def look(tab: Tab) -> None:
    """The weights of one head, with the measured roles of all."""
    tab.press("Look")
    tab.until("document.querySelector('main textarea')")
    tab.value(
        f"(e => {{ e.value = {VIEWED!r}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
        "(document.querySelector('main textarea'))"
    )
    time.sleep(3)
    tab.until("document.querySelector('.answers canvas, .answers svg')")


def models(tab: Tab) -> None:
    """The models of this machine, and those that could be fetched."""
    tab.press("Models")
    tab.sees("On this machine")
    tab.sees("smollm2")


def course(tab: Tab) -> None:
    """A page of the course, with the verdict about a guess."""
    tab.press("Course")
    tab.sees("Predict")
    tab.value("location.hash = '#/course/3'")
    tab.until("document.querySelector('main h2.title') && !document.querySelector('[aria-busy=true]')")


def tune(tab: Tab, text: Path) -> None:
    """A run of a minute that has ended."""
    tab.press("Tune")
    tab.until("document.querySelector('input[type=file]')")
    words = text.read_text(encoding="utf-8")
    tab.value(
        "(field => { const data = new DataTransfer();"
        f"data.items.add(new File([{json.dumps(words)}], 'shakespeare.txt'));"
        "field.files = data.files; field.dispatchEvent(new Event('change', {bubbles: true})); })"
        "(document.querySelector('input[type=file]'))"
    )
    tab.sees("shakespeare.txt")
    change(tab, "document.querySelector('.slider input[type=number]')", "1")
    tab.sees("Before it starts", LONG)
    tab.press("Begin")
    tab.sees("Chat with the tuned model", LONG)


def settings(tab: Tab, fields: dict[str, str]) -> None:
    """Set fields of the settings, and a seed, so that the pictures come out the same."""
    tab.press("Settings")
    tab.until("document.querySelector('.panel .slider')")
    seed = {"document.querySelector('.panel label > input[type=number]')": "42"}
    for field, value in (fields | seed).items():
        change(tab, field, value)
    tab.press("Settings")


def ask(tab: Tab, text: str, button: str = "Send") -> None:
    """Write a text, and wait for the answer."""
    tab.write(".composer textarea", text)
    tab.press(button)
    written(tab)
