"""The learning curves of one training as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpsearch.figures._canvas import BLUE, GRAY, ORANGE, font_families, new_figure, tidy
from hpsearch.names import printable
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import DEFAULT_OBJECTIVE, objective_info

MOST_POINTS = 500
"""Of the line of mini-batches: more than this are no more to be seen, and slow to draw."""


def curves_figure(
    history: Sequence[EpochResult],
    *,
    title: str,
    objective: str = DEFAULT_OBJECTIVE,
    batches: Sequence[tuple[int, int, float]] | None = None,
) -> Figure:
    """Draws loss, accuracy, and learning rate with dropout over the epochs.

    Args:
        history: one result an epoch, at least one; its best epoch is marked, or where the
            validation scores are not numbers, the one that is kept.
        title: above the picture.
        objective: by which it is the best; where it is another share of the images, such as
            balanced accuracy, that is drawn instead of the accuracy.
        batches: epoch, step in it and training loss of each mini-batch, which are drawn behind the
            losses of the epochs; where there are very many, means of several.
    """
    row = objective_info(objective)
    best = max(history, key=lambda result: (row.key(result), result.is_best))
    validated = not math.isnan(best.val_loss)
    share = row.name.removeprefix("val_") if row.is_share else "accuracy"
    epochs = [result.epoch for result in history]
    marker = "o" if len(history) == 1 else None
    figure = new_figure(12.0, 3.8)
    # Ten letters fit on an inch.
    lines = wrap(printable(title), 110)
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=font_families())
    loss, accuracy, knobs = figure.subplots(1, 3)
    for axes, kind in ((loss, "loss"), (accuracy, share)):
        for part, color, label in (
            ("train", ORANGE, "training (augmented, dropout on)"),
            ("val", BLUE, "validation"),
        ):
            values = [getattr(result, f"{part}_{kind}") for result in history]
            if part == "train" or validated:
                axes.plot(epochs, values, color=color, label=label, marker=marker)
        value = getattr(best, f"val_{kind}" if validated else f"train_{kind}")
        text = f"{value:.4f}" if kind == "loss" else f"{value:.2%}"
        dot = BLUE if validated else ORANGE
        axes.plot([best.epoch], [value], "o", color=dot, label=f"kept: epoch {best.epoch}, {text}")
        axes.set_ylabel(kind.replace("_", " ").replace("f1", "F1"))
    if batches:
        _draw_batches(loss, batches)
    for axes in (loss, accuracy):
        axes.legend(fontsize=8)
    loss.set_yscale("log")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    _draw_knobs(knobs, history, marker)
    for axes in (loss, accuracy, knobs):
        tidy(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(history) == 1:
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
