"""All trials of a search as pictures: their learning curves, and the Pareto front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import ColorType

from hpsearch.figures._canvas import BLUE, GRAY, ORANGE, font_families, new_figure, tidy
from hpsearch.names import printable
from hpsearch.training.costs import Objectives
from hpsearch.training.objectives import Objective
from hpsearch.training.units import floor_of

Corner = Literal["lower right", "upper right"]

GREEN, RED = "#2e7d32", "#b3261e"
_COLUMNS = 3
_STATES = {"complete": (BLUE, "."), "pruned": (ORANGE, "x"), "failed": (RED, "v")}
_OTHER = (GRAY, ".")
_FAMILIES = (BLUE, ORANGE, GREEN, "#7b3fa0", RED, "#00838f", "#8d6e63", GRAY)


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


def trials_figure(
    families: Mapping[str, Sequence[TrialCurve]], *, objective: Objective, title: str
) -> Figure:
    """Draws the learning curves of all trials, a panel a family; where one was pruned or failed,
    its curve ends with a mark.

    Args:
        families: their trials, by name; at least one.
    """
    columns = min(_COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    figure = new_figure(12.0, 3.4 * rows + 0.5)
    write_title(figure, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, (family, trials) in zip(panels, families.items(), strict=False):
        draw_curves(axes, trials, [_STATES.get(trial.state, _OTHER)[0] for trial in trials])
        name = printable(family)
        shown = name if len(name) <= 40 else f"{name[:39]}…"
        axes.set_title(shown, fontsize=10, parse_math=False, fontfamily=font_families())
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    every = [value for trials in families.values() for t in trials for _, value in t.points()]
    finals = [t.value for trials in families.values() for t in trials if t.value is not None]
    for number, axes in enumerate(panels[: len(families)]):
        scale_objective(axes, objective, every, finals)
        axes.set_ylabel(objective.label if number % columns == 0 else "")
        scale_epochs(axes, [e for ts in families.values() for t in ts for e, _ in t.points()])
        axes.tick_params(labelbottom=True)
    for axes, trials in zip(panels, families.values(), strict=False):
        corner: Corner = "lower right" if objective.direction == "maximize" else "upper right"
        if trials:
            handles = [*_legend(trials), *_below(axes, trials)]
            axes.legend(handles=handles, fontsize=8, loc=corner)
    return figure


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
        write_legend(axes)
        if first.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in panels[len(others) :]:
        axes.set_axis_off()
    panels[0].set_ylabel(first.label)
    return figure


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
            marker = _STATES.get(state, _OTHER)[1]
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


def write_title(figure: Figure, title: str) -> None:
    """A title that may be long and have names in it."""
    lines = wrap(printable(title), 110)
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=font_families())


def write_legend(axes: Axes) -> None:
    """A legend of names from outside, which are no formulas."""
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
        text.set_fontfamily(font_families())


def _below(axes: Axes, trials: Sequence[TrialCurve]) -> list[Line2D]:
    """Says how many trials the picture has no room for, in its legend."""
    floor = axes.get_ylim()[0]
    highest = [max(value for _, value in t.points()) for t in trials if t.points()]
    count = sum(value < floor for value in highest)
    if not count:
        return []
    text = f"{count:,} {'lies' if count == 1 else 'lie'} below the picture"
    return [Line2D([], [], linestyle="none", label=text)]


def _legend(trials: Sequence[TrialCurve]) -> list[Line2D]:
    handles = []
    if any(trial.is_best for trial in trials):
        handles.append(Line2D([], [], color=BLUE, linewidth=2.6, label="the best"))
    for state in (*_STATES, *sorted({trial.state for trial in trials} - set(_STATES))):
        count = sum(trial.state == state for trial in trials)
        if count:
            color, marker = _STATES.get(state, _OTHER)
            label = f"{state} ({count:,})"
            handles.append(Line2D([], [], color=color, marker=marker, linewidth=1.1, label=label))
    return handles
