"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hpsearch.figures._canvas import font_families, new_figure
from hpsearch.names import printable


def confusion_figure(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], *, title: str
) -> Figure:
    """Draws counts, shaded by their share of the row.

    Args:
        matrix: (classes, classes); rows are the true classes, columns the predicted ones.
        title: above the picture.
    """
    n = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    side = min(max(3.5, 0.5 * n + 2.0), 24.0)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    labels = [name if len(name) <= 20 else name[:19] + "…" for name in map(printable, classes)]
    size = float(np.clip(220 / n, 4, 10))
    # Names come from files and users: a dollar sign in them is no formula.
    axes.set_xticks(
        range(n),
        labels,
        fontsize=size,
        rotation=90 if max(map(len, labels)) > 3 else 0,
        parse_math=False,
        fontfamily=font_families(),
    )
    axes.set_yticks(range(n), labels, fontsize=size, parse_math=False, fontfamily=font_families())
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    # Ten letters fit on an inch of the matrix.
    lines = wrap(printable(title), int(10 * (side - 0.8)))
    axes.set_title("\n".join(lines), fontsize=11, parse_math=False, fontfamily=font_families())
    for row, column in zip(*np.nonzero(matrix), strict=True):
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if shares[row, column] > 0.5 else "#111827",
        )
    # Errors are rare and pale: a frame makes each of them easy to find.
    for row, column in zip(*np.nonzero(matrix - np.diag(np.diag(matrix))), strict=True):
        axes.add_patch(_frame(column, row))
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class")
    return figure


def _frame(column: int, row: int) -> Rectangle:
    return Rectangle(
        (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d9701a", linewidth=1.2
    )
