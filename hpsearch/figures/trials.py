"""All trials of a search as a picture: their learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsearch.figures._canvas import BLUE, cut, font_families, new_figure, write_title
from hpsearch.figures._trials import (
    OTHER,
    STATES,
    Corner,
    draw_curves,
    scale_epochs,
    scale_objective,
)
from hpsearch.figures._trials import TrialCurve as TrialCurve
from hpsearch.training.objectives import Objective

_COLUMNS = 3


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
        draw_curves(axes, trials, [STATES.get(trial.state, OTHER)[0] for trial in trials])
        name = cut(family, 40)
        axes.set_title(name, fontsize=10, parse_math=False, fontfamily=font_families())
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
    for state in (*STATES, *sorted({trial.state for trial in trials} - set(STATES))):
        count = sum(trial.state == state for trial in trials)
        if count:
            color, marker = STATES.get(state, OTHER)
            label = f"{state} ({count:,})"
            handles.append(Line2D([], [], color=color, marker=marker, linewidth=1.1, label=label))
    return handles
