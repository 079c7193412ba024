"""Loss and scores over the epochs, for training and validation images: two panels that the
pictures of one training and of several share.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpsearch.figures._canvas import BLUE, ORANGE, tidy
from hpsearch.training.objectives import Objective

_PARTS = (("train", ORANGE, "training (augmented, dropout on)"), ("val", BLUE, "validation"))


def shown_share(objective: Objective) -> str:
    """The share of the images that is drawn: the objective where it is one, else the accuracy."""
    return objective.name.removeprefix("val_") if objective.is_share else "accuracy"


def draw_scores(
    loss: Axes,
    scores: Axes,
    objective: Objective,
    *,
    validated: bool,
    draw: Callable[[Axes, str, str, str], None],
) -> None:
    """Draws the losses and the `shown_share` of an `EpochResult` over the epochs.

    Args:
        validated: whether there are scores on validation images.
        draw: draws a field of the results with a colour and a label: (axes, field, color, label).
    """
    for axes, kind in ((loss, "loss"), (scores, shown_share(objective))):
        for part, color, label in _PARTS if validated else _PARTS[:1]:
            draw(axes, f"{part}_{kind}", color, label)
        axes.set_ylabel(kind.replace("_", " ").replace("f1", "F1"))
        over_epochs(axes)
    loss.set_yscale("log")
    scores.yaxis.set_major_formatter(PercentFormatter(1.0))


def over_epochs(axes: Axes) -> None:
    """Whole numbers below the panel, which are epochs."""
    tidy(axes)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
