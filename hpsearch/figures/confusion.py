"""The confusion matrix as a picture, and which classes are confused most."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure

from hpsearch.data.dataset import Int64Array
from hpsearch.figures._canvas import font_families, new_figure, text_width, without_middle
from hpsearch.figures._tiles import title_lines

_LETTERS = 24
"""Of a class name beside the matrix."""
_CELL, _SMALLEST, _LARGEST = 0.62, 0.13, 18.0
"""Inches: a cell of few classes, the smallest that still has a number, and the largest matrix."""
_SIDE = 13.0
"""Inches: up to here the matrix grows with full cells; with more classes they get smaller."""
_SHARES = 12
"""Up to so many classes, cells have their share of the row below the count."""
_PAIRS_FROM, _MOST_PAIRS = 11, 30
"""From so many classes on, so many pairs that are confused most are listed beside the matrix."""
_GAP, _LINE = 0.15, 0.2

# Errors are rare and their shares small: even the smallest has a colour that one sees.
_RIGHT = LinearSegmentedColormap.from_list("right", ["#d6e4f5", "#1f5fa8", "#0d3264"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#fdeedd", "#e8954a", "#7a3200"])
_RIGHT_SHARES, _WRONG_SHARES = Normalize(0.0, 1.0), PowerNorm(0.5, 0.0, 1.0)


def confusion_figure(
    matrix: Int64Array, classes: Sequence[str], *, title: str, what: str = "class"
) -> Figure:
    """Draws counts, shaded by their share of the row: right ones blue, wrong ones orange; where
    classes are many, with a list of those that are confused most.

    Args:
        matrix: (classes, classes); rows are the true classes, columns the predicted ones.
        title: above the picture.
        what: the classes are: another word where they are the values of one column.
    """
    n = len(classes)
    side = min(max(2.4, _CELL * n), max(_SIDE, min(_SMALLEST * n, _LARGEST)))
    figure = new_figure(1.0, 1.0)
    figure.set_layout_engine("none")
    size = float(np.clip(0.75 * 72 * side / n, 4.5, 10.0))
    labels = [without_middle(name, _LETTERS) for name in classes]
    margin = text_width(figure, labels, size) + 0.2 + _LINE + _GAP
    pairs = _pair_lines(matrix, classes) if n >= _PAIRS_FROM else []
    pair_size = 10.0 if side < 10 else 13.0
    listed = text_width(figure, pairs, pair_size) + 2 * _GAP if pairs else 0.0
    right = margin + side + 1.2
    width = max(right + listed, 4.5)
    lines = title_lines(title, width - 0.3)
    top = _GAP + _LINE * len(lines) + _GAP
    height = top + side + margin
    figure.set_size_inches(width, height)
    figure.suptitle(
        "\n".join(lines),
        y=1 - _GAP / height,
        va="top",
        fontsize=11,
        parse_math=False,
        fontfamily=font_families(),
    )

    def place(left: float, down: float, wide: float, high: float) -> Axes:
        """Axes at a place in inches from the upper left corner."""
        below = height - down - high
        return figure.add_axes((left / width, below / height, wide / width, high / height))

    axes = place(margin, top, side, side)
    _draw(axes, matrix)
    _name_axes(axes, labels, size, what)
    _write_counts(axes, matrix, 72 * side / n)
    tall = min(side - 2 * _LINE, 3.5)
    for number, (colours, shares) in enumerate(((_RIGHT, _RIGHT_SHARES), (_WRONG, _WRONG_SHARES))):
        bar = place(margin + side + _GAP + 0.16 * number, top + _LINE, 0.15, tall)
        _colour_bar(bar, ScalarMappable(shares, colours), what if number else None)
    if pairs:
        beside = place(right + _GAP, top, listed - 2 * _GAP, side)
        _write_pairs(beside, pairs, pair_size)
    return figure


def confusion_matrix(labels: Int64Array, predicted: Int64Array, classes: int) -> Int64Array:
    """(classes, classes): how many images of each class, the rows, were taken for which."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def most_confused(matrix: Int64Array, most: int) -> list[tuple[int, int]]:
    """The pairs of a true class and a wrong one that it was taken for, most images first; where
    they are equally many, those that are the greater share of the true class.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    totals = matrix.sum(axis=1)[rows]
    order = np.lexsort((columns, rows, totals, -wrong[rows, columns]))[:most]
    return [(int(rows[place]), int(columns[place])) for place in order]


def _pair_lines(matrix: Int64Array, classes: Sequence[str]) -> list[str]:
    totals = matrix.sum(axis=1)
    lines = []
    for row, column in most_confused(matrix, _MOST_PAIRS):
        true, predicted = (without_middle(classes[place], _LETTERS) for place in (row, column))
        count = matrix[row, column]
        share = count / totals[row]
        lines.append(f"true {true} predicted as {predicted}: {count:,} ({share:.1%})")
    return lines


def _draw(axes: Axes, matrix: Int64Array) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(matrix), dtype=bool)
    for cells, colours, norm in (
        (diagonal, _RIGHT, _RIGHT_SHARES),
        (~diagonal, _WRONG, _WRONG_SHARES),
    ):
        shown = np.ma.masked_where(~cells | (matrix == 0), shares)
        axes.imshow(shown, cmap=colours, norm=norm, aspect="auto")


def _name_axes(axes: Axes, labels: Sequence[str], size: float, what: str) -> None:
    n = len(labels)
    # Of very many classes, every second, third, ... one: those that do not touch each other.
    inches = axes.get_position().height * axes.figure.get_figure(root=True).get_figheight()
    step = max(1, math.ceil(1.1 * size * n / (72 * inches)))
    upright = max(map(len, labels)) > 3
    for axis, rotation in ((axes.xaxis, 90 if upright else 0), (axes.yaxis, 0)):
        # Names come from files and users: a dollar sign in them is no formula.
        axis.set_ticks(
            range(0, n, step),
            labels[::step],
            fontsize=size,
            rotation=rotation,
            parse_math=False,
            fontfamily=font_families(),
        )
    for axis, kind in ((axes.xaxis, "predicted"), (axes.yaxis, "true")):
        text = f"{kind} {without_middle(what, _LETTERS)}"
        axis.set_label_text(text, fontsize=11, parse_math=False, fontfamily=font_families())
    for line in range(1, n if n <= 40 else 0):
        axes.axhline(line - 0.5, color="#e5e7eb", linewidth=0.6)
        axes.axvline(line - 0.5, color="#e5e7eb", linewidth=0.6)


def _write_counts(axes: Axes, matrix: Int64Array, cell: float) -> None:
    """Writes the counts, where they are large enough to be read.

    Args:
        cell: points: the side of a cell.
    """
    size = min(10.0, 0.62 * cell)
    if size < 3.0:
        return
    few, totals = len(matrix) <= _SHARES, matrix.sum(axis=1)
    for row, column in zip(*(places.tolist() for places in np.nonzero(matrix)), strict=True):
        count = matrix[row, column]
        share = count / totals[row]
        text = f"{count:,}\n{share:.1%}" if few else str(count)
        widest = max(map(len, text.split("\n")))
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=min(size, cell / (0.66 * widest)),
            linespacing=1.3,
            color="white" if share > 0.4 else "#111827",
        )


def _colour_bar(axes: Axes, colours: ScalarMappable, what: str | None) -> None:
    """Draws a bar of colours, with its scale where `what` says of what they are shares."""
    steps = np.linspace(0.0, 1.0, 256)
    axes.imshow(
        colours.to_rgba(steps)[:, np.newaxis], extent=(0, 1, 0, 1), origin="lower", aspect="auto"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    if what is None:
        return
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"], fontsize=8)
    text = f"share of the true {without_middle(what, _LETTERS)}"
    axes.set_ylabel(text, fontsize=8, parse_math=False, fontfamily=font_families())
    axes.set_title("right, wrong", fontsize=8, pad=8)


def _write_pairs(axes: Axes, lines: Sequence[str], size: float) -> None:
    axes.set_axis_off()
    axes.text(
        0.0,
        1.0,
        "\n".join(["confused most", *lines]),
        transform=axes.transAxes,
        va="top",
        fontsize=size,
        linespacing=1.5,
        parse_math=False,
        fontfamily=font_families(),
    )
