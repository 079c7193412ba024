"""How long a search still takes, from what was measured of it so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningTime:
    """Of a trial that runs.

    Attributes:
        spent: for how many seconds it has run.
        rest: how many it needs for its other epochs at the same pace; None: not known yet.
    """

    spent: float
    rest: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyRemainder:
    """What a family still has to do.

    Attributes:
        trials: that are not finished, the running ones included.
        each: seconds that one takes, on the mean.
        running: those that run.
    """

    trials: int
    each: float
    running: Sequence[RunningTime] = ()


def mean_seconds(done: Sequence[float], running: Iterable[RunningTime]) -> float | None:
    """The seconds of a trial: from those that are done, else from the pace of those that run; None
    where neither tells.
    """
    whole = done or [time.spent + time.rest for time in running if time.rest is not None]
    return sum(whole) / len(whole) if whole else None


def seconds_left(families: Iterable[FamilyRemainder], *, workers: int) -> float:
    """As if the workers shared the work evenly, but no less than what the longest of the running
    trials needs.
    """
    work, longest, trials = 0.0, 0.0, 0
    for family in families:
        rests = [_rest(time, family.each) for time in family.running]
        work += family.each * max(0, family.trials - len(rests)) + sum(rests)
        longest = max(longest, *rests, 0.0)
        trials += family.trials
    return max(longest, work / max(1, min(workers, trials)))


def _rest(time: RunningTime, each: float) -> float:
    """One that has run for longer than the mean was not pruned: it may go on to its end."""
    rest = each - time.spent if time.spent < each or time.rest is None else time.rest
    return max(0.0, rest)
