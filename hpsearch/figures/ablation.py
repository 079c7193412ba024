"""One-at-a-time variations of a configuration as a picture: curves and outcome by value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from hpsearch.data.dataset import FloatArray
from hpsearch.figures._canvas import (
    GRAY,
    ORANGE,
    font_families,
    new_figure,
    tidy,
    without_formulas,
    without_middle,
    write_title,
)
from hpsearch.names import printable, value_text
from hpsearch.training.objectives import Objective

_WIDTH, _ROW, _LINE = 12.0, 2.9, 0.2
_LONGEST = 24
_LOG_FROM = 10.0
"""Numbers whose greatest is so many times the least are on a log axis."""
_LETTER = 0.018
"""Width of a letter of a tick's label, as a share of the axis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariedLine:
    """The training of one value of a parameter.

    Attributes:
        value: a text has no place on a scale.
        curve: the objective by epoch; empty where it did not train.
        outcome: the objective at its best epoch; None where it was not completed.
        state: of its trial, such as "complete" or "failed".
        is_center: it has the value of the configuration that is varied.
    """

    value: float | str
    curve: Mapping[int, float]
    outcome: float | None
    state: str
    is_center: bool


def ablation_figure(
    parameters: Mapping[str, Sequence[VariedLine]],
    *,
    objective: Objective,
    title: str,
    note: str = "",
    band: tuple[float, float] | None = None,
) -> Figure:
    """Draws two panels for each parameter: the curve of each value, and the outcome by value.

    Args:
        parameters: by name the lines of its values, numbers ascending.
        title: above the picture.
        note: below it.
        band: of outcomes that are as good as the center's; shaded.
    """
    above, below = wrap(printable(title), 110), wrap(printable(note), 150)
    height = _ROW * len(parameters) + 0.5 + _LINE * (len(above) + len(below))
    figure = new_figure(_WIDTH, height)
    write_title(figure, title)
    figure.supxlabel(
        "\n".join(below),
        fontsize=9,
        color=GRAY,
        parse_math=False,
        fontfamily=font_families(),
    )
    grid = figure.subplots(len(parameters), 2, squeeze=False, width_ratios=(1.25, 1))
    for (name, lines), (curves, outcomes) in zip(parameters.items(), grid, strict=True):
        colors = _colors(lines)
        _draw_curves(curves, name, lines, colors, objective)
        _draw_outcomes(outcomes, name, lines, colors, objective, band)
    grid[-1][0].set_xlabel("epoch")
    return figure


def _short(value: float | str) -> str:
    return without_middle(value_text(value), _LONGEST)


def _colors(lines: Sequence[VariedLine]) -> list[tuple[float, ...]]:
    """One for each line: dark to light where they have an order."""
    if any(isinstance(line.value, str) for line in lines) and len(lines) <= 10:
        return [colormaps["tab10"](number) for number in range(len(lines))]
    return [colormaps["viridis"](share) for share in np.linspace(0.0, 0.88, len(lines))]


def _draw_curves(
    axes: Axes,
    name: str,
    lines: Sequence[VariedLine],
    colors: Sequence[tuple[float, ...]],
    objective: Objective,
) -> None:
    for line, color in zip(lines, colors, strict=True):
        done = line.state == "complete"
        axes.plot(
            list(line.curve),
            list(line.curve.values()),
            color=color,
            linestyle="-" if done else ":",
            linewidth=3.2 if line.is_center else 1.4,
            marker="o" if len(line.curve) == 1 else None,
            zorder=2 if line.is_center else 3,
            label=_label(line),
        )
    _scale_objective(axes, objective)
    if not objective.is_share:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes.legend(
        fontsize=8,
        title=_short(name),
        title_fontsize=9,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        borderaxespad=0.2,
    )
    without_formulas(legend)


def _label(line: VariedLine) -> str:
    notes = [*(["center"] if line.is_center else [])]
    notes += [line.state] if line.state != "complete" else []
    return _short(line.value) + (f" ({', '.join(notes)})" if notes else "")


def _draw_outcomes(
    axes: Axes,
    name: str,
    lines: Sequence[VariedLine],
    colors: Sequence[tuple[float, ...]],
    objective: Objective,
    band: tuple[float, float] | None,
) -> None:
    places = _place(axes, [line.value for line in lines])
    known = {
        place: line.outcome
        for place, line in zip(places, lines, strict=True)
        if line.outcome is not None
    }
    if not any(isinstance(line.value, str) for line in lines):
        axes.plot(list(known), list(known.values()), color=GRAY, linewidth=0.9, zorder=2)
    for place, line, color in zip(places, lines, colors, strict=True):
        if line.outcome is not None:
            axes.plot([place], [line.outcome], "o", color=color, markersize=8, zorder=4)
            if line.is_center:
                _ring(axes, place, line.outcome)
        elif line.state not in ("waiting", ""):
            _cross(axes, place, line.state, 0.06 if objective.direction == "maximize" else 0.86)
    if band is not None:
        axes.axhspan(*band, color=GRAY, alpha=0.15, linewidth=0, zorder=1)
    _scale_objective(axes, objective)
    axes.set_xlabel(_short(name), parse_math=False, fontfamily=font_families())


def _ring(axes: Axes, place: float, outcome: float) -> None:
    axes.plot(
        [place],
        [outcome],
        "o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor="#111827",
        markeredgewidth=1.6,
        zorder=5,
    )


def _cross(axes: Axes, place: float, state: str, height: float) -> None:
    """Where there is no outcome: at the worse end of the axis, with the reason."""
    frame = axes.get_xaxis_transform()
    axes.plot([place], [height], "x", color=ORANGE, markersize=8, transform=frame)
    axes.annotate(
        state,
        (place, height),
        xycoords=frame,
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=ORANGE,
    )


def _place(axes: Axes, values: Sequence[float | str]) -> list[float]:
    """Where each value is on the axis, which is made for them: logarithmic where they are positive
    and span powers of ten; where they span these but one of them is not positive, or is no number,
    one place is as far from the next as any.
    """
    numbers = [value for value in values if not isinstance(value, str)]
    positive = [value for value in numbers if value > 0]
    wide = bool(positive) and max(positive) >= _LOG_FROM * min(positive)
    if len(numbers) < len(values) or (wide and len(positive) < len(numbers)):
        labels = [_short(value) for value in values]
        turned = sum(map(len, labels)) > 45
        axes.set_xticks(
            range(len(labels)),
            labels,
            fontsize=8 if turned else 9,
            rotation=20 if turned else 0,
            ha="right" if turned else "center",
            parse_math=False,
            fontfamily=font_families(),
        )
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return [float(number) for number in range(len(labels))]
    scaled = np.log(numbers) if wide else np.asarray(numbers, dtype=float)
    if wide:
        axes.set_xscale("log")
    labels = [value_text(value) for value in numbers]
    if _have_room(scaled, labels):
        axes.set_xticks(numbers, labels, fontsize=9)
        axes.xaxis.set_minor_locator(NullLocator())
    elif wide:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08)
    return list(numbers)


def _have_room(places: FloatArray, labels: Sequence[str]) -> bool:
    """Whether labels at these places, which ascend, would not touch."""
    shares = np.diff(places) / max(np.ptp(places), 1e-300)
    widths = _LETTER * np.array([len(label) for label in labels])
    return bool(np.all(shares > (widths[1:] + widths[:-1]) / 2 + _LETTER))


def _scale_objective(axes: Axes, objective: Objective) -> None:
    tidy(axes)
    axes.set_ylabel(objective.label, fontsize=9)
    axes.margins(y=0.12)
    if objective.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
