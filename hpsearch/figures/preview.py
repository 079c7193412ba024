"""Examples of each class, with what augmentation makes of them, as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, TransformedBbox

from hpsearch.data.dataset import UInt8Array
from hpsearch.figures._canvas import GRAY, font_families, new_figure
from hpsearch.names import printable

TALLEST = 160.0
"""Inches: what a picture of 150 dots an inch can be, and still be opened everywhere."""
_CELL, _GAP, _TITLE, _NAME, _MARGIN = 1.3, 0.12, 0.3, 0.22, 0.2
_LETTERS = 19
"""What a cell holds of a name; of one with many wide letters, the rest is cut off."""
_SQUARES = 64


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
    lines = wrap(printable(title), int(10 * width)) or [""]
    height = 2 * _MARGIN + 0.2 * len(lines)
    shown: list[PreviewRow] = []
    for row in rows:
        if height + _height(row) > TALLEST:
            height += 0.2  # for the line that says how many are left
            break
        shown.append(row)
        height += _height(row)
    figure = new_figure(width, height)
    # Everything is placed here, in inches from the upper left corner.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    _text(axes, width / 2, _MARGIN, "\n".join(lines), size=11, align="center")
    down = _MARGIN + 0.2 * len(lines)
    for row in shown:
        _draw(axes, row, down, width)
        down += _height(row)
    if len(shown) < len(rows):
        _text(axes, _MARGIN, down + 0.05, f"and {len(rows) - len(shown):,} more classes", size=9)
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)
    return figure


def _image_height(row: PreviewRow) -> float:
    """Inches: of the tallest image, where each is as wide as a cell."""
    tallest = max((image.shape[0] / image.shape[1] for image in row.images), default=0.0)
    return _CELL * min(tallest, 2.0)


def _height(row: PreviewRow) -> float:
    lines = 1 + len(row.variants)
    return _TITLE + _NAME + lines * (_image_height(row) + _GAP)


def _draw(axes: Axes, row: PreviewRow, down: float, width: float) -> None:
    title = _cut(row.title, int((width - 2 * _MARGIN) * 10))
    _text(axes, _MARGIN, down + 0.08, title, size=10, weight="bold")
    down += _TITLE
    high = _image_height(row)
    for column, (image, name) in enumerate(zip(row.images, row.names, strict=True)):
        left = _MARGIN + column * (_CELL + _GAP)
        _picture(axes, image, left, down, high)
        under = down + high + 0.04
        written = _text(axes, left, under, _cut(name, _LETTERS), size=7, color=GRAY)
        cell = Bbox.from_extents(left, under, left + _CELL + _GAP / 2, under + _NAME)
        written.set_clip_box(TransformedBbox(cell, axes.transData))
        written.set_clip_on(True)
        for number, variant in enumerate(row.variants):
            below = down + _NAME + (number + 1) * (high + _GAP)
            _picture(axes, variant[column], left, below, high)


def _picture(axes: Axes, image: UInt8Array, left: float, top: float, high: float) -> None:
    """Draws an image as large as its cell allows, in the middle of it."""
    inches = min(_CELL / image.shape[1], high / image.shape[0])
    width, height = inches * image.shape[1], inches * image.shape[0]
    left += (_CELL - width) / 2
    top += (high - height) / 2
    axes.imshow(
        image[..., 0] if image.shape[2] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, left + width, top + height, top),
        aspect="auto",
        interpolation="nearest" if max(image.shape[:2]) <= _SQUARES else "antialiased",
    )


def _cut(name: str, most: int) -> str:
    """A long name without its middle: paths differ at the end."""
    text = printable(name)
    if len(text) <= most:
        return text
    end = (most - 1) * 2 // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _text(
    axes: Axes,
    left: float,
    top: float,
    text: str,
    *,
    size: float,
    align: str = "left",
    weight: str = "normal",
    color: str = "black",
) -> Text:
    return axes.text(
        left,
        top,
        text,
        fontsize=size,
        ha=align,
        va="top",
        fontweight=weight,
        color=color,
        # Names come from files and users: a dollar sign in them is no formula.
        parse_math=False,
        fontfamily=font_families(),
    )
