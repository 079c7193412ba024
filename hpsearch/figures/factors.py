"""One-factor views of a search: for each parameter the learning curves and the outcome by value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import ColorType

from hpsearch.figures._canvas import (
    GRAY,
    cut,
    font_families,
    new_figure,
    tidy,
    without_formulas,
    write_title,
)
from hpsearch.figures._trials import (
    Corner,
    TrialCurve,
    draw_curves,
    scale_epochs,
    scale_objective,
)
from hpsearch.training.objectives import Objective
from hpsearch.training.units import floor_of

_CYCLE = matplotlib.colormaps["tab10"]
_MOST_COLUMNS = 10
_LONGEST = 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factor:
    """One parameter of a search.

    Attributes:
        name: its own.
        values: of each trial in `trials`; numbers where `choices` is empty, else one of these.
        trials: those that have the parameter.
        choices: values that are columns beside each other, in this order; empty: numbers on an
            axis.
        log: numbers are spaced by their ratios.
    """

    name: str
    values: tuple[str | float, ...]
    trials: tuple[TrialCurve, ...]
    choices: tuple[str, ...] = ()
    log: bool = False


def factors_figure(factors: Sequence[Factor], *, objective: Objective, title: str) -> Figure:
    """Draws a row a parameter: on the left the learning curves in the colour of the parameter's
    value, on the right the objective by value. Trials that were not completed are hollow there,
    and those below the picture are triangles at its edge.

    Args:
        factors: at least one.
    """
    figure = new_figure(12.0, 2.7 * len(factors) + 0.5)
    write_title(figure, title)
    panels = figure.subplots(len(factors), 2, squeeze=False, width_ratios=(1.15, 1))
    for (left, right), factor in zip(panels, factors, strict=True):
        _draw_factor(figure, left, right, _at_most(factor), objective)
    return figure


def _draw_factor(
    figure: Figure, left: Axes, right: Axes, factor: Factor, objective: Objective
) -> None:
    norm = _norm(factor)
    colors = _colors(factor, norm)
    drawn = [value for trial in factor.trials for _, value in trial.points()]
    finals = [trial.value for trial in factor.trials if trial.value is not None]
    draw_curves(left, factor.trials, colors)
    scale_objective(left, objective, drawn or finals, finals)
    scale_epochs(left, [epoch for trial in factor.trials for epoch, _ in trial.points()])
    left.set_ylabel(objective.label)
    places = _places(factor)
    _draw_outcomes(right, factor, places, colors, objective)
    shown = cut(factor.name, 60)
    for axes, text in ((left, f"{shown}: curves by value"), (right, f"{shown}: best by value")):
        axes.set_title(text, fontsize=10, loc="left", parse_math=False, fontfamily=font_families())
    if factor.choices:
        up = objective.direction == "maximize"
        _name_columns(left, right, factor, "lower right" if up else "upper right")
        return
    figure.colorbar(ScalarMappable(norm=norm, cmap="viridis"), ax=left, pad=0.01, fraction=0.05)
    if factor.log:
        right.set_xscale("log")
        _name_ratios(right)


def _name_ratios(axes: Axes) -> None:
    """Numbers below a logarithmic axis that do not run into each other, however far it reaches."""
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if decades >= 1.6:  # two powers of ten, or nearly so
        return
    # A narrow axis may have no power of ten, nor twice or five times one.
    few = MaxNLocator(4) if decades < 0.8 else LogLocator(subs=(1.0, 2.0, 5.0))
    axes.xaxis.set_major_locator(few)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def _draw_outcomes(
    axes: Axes,
    factor: Factor,
    places: Sequence[float],
    colors: Sequence[ColorType],
    objective: Objective,
) -> None:
    # The best one is drawn last, and so on top.
    known = [
        (place, trial.value, trial.state == "complete", trial.is_best, color)
        for place, trial, color in zip(places, factor.trials, colors, strict=True)
        if trial.value is not None and math.isfinite(trial.value)
    ]
    known.sort(key=lambda item: item[3])
    tidy(axes)
    if not known:
        axes.text(0.5, 0.5, "no value yet", ha="center", transform=axes.transAxes, color=GRAY)
        return
    finals = [value for _, value, *_ in known]
    floor = floor_of(objective, finals, finals)
    for is_complete in (False, True):
        for is_low, marker in ((False, "o"), (True, "v")):
            group = [k for k in known if k[2] == is_complete and (k[1] < floor) == is_low]
            if not group:
                continue
            shades = [k[4] for k in group]
            axes.scatter(
                [k[0] for k in group],
                [max(k[1], floor) for k in group],
                s=[60 if k[3] else 22 for k in group],
                facecolors=shades if is_complete else "none",
                edgecolors=[("#111827" if k[3] else k[4]) for k in group],
                marker=marker,
                linewidths=1.1,
                zorder=3,
            )
    if factor.choices:
        for number in range(len(factor.choices)):
            column = [k[1] for k in known if round(k[0]) == number and k[2]]
            if column:
                middle = max(float(np.median(column)), floor)
                span = (number - 0.35, number + 0.35)
                axes.hlines(middle, *span, colors="#111827", linewidths=1.6, zorder=4)
    scale_objective(axes, objective, finals, finals)


def _at_most(factor: Factor) -> Factor:
    """Of a parameter with very many choices, only those that were tried most."""
    if len(factor.choices) <= _MOST_COLUMNS:
        return factor
    counts = {choice: factor.values.count(choice) for choice in factor.choices}
    most = sorted(factor.choices, key=lambda choice: -counts[choice])[:_MOST_COLUMNS]
    kept = [n for n, value in enumerate(factor.values) if value in most]
    return dataclasses.replace(
        factor,
        name=f"{factor.name} (the {_MOST_COLUMNS} of {len(factor.choices)} values tried most)",
        choices=tuple(choice for choice in factor.choices if choice in most),
        values=tuple(factor.values[n] for n in kept),
        trials=tuple(factor.trials[n] for n in kept),
    )


def _norm(factor: Factor) -> Normalize:
    if factor.choices:
        return Normalize(0, _MOST_COLUMNS)
    numbers = [float(value) for value in factor.values]
    low, high = min(numbers), max(numbers)
    return LogNorm(low, high) if factor.log else Normalize(low, high)


def _colors(factor: Factor, norm: Normalize) -> list[ColorType]:
    if factor.choices:
        return [_CYCLE(factor.choices.index(str(value))) for value in factor.values]
    scale = matplotlib.colormaps["viridis"]
    return [scale(float(norm(float(value)))) for value in factor.values]


def _places(factor: Factor) -> list[float]:
    """Where trials stand on the x axis; in a column beside each other, always in the same way."""
    if not factor.choices:
        return [float(value) for value in factor.values]
    random = np.random.default_rng(0)
    shifts = random.uniform(-0.22, 0.22, len(factor.values))
    return [
        factor.choices.index(str(value)) + float(shift)
        for value, shift in zip(factor.values, shifts, strict=True)
    ]


def _name_columns(left: Axes, right: Axes, factor: Factor, corner: Corner) -> None:
    names = [cut(choice, _LONGEST) or "(empty)" for choice in factor.choices]
    counts = [factor.values.count(choice) for choice in factor.choices]
    right.set_xticks(
        range(len(names)),
        [f"{name}\n({count:,})" for name, count in zip(names, counts, strict=True)],
        fontsize=8 if len(names) <= 6 else 6,
        parse_math=False,
        fontfamily=font_families(),
    )
    right.set_xlim(-0.5, len(names) - 0.5)
    handles = [left.plot([], [], color=_CYCLE(place))[0] for place in range(len(names))]
    without_formulas(left.legend(handles, names, fontsize=7, loc=corner))
