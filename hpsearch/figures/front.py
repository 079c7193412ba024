"""Several objectives of a search as a picture: the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hpsearch.figures._canvas import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    RED,
    new_figure,
    tidy,
    without_formulas,
    write_title,
)
from hpsearch.names import printable
from hpsearch.training.goals import Objectives

_COLUMNS = 3
_FAMILIES = (BLUE, ORANGE, GREEN, "#7b3fa0", RED, "#00838f", "#8d6e63", GRAY)


def front_figure(
    families: Mapping[str, Sequence[tuple[Sequence[float], bool]]],
    *,
    objectives: Objectives,
    title: str,
) -> Figure:
    """Draws the first objective against each of the others; what is on the Pareto front of all of
    them is filled, and joined by a line.

    Args:
        families: by name, for each complete trial its values and whether it is on the front.
        objectives: two at least.
    """
    first, *others = objectives
    columns = min(_COLUMNS, len(others))
    rows = math.ceil(len(others) / columns)
    figure = new_figure(12.0, 4.0 * rows + 0.5)
    write_title(figure, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for place, (axes, other) in enumerate(zip(panels, others, strict=False), start=1):
        front = []
        for number, (family, points) in enumerate(families.items()):
            color = _FAMILIES[number % len(_FAMILIES)]
            for is_on, face in ((False, "none"), (True, color)):
                chosen = [(v[place], v[0]) for v, on_front in points if on_front == is_on]
                front += chosen if is_on else []
                label = printable(family) if is_on else None
                x, y = zip(*chosen, strict=True) if chosen else ((), ())
                axes.scatter(x, y, s=28, facecolors=face, edgecolors=color, label=label, zorder=2)
        axes.plot(*zip(*sorted(front), strict=True), color=GRAY, linewidth=1, zorder=1)
        if all(values[place] > 0 for points in families.values() for values, _ in points):
            axes.set_xscale("log")
        axes.set_xlabel(f"{other.label}{' (ms)' if other.unit == 'ms' else ''}")
        tidy(axes)
        without_formulas(axes.legend(fontsize=8))
        if first.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in panels[len(others) :]:
        axes.set_axis_off()
    panels[0].set_ylabel(first.label)
    return figure
