"""The minutes of a run: how many steps still fit into them, by how long steps take here and now. No torch.

A plan made before the first step holds for a machine that stays as it is. A laptop does not: other programs
come and go. So the number of steps is reconsidered before every step, and the learning rate's schedule is
stretched or shortened from where it stands (`position`), without a jump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

SPARE = 0.02  # of the minutes: what is late is late more often than early
LATE = 0.05  # of the minutes: the end may be later by this, where a step is long
RECENT = 0.4  # weight of the newest step in the mean of their times
STEADY = 0.05  # a number of steps to go that differs by less leaves the schedule alone


class Pace(NamedTuple):
    """Seconds of a step or an evaluation: of the `early` first ones, which compute a trunk's states, and of
    the others."""

    first: float
    later: float
    early: int

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        return min(steps, self.early) * self.first + max(steps - self.early, 0) * self.later

    def steps(self, seconds: float) -> int:
        """How many steps that suffices for.

        >>> Pace(first=2.0, later=1.0, early=10).steps(25.0)
        15
        """
        early = min(self.early, int(max(seconds, 0) / self.first)) if self.early else 0
        rest = seconds - self.early * self.first
        return max(0, early + int(rest / self.later) if early == self.early else early)

    def after(self, steps: int) -> Pace:
        """The pace of those that follow `steps` of them."""
        return self._replace(early=max(0, self.early - steps))

    def of(self, step: int) -> float:
        """Seconds of one step, from 0."""
        return self.first if step < self.early else self.later


@dataclass
class Clock:
    """Fits the steps of a run into `total` seconds, of which `used()` are gone.

    `pace` is what was expected of a step, `between` the seconds that evaluations, checkpoints and samples on
    the way add to one, `ending` what comes after the last step: evaluation, measures, report and result.
    `ratio` is how long steps lately took beside what was expected; `shortest` its lowest value so far.
    """

    total: float
    used: Callable[[], float]
    pace: Pace
    ending: float
    between: float = 0.0
    rough: bool = False  # the pace is that of a first pass, which is slow: the second step replaces it
    ratio: float = 1.0
    shortest: float = 1.0

    def saw(self, step: int, seconds: float) -> None:
        """Note how long a step took, counted from 0."""
        ratio = seconds / max(self.pace.of(step), 1e-9)
        if self.rough:
            self.rough = step == 0
            self.ratio = self.ratio if step == 0 else ratio
        else:
            self.ratio += RECENT * (ratio - self.ratio)
        self.shortest = min(self.shortest, self.ratio)

    @property
    def ends_in(self) -> float:
        """Seconds that the end will take: longer by as much as steps have become longer."""
        return self.ending * max(1.0, self.ratio / self.shortest)

    @property
    def room(self) -> float:
        """Seconds left for steps and what lies between them."""
        return self.total * (1 - SPARE) - self.used() - self.ends_in

    def steps_left(self, made: int) -> int:
        """How many more steps bring the end nearest to the time asked for, after `made` of them."""
        first, later, early = self.pace.after(made)
        pace = Pace(first * self.ratio + self.between, later * self.ratio + self.between, early)
        late = min(pace.of(0) / 2, LATE * self.total)
        return pace.steps(self.room + late)

    @property
    def late(self) -> bool:
        """Whether the time is over by so much that a step that is being computed should be broken off."""
        return self.room < -LATE * self.total

    @property
    def left(self) -> float:
        """Seconds until the time asked for is over."""
        return max(0.0, self.total - self.used())


Turn = tuple[int, float]  # a step at which the number of steps changed, and the share that was done there
STRAIGHT: Turn = (0, 0.0)


def position(step: int, steps: int, turn: Turn = STRAIGHT) -> float:
    """The place of a step in the learning rate's schedule, as if there had always been `steps` of them.

    Where their number changed on the way, what was left of the schedule is spread evenly over the steps that
    were left, so that the rate never jumps: after 5 of 10 steps half is done, and 15 more share the rest.

    >>> [position(step, 20, (5, 0.5)) for step in (5, 10, 20)]
    [10.0, 13.333333333333332, 20.0]
    """
    at, done = turn
    if at == 0:
        return step
    return (done + (1 - done) * (step - at) / max(1, steps - at)) * steps


def steady(planned: int, fitting: int) -> int:
    """The number of steps to go: what was planned, unless what fits differs by more than 5 %.

    >>> steady(100, 104), steady(100, 106), steady(3, 2)
    (100, 106, 2)
    """
    return planned if abs(fitting - planned) <= STEADY * planned else fitting
