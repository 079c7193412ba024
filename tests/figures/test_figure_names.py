"""Names from outside in the figures: nothing in them is a formula, a control code or too long."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager

from hpsearch.figures._canvas import font_families
from hpsearch.figures.confusion import confusion_figure
from hpsearch.figures.curves import curves_figure
from hpsearch.figures.png import save_png
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import OBJECTIVES

ACCURACY = OBJECTIVES[0]
NAMES = [
    "$x$",
    "a$",
    "\x1b[31mred",
    "two\nlines",
    "<script>",
    "\u202eright to left",
    "日本語 \U0001f600",
]


def history() -> list[EpochResult]:
    return [
        EpochResult(
            epoch=epoch,
            train_loss=1.0,
            train_accuracy=0.5,
            train_balanced_accuracy=0.5,
            train_macro_f1=0.5,
            val_loss=1.0,
            val_accuracy=0.5,
            val_balanced_accuracy=0.5,
            val_macro_f1=0.5,
            lr=1e-3,
            dropout=0.0,
            seconds=1.0,
            images_per_second=1.0,
            is_best=epoch == 0,
            batch_losses=(1.0,),
        )
        for epoch in range(2)
    ]


def written_out(name: str) -> str:
    for character in "\x1b\n\u202e":
        name = name.replace(character, character.encode("unicode_escape").decode())
    return name


@pytest.mark.parametrize("name", NAMES)
def test_they_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    confusion = confusion_figure(np.eye(2, dtype=np.int64), [name, "b"], title=name)
    axes = confusion.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert labels[0].get_text() == written_out(name)
    assert confusion.get_suptitle() == written_out(name)
    curves = curves_figure(history(), objective=ACCURACY, title=name)
    assert curves.texts[0].get_text() == written_out(name)
    for figure in (confusion, curves):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_png(figure, tmp_path / "figure.png")


@pytest.mark.parametrize("letters", ["x" * 300, "word " * 60])
def test_a_long_title_stays_on_the_page(letters: str) -> None:
    figure = curves_figure(history(), objective=ACCURACY, title=letters)
    figure.draw_without_rendering()
    box, page = figure.texts[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert min(axes.get_window_extent().height for axes in figure.axes) > 100


def test_only_fonts_that_are_installed_are_asked_for() -> None:
    assert font_families()[0] == "DejaVu Sans"
    assert set(font_families()) <= set(font_manager.get_font_names())
