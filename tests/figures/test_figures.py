from __future__ import annotations

import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpsearch.figures.confusion import confusion_figure
from hpsearch.figures.curves import MOST_POINTS, curves_figure
from hpsearch.figures.png import save_png
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import OBJECTIVES, Objective, objective_info

ACCURACY = OBJECTIVES[0]


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


class TestCurves:
    @pytest.mark.parametrize("n", [1, 2, 60])
    @pytest.mark.parametrize("title", ["digits-3", "$x_1$ <script>", "x" * 300])
    def test_it_is_a_readable_picture(self, tmp_path: Path, n: int, title: str) -> None:
        image = saved(
            curves_figure(history(n), objective=ACCURACY, title=title), tmp_path / "c.png"
        )
        assert image.size == (1800, 570)
        assert 0.01 < ink(image) < 0.5

    @pytest.mark.parametrize("n", [1, 60])
    def test_the_curves_are_the_history(self, n: int) -> None:
        results = history(n)
        figure = curves_figure(results, objective=ACCURACY, title="t")
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
        figure = curves_figure(history(n), objective=ACCURACY, title="t")
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
        loss, accuracy, *_ = curves_figure(history(60), objective=ACCURACY, title="t").axes
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
        loss, share, *_ = curves_figure(results, title="t", objective=objective).axes
        assert share.get_ylabel() == shown.replace("_", " ").replace("f1", "F1")
        training, validation, mark = share.get_lines()
        assert list(training.get_ydata()) == [getattr(r, f"train_{shown}") for r in results]
        assert list(validation.get_ydata()) == [getattr(r, f"val_{shown}") for r in results]
        assert str(mark.get_label()) == f"kept: epoch {epoch}, {label}"
        assert list(loss.get_lines()[-1].get_xdata()) == [epoch]

    def test_the_batches_lie_around_the_mark_of_their_epoch(self) -> None:
        batches = [(epoch, step, 2.0 - epoch + step / 8) for epoch in range(2) for step in range(4)]
        loss = curves_figure(history(2), objective=ACCURACY, title="t", batches=batches).axes[0]
        (line,) = (x for x in loss.get_lines() if str(x.get_label()) == "mini-batches")
        places = np.asarray(line.get_xdata())
        np.testing.assert_allclose(
            places, [-0.375, -0.125, 0.125, 0.375, 0.625, 0.875, 1.125, 1.375]
        )
        assert list(line.get_ydata()) == [loss for _, _, loss in batches]
        assert line.get_zorder() < min(x.get_zorder() for x in loss.get_lines() if x is not line)
        left, right = loss.get_xlim()
        assert left < places.min() < places.max() < right

    def test_many_batches_become_means(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        batches = [
            (epoch, step, float(random.lognormal())) for epoch in range(100) for step in range(1003)
        ]
        figure = curves_figure(history(100), objective=ACCURACY, title="t", batches=batches)
        (line,) = (x for x in figure.axes[0].get_lines() if "mini-b" in str(x.get_label()))
        assert len(line.get_xdata()) <= MOST_POINTS  # type: ignore[arg-type]
        together = int(str(line.get_label()).split("means of ")[1])
        losses = np.array([loss for _, _, loss in batches])
        drawn = np.asarray(line.get_ydata())
        assert drawn[3] == pytest.approx(losses[3 * together : 4 * together].mean())
        rest = len(losses) % together
        assert drawn[-1] == pytest.approx(losses[-rest:].mean())
        assert saved(figure, tmp_path / "c.png").size == (1800, 570)

    def test_scores_that_are_unknown_are_left_out(self, tmp_path: Path) -> None:
        nan = float("nan")
        first = [dataclasses.replace(row, val_macro_f1=nan) for row in history(3)]
        figure = curves_figure(first, title="t", objective=objective_info("val_macro_f1"))
        saved(figure, tmp_path / "c.png")

    def test_a_loss_of_0_can_be_drawn(self, tmp_path: Path) -> None:
        perfect = [
            dataclasses.replace(row, train_loss=0.0, val_loss=0.0) if row.epoch else row
            for row in history(3)
        ]
        saved(curves_figure(perfect, objective=ACCURACY, title="t"), tmp_path / "c.png")

    def test_the_title_is_shown_as_it_is(self) -> None:
        figure = curves_figure(history(3), objective=ACCURACY, title="$x_1$ <b>")
        figure.draw_without_rendering()
        (title,) = figure.texts
        assert title.get_text() == "$x_1$ <b>"
        assert not title.get_parse_math()


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    counts = np.eye(2, dtype=np.int64)
    save_png(confusion_figure(counts, list("ab"), title="t"), path)
    before = path.read_bytes()
    broken = confusion_figure(counts, list("ab"), title="t")
    broken.axes[0].set_title("$\\frac{$")  # no formula: drawing raises
    with pytest.raises(ValueError, match="frac"):
        save_png(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.png"]
