"""The learning curves of one training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpsearch.figures._canvas import BLUE, GRAY, ORANGE, font_families, new_figure, tidy
from hpsearch.names import printable
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import DEFAULT_OBJECTIVE, objective_info


def curves_figure(
    history: Sequence[EpochResult], *, title: str, objective: str = DEFAULT_OBJECTIVE
) -> Figure:
    """Draws loss, accuracy, and learning rate with dropout over the epochs.

    Args:
        history: one result an epoch, at least one; its best epoch is marked.
        title: above the picture.
        objective: by which it is the best; where it is another share of the images, such as
            balanced accuracy, that is drawn instead of the accuracy.
    """
    row = objective_info(objective)
    best = max(history, key=row.key)
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
            axes.plot(epochs, values, color=color, label=label, marker=marker)
        value = getattr(best, f"val_{kind}")
        text = f"{value:.4f}" if kind == "loss" else f"{value:.2%}"
        axes.plot([best.epoch], [value], "o", color=BLUE, label=f"kept: epoch {best.epoch}, {text}")
        axes.set_ylabel(kind.replace("_", " ").replace("f1", "F1"))
        axes.legend(fontsize=8)
    loss.set_yscale("log")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    knobs.plot(epochs, [r.lr for r in history], color=GRAY, label="learning rate", marker=marker)
    knobs.set_ylabel("learning rate")
    knobs.set_ylim(bottom=0)
    dropout = knobs.twinx()
    dropout.plot(
        epochs, [r.dropout for r in history], "--", color=ORANGE, label="dropout", marker=marker
    )
    dropout.set_ylabel("dropout rate")
    dropout.set_ylim(0, 1)
    drawn = [*knobs.get_lines(), *dropout.get_lines()]
    knobs.legend(drawn, [str(line.get_label()) for line in drawn], fontsize=8, loc="upper right")
    for axes in (loss, accuracy, knobs):
        tidy(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(history) == 1:
            axes.set_xticks(epochs)
    return figure
