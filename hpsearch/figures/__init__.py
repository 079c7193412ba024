"""Pure functions from a history or a matrix to a picture."""

from hpsearch.figures._canvas import save_png
from hpsearch.figures.confusion import confusion_figure
from hpsearch.figures.curves import curves_figure

__all__ = ["confusion_figure", "curves_figure", "save_png"]
