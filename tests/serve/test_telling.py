"""How the worker tells tokens: many at a time if nobody watches, or with a pause between."""

from __future__ import annotations

from pophood.serve.messages import UNWATCHED, Begun, Ended, PromptRead, Tokens
from tests.serve.test_worker import kinds, prompt
from tests.serve.workers import Talk


def test_tokens_of_an_answer_that_nobody_watches_are_told_many_at_a_time(talk: Talk) -> None:
    apart = talk.ask(prompt(700), max_tokens=150, samples=2)
    talk.until(apart)
    together = talk.ask(prompt(700), max_tokens=150, samples=2, pause=UNWATCHED)
    events = talk.until(together)
    assert kinds(events)[0] is Begun
    assert kinds(events)[-1] is Ended
    told = [len(event.tokens) for event in events if isinstance(event, Tokens)]
    assert sum(told) == 300
    assert len(told) == 5
    assert not any(isinstance(event, PromptRead) for event in events)
    assert [talk.ids(together, sample) for sample in (0, 1)] == [talk.ids(apart, sample) for sample in (0, 1)]


def test_tokens_are_told_no_sooner_than_the_pause_after_the_last_ones(talk: Talk) -> None:
    apart = talk.ask(prompt(30), max_tokens=100)
    talk.until(apart)
    paused = talk.ask(prompt(30), max_tokens=100, pause=3600.0)
    events = talk.until(paused)
    told = [len(event.tokens) for event in events if isinstance(event, Tokens)]
    assert told == [1, 64, 35]  # the first one at once, no more than 64 held back, and the rest at the end
    assert talk.ids(paused) == talk.ids(apart)
