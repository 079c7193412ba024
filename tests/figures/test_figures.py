from __future__ import annotations

import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from hpsearch.figures import confusion_figure, curves_figure, save_png
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import OBJECTIVES, Objective

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


def history(n: int) -> list[EpochResult]:
    """Curves of a usual form; the best epoch is the second last."""
    best = max(0, n - 2)
    return [
        EpochResult(
            epoch=epoch,
            train_loss=2.3 * 0.9**epoch,
            train_accuracy=1 - 0.9 * 0.93**epoch,
            train_balanced_accuracy=1 - 0.91 * 0.93**epoch,
            train_macro_f1=1 - 0.92 * 0.93**epoch,
            val_loss=2.4 * 0.92**epoch + 0.05,
            val_accuracy=0.97 if epoch == best else 0.96 - 0.86 * 0.9**epoch,
            val_balanced_accuracy=0.8 if epoch == best // 2 else 0.7,
            val_macro_f1=0.9 if epoch == best // 3 else 0.6,
            lr=1e-3 * (1 - epoch / n),
            dropout=0.3 * epoch / n,
            seconds=1.0,
            images_per_second=1000.0,
            is_best=epoch == best,
            batch_losses=(2.3 * 0.9**epoch,),
        )
        for epoch in range(n)
    ]


def saved(figure: Figure, path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, path)
    image = Image.open(path)
    image.load()
    assert image.format == "PNG"
    return image


def ink(image: Image.Image) -> float:
    """The share of pixels that are not white."""
    return float((np.asarray(image.convert("L")) < 250).mean())


def text_boxes(axes: Axes) -> list[Bbox]:
    """The extents of the tick labels and axis labels, drawn, in pixels."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    return [text.get_window_extent() for text in texts if text.get_text()]


class TestConfusion:
    @pytest.mark.parametrize("n", [2, 10, 101])
    def test_it_is_a_readable_picture(self, tmp_path: Path, n: int) -> None:
        image = saved(confusion_figure(matrix(n), class_names(n), title="t"), tmp_path / "m.png")
        assert 400 < image.width <= 4000
        assert 400 < image.height <= 4000
        assert ink(image) > 0.02

    @pytest.mark.parametrize("n", [2, 10, 101])
    def test_the_counts_are_those_of_the_matrix(self, n: int) -> None:
        counts = matrix(n)
        axes = confusion_figure(counts, class_names(n), title="t").axes[0]
        shown = np.zeros_like(counts)
        for text in axes.texts:
            column, row = (round(position) for position in text.get_position())
            shown[row, column] += int(text.get_text())
        np.testing.assert_array_equal(shown, counts)

    def test_rows_are_the_true_classes_and_the_labels_say_so(self) -> None:
        counts = np.array([[5, 7], [0, 9]])  # seven of "ant" were taken for "bee"
        axes = confusion_figure(counts, ["ant", "bee"], title="Confusion on 21 images").axes[0]
        assert "true" in axes.get_ylabel()
        assert "predicted" in axes.get_xlabel()
        assert axes.get_title() == "Confusion on 21 images"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "bee"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee"]
        (seven,) = (text for text in axes.texts if text.get_text() == "7")
        assert seven.get_position() == (1, 0)
        # The first row is above the second, as in a table.
        assert axes.transData.transform((0, 0))[1] > axes.transData.transform((0, 1))[1]

    def test_the_shade_is_the_share_of_the_row(self) -> None:
        counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
        (shades,) = confusion_figure(counts, list("abc"), title="t").axes[0].images
        expected = [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0, 0.75]]
        np.testing.assert_allclose(shades.get_array(), expected)
        assert shades.get_clim() == (0.0, 1.0)

    def test_each_error_is_framed_and_nothing_else(self) -> None:
        counts = np.array([[6, 2, 0], [0, 4, 0], [1, 0, 3]])
        axes = confusion_figure(counts, list("abc"), title="t").axes[0]
        framed = {(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in axes.patches}
        assert framed == {(0, 1), (2, 0)}

    @pytest.mark.parametrize("n", [2, 9, 101])
    def test_names_do_not_run_into_each_other_or_off_the_picture(self, n: int) -> None:
        figure = confusion_figure(matrix(n), class_names(n), title="t")
        axes = figure.axes[0]
        boxes = text_boxes(axes)
        page = figure.bbox
        for box in boxes:
            assert page.x0 <= box.x0 < box.x1 <= page.x1
            assert page.y0 <= box.y0 < box.y1 <= page.y1
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            extents = [label.get_window_extent() for label in labels]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))

    @pytest.mark.parametrize("count", [9, 12345, 123456])
    def test_a_count_fits_its_cell(self, count: int) -> None:
        counts = np.full((10, 10), count)
        figure = confusion_figure(counts, list("0123456789"), title="t")
        figure.draw_without_rendering()
        axes = figure.axes[0]
        cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
        assert max(text.get_window_extent().width for text in axes.texts) <= cell

    @pytest.mark.parametrize("n", [2, 5, 10, 101])
    @pytest.mark.parametrize("search", ["digits", "s" * 100], ids=["short", "longest"])
    def test_the_title_of_an_export_is_on_the_page(self, n: int, search: str) -> None:
        title = f"{search}, cnn-12: 98.33% of 360 test images (errors: 6)"
        figure = confusion_figure(matrix(n), class_names(n), title=title)
        figure.draw_without_rendering()
        box, page = figure.axes[0].title.get_window_extent(), figure.bbox
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_is_shown_as_it_is(self, tmp_path: Path, name: str) -> None:
        figure = confusion_figure(matrix(2), [name, "b"], title=f"{name[:30]} & more")
        axes = figure.axes[0]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = labels[0].get_text()
            assert shown == name or (shown.endswith("…") and name.startswith(shown[:-1]))
            assert not labels[0].get_parse_math()
        saved(figure, tmp_path / "m.png")

    def test_a_class_without_images_and_a_matrix_of_zeros_can_be_drawn(
        self, tmp_path: Path
    ) -> None:
        figure = confusion_figure(np.zeros((3, 3), np.int64), list("abc"), title="t")
        assert not figure.axes[0].texts
        saved(figure, tmp_path / "m.png")


class TestCurves:
    @pytest.mark.parametrize("n", [1, 2, 60])
    @pytest.mark.parametrize("title", ["digits-3", "$x_1$ <script>", "x" * 300])
    def test_it_is_a_readable_picture(self, tmp_path: Path, n: int, title: str) -> None:
        image = saved(curves_figure(history(n), title=title), tmp_path / "c.png")
        assert image.size == (1800, 570)
        assert 0.01 < ink(image) < 0.5

    @pytest.mark.parametrize("n", [1, 60])
    def test_the_curves_are_the_history(self, n: int) -> None:
        results = history(n)
        figure = curves_figure(results, title="t")
        drawn = {
            (axes.get_ylabel(), str(line.get_label()).split(" ")[0]): line
            for axes in figure.axes
            for line in axes.get_lines()
        }
        fields = {
            ("loss", "training"): "train_loss",
            ("loss", "validation"): "val_loss",
            ("accuracy", "training"): "train_accuracy",
            ("accuracy", "validation"): "val_accuracy",
            ("learning rate", "learning"): "lr",
            ("dropout rate", "dropout"): "dropout",
        }
        for key, field in fields.items():
            line = drawn[key]
            assert list(line.get_xdata()) == list(range(n))
            assert list(line.get_ydata()) == [getattr(result, field) for result in results]
            # One epoch is a point: a line through it would not be seen.
            assert n > 1 or line.get_marker() not in ("None", "", None)
        assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["epoch"] * 3

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 60, 1000])
    def test_epochs_are_whole_numbers_that_do_not_run_into_each_other(self, n: int) -> None:
        figure = curves_figure(history(n), title="t")
        figure.draw_without_rendering()
        for axes in figure.axes[:3]:
            left, right = axes.get_xlim()
            labels = [
                label
                for label in axes.get_xticklabels()
                if left <= label.get_position()[0] <= right
            ]
            texts = [label.get_text() for label in labels]
            assert all(text.isdecimal() for text in texts), texts
            extents = [label.get_window_extent() for label in labels]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))

    def test_the_epoch_that_is_kept_is_marked(self) -> None:
        loss, accuracy, *_ = curves_figure(history(60), title="t").axes
        for axes, value, text in (
            (loss, history(60)[58].val_loss, f"{history(60)[58].val_loss:.4f}"),
            (accuracy, 0.97, "97.00%"),
        ):
            (mark,) = (x for x in axes.get_lines() if str(x.get_label()).startswith("kept"))
            assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([58], [value])
            assert "58" in str(mark.get_label())
            assert text in str(mark.get_label())

    @pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda row: row.name)
    def test_each_objective_marks_its_own_epoch(self, objective: Objective) -> None:
        results = history(60)
        epoch, shown, label = {
            "val_accuracy": (58, "accuracy", "97.00%"),
            "val_balanced_accuracy": (29, "balanced_accuracy", "80.00%"),
            "val_macro_f1": (19, "macro_f1", "90.00%"),
            "val_loss": (59, "accuracy", "95.83%"),
        }[objective.name]
        loss, share, *_ = curves_figure(results, title="t", objective=objective.name).axes
        assert share.get_ylabel() == shown.replace("_", " ").replace("f1", "F1")
        training, validation, mark = share.get_lines()
        assert list(training.get_ydata()) == [getattr(r, f"train_{shown}") for r in results]
        assert list(validation.get_ydata()) == [getattr(r, f"val_{shown}") for r in results]
        assert str(mark.get_label()) == f"kept: epoch {epoch}, {label}"
        assert list(loss.get_lines()[-1].get_xdata()) == [epoch]

    def test_scores_that_are_unknown_are_left_out(self, tmp_path: Path) -> None:
        nan = float("nan")
        first = [dataclasses.replace(row, val_macro_f1=nan) for row in history(3)]
        figure = curves_figure(first, title="t", objective="val_macro_f1")
        saved(figure, tmp_path / "c.png")

    def test_a_loss_of_0_can_be_drawn(self, tmp_path: Path) -> None:
        perfect = [
            dataclasses.replace(row, train_loss=0.0, val_loss=0.0) if row.epoch else row
            for row in history(3)
        ]
        saved(curves_figure(perfect, title="t"), tmp_path / "c.png")

    def test_the_title_is_shown_as_it_is(self) -> None:
        figure = curves_figure(history(3), title="$x_1$ <b>")
        figure.draw_without_rendering()
        (title,) = figure.texts
        assert title.get_text() == "$x_1$ <b>"
        assert not title.get_parse_math()


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    save_png(confusion_figure(matrix(2), list("ab"), title="t"), path)
    before = path.read_bytes()
    broken = confusion_figure(matrix(2), list("ab"), title="t")
    broken.axes[0].set_xlabel("$\\frac{$")  # no formula: drawing raises
    with pytest.raises(ValueError, match="frac"):
        save_png(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.png"]
