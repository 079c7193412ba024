"""The learning curves of one training as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsearch.figures._canvas import BLUE, GRAY, ORANGE, new_figure, write_title
from hpsearch.figures._panels import draw_scores, over_epochs, shown_share
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective

MOST_POINTS = 500
"""Of the line of mini-batches: more than this are no more to be seen, and slow to draw."""


def curves_figure(
    history: Sequence[EpochResult],
    *,
    objective: Objective,
    title: str,
    batches: Sequence[tuple[int, int, float]] | None = None,
) -> Figure:
    """Draws loss, accuracy, and learning rate with dropout over the epochs.

    Args:
        history: one result an epoch, at least one; its best epoch is marked, or where the
            validation scores are not numbers, the one that is kept.
        objective: by which it is the best; where it is another share of the images, such as
            balanced accuracy, that is drawn instead of the accuracy.
        title: above the picture.
        batches: epoch, step in it and training loss of each mini-batch, which are drawn behind the
            losses of the epochs; where there are very many, means of several.
    """
    best = max(history, key=lambda result: (objective.key(result), result.is_best))
    validated = not math.isnan(best.val_loss)
    epochs = [result.epoch for result in history]
    marker = "o" if len(history) == 1 else None
    figure = new_figure(12.0, 3.8)
    write_title(figure, title)
    loss, scores, knobs = figure.subplots(1, 3)

    def draw(axes: Axes, field: str, color: str, label: str) -> None:
        values = [getattr(result, field) for result in history]
        axes.plot(epochs, values, color=color, label=label, marker=marker)

    draw_scores(loss, scores, objective, validated=validated, draw=draw)
    part, dot = ("val", BLUE) if validated else ("train", ORANGE)
    for axes, kind in ((loss, "loss"), (scores, shown_share(objective))):
        value = getattr(best, f"{part}_{kind}")
        text = f"{value:.4f}" if kind == "loss" else f"{value:.2%}"
        axes.plot([best.epoch], [value], "o", color=dot, label=f"kept: epoch {best.epoch}, {text}")
    if batches:
        _draw_batches(loss, batches)
    for axes in (loss, scores):
        axes.legend(fontsize=8)
    _draw_knobs(knobs, history, marker)
    over_epochs(knobs)
    if len(history) == 1:
        for axes in (loss, scores, knobs):
            axes.set_xticks(epochs)
    return figure


def _draw_batches(axes: Axes, batches: Sequence[tuple[int, int, float]]) -> None:
    epochs, steps, losses = np.array(batches, dtype=np.float64).T
    # An epoch's batches lie around its mark: what is drawn there is their mean.
    _, numbers, counts = np.unique(epochs, return_inverse=True, return_counts=True)
    places = epochs - 0.5 + (steps + 0.5) / counts[numbers]
    together = -(-len(losses) // MOST_POINTS)
    label = "mini-batches" if together == 1 else f"mini-batches, means of {together:,}"
    starts = np.arange(0, len(losses), together)
    sizes = np.diff(starts, append=len(losses))
    axes.plot(
        np.add.reduceat(places, starts) / sizes,
        np.add.reduceat(losses, starts) / sizes,
        color=ORANGE,
        alpha=0.4,
        linewidth=0.7,
        zorder=1,
        label=label,
    )
    axes.set_xlim(epochs[0] - 0.6, epochs[-1] + 0.6)


def _draw_knobs(axes: Axes, history: Sequence[EpochResult], marker: str | None) -> None:
    """Learning rate and dropout, which share the axis of the epochs."""
    epochs = [result.epoch for result in history]
    axes.plot(epochs, [r.lr for r in history], color=GRAY, label="learning rate", marker=marker)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    dropout = axes.twinx()
    rates = [result.dropout for result in history]
    dropout.plot(epochs, rates, "--", color=ORANGE, label="dropout", marker=marker)
    dropout.set_ylabel("dropout rate")
    dropout.set_ylim(0, 1)
    drawn = [*axes.get_lines(), *dropout.get_lines()]
    axes.legend(drawn, [str(line.get_label()) for line in drawn], fontsize=8, loc="upper right")
