"""Images with texts below them, placed by hand: what figures of many small images share.

Axes have inches for units, from the upper left corner of the figure.
"""

from __future__ import annotations

from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, TransformedBbox

from hpsearch.data.dataset import UInt8Array
from hpsearch.figures._canvas import font_families, new_figure
from hpsearch.names import printable

_SQUARES = 64
"""Images of up to so many pixels a side show them as squares."""


def page_of(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure (inches), and axes that fill it."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)
    return figure, axes


def title_lines(title: str, width: float) -> list[str]:
    """The lines of a title of 11 points over a figure of `width` inches."""
    return wrap(printable(title), int(10 * width)) or [""]


def draw_image(
    axes: Axes, image: UInt8Array, left: float, top: float, width: float, height: float
) -> None:
    """Draws an image as large as its cell allows, in the middle of it."""
    inches = min(width / image.shape[1], height / image.shape[0])
    wide, high = inches * image.shape[1], inches * image.shape[0]
    left += (width - wide) / 2
    top += (height - high) / 2
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(
        image[..., 0] if image.shape[2] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, left + wide, top + high, top),
        aspect="auto",
        interpolation="nearest" if max(image.shape[:2]) <= _SQUARES else "antialiased",
    )
    axes.set(xlim=limits[0], ylim=limits[1])


def write(
    axes: Axes,
    left: float,
    top: float,
    text: str,
    *,
    size: float,
    align: str = "left",
    weight: str = "normal",
    color: str = "black",
    width: float | None = None,
) -> Text:
    """Writes a text.

    Args:
        size: points.
        align: where `left` is: "left" or "center" of the text.
        width: inches; what is wider is cut off.
    """
    written = axes.text(
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
    if width is not None:
        line = Bbox.from_extents(left, top, left + width, top + size / 40)
        written.set_clip_box(TransformedBbox(line, axes.transData))
        written.set_clip_on(True)
    return written
