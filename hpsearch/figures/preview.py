"""Examples of each class, with what augmentation makes of them, as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsearch.data.dataset import UInt8Array
from hpsearch.figures._canvas import GRAY, without_middle
from hpsearch.figures._tiles import draw_image, page_of, title_lines, write

TALLEST = 160.0
"""Inches: what a picture of 150 dots an inch can be, and still be opened everywhere."""
_CELL, _GAP, _TITLE, _NAME, _MARGIN = 1.3, 0.12, 0.3, 0.22, 0.2
_LETTERS = 19
"""What a cell holds of a name; of one with many wide letters, the rest is cut off."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PreviewRow:
    """Examples of one class.

    Attributes:
        title: the class.
        images: uint8 (height, width, channels) with 1 or 3 channels.
        names: what each image is called.
        variants: further rows below the images, of one image for each of them: augmented versions.
    """

    title: str
    images: Sequence[UInt8Array]
    names: Sequence[str]
    variants: Sequence[Sequence[UInt8Array]] = ()


def preview_figure(rows: Sequence[PreviewRow], *, title: str) -> Figure:
    """Draws each class in a row of its own, or in several with variants; where there are very
    many, the first ones.

    Args:
        title: above the picture.
    """
    columns = max((len(row.images) for row in rows), default=1)
    width = max(4.0, columns * (_CELL + _GAP) - _GAP) + 2 * _MARGIN
    lines = title_lines(title, width)
    height = 2 * _MARGIN + 0.2 * len(lines)
    shown: list[PreviewRow] = []
    for row in rows:
        if height + _height(row) > TALLEST:
            height += 0.2  # for the line that says how many are left
            break
        shown.append(row)
        height += _height(row)
    figure, axes = page_of(width, height)
    write(axes, width / 2, _MARGIN, "\n".join(lines), size=11, align="center")
    down = _MARGIN + 0.2 * len(lines)
    for row in shown:
        _draw(axes, row, down, width)
        down += _height(row)
    if len(shown) < len(rows):
        write(axes, _MARGIN, down + 0.05, f"and {len(rows) - len(shown):,} more classes", size=9)
    return figure


def _image_height(row: PreviewRow) -> float:
    """Inches: of the tallest image, where each is as wide as a cell."""
    tallest = max((image.shape[0] / image.shape[1] for image in row.images), default=0.0)
    return _CELL * min(tallest, 2.0)


def _height(row: PreviewRow) -> float:
    lines = 1 + len(row.variants)
    return _TITLE + _NAME + lines * (_image_height(row) + _GAP)


def _draw(axes: Axes, row: PreviewRow, down: float, width: float) -> None:
    title = without_middle(row.title, int((width - 2 * _MARGIN) * 10))
    write(axes, _MARGIN, down + 0.08, title, size=10, weight="bold")
    down += _TITLE
    high = _image_height(row)
    for column, (image, name) in enumerate(zip(row.images, row.names, strict=True)):
        left = _MARGIN + column * (_CELL + _GAP)
        draw_image(axes, image, left, down, _CELL, high)
        under = down + high + 0.04
        text, wide = without_middle(name, _LETTERS), _CELL + _GAP / 2
        write(axes, left, under, text, size=7, color=GRAY, width=wide)
        for number, variant in enumerate(row.variants):
            below = down + _NAME + (number + 1) * (high + _GAP)
            draw_image(axes, variant[column], left, below, _CELL, high)
