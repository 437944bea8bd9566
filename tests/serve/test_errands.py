"""Errands between the steps of answers: both have the bits that they have alone, and neither waits long."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.generate.inspection import LOOKED
from pophood.look.answer import answer
from pophood.sampling import SamplingSettings
from pophood.serve.errands import Between
from pophood.serve.messages import Ended, Errand, Failed, ShowView, Tokens, ViewShown
from pophood.serve.process.viewer import Viewer
from tests.processes import HANG_SECONDS
from tests.serve.test_worker import prompt
from tests.serve.workers import Talk
from tests.test_adapters import random_adapter

SHOWN = (ViewShown, Failed)


@contextmanager
def viewing(model: Path, view: Any = None) -> Iterator[Talk]:
    """Run a worker whose errands `view` does, by default a Viewer."""
    lm = pophood.load(model, threads=1)
    with Talk(lm, {}, view=view or Viewer(lm, {}, {})) as talk:
        yield talk


def said_before(talk: Talk, view: int, request: int) -> int:
    """Return how many tokens of a request were told before a view was."""
    count = 0
    for event in (event for step in talk.steps for event in step):
        if isinstance(event, ViewShown) and event.id == view:
            return count
        count += isinstance(event, Tokens) and event.id == request
    raise AssertionError("the view was not told")


@pytest.mark.parametrize(
    ("name", "length", "options", "passes"),
    [("surprise", 200, {"window": 16}, 12), ("attention", 10 * LOOKED, {"layer": 0, "head": 0}, 10)],
    ids=["many short passes", "one long pass"],
)
def test_tokens_arrive_while_a_view_is_computed(
    tiny_chat: Path, name: str, length: int, options: dict[str, Any], passes: int
) -> None:
    alone = pophood.load(tiny_chat, threads=1)
    with viewing(tiny_chat) as talk:
        first = talk.ask(prompt(30), max_tokens=400, seed=5)
        talk.until(first, Tokens)
        view = talk.look(name, tuple(prompt(length, seed=3)), options)
        late = talk.ask(prompt(20, seed=1), max_tokens=4)
        (shown,) = talk.until(view, SHOWN)
        assert isinstance(shown, ViewShown), shown
        told = said_before(talk, view, first)
        assert passes <= told < 400
        assert said_before(talk, view, late) == 4, "a request that comes meanwhile is answered too"
        talk.until(first)
        assert shown.view == answer(alone, name, prompt(length, seed=3), options)
        again = talk.ask(prompt(30), max_tokens=400, seed=5)
        talk.until(again)
        assert talk.ids(again) == talk.ids(first)


def test_a_view_whose_reader_has_left_ends_at_its_next_pass(tiny_chat: Path) -> None:
    began, passes = threading.Event(), []

    def endless(errand: Errand, between: Between) -> dict[str, Any]:
        while True:
            passes.append(between())
            began.set()

    with viewing(tiny_chat, endless) as talk:
        view, waiting = talk.look("next", "a"), talk.look("next", "b")
        assert began.wait(HANG_SECONDS)
        talk.cancel(waiting)
        talk.cancel(view)
        request = talk.ask(prompt(10), max_tokens=3)
        assert isinstance(talk.until(request)[-1], Ended)
        assert talk.events(view) == talk.events(waiting) == []
        third = talk.look("next", "c")
        before = len(passes)
        while len(passes) == before:
            talk.until(talk.ask(prompt(10), max_tokens=1))
    talk.settle()
    assert [type(event) for event in talk.events(third)] == [Failed], "the end of the worker ends it"


def test_an_error_of_a_view_is_its_own(tiny_chat: Path) -> None:
    with viewing(tiny_chat) as talk:
        request = talk.ask(prompt(30), max_tokens=50)
        talk.until(request, Tokens)
        view = talk.look("attention", tuple(prompt(40)), {"layer": 99})
        (failed,) = talk.until(view, SHOWN)
        assert isinstance(failed, Failed)
        assert failed.kind == "invalid"
        assert isinstance(talk.until(request)[-1], Ended)


def test_a_title_has_the_names_of_adapters_and_the_command_their_places(tiny_chat: Path) -> None:
    lm = pophood.load(tiny_chat, threads=1)
    adapters = {"a": random_adapter(lm, 1), "b/a": random_adapter(lm, 2)}
    viewer = Viewer(lm, adapters, {"a": "/runs/b", "b/a": "/runs/b/a"})
    wish = ShowView(1, "next", "The cat", {}, (("b/a", 0.5), ("a", 1.0)))
    told = viewer(wish, lambda: 32)
    assert told["title"].endswith(", with the adapters b/a x 0.5 and a")
    assert "--adapter /runs/b/a:0.5 --adapter /runs/b" in told["command"]
    plain = viewer(ShowView(2, "next", "The cat", {}), lambda: 32)
    assert "adapter" not in plain["title"] + plain["command"]
    assert plain == answer(pophood.load(tiny_chat, threads=1), "next", "The cat")


def test_a_replaced_adapter_leaves_memory_with_its_last_request(tiny_chat: Path) -> None:
    lm = pophood.load(tiny_chat, threads=1)
    adapters = {"sea": random_adapter(lm, 1)}
    older = weakref.ref(next(iter(adapters["sea"].targets.values()))[0])

    def replacing(errand: Errand, between: Between) -> dict[str, Any]:
        adapters["sea"] = random_adapter(lm, 2)
        return {}

    with Talk(lm, adapters, view=replacing) as talk:
        chosen: dict[str, Any] = {"adapters": (("sea", 1.0),), "sampling": SamplingSettings(temperature=0)}
        before = talk.ask(prompt(20), **chosen)
        talk.until(before)
        kept = talk.ask(prompt(20), max_tokens=3000, **chosen)
        talk.until(kept, Tokens)
        talk.until(talk.look("next", "a"), SHOWN)
        after = talk.ask(prompt(20), **chosen)
        talk.until(after)
        assert talk.ids(after) != talk.ids(before) == talk.ids(kept)[:8]
        gc.collect()
        assert older() is not None, "a request that has begun keeps it"
        talk.cancel(kept)
        talk.until(again := talk.ask(prompt(20), **chosen))
        assert talk.ids(again) == talk.ids(after)
        talk.settle()
        gc.collect()
        assert older() is None
        assert [name for name, _ in talk.worker._packed._packed] == ["sea"]
        talk.until(talk.look("next", "a"), SHOWN)  # while nobody uses it
        assert not talk.worker._packed._packed
