"""The Tune screen: a run's name, lens and delete button; base and tuned side by side in a conversation."""

from __future__ import annotations

import json
from pathlib import Path

from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import GROWING, longest
from tests.studio.server import StudioCommand
from tests.studio.test_run_adapters import made_run

CORNERS = (  # how bright the first pixel of each figure is
    "[...document.querySelectorAll('canvas')].map(figure => {"
    "const corner = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});"
    "corner.drawImage(figure, 0, 0); return corner.getImageData(0, 0, 1, 1).data[0]; })"
)
COLUMNS = "document.querySelectorAll('.sides section')"
EVENTS = [
    {"event": "started", "first_step": 0, "steps": 4},
    {"event": "looked", "step": 0, "prompt": "The sea", "blocks": [[[" is", 0.4]], [[" was", 0.3]]]},
    {"event": "step", "step": 1, "loss": 3.0, "steps": 4, "left": 1.0, "tokens_per_second": 9.0},
    {"event": "step", "step": 2, "loss": 2.0, "steps": 4, "left": 1.0, "tokens_per_second": 9.0},
    {"event": "looked", "step": 2, "prompt": "The sea", "blocks": [[[" has", 0.5]], [[" had", 0.6]]]},
    {
        "event": "started",
        "first_step": 1,
        "steps": 4,
        "minutes": 2.5,
    },  # it went on from a checkpoint after step 1
    {"event": "step", "step": 2, "loss": 2.5, "steps": 4, "left": 1.0, "tokens_per_second": 9.0},
    {"event": "looked", "step": 2, "prompt": "The sea", "blocks": [[[" is", 0.7]], [[" blue", 0.9]]]},
    {"event": "finished", "step": 2, "reason": "clock", "seconds": 150.0},
]


def test_base_and_tuned_answer_side_by_side(tab: Tab, served: StudioCommand, tiny_model: Path) -> None:
    out = made_run(served.home, tiny_model, "Sea voice")
    (out / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (out / "events.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in EVENTS), encoding="utf-8")
    tab.press("Tune")
    tab.until("document.querySelector('button.run')")
    tab.value("document.querySelector('button.run').click()")
    tab.until("document.querySelectorAll('canvas').length === 2")
    tab.sees("2 of 4 steps")
    tab.sees("Its minutes are up")
    assert tab.value("document.querySelector('button.run').innerText.includes('time is up')")
    assert "Learn 2.5 more minutes" in tab.text()
    words = tab.value(
        "[...document.querySelectorAll('.ph-stage')].map(e => e.getAttribute('aria-label')).join()"
    )
    assert "block 1, step 2: “ blue” 90.0 %" in words and "A grid of 2 blocks and 2 steps" in words
    assert tab.value("document.querySelector('main section h2').textContent") == "Sea voice"
    for dark in (True, False):  # figures that grow follow the colours of the page
        tab.look(dark=dark)
        tab.until(f"{CORNERS}.every(value => (value < 64) === {str(dark).lower()})")

    tab.press("Ask base and tuned side by side")
    tab.sees("answer side by side, with the same seed")
    longest(tab, 8)
    for turns, text in enumerate(("One?", "Two?"), 1):
        tab.write(".composer textarea", text)
        tab.press("Send")
        tab.until(f"[...{COLUMNS}].every(e => e.querySelectorAll('.tokens').length === {turns})")
        tab.until(f"!{GROWING} && document.querySelector('.composer .primary')")
    assert (
        tab.value(f"[...{COLUMNS}].map(e => e.ariaLabel).join()") == f"{tiny_model.name}, not tuned,Sea voice"
    )
    base, tuned = tab.value(f"[...{COLUMNS}].map(e => e.querySelector('.tokens').textContent)")
    assert base != tuned
    tab.press("End comparison")
    tab.until("document.querySelector('.turn.assistant .who').innerText.includes('Sea voice')")
    tab.press("Earlier branch")
    tab.until("!document.querySelector('.turn.assistant .who').innerText.includes('Sea voice')")
    tab.press("Side by side")
    tab.until(f"{COLUMNS}.length === 2")
    tab.press("Show")
    tab.until("document.querySelector('.turn.assistant')")

    tab.press("Tune")
    tab.until("document.querySelector('button.run')")
    tab.value("document.querySelector('button.run').click()")
    tab.press("Delete this run …")
    tab.press("Delete it with its result")
    tab.until("!document.querySelector('button.run')")
    tab.until("!document.querySelector('main section')")


def test_files_are_chosen_and_dropped(tab: Tab) -> None:
    tab.press("Tune")
    tab.until("document.querySelector('.drop input[type=file]')")
    assert tab.value("document.querySelector('.drop label').innerText.trim()") == "Choose files"
    tab.value("document.querySelector('.drop input').focus()")
    assert tab.value("getComputedStyle(document.querySelector('.drop label')).outlineStyle") == "solid"
    file = "const data = new DataTransfer(); data.items.add(new File(['The sea.'], name));"
    drop = "document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data}))"
    choose = "field.files = data.files; field.dispatchEvent(new Event('change', {bubbles: true}))"
    field = "const field = document.querySelector('.drop input');"
    for name, given in (("dropped.txt", drop), ("chosen.txt", f"{field}{choose}")):
        tab.value(f"(name => {{ {file} {given}; }})({name!r})")
        tab.sees(name)
        tab.press(f"Remove {name}")
        tab.until(f"!document.body.innerText.includes({name!r})")
