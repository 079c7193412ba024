"""Learning curves of trials, and the scales that they are drawn on: what the pictures of whole
searches share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import ColorType

from hpsearch.figures._canvas import BLUE, GRAY, ORANGE, RED, tidy
from hpsearch.training.objectives import Objective
from hpsearch.training.units import floor_of

Corner = Literal["lower right", "upper right"]

STATES = {"complete": (BLUE, "."), "pruned": (ORANGE, "x"), "failed": (RED, "v")}
"""By a trial's state, the colour of its curve and the mark at its end."""
OTHER = (GRAY, ".")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialCurve:
    """One trial, as far as these pictures show it.

    Attributes:
        state: "complete", "pruned", "failed", or another one.
        value: the objective's, of its best epoch; None where it has none.
        reported: the objective's value by epoch, counted from 0.
        is_best: no complete trial of its family is better.
    """

    state: str
    value: float | None
    reported: Mapping[int, float]
    is_best: bool = False

    def points(self) -> list[tuple[float, float]]:
        """Epochs and values in their order; what is not finite cannot be drawn."""
        reported = sorted(self.reported.items())
        return [(float(epoch), value) for epoch, value in reported if math.isfinite(value)]


def draw_curves(axes: Axes, trials: Sequence[TrialCurve], colors: Sequence[ColorType]) -> None:
    """A curve a trial; the best one is thick, and lies on top with those that were completed."""
    many = len(trials) > 60
    order = sorted(
        range(len(trials)), key=lambda n: (trials[n].is_best, trials[n].state == "complete")
    )
    lines = [trials[n].points() for n in order]
    axes.add_collection(
        LineCollection(
            [np.array(points or [(math.nan, math.nan)]) for points in lines],
            colors=[colors[n] for n in order],
            linewidths=[2.6 if trials[n].is_best else 0.7 if many else 1.1 for n in order],
            alpha=0.3 if many else 0.9,
        )
    )
    # A training of one epoch has no line, only its end.
    for state in sorted({trial.state for trial in trials}):
        ends = [
            (lines[at][-1], colors[n])
            for at, n in enumerate(order)
            if lines[at] and (trials[n].state == state)
        ]
        if ends:
            marker = STATES.get(state, OTHER)[1]
            (x, y), shades = zip(*(point for point, _ in ends), strict=True), [c for _, c in ends]
            axes.scatter(x, y, s=22, c=shades, marker=marker, linewidths=1.1, zorder=3)
    tidy(axes)


def scale_objective(
    axes: Axes, objective: Objective, values: Sequence[float], finals: Sequence[float]
) -> None:
    """Scales the y axis so that the better trials can be told apart: bad ones may lie
    below the picture. Losses are drawn on a log scale.

    Args:
        values: all that are drawn.
        finals: those by which trials are told apart, their best ones.
    """
    drawn = [value for value in values if math.isfinite(value)]
    if objective.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif drawn and min(drawn) > 0:
        axes.set_yscale("log")
    if not drawn:
        axes.set_ylim(0, 1)
        return
    low, high = floor_of(objective, finals or drawn, drawn), max(drawn)
    if objective.is_share:
        margin = 0.05 * (high - low) or 0.02
        axes.set_ylim(low - margin, high + margin)
    elif high > low:
        axes.set_ylim(low * 0.9 if low > 0 else low, high * 1.1)


def scale_epochs(axes: Axes, epochs: Sequence[float]) -> None:
    """Whole numbers on the x axis, from the first epoch to the last one."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    last = max(epochs, default=1.0)
    axes.set_xlim(-0.03 * max(last, 1) - 0.1, last + 0.03 * max(last, 1) + 0.1)
