"""Assembly: what was computed for a request, put together choice by choice.

Choice i of prompt p has the number p * n + i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.generate import Inside, Timings, Token
from pophood.generate.prefix import TokenScore
from pophood.openai.asked import Asked
from pophood.openai.choices import REASONS, ChoiceText, Counts, Reason
from pophood.openai.logprobs import Aligner, TokenEntry, prompt_entries, top_of
from pophood.openai.tools.parser import CallParser, Piece


@dataclass(slots=True)
class Growth:
    """New text and parts of calls of one choice, in order, with the tokens that they consist of."""

    pieces: list[Piece] = field(default_factory=list)
    entries: list[TokenEntry] = field(default_factory=list)
    insides: list[dict[str, Any]] = field(default_factory=list)


Grown = dict[int, Growth]  # the new text of each choice that has some


class Assembly:
    """The state of an answer while its tokens arrive.

    `counts` are complete when all prompts are done. `ends` are the choices that have ended, in that order.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.counts = Counts()
        self.ends: list[tuple[int, Reason]] = []
        self._aligners: dict[int, Aligner] = {}
        self._parsers: dict[int, CallParser] = {}

    def begin(self, prompt: int, tokens: int, cached: int, grown: Grown) -> None:
        """Note that a prompt of so many tokens is being read, `cached` of them computed before."""
        self.counts.prompt += tokens
        self.counts.cached += cached
        if self.asked.jobs[prompt].scores is None:
            self.repeat(prompt, (), grown)

    def repeat(self, prompt: int, scores: Sequence[TokenScore], grown: Grown) -> None:
        """Begin the choices of a prompt with its own text, if that was asked for."""
        if not self.asked.echoes:
            return
        echo, job = self.asked.echoes[prompt], self.asked.jobs[prompt]
        entries: list[TokenEntry] = []
        if self.asked.speller is not None and scores:
            entries = prompt_entries(self.asked.speller, job.prompt, scores, echo.text, added=echo.added)
        for index in self.asked.indices(prompt):
            growth = grown.setdefault(index, Growth())
            growth.pieces, growth.entries = [echo.text], list(entries)

    def look(self, prompt: int, insides: Sequence[Inside], grown: Grown) -> None:
        """Add insides of a prompt's tokens, to the first of its choices."""
        if self.asked.inside is not None and insides:
            growth = grown.setdefault(self.asked.indices(prompt)[0], Growth())
            growth.insides += self.asked.inside.of_prompt(self.asked.jobs[prompt].prompt, insides)

    def grow(self, prompt: int, token: Token, grown: Grown) -> None:
        """Add a token to its choice."""
        asked = self.asked
        index = prompt * asked.samples + token.sample - asked.jobs[prompt].settings.first_sample
        self.counts.generated += 1
        entries = self._entries(prompt, index, token) if asked.speller is not None else []
        insides = [] if asked.inside is None else asked.inside.of_token(token)
        parser = self._parser(index)
        pieces: list[Piece] = [token.text] if parser is None else parser.push(token.text)
        if parser is not None and token.finish is not None:
            pieces += parser.close()
        if entries or insides or any(pieces):
            growth = grown.setdefault(index, Growth())
            growth.pieces += pieces
            growth.entries += entries
            growth.insides += insides
        if token.finish is not None:
            reason = REASONS[token.finish]
            called = parser is not None and parser.calls > 0 and reason == "stop"
            self.ends.append((index, "tool_calls" if called else reason))

    def end(self, prompt: int, timings: Timings) -> None:
        """Note that a prompt's choices are complete."""
        self.counts.add(timings)
        if not self.asked.jobs[prompt].generates:
            self.ends += [(index, "length") for index in self.asked.indices(prompt)]

    def empty_choices(self) -> list[ChoiceText]:
        """Return the choices of an answer of which nothing has arrived."""
        asked = self.asked
        return [ChoiceText(index, insides=[] if asked.inside else None) for index in range(asked.size)]

    @property
    def details(self) -> dict[str, Any]:
        """The fields that are told once of a whole answer, beside OpenAI's."""
        asked = self.asked
        warned = {"warnings": list(asked.left_out)} if asked.left_out else {}
        looked = {} if asked.inside is None else {"inspect": asked.inside.facts}
        return {"seed": asked.seed, **warned, **looked}

    def choices(self, grown: Grown) -> list[ChoiceText]:
        """Return all choices when everything has arrived; `grown` holds everything that grew."""
        choices = self.empty_choices()
        for index, growth in grown.items():
            choices[index].pieces, choices[index].entries = growth.pieces, growth.entries
            choices[index].insides = growth.insides if self.asked.inside else None
        for index, reason in self.ends:
            choices[index].finish = reason
        return choices

    def _parser(self, index: int) -> CallParser | None:
        """Return what reads the calls of a choice; None if the request has no functions."""
        if self.asked.calls is not None and index not in self._parsers:
            self._parsers[index] = self.asked.calls.parser()
        return self._parsers.get(index)

    def _entries(self, prompt: int, index: int, token: Token) -> list[TokenEntry]:
        asked = self.asked
        assert asked.speller is not None
        aligner = self._aligners.get(index)
        if aligner is None:
            specials = asked.speller.tokenizer.specials
            continues = any(id_ not in specials for id_ in asked.jobs[prompt].prompt)
            offset = len(asked.echoes[prompt].text) if asked.echoes else 0
            stops = () if asked.jobs[prompt].settings.special else asked.stops
            aligner = Aligner(asked.speller, stops, continues=continues, offset=offset)
            self._aligners[index] = aligner
        return aligner.push(token, top_of(token, asked.top))
