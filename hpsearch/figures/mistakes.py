"""The mistakes of a model, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hpsearch.data.dataset import ImagePart, Int64Array, UInt8Array
from hpsearch.figures._canvas import GRAY, without_middle
from hpsearch.figures._tiles import draw_image, page_of, title_lines, write

_COLUMNS = 6
_CELL, _GAP, _MARGIN = 1.9, 0.15, 0.2
_LINE, _SIZE, _LINES = 0.16, 8, 4
_LETTERS = 29
"""What a line below an image holds; of one with many wide letters, the rest is cut off."""
_RED, _GREEN = "#b42318", "#17713b"


def worst_mistakes_figure(
    part: ImagePart, predicted: Int64Array, confidence: npt.NDArray[np.floating], *, title: str
) -> Figure:
    """Draws the most confident mistakes that a model made on the images of `part`.

    Args:
        predicted: (N,): by number, the class that each image was taken for.
        confidence: (N,): its probability.
        title: above the picture; that these are the most confident ones, and of how many, is added.
    """
    places = worst_mistakes(part.labels, predicted, confidence)
    names, mistakes = part.names, int((predicted != part.labels).sum())
    return mistakes_figure(
        [part.dataset.images[part.rows[place]] for place in places],
        [names[place] for place in places],
        [part.classes[part.labels[place]] for place in places],
        [part.classes[predicted[place]] for place in places],
        [float(confidence[place]) for place in places],
        title=f"{title}: the most confident of {mistakes:,} mistakes",
    )


def worst_mistakes(
    labels: Int64Array,
    predicted: Int64Array,
    confidence: npt.NDArray[np.floating],
    most: int = 24,
) -> Int64Array:
    """The places of wrong predictions, the most confident ones first.

    Args:
        labels, predicted, confidence: (N,).
        most: how many at most.
    """
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-confidence[wrong], kind="stable")
    return wrong[order[:most]]


def mistakes_figure(
    images: Sequence[UInt8Array],
    names: Sequence[str],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
    *,
    title: str,
) -> Figure:
    """Draws wrongly classified images in rows of six, in the given order, with what they are, what
    they were taken for and how surely, and their names.

    Args:
        images: uint8 (height, width, channels) with 1 or 3 channels; perhaps none.
        names: what each image is called.
        true, predicted: names of classes.
        confidence: probabilities of the predicted classes.
        title: above the picture.
    """
    columns = max(3, min(_COLUMNS, len(images)))
    rows = -(-len(images) // columns)
    width = columns * (_CELL + _GAP) - _GAP + 2 * _MARGIN
    lines = title_lines(title, width)
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=0.2)
    high = _CELL * min(tallest, 1.5)
    step = high + 0.04 + _LINES * _LINE + 2 * _GAP
    top = _MARGIN + 0.2 * len(lines) + _GAP
    figure, axes = page_of(width, top + max(rows, 1) * step)
    write(axes, width / 2, _MARGIN, "\n".join(lines), size=11, align="center")
    if not images:
        write(
            axes, width / 2, top, "There are none: all images are right.", size=10, align="center"
        )
    cells = zip(images, names, true, predicted, confidence, strict=True)
    for number, (image, name, right, wrong, share) in enumerate(cells):
        left = _MARGIN + number % columns * (_CELL + _GAP)
        down = top + number // columns * step
        draw_image(axes, image, left, down, _CELL, high)
        texts = (
            (f"true {without_middle(right, _LETTERS - 5)}", _GREEN),
            (f"predicted {without_middle(wrong, _LETTERS - 10)}", _RED),
            # Rounded down: what is not certain is not 100 %.
            (f"confidence {math.floor(1000 * share) / 10:.1f} %", "black"),
            (without_middle(name, _LETTERS), GRAY),
        )
        for line, (text, color) in enumerate(texts):
            below = down + high + 0.04 + line * _LINE
            write(axes, left, below, text, size=_SIZE, color=color, width=_CELL + _GAP / 2)
    return figure
