"""The confusion matrix as a picture: right, and readable with 2 classes and with hundreds."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hpsearch.figures.confusion import confusion_figure, most_confused
from hpsearch.figures.png import save_png

NAMES = [
    "$x_1^2$",
    "a_b",
    "<script>alert(1)</script>",
    "bée",
    "100%",
    "\\frac{",
    "{0}",
    "$",
    "x" * 300,
    "日本語の名前" * 5,
]


def matrix(n: int, seed: int = 0) -> np.ndarray:
    """Mostly right: 40 images of a class, and a few errors."""
    random = np.random.default_rng(seed)
    counts = np.diag(random.integers(30, 40, n))
    for row, column in random.integers(0, n, (2 * n, 2)):
        counts[row, column] += random.integers(1, 4)
    return counts.astype(np.int64)


def class_names(n: int) -> list[str]:
    return (NAMES + [f"class {number}" for number in range(n)])[:n]


def saved(figure: Figure, path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, path)
    image = Image.open(path)
    image.load()
    return image


def counts_of(axes: Axes) -> dict[tuple[int, int], str]:
    """The texts in the cells, by row and column."""
    found = {}
    for text in axes.texts:
        column, row = text.get_position()
        found[round(row), round(column)] = text.get_text()
    return found


def listed(figure: Figure) -> list[str]:
    """The lines beside the matrix."""
    texts = [text.get_text() for axes in figure.axes[1:] for text in axes.texts]
    return texts[0].split("\n") if texts else []


def pieces(figure: Figure) -> list[Text]:
    """All texts outside of cells."""
    axes, *others = figure.axes
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    for other in others:
        labels += [*other.texts, *other.get_yticklabels(), other.yaxis.label, other.title]
    return [text for text in [*labels, *figure.texts] if text.get_text()]


@pytest.mark.parametrize(
    ("n", "search"),
    [
        (2, "digits"),
        (2, "s" * 100),
        (3, "s" * 100),
        (10, "digits"),
        (40, "s" * 100),
        (101, "digits"),
    ],
)
def test_nothing_is_cut_off_or_runs_into_another(n: int, search: str) -> None:
    title = f"{search}, cnn-12: 98.33% of 360 test images (errors: 6)"
    figure = confusion_figure(matrix(n), class_names(n), title=title)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.draw_without_rendering()
        page, boxes = figure.bbox, [text.get_window_extent() for text in pieces(figure)]
    for box in boxes:
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        extents = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))
    places = [a.get_window_extent() for a in figure.axes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))
    inside = axes.get_window_extent()
    assert inside.width == pytest.approx(inside.height)
    right = max(box.x1 for box in boxes)
    assert right < page.x1 + 1


@pytest.mark.parametrize("n", [2, 10, 101])
def test_it_is_a_readable_picture(tmp_path: Path, n: int) -> None:
    image = saved(confusion_figure(matrix(n), class_names(n), title="t"), tmp_path / "m.png")
    assert 400 < image.width <= 4000
    assert 400 < image.height <= 4000
    assert (np.asarray(image.convert("L")) < 250).mean() > 0.02


@pytest.mark.parametrize("n", [2, 10, 12, 13, 101])
def test_the_counts_are_those_of_the_matrix(n: int) -> None:
    counts = matrix(n)
    counts[0, 1] = 1234
    found = counts_of(confusion_figure(counts, class_names(n), title="t").axes[0])
    shown = np.zeros_like(counts)
    for place, text in found.items():
        shown[place] = int(text.split("\n")[0].replace(",", ""))
    np.testing.assert_array_equal(shown, counts)
    assert found[0, 1].split("\n")[0] == ("1,234" if n <= 12 else "1234")


def test_few_classes_have_their_share_of_the_row() -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    found = counts_of(confusion_figure(counts, list("abc"), title="t").axes[0])
    assert found == {
        (0, 0): "6\n75.0%",
        (0, 1): "2\n25.0%",
        (2, 0): "1\n25.0%",
        (2, 2): "3\n75.0%",
    }


def test_rows_are_the_true_classes_and_the_labels_say_so() -> None:
    counts = np.array([[5, 7], [0, 9]])  # seven of "ant" were taken for "bee"
    figure = confusion_figure(counts, ["ant", "bee"], title="Confusion on 21 images")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "true class"
    assert axes.get_xlabel() == "predicted class"
    assert figure.get_suptitle() == "Confusion on 21 images"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "bee"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee"]
    assert counts_of(axes)[0, 1].startswith("7\n")
    # The first row is above the second, as in a table.
    assert axes.transData.transform((0, 0))[1] > axes.transData.transform((0, 1))[1]
    named = confusion_figure(counts, ["ant", "bee"], title="t", what="$pecies").axes[0]
    assert (named.get_ylabel(), named.get_xlabel()) == ("true $pecies", "predicted $pecies")
    assert not named.xaxis.label.get_parse_math()


def test_the_shade_is_the_share_of_the_row_and_errors_have_another_colour() -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    right, wrong = confusion_figure(counts, list("abc"), title="t").axes[0].images
    shown = [np.ma.filled(image.get_array(), -1).tolist() for image in (right, wrong)]
    assert shown == [
        [[0.75, -1, -1], [-1, -1, -1], [-1, -1, 0.75]],
        [[-1, 0.25, -1], [-1, -1, -1], [0.25, -1, -1]],
    ]
    for image in (right, wrong):
        assert image.get_clim() == (0.0, 1.0)
    blue, orange = right.to_rgba(0.5), wrong.to_rgba(0.5)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    # One error in a thousand images is still a colour.
    assert min(wrong.to_rgba(0.001)[:3]) < 0.9


@pytest.mark.parametrize(("n", "count"), [(2, 10_000), (10, 123456), (40, 12345), (101, 1000)])
def test_a_count_fits_its_cell(n: int, count: int) -> None:
    counts = np.eye(n, dtype=np.int64) * count
    figure = confusion_figure(counts, [str(number) for number in range(n)], title="t")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == n
    assert max(box.width for box in boxes) <= cell
    assert max(box.height for box in boxes) <= cell


def test_counts_that_could_not_be_read_are_left_out() -> None:
    """With 1,000 classes a cell is a pixel or two: the list says what matters."""
    figure = confusion_figure(matrix(1000), class_names(1000), title="t")
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) < 350
    assert len(listed(figure)) == 31


def test_the_most_confused_pairs_are_listed_where_classes_are_many() -> None:
    counts = np.diag([100] * 11)
    counts[3, 4], counts[4, 3], counts[0, 10], counts[1, 2] = 7, 2, 1200, 7
    counts[1, 1] = 200
    figure = confusion_figure(counts, [f"<{n}>" for n in range(11)], title="t")
    head, *lines = listed(figure)
    assert head == "confused most"
    assert lines == [
        "true <0> predicted as <10>: 1,200 (92.3%)",
        "true <3> predicted as <4>: 7 (6.5%)",
        "true <1> predicted as <2>: 7 (3.4%)",
        "true <4> predicted as <3>: 2 (2.0%)",
    ]
    assert listed(confusion_figure(counts[:10, :10], [*"0123456789"], title="t")) == []
    assert listed(confusion_figure(np.diag([9] * 20), [str(n) for n in range(20)], title="t")) == []
    assert most_confused(counts, 1) == [(0, 10)]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = confusion_figure(matrix(12), [name, *"bcdefghijkl"], title=f"{name[:20]} & more")
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        start, cut, end = labels[0].get_text().partition("…")
        assert name == start or (cut and name.startswith(start) and name.endswith(end))
        assert not labels[0].get_parse_math()
    saved(figure, tmp_path / "m.png")


def test_a_class_without_images_and_a_matrix_of_zeros_can_be_drawn(tmp_path: Path) -> None:
    for n in (3, 20):
        figure = confusion_figure(np.zeros((n, n), np.int64), class_names(n), title="t")
        assert not figure.axes[0].texts
        saved(figure, tmp_path / "m.png")
