"""The course of trials in letters: small bars on one scale, and which trial is ahead of which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hpsearch.cli.text import objective_difference
from hpsearch.engine.records import TrialRecord
from hpsearch.training.objectives import Objective

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 12
"""Bars of a course."""

_SPARED = 0.1
"""This share of the values, the worst ones, is shown as the worst of the others: the first epochs
are so bad that nothing could be told of the rest.
"""


def curve_of(trial: TrialRecord | None) -> Sequence[float]:
    """The objective's values after the epochs of a trial, one after the other."""
    return () if trial is None else [trial.reported[epoch] for epoch in sorted(trial.reported)]


def scale_of(
    curves: Iterable[Sequence[float]], best: Sequence[float], objective: Objective
) -> tuple[float, float]:
    """The least and the greatest value that bars of these courses and of the best trial's show.

    Where the best trial's course is known, one that is far below it lies on the ground all the way;
    so the others can be told apart. (0, 0) where no value is finite.
    """
    every = sorted(v for curve in (*curves, best) for v in curve if math.isfinite(v))
    telling = sorted(v for v in best if math.isfinite(v)) or every
    if not every:
        return 0.0, 0.0
    spared = int(_SPARED * (len(telling) - 1))
    if objective.direction == "maximize":
        return telling[spared], every[-1]
    return every[0], telling[-1 - spared]


def sparkline(
    values: Sequence[float], *, epochs: int, scale: tuple[float, float], width: int = WIDTH
) -> str:
    """The course of `values` as bars, in at most `width` columns.

    The columns are for `epochs` epochs, evenly: courses of the same number can be read one below
    the other. Each shows the last value that lies in it; what is not finite is a space.
    """
    count = min(max(epochs, len(values)), width)
    epochs = max(epochs, len(values))
    picked = []
    for column in range(count):
        first, after = column * epochs // count, (column + 1) * epochs // count
        if first >= len(values):
            break
        picked.append(values[min(after, len(values)) - 1])
    low, high = scale
    span = high - low
    top = len(BARS) - 1
    flat = not 0 < span < math.inf
    return "".join(
        BARS[top // 2 if flat else round((min(max(value, low), high) - low) / span * top)]
        if math.isfinite(value)
        else " "
        for value in picked
    )


def lead(values: Sequence[float], best: Sequence[float], objective: Objective) -> float | None:
    """By how much a trial is ahead of the best one after as many epochs; below 0, it is behind.

    Of both it is the best value until then that counts, as it does in the end. None where one of
    them has no value that is a number.
    """
    own, other = best_of(values, objective), best_of(best[: len(values)], objective)
    if own is None or other is None:
        return None
    return own - other if objective.direction == "maximize" else other - own


def lead_text(ahead: float | None, objective: Objective, *, long: bool) -> str:
    """3.40 behind, in full 3.40 points behind the best; empty where it is not known."""
    if ahead is None:
        return ""
    amount = objective_difference(objective, abs(ahead), sign="")
    if float(amount) == 0:
        return "level with the best" if long else "level"
    if not long:
        return f"{amount} {'ahead' if ahead > 0 else 'behind'}"
    amount += " points" if objective.is_share else ""
    return f"{amount} {'ahead of' if ahead > 0 else 'behind'} the best"


def best_of(values: Sequence[float], objective: Objective) -> float | None:
    """The best of the values that are finite; None where none is."""
    finite = [value for value in values if math.isfinite(value)]
    return max(finite, key=lambda value: objective.key_of(value, 0.0), default=None)
