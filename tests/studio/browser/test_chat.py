"""A conversation in the browser: ask, open a token, take another, compare, edit, delete, undo, reload."""

from __future__ import annotations

import json

from tests.studio.browser.tab import Tab

GROWING = "document.querySelector('.growing')"
ANSWER = "document.querySelector('.turn.assistant .tokens').textContent"


def change(tab: Tab, field: str, value: str) -> None:
    """Set the value of a field, as a person does."""
    told = "field.dispatchEvent(new Event('change', {bubbles: true}))"
    tab.value(f"(field => {{ field.value = {value!r}; {told}; }})({field})")


def longest(tab: Tab, tokens: int) -> None:
    """Set how long an answer may be, and a seed with which it is so long."""
    tab.press("Settings")
    tab.until("document.querySelector('.panel .slider')")
    change(tab, "[...document.querySelectorAll('.panel .slider')].at(-1).querySelector('input')", str(tokens))
    change(tab, "document.querySelector('.panel label > input[type=number]')", "7")  # a seed
    tab.press("Settings")


def asked(tab: Tab, text: str, most: int = 12) -> None:
    """Start a conversation with short answers, and wait for the first one."""
    tab.press("New conversation")
    longest(tab, most)
    tab.write(".composer textarea", text)
    tab.press("Send")
    written(tab)


def written(tab: Tab) -> None:
    """Wait until an answer is written whole."""
    tab.until("document.querySelector('.turn.assistant .acts')")
    tab.until(f"!{GROWING}")


def test_a_token_is_opened_and_another_one_taken(tab: Tab) -> None:
    asked(tab, "What is the capital of Spain?")
    before = tab.value(ANSWER)
    tab.token(3)
    tab.sees("The ten likeliest here")
    tab.until("document.querySelectorAll('.lens tbody tr').length === 2")
    tab.until("document.querySelectorAll('.panel .head').length >= 2")
    assert tab.value("document.querySelectorAll('.panel .bars button').length") in (
        10,
        11,
    )  # and the one taken
    stops = "[...document.querySelectorAll('.panel .bars button')].map(e => e.tabIndex)"
    tab.value("document.querySelector('.panel .bars button').focus()")
    tab.key("ArrowDown", 40)
    assert tab.value("document.activeElement.ariaLabel").startswith("Go on with ")
    assert tab.value(stops) == [-1, 0, *[-1] * (len(tab.value(stops)) - 2)], (
        "the Tab key stops once, arrow keys walk"
    )
    tab.value("[...document.querySelectorAll('.panel .bars button')].find(e => !e.ariaCurrent).click()")
    tab.sees("2 of 2")
    written(tab)
    after = tab.value(ANSWER)
    kept = tab.value(
        "[...document.querySelectorAll('.tokens .t')].slice(0, 3).map(e => e.textContent).join('')"
    )
    assert after != before
    assert after.startswith(kept)
    assert before.startswith(kept)
    tab.press("Earlier branch")
    tab.sees("1 of 2")
    assert tab.value(ANSWER) == before

    tab.press("Branches")
    turns = "[...document.querySelectorAll('.panel .tree button')]"
    tab.until(f"{turns}.length === 3")
    assert tab.value(f"{turns}.filter(e => e.ariaCurrent).length") == 2
    tab.value(f"{turns}.at(-1).click()")
    tab.sees("2 of 2")
    tab.value(f"{turns}.at(1).click()")
    tab.sees("1 of 2")
    tab.until("document.querySelectorAll('.panel input[type=checkbox]').length === 2")
    tab.value("document.querySelectorAll('.panel input[type=checkbox]').forEach(e => e.click())")
    tab.press("Compare two")
    tab.sees("Turns in common: 1; then tokens in common: 3.")
    tab.press("End comparison")
    tab.value("location.reload()")
    tab.until(f"document.querySelector('.turn.assistant .tokens') && {ANSWER} === {before!r}")


def test_turns_are_edited_deleted_and_brought_back(tab: Tab) -> None:
    asked(tab, "one")
    tab.press("Edit")
    tab.write(".turn textarea", " two")
    tab.press("Ask this")
    tab.sees("2 of 2")
    written(tab)
    assert tab.value("document.querySelector('.turn.user .said').textContent") == "one two"
    tab.press("Delete")
    tab.until("document.querySelector('.turn.user .said').textContent === 'one'")
    tab.press("Undo")
    tab.until("document.querySelector('.turn.user .said').textContent === 'one two'")
    tokens = "document.querySelectorAll('.turn.assistant .t').length"
    before = tab.value(tokens)
    tab.press("Continue")
    tab.until(f"{tokens} > {before}")
    written(tab)
    tab.press("Write another answer")
    tab.until("document.querySelector('.turn.assistant .who').innerText.includes('2 of 2')")
    written(tab)


def test_keys_colour_walk_and_open(tab: Tab) -> None:
    asked(tab, "Colours?")
    tab.value("document.querySelector('.tokens').focus()")
    tab.key("c", 67, "c")
    tab.until("document.querySelector('.tokens.coloured .t').style.background")
    tab.key("ArrowRight", 39)
    tab.key("ArrowRight", 39)
    tab.until("document.querySelector('.t.at')?.dataset.i === '1'")
    assert "entropy" in tab.value("document.querySelector('[role=status].hidden').textContent")
    tab.key("Enter", 13, "\r")
    tab.sees("The ten likeliest here")
    tab.key("Escape", 27)
    tab.until("!document.querySelector('.panel')")


def test_a_text_is_written_on_in_the_other_mode_and_in_spanish(tab: Tab) -> None:
    tab.press("Complete")
    tab.sees("Begin a text")
    change(tab, "document.querySelector('.bar select')", "es")
    tab.sees("Empieza un texto")
    assert tab.value("document.documentElement.lang") == "es"
    tab.press("La capital de España es")
    written(tab)
    assert tab.value("document.querySelector('.turn.text .said').textContent") == "La capital de España es"
    tab.value("localStorage.clear()")


def test_downloads_are_named(tab: Tab) -> None:
    tab.sees("Nothing has left this machine")
    opened = [
        {"host": "huggingface.co", "by": "pophood", "reason": "pull", "model": "gpt2", "count": 5},
        {"host": None, "by": "pip", "reason": "pull", "model": "smollm2", "count": 1},
    ]
    told = json.dumps({"outside": 6, "opened": opened})
    tab.value(
        "(own => { window.fetch = async (path, options) => { const answer = await own(path, options);"
        "if (!path.endsWith('/state')) return answer; const state = await answer.json();"
        f"state.connections = {told}; return new Response(JSON.stringify(state)); }}; }})(window.fetch)"
    )
    tab.value("document.querySelector('.private > button').click()")
    tab.sees("6 connections to the outside: downloads that you asked for")
    tab.sees("5, for gpt2")
    title = tab.value("document.querySelector('.private > button').title")
    assert title.endswith("(huggingface.co, pip's package index)")
