"""The mistakes as a picture: each with its texts, none on another's."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpsearch.data.dataset import ImageDataset
from hpsearch.figures.mistakes import mistakes_figure, worst_mistakes, worst_mistakes_figure
from hpsearch.figures.png import save_png

LONG = "folder/" * 20 + "$x_1$.png"


def figure_of(
    count: int, height: int = 8, width: int = 8, channels: int = 1, name: str = "a.png"
) -> Figure:
    random = np.random.default_rng(0)
    return mistakes_figure(
        [random.integers(0, 256, (height, width, channels), dtype=np.uint8) for _ in range(count)],
        [f"{number}{name}" for number in range(count)],
        ["$true$"] * count,
        ["wrong_"] * count,
        [0.99999 - number / 100 for number in range(count)],
        title="digits, cnn-7",
    )


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("count", "height", "width", "channels"),
    [(24, 8, 8, 1), (1, 8, 8, 1), (7, 300, 100, 3), (5, 40, 160, 3)],
)
def test_each_mistake_has_its_place(
    tmp_path: Path, count: int, height: int, width: int, channels: int
) -> None:
    figure = figure_of(count, height, width, channels)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [picture.get_window_extent() for picture in axes.images]
    boxes += [text.get_window_extent() for text in axes.texts]
    assert len(axes.images) == count
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1 + 0.5
        assert figure.bbox.y0 - 0.5 <= box.y0 < box.y1 <= figure.bbox.y1 + 0.5
    for one, other in itertools.combinations(boxes, 2):
        both_wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        both_high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert both_wide <= 1 or both_high <= 2
    for picture in axes.images:
        left, right, bottom, top = picture.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(width / height)
    save_png(figure, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert max(image.size) < 3000


def test_the_texts_say_what_is_what() -> None:
    texts = texts_of(figure_of(2))
    assert texts[0] == "digits, cnn-7"
    assert texts[1:5] == ["true $true$", "predicted wrong_", "confidence 99.9 %", "0a.png"]
    assert texts[5:] == ["true $true$", "predicted wrong_", "confidence 98.9 %", "1a.png"]


def test_small_images_keep_their_pixels_as_squares() -> None:
    """A pixel of an 8x8 image is drawn in one gray, between black and white as they are."""
    (small,) = figure_of(1).axes[0].images
    assert small.get_interpolation() == "nearest"
    assert small.get_clim() == (0, 255)
    (large,) = figure_of(1, 200, 200, 3).axes[0].images
    assert large.get_interpolation() == "antialiased"


def test_names_are_cut_to_their_cell_and_are_no_formulas(tmp_path: Path) -> None:
    for name in (LONG, "W" * 80, "日本語" * 20, "\x1b[31m\n"):
        figure = figure_of(6, name=name)
        for text in figure.axes[0].texts:
            assert not text.get_parse_math()
            assert text.get_text().isprintable()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_png(figure, tmp_path / "m.png")
    shown = texts_of(figure_of(1, name=LONG))[-1]
    assert shown.endswith("$x_1$.png")
    assert "…" in shown


def test_no_mistakes_are_said_to_be_none(tmp_path: Path) -> None:
    figure = figure_of(0)
    assert texts_of(figure) == ["digits, cnn-7", "There are none: all images are right."]
    save_png(figure, tmp_path / "m.png")


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    labels, predicted = np.zeros(5, np.int64), np.array([1, 0, 1, 1, 1])
    confidence = np.array([0.6, 0.9, 0.8, 0.7, 0.8])
    assert worst_mistakes(labels, predicted, confidence).tolist() == [2, 4, 3, 0]
    assert worst_mistakes(labels, predicted, confidence, most=1).tolist() == [2]
    assert worst_mistakes(labels, labels, confidence).tolist() == []


def test_the_mistakes_on_a_part_are_its_own_images(noise: Callable[..., ImageDataset]) -> None:
    part = noise(3, 3).part(np.array([5, 0, 4, 1]))
    predicted = np.where([False, True, True, False], 1 - part.labels, part.labels)
    confidence = np.array([0.9, 0.6, 0.7, 0.9])
    figure = worst_mistakes_figure(part, predicted, confidence, title="digits, cnn-7")
    shown = [picture.get_array() for picture in figure.axes[0].images]
    assert len(shown) == 2
    for picture, row in zip(shown, (4, 0), strict=True):  # the more confident one first
        pixels = np.asarray(picture).reshape(4, 4, -1)[..., 0]
        assert np.array_equal(pixels, part.dataset.images[row][..., 0])
    texts = texts_of(figure)
    assert "digits, cnn-7: the most confident of 2 mistakes" in texts
    names = [text for text in texts if text in ("4", "0")]
    assert names == ["4", "0"]
