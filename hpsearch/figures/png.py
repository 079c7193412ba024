"""Figures as PNG."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from hpsearch.figures._canvas import missing_letters
from hpsearch.files import write_whole


def png_of(figure: Figure, *, dots: int = 110) -> bytes:
    """The figure as a PNG of so many dots an inch."""
    buffer = io.BytesIO()
    with missing_letters():
        figure.savefig(buffer, format="png", dpi=dots)
    return buffer.getvalue()


def save_png(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG of 150 dots an inch, whole or not at all."""
    with missing_letters():
        write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
