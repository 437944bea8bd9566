"""Logits -> token: a chain of steps that users see and order, then one draw.

    logits -> bias -> penalties -> dry -> top_k -> typical -> top_p -> min_p -> xtc -> temperature -> draw

The order is llama.cpp's default; `SamplingSettings.order` changes it. The arithmetic of the steps is in
`filters.py` (which tokens stay) and `penalties.py` (what repetition costs), as pure functions; this file
joins them to a chain and draws. It keeps no state: a random number is a function of (seed, sample, position).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput, EngineError
from pophood.sampling import filters, penalties
from pophood.sampling.randomness import uniforms
from pophood.sampling.softmax import BLOCK, Floats, Ids, Likeliest, block_sums
from pophood.sampling_settings import RANGES, SamplingSettings

_LARGEST = np.float32(1e37)  # the difference of two such numbers is still finite


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token: its logit from the model, and its probability among the tokens that the chain left.

    `candidates` counts those tokens.
    """

    id: int
    logit: float
    final_probability: float
    candidates: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that can still be drawn: ascending ids (None: the whole vocabulary) and changed logits."""

    ids: Ids | None
    logits: Floats

    def keep(self, places: Ids) -> Candidates:
        """Return the candidates at these indices of `logits`."""
        if len(places) == len(self.logits):
            return self
        return Candidates(places if self.ids is None else self.ids[places], self.logits[places])

    def where(self, ids: NDArray[np.int64]) -> tuple[Ids, NDArray[np.bool_]]:
        """Return the indices in `logits` of those `ids` that are candidates, and a mask of which ones are."""
        if self.ids is None:
            present = ids < len(self.logits)
            return ids[present].astype(np.intp), present
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        present = self.ids[places] == ids
        return places[present], present


@dataclass(frozen=True, slots=True)
class StepContext:
    """The inputs of a step besides the logits: the tokens so far, and a uniform random number in [0, 1)."""

    history: Sequence[int]
    uniform: float


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One step of the chain: its name, its settings in words, and its function."""

    name: str
    words: str
    apply: Callable[[Candidates, StepContext], Candidates]


Builder = Callable[[SamplingSettings], ChainStep | None]  # None for settings that switch the step off


@dataclass(frozen=True, slots=True)
class Chain:
    """The active steps, in order. `describe` shows them; `choose` runs them on one row of logits."""

    settings: SamplingSettings
    steps: tuple[ChainStep, ...]

    def describe(self) -> str:
        """Describe the chain in one line of ASCII.

        >>> chain(SamplingSettings(top_p=0.9)).describe()
        'logits -> top_k 40 -> top_p 0.9 -> temperature 0.8 -> draw'
        """
        end = "greedy" if self.settings.greedy else "draw"
        return " -> ".join(["logits", *(step.words for step in self.steps), end])

    @property
    def reach(self) -> int | None:
        """The number of likeliest tokens that the chain chooses from; None if it reads whole rows."""
        if self.settings.greedy:
            return None if self.steps else 1
        return self.settings.top_k if self.steps and self.steps[0].name == "top_k" else None

    def candidates(
        self,
        logits: Floats | Likeliest,
        history: Sequence[int],
        uniform: float = 0.0,
        forbidden: Sequence[int] = (),
    ) -> Candidates:
        """Run the steps on a row and return the candidates left; `forbidden` ids are removed first.

        The row is all logits [V], or the `reach` likeliest of those that are not forbidden, and more.
        """
        steps = self.steps
        if isinstance(logits, Likeliest):
            left = self._of_likeliest(logits, forbidden)
            steps = steps[1:]  # top_k, if there is one
        else:
            if forbidden:
                logits = logits.copy()
                logits[list(forbidden)] = -np.inf
            left = Candidates(None, logits)
        context = StepContext(history, uniform)
        for step in steps:
            left = step.apply(left, context)
        return left

    def _first(self, row: Likeliest, forbidden: Sequence[int]) -> Choice | None:
        """Return the likeliest token that is not forbidden, if there is one: greedy decoding."""
        for token, logit in zip(row.ids.tolist(), row.logits.tolist(), strict=True):
            if token not in forbidden:
                return Choice(token, logit, 1.0, 1) if logit > -math.inf else None
        return None

    def _of_likeliest(self, row: Likeliest, forbidden: Sequence[int]) -> Candidates:
        ids, logits = row.ids, row.logits
        if forbidden:
            allowed = ~np.isin(ids, forbidden)
            ids, logits = ids[allowed], logits[allowed]
        ids, logits = ids[: self.reach], logits[: self.reach]
        order = ids.argsort()
        return Candidates(ids[order].astype(np.intp), logits[order])

    def choose(
        self,
        logits: Floats | Likeliest,
        history: Sequence[int],
        *,
        seed: int,
        sample: int,
        position: int,
        forbidden: Sequence[int] = (),
    ) -> Choice:
        """Choose a token from a row, as in `candidates`, after the tokens `history`.

        `position` is the token's index in the whole text, so that a text continued later draws the same
        tokens as one long run. Raises EngineError for logits that are not finite, BadInput when no token is
        left.
        """
        row = logits.logits if isinstance(logits, Likeliest) else logits
        if not math.isfinite(row.max()):
            raise _not_numbers(row, position)
        likeliest = logits if isinstance(logits, Likeliest) else None
        if self.settings.greedy and likeliest is not None and (first := self._first(likeliest, forbidden)):
            return first
        number, uniform = (0.0, 0.0) if self.settings.greedy else uniforms(seed, sample, position)
        left = self.candidates(logits, history, uniform, forbidden)
        if left.logits.max(initial=-np.inf) == -np.inf:
            raise BadInput("every token is forbidden by logit_bias or min_tokens; allow at least one")
        if self.settings.greedy:
            place, probability, count = int(np.argmax(left.logits)), 1.0, 1
        else:
            place, probability = draw(left.logits, number)
            count = int(np.count_nonzero(left.logits > -np.inf))
        token = place if left.ids is None else int(left.ids[place])
        at = int((logits.ids == token).argmax()) if isinstance(logits, Likeliest) else token
        return Choice(token, float(row[at]), probability, count)


def sample(
    logits: Floats,
    settings: SamplingSettings,
    history_ids: Sequence[int],
    *,
    seed: int,
    sample_index: int,
    position: int,
    forbidden: Sequence[int] = (),
) -> Choice:
    """Choose one token. To choose many, build the chain once and call its `choose`.

    >>> row, greedy = np.array([1, 3, 2], dtype=np.float32), SamplingSettings(temperature=0)
    >>> sample(row, greedy, [], seed=0, sample_index=0, position=0).id
    1
    """
    return chain(settings).choose(
        logits, history_ids, seed=seed, sample=sample_index, position=position, forbidden=forbidden
    )


def draw(logits: Floats, number: float) -> tuple[int, float]:
    """Return the index at which the cumulative probability passes `number` in [0, 1), and its probability.

    >>> draw(np.log(np.array([1, 2, 1], dtype=np.float32)), 0.25)
    (1, 0.5)
    """
    largest = logits.max()
    start, before, mass = 0, 0.0, None
    if len(logits) > BLOCK:  # find the block first, then the index within it
        blocks = block_sums(logits)
        running = np.add.accumulate(blocks)
        mass = float(running[-1])
        block = int(np.searchsorted(running, number * mass, side="right"))
        if block == len(blocks):  # number * mass was rounded up to the whole sum
            block = int(np.flatnonzero(blocks)[-1])
        start, before = block * BLOCK, float(running[block - 1]) if block else 0.0
    row = np.exp(logits[start : start + BLOCK] - largest)
    inside = np.add.accumulate(row, dtype=np.float64)
    mass = float(inside[-1]) if mass is None else mass
    place = int(inside.searchsorted(number * mass - before, side="right"))
    if place == len(row):
        place = int(np.flatnonzero(row)[-1])
    return start + place, float(row[place]) / mass


def chain(settings: SamplingSettings) -> Chain:
    """Build the chain of the steps in `settings.order` that have an effect.

    Greedy decoding skips the filters: typical sampling and XTC may drop the likeliest token, which would not
    be greedy any more, and the others cannot change the choice.
    """
    change_logits = ("bias", "penalties", "dry")
    names = [name for name in settings.order if not settings.greedy or name in change_logits]
    steps = (_BUILDERS[name](settings) for name in names)
    return Chain(settings, tuple(step for step in steps if step is not None))


def _bias(s: SamplingSettings) -> ChainStep | None:
    if not s.logit_bias:
        return None
    ids = np.array(sorted(s.logit_bias), dtype=np.int64)
    values = np.array([s.logit_bias[token] for token in ids.tolist()], dtype=np.float32)

    def apply(left: Candidates, context: StepContext) -> Candidates:
        places, present = left.where(ids)
        if left.ids is None and not present.all():
            size = len(left.logits)
            raise BadInput(
                f"logit_bias names token {ids[-1]}; wanted an id below the vocabulary's size, {size:,}"
            )
        changed = left.logits.copy()
        changed[places] += values[present]
        return Candidates(left.ids, changed)

    return ChainStep("bias", f"bias on {len(ids)} token{'s' * (len(ids) > 1)}", apply)


def _penalties(s: SamplingSettings) -> ChainStep | None:
    values = (s.repetition_penalty, s.presence_penalty, s.frequency_penalty)
    parts = zip(("repetition", "presence", "frequency"), values, strict=True)
    active = [f"{name} {value:g}" for name, value in parts if value != RANGES[f"{name}_penalty"].off]
    if not active or s.penalty_window == 0:
        return None

    def apply(left: Candidates, context: StepContext) -> Candidates:
        used, counts = np.unique(penalties.last(context.history, s.penalty_window), return_counts=True)
        places, present = left.where(used)
        return Candidates(left.ids, penalties.penalise(left.logits, places, counts[present], *values))

    reach = "all tokens" if s.penalty_window < 0 else f"last {s.penalty_window}"
    return ChainStep("penalties", f"penalties ({', '.join(active)}; {reach})", apply)


def _dry(s: SamplingSettings) -> ChainStep | None:
    if s.dry_multiplier == 0 or s.dry_window == 0:
        return None
    breakers: dict[int, list[tuple[int, ...]]] = {}
    for first, *rest in s.dry_breakers:
        breakers.setdefault(first, []).append(tuple(rest))
    longest = s.dry_allowed_length + penalties.longest_exponent(s.dry_base)

    def apply(left: Candidates, context: StepContext) -> Candidates:
        recent = penalties.last(context.history, s.dry_window)
        lengths = penalties.repeat_lengths(recent, s.dry_allowed_length, longest, breakers)
        cost = {
            token: penalties.dry_penalty(length, s.dry_multiplier, s.dry_base, s.dry_allowed_length)
            for token, length in lengths.items()
            if () not in breakers.get(token, ())  # a token that is a breaker by itself is never penalised
        }
        if not cost:
            return left
        places, present = left.where(np.array(list(cost), dtype=np.int64))
        changed = left.logits.copy()
        changed[places] -= np.array(list(cost.values()), dtype=np.float32)[present]
        return Candidates(left.ids, changed)

    words = f"dry {s.dry_multiplier:g} (base {s.dry_base:g}, free {s.dry_allowed_length})"
    return ChainStep("dry", words, apply)


def _filter(name: str, select: Callable[[Floats, Any], Ids]) -> Builder:
    """Return the builder of a step that keeps `select(logits, the setting's value)`."""

    allowed = RANGES[name]

    def build(s: SamplingSettings) -> ChainStep | None:
        value = getattr(s, name)
        if value == allowed.off:
            return None
        words = f"{name} {value:g}"
        return ChainStep(allowed.step, words, lambda left, _: left.keep(select(left.logits, value)))

    return build


def _xtc(s: SamplingSettings) -> ChainStep | None:
    if s.xtc_probability == 0:
        return None

    def apply(left: Candidates, context: StepContext) -> Candidates:
        if context.uniform >= s.xtc_probability:
            return left
        return left.keep(filters.xtc(left.logits, s.xtc_threshold))

    return ChainStep("xtc", f"xtc {s.xtc_threshold:g} (chance {s.xtc_probability:g})", apply)


def _temperature(s: SamplingSettings) -> ChainStep | None:
    if s.temperature == 1:
        return None

    def apply(left: Candidates, context: StepContext) -> Candidates:
        return Candidates(left.ids, divided(left.logits, s.temperature))

    return ChainStep("temperature", f"temperature {s.temperature:g}", apply)


def divided(logits: Floats, temperature: float) -> Floats:
    """Return logits / temperature, capped at a finite number (Ackley, Hinton and Sejnowski 1985).

    >>> divided(np.array([1, 2], dtype=np.float32), 0.5).tolist()
    [2.0, 4.0]
    """
    with np.errstate(over="ignore"):
        quotient: Floats = logits / np.float32(temperature)
        return np.minimum(quotient, _LARGEST, out=quotient)


_BUILDERS: Mapping[str, Builder] = {
    "bias": _bias,
    "penalties": _penalties,
    "dry": _dry,
    "top_k": _filter("top_k", filters.top_k),
    "typical": _filter("typical_p", filters.typical),
    "top_p": _filter("top_p", filters.top_p),
    "min_p": _filter("min_p", filters.min_p),
    "xtc": _xtc,
    "temperature": _temperature,
}


def _not_numbers(logits: Floats, position: int) -> EngineError:
    wrong = int(np.count_nonzero(~np.isfinite(logits)))
    return EngineError(
        f"{wrong:,} of {len(logits):,} logits for position {position} are not finite numbers; "
        "the weights or an edit overflow: try another precision, and check the file with `show`"
    )
