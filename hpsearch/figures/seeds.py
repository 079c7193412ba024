"""One configuration trained with several seeds, as a picture."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hpsearch.figures._canvas import BLUE, GRAY, new_figure, tidy, write_title
from hpsearch.figures._panels import draw_scores
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective

_MOST_SEEDS = 25
"""So many have room below the panel of test accuracies."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedCurve:
    """A training with one seed.

    Attributes:
        history: its epochs, at least one; validation scores that are not numbers are not drawn.
        kept: the epoch whose weights were tested.
        test_accuracy_95: its interval, which tells of other images.
        is_kept: whether its model is the one that is kept.
    """

    seed: int
    history: tuple[EpochResult, ...]
    kept: EpochResult
    test_accuracy: float
    test_accuracy_95: tuple[float, float]
    is_kept: bool


def seeds_figure(
    curves: Sequence[SeedCurve],
    *,
    objective: Objective,
    title: str,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """Draws loss and objective of all trainings over the epochs, and their test accuracies.

    Args:
        curves: at least one.
        objective: by which epochs are chosen; of a loss, the accuracy is drawn.
        title: above the picture.
        interval: of the mean test accuracy.
    """
    figure = new_figure(12.0, 3.8)
    write_title(figure, title)
    loss, scores, test = figure.subplots(1, 3)
    draw_scores(
        loss,
        scores,
        objective,
        validated=not math.isnan(curves[0].kept.val_loss),
        draw=functools.partial(_draw_curves, curves),
    )
    for axes in (loss, scores):
        axes.legend(fontsize=8)
    _draw_tests(test, curves, interval)
    return figure


def _draw_curves(
    curves: Sequence[SeedCurve], axes: Axes, name: str, color: str, label: str
) -> None:
    """The model that is kept has a strong line, with a dot at its epoch."""
    for curve in sorted(curves, key=lambda curve: curve.is_kept):
        axes.plot(
            [result.epoch for result in curve.history],
            [getattr(result, name) for result in curve.history],
            color=color,
            linewidth=2.0 if curve.is_kept else 1.0,
            alpha=1.0 if curve.is_kept else 0.45,
            marker="o" if len(curve.history) == 1 else None,
            label=label if curve.is_kept else None,
        )
        if curve.is_kept:
            axes.plot([curve.kept.epoch], [getattr(curve.kept, name)], "o", color=color)


def _draw_tests(
    axes: Axes, curves: Sequence[SeedCurve], interval: tuple[float, float] | None
) -> None:
    values = [curve.test_accuracy for curve in curves]
    places = list(range(1, len(curves) + 1))
    if interval is not None:
        axes.axhspan(*interval, color=GRAY, alpha=0.15, label="95 % interval of the mean")
        mean = statistics.fmean(values)
        axes.axhline(mean, color=GRAY, linewidth=1.2, label=f"mean: {mean:.2%}")
    for place, curve in zip(places, curves, strict=True):
        # They keep the scale honest, too: differences within are those that chance makes.
        axes.plot([place, place], curve.test_accuracy_95, color=BLUE, linewidth=1.0, alpha=0.6)
        axes.plot(
            [place],
            [curve.test_accuracy],
            "o",
            color=BLUE,
            markersize=8,
            markerfacecolor=BLUE if curve.is_kept else "white",
            label=f"kept: seed {curve.seed}, {curve.test_accuracy:.2%}" if curve.is_kept else None,
        )
    axes.margins(x=0.15, y=0.15)
    axes.set_ylabel("test accuracy")
    axes.set_xlabel("seed (line: 95 % interval of its accuracy)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    shown = slice(None, None, -(-len(curves) // _MOST_SEEDS))
    names = [str(curve.seed) for curve in curves[shown]]
    turned = sum(map(len, names)) > 25
    axes.set_xticks(places[shown], names, fontsize=8, rotation=90 if turned else 0)
    axes.legend(fontsize=8)
    tidy(axes)
