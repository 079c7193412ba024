"""What all figures share: drawing without a screen, and texts from outside."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from textwrap import wrap

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from hpsearch.names import printable

BLUE, ORANGE, GRAY = "#1f5fa8", "#d9701a", "#6b7280"
GREEN, RED = "#2e7d32", "#b3261e"

# Fonts of Linux, Windows and macOS for scripts that matplotlib's own one lacks.
_OTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)


@functools.cache
def font_families() -> tuple[str, ...]:
    """Fonts to write names in that come from outside: the later ones have what the first lacks.

    Only fonts that are installed: matplotlib complains about others.
    """
    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that needs no display and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """Light grid, no box."""
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_title(figure: Figure, title: str, *, letters: int = 110) -> None:
    """A title that may be long and have names in it.

    Args:
        letters: on a line; about ten fit on an inch.
    """
    lines = wrap(printable(title), letters)
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=font_families())


def without_formulas(legend: Legend) -> None:
    """Shows the names in a legend as they are: they come from outside."""
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
        text.set_fontfamily(font_families())


def cut(name: str, most: int) -> str:
    """A name of at most so many letters, safe to show: a long one lacks its end."""
    text = printable(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_middle(name: str, most: int) -> str:
    """A name of at most so many letters, safe to show: a long one lacks its middle, since paths
    differ at the end.
    """
    text = printable(name)
    if len(text) <= most:
        return text
    end = (most - 1) * 2 // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def text_width(figure: Figure, texts: Sequence[str], size: float) -> float:
    """Inches: how wide the widest of these lines is, in letters of `size` points."""
    widest = 0.0
    with missing_letters():
        for text in texts:
            drawn = figure.text(
                0, 0, text, fontsize=size, parse_math=False, fontfamily=font_families()
            )
            widest = max(widest, drawn.get_window_extent().width)
            drawn.remove()
    return widest / figure.dpi


@contextlib.contextmanager
def missing_letters() -> Iterator[None]:
    """A letter that the font lacks is drawn as a box; a warning would not add it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
