"""What all figures share: drawing without a screen, and files that appear whole."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpsearch.files import write_whole

BLUE, ORANGE, GRAY = "#1f5fa8", "#d9701a", "#6b7280"


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


def save_png(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG of 150 dots an inch, whole or not at all."""
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; a warning would not add it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
