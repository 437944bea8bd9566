"""The clock of a run: how many steps still fit into its minutes, given how long steps take now. No torch.

A plan made before the first step holds only while the machine stays as it is, and on a laptop other
programs come and go. So the number of steps is reconsidered before every step, and the rest of the
learning-rate schedule is stretched or shortened (`schedule_position`) without a jump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

SPARE = 0.02  # of the minutes, kept free: delays are more common than gains
LATE = 0.05  # of the minutes: how much later a run may end when one step takes long
RECENT = 0.4  # weight of the newest step in the running mean of their durations
CLOSE = 0.05  # a number of remaining steps that differs by less does not change the schedule


class Pace(NamedTuple):
    """Seconds of a step or an evaluation: of the `early` ones, which fill the activation cache, and later."""

    first: float
    later: float
    early: int

    def seconds(self, steps: int) -> float:
        """Return how long a number of steps takes."""
        return min(steps, self.early) * self.first + max(steps - self.early, 0) * self.later

    def steps(self, seconds: float) -> int:
        """Return how many steps fit into a time.

        >>> Pace(first=2.0, later=1.0, early=10).steps(25.0)
        15
        """
        early = min(self.early, int(max(seconds, 0) / self.first)) if self.early else 0
        rest = seconds - self.early * self.first
        return max(0, early + int(rest / self.later) if early == self.early else early)

    def after(self, steps: int) -> Pace:
        """Return the pace once a number of steps is done."""
        return self._replace(early=max(0, self.early - steps))

    def of(self, step: int) -> float:
        """Return the seconds of one step, counted from 0."""
        return self.first if step < self.early else self.later


@dataclass
class Clock:
    """Fits the steps of a run into `total` seconds, of which `used()` have passed.

    `pace` is the expected pace of steps; `between` are the seconds per step that evaluations, checkpoints
    and samples add; `ending` is the time after the last step, for the final evaluation, the measurements,
    the report and the result. `ratio` is how long recent steps took relative to `pace`, and `shortest` its
    lowest value.
    """

    total: float
    used: Callable[[], float]
    pace: Pace
    ending: float
    between: float = 0.0
    rough: bool = False  # `pace` is from a slow first pass, so the second step replaces it
    ratio: float = 1.0
    shortest: float = 1.0

    def record(self, step: int, seconds: float) -> None:
        """Take the duration of a step, counted from 0, into account."""
        ratio = seconds / max(self.pace.of(step), 1e-9)
        if self.rough:
            self.rough = step == 0
            self.ratio = self.ratio if step == 0 else ratio
        else:
            self.ratio += RECENT * (ratio - self.ratio)
        self.shortest = min(self.shortest, self.ratio)

    @property
    def expected_ending(self) -> float:
        """Seconds that the ending will take: it slows down as much as steps have."""
        return self.ending * max(1.0, self.ratio / self.shortest)

    @property
    def room(self) -> float:
        """Seconds left for steps and for what happens between them."""
        return self.total * (1 - SPARE) - self.used() - self.expected_ending

    def steps_left(self, done: int) -> int:
        """Return how many steps after the first `done` bring the end closest to the requested time."""
        first, later, early = self.pace.after(done)
        pace = Pace(first * self.ratio + self.between, later * self.ratio + self.between, early)
        late = min(pace.of(0) / 2, LATE * self.total)
        return pace.steps(self.room + late)

    @property
    def late(self) -> bool:
        """Return whether so much time has passed that even the step being computed should be broken off."""
        return self.room < -LATE * self.total

    @property
    def seconds_left(self) -> float:
        """Seconds until the requested time is over."""
        return max(0.0, self.total - self.used())


# The step where the number of steps last changed, and the share done by then.
ScheduleChange = tuple[int, float]
UNCHANGED: ScheduleChange = (0, 0.0)


def schedule_position(step: int, steps: int, change: ScheduleChange = UNCHANGED) -> float:
    """Return a step's place in the learning-rate schedule, on the scale of 0 to the present number of steps.

    When the number of steps changes, the rest of the schedule is spread evenly over the remaining steps, so
    that the learning rate never jumps. Here 5 of 10 steps were done, half the schedule, and 15 more share
    the rest:

    >>> [schedule_position(step, 20, (5, 0.5)) for step in (5, 10, 20)]
    [10.0, 13.333333333333332, 20.0]
    """
    at, done = change
    if at == 0:
        return step
    return (done + (1 - done) * (step - at) / max(1, steps - at)) * steps


def keep_if_close(planned: int, fitting: int) -> int:
    """Return the planned number of steps unless the number that fits differs by more than 5 %.

    >>> keep_if_close(100, 104), keep_if_close(100, 106), keep_if_close(3, 2)
    (100, 106, 2)
    """
    return planned if abs(fitting - planned) <= CLOSE * planned else fitting
