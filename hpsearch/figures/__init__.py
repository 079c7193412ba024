"""Pure functions from a history, a matrix, images or a report to a picture or a page."""

from hpsearch.figures._canvas import png_of, save_png
from hpsearch.figures.confusion import confusion_figure, confusion_matrix
from hpsearch.figures.curves import curves_figure
from hpsearch.figures.mistakes import mistakes_figure, worst_mistakes_figure
from hpsearch.figures.preview import PreviewRow, preview_figure
from hpsearch.figures.sheet import check_sheet

__all__ = [
    "PreviewRow",
    "check_sheet",
    "confusion_figure",
    "confusion_matrix",
    "curves_figure",
    "mistakes_figure",
    "png_of",
    "preview_figure",
    "save_png",
    "worst_mistakes_figure",
]
