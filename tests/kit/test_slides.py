"""The slides and the notebook of a kit: in the class's language, current, and open without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pophood.course import Course, load_course
from pophood.errors import BadInput
from pophood.kit import KitPlan, make, make_kit
from pophood.kit.manifest import SUMS
from tests.cli.browser import chromium
from tests.kit.conftest import Listener
from tests.kit.wheels import QuickPip

CHOSEN = (2, 10)
ASKS = "Network.requestWillBeSent"


def two_pages(language: str) -> Course:
    """Return two pages of the course: the whole deck takes a minute."""
    course = load_course(language)
    return replace(course, pages=tuple(page for page in course.pages if page.number in CHOSEN))


@pytest.mark.parametrize("language", ["en", "es"])
def test_they_open_without_a_network_in_the_language_of_the_class(
    language: str,
    plan: KitPlan,
    tmp_path: Path,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    quick_pip: QuickPip,
) -> None:
    monkeypatch.setattr(make, "load_course", two_pages)
    kit, course = tmp_path / "kit", two_pages(language)
    make_kit(replace(plan, slides=True, language=language), kit, listener.dialogue)
    file = kit / "course" / "talk.html"
    deck = file.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", deck)
    titles = [unescape(title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", deck)]
    for page in course.pages:
        assert any(page.title in title for title in titles), (page.title, titles)
    with chromium(tmp_path / "profile") as tab:
        tab.open(file)
        events = tab.events
        shown = tab.value("[document.documentElement.lang, document.title, document.images.length]")
        assert shown[:2] == [language, f"{course.title}: tiny"] and shown[2] > 0
        tab.press("End")
        assert tab.value("document.activeElement.id") == f"p{CHOSEN[-1]}xh"
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == ASKS]
    assert asked and not [url for url in asked if not url.startswith(("data:", file.as_uri()))]
    cells = json.loads((kit / "course" / "talk.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells)
    assert all(page.title in text for page in course.pages)


def test_the_slides_of_a_stopped_run_are_kept_for_the_same_course(
    plan: KitPlan,
    tmp_path: Path,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    quick_pip: QuickPip,
) -> None:
    from pophood.course import deck

    made: list[str] = []

    def deck_html(course: Any, lm: Any, model: str, announce: Callable[[int, int, str], object]) -> str:
        announce(0, 31, "a page")
        made.append(course.language)
        return "<!doctype html>"

    monkeypatch.setattr(deck, "deck_html", deck_html)
    plan, out = replace(plan, slides=True), tmp_path / "kit"
    for language in ("en", "en", "es"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(make, "write_texts", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
            make_kit(replace(plan, language=language), out, listener.dialogue)
    make_kit(replace(plan, language="es"), out, listener.dialogue)
    assert made == ["en", "es"]
    assert (out / "course" / "talk.html").read_text(encoding="utf-8") == "<!doctype html>"
    assert "making the slides" in listener.blocks


def test_a_language_that_the_course_is_not_in_is_refused_first(
    plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    make_kit(plan, tmp_path / "kit", listener.dialogue)
    with pytest.raises(BadInput, match="'tlh'"):
        make_kit(replace(plan, language="tlh"), tmp_path / "kit", listener.dialogue)
    assert (tmp_path / "kit" / SUMS).is_file(), "the kit that was there is still whole"
