"""A newcomer without any network: ask, open a token, take another, compare, look, tune, talk, export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alone import loopback_only
from tests.cli.browser import chromium
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import ANSWER, GROWING, change, longest, written
from tests.studio.server import StudioCommand, studio

pytestmark = pytest.mark.full
LONG = 400.0  # seconds: a run of a minute on a busy machine


@pytest.fixture
def command(smollm2_path: Path, dist: Path, tmp_path: Path) -> Iterator[StudioCommand]:
    """Return a studio with smollm2 where loopback is the only network, for this thread too."""
    with (
        loopback_only(),
        studio(smollm2_path, home=tmp_path / "home", dist=dist, enters=False) as running,
    ):
        yield running


@pytest.fixture
def own(command: StudioCommand, tmp_path: Path) -> Iterator[Tab]:
    """Return a tab that has opened the studio's link."""
    with chromium(tmp_path / "browser") as page:
        tab = Tab(page)
        tab.look()
        tab.open(command.facts["link"])
        yield tab


def test_a_newcomers_path_has_no_dead_end(own: Tab, command: StudioCommand) -> None:
    pytest.importorskip("torch")
    own.sees("Ask the model something")
    longest(own, 30)
    own.write(".composer textarea", "What is the capital of Japan?")
    own.press("Send")
    written(own)
    before = own.value(ANSWER)
    own.click(".tokens .t[data-i='2']")
    own.until("document.querySelectorAll('.lens tbody tr').length === 30")
    own.until("document.querySelectorAll('.panel .head').length === 5")
    own.value("[...document.querySelectorAll('.panel .bars button')].find(e => !e.ariaCurrent).click()")
    own.sees("2 of 2")
    own.until(f"!{GROWING}")
    assert own.value(ANSWER) != before
    links = "[...document.querySelectorAll('.history a[download]')]"
    statuses = f"Promise.all({links}.map(e => fetch(e.href).then(r => r.status))).then(all => all.join(' '))"
    result = own.page.call("Runtime.evaluate", expression=statuses, returnByValue=True, awaitPromise=True)
    assert result["result"]["value"] == "200 200 200"

    own.press("Branches")
    own.until("document.querySelectorAll('.panel input[type=checkbox]').length === 2")
    own.value("document.querySelectorAll('.panel input[type=checkbox]').forEach(e => e.click())")
    own.press("Compare two")
    own.sees("Two branches from where they part")
    own.press("End comparison")

    own.click(".tokens .t[data-i='4']")
    own.press("Look inside at this point")
    own.sees("A conversation up to")
    own.until("document.querySelector('.answers canvas')")
    tuned(own, command)
    assert own.complaints() == []
    assert own.requested() == {command.facts["url"]}


def tuned(own: Tab, command: StudioCommand) -> None:
    """Tune for a minute on a file, and talk with the result."""
    text = "The lighthouse stands on the rock, and the sea is blue. " * 200
    own.press("Tune")
    own.until("document.querySelector('input[type=file]')")
    own.value(
        f"(field => {{ const data = new DataTransfer(); data.items.add(new File([{text!r}], 'sea.txt'));"
        "field.files = data.files; field.dispatchEvent(new Event('change', {bubbles: true})); })"
        "(document.querySelector('input[type=file]'))"
    )
    own.sees("sea.txt")
    change(own, "document.querySelector('.slider input[type=number]')", "1")
    own.sees("Before it starts", LONG)
    own.until("!document.querySelector('.tune button.primary').disabled", LONG)
    own.press("Begin")
    own.sees("Chat with the tuned model", LONG)
    columns = "[...document.querySelectorAll('.ph-stage')].filter(e => e.ariaLabel.includes('30 blocks'))"
    assert own.value(f"{columns}.length") == 2  # a lens for each prompt
    exported(own)
    own.press("Chat with the tuned model")
    own.until("location.hash.startsWith('#/chat')")
    own.press("Why is the sky blue?")
    written(own)
    assert "sea-lora" in own.value("document.querySelector('.turn.assistant .who').innerText")

    own.press("Base and sea-lora side by side")
    own.write(".composer textarea", "And the sea?")
    own.press("Send")
    own.until("document.querySelectorAll('.sides .tokens').length === 2")
    own.until(f"!{GROWING} && document.querySelector('.composer .primary')")


def exported(own: Tab) -> None:
    """Write the result as GGUF, and read the figures of its proof."""
    own.press("Write and prove")
    own.until("document.querySelector('.export dl')", LONG)
    facts = own.value("document.querySelector('.export dl').innerText")
    assert "sea-lora.gguf" in facts
    assert "272, each with the bytes that were written" in facts
    assert "the same bits, over 256 tokens" in facts
    assert "64 of 64 tokens equal" in facts
