"""Figures of trainings with several seeds, and of candidates on folds."""

import dataclasses
import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpsearch.figures.candidates import CandidateValues, candidates_figure
from hpsearch.figures.curves import curves_figure
from hpsearch.figures.png import save_png
from hpsearch.figures.seeds import SeedCurve, seeds_figure
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import OBJECTIVES, Objective

ACCURACY = OBJECTIVES[0]
NASTY = "$x^{$ 汉字 \x1b[31m " + "long " * 40


def history(n: int, seed: int, *, validated: bool = True) -> tuple[EpochResult, ...]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.01, n)
    results = []
    for epoch in range(n):
        val = {
            "val_loss": 2.0 * 0.8**epoch + abs(noise[epoch]),
            "val_accuracy": min(1.0, 1 - 0.5 * 0.7**epoch + noise[epoch]),
            "val_balanced_accuracy": 1 - 0.5 * 0.7**epoch,
            "val_macro_f1": 1 - 0.6 * 0.7**epoch,
        }
        results.append(
            EpochResult(
                epoch=epoch,
                train_loss=2.3 * 0.8**epoch + abs(noise[epoch]),
                train_accuracy=1 - 0.6 * 0.7**epoch,
                train_balanced_accuracy=1 - 0.6 * 0.7**epoch,
                train_macro_f1=1 - 0.6 * 0.7**epoch,
                **(val if validated else dict.fromkeys(val, math.nan)),
                lr=0.001,
                dropout=0.2,
                seconds=1.0,
                images_per_second=100.0,
                is_best=validated or epoch == n - 1,
                batch_losses=(),
            )
        )
    return tuple(results)


def curve(seed: int, n: int = 12, *, validated: bool = True, is_kept: bool = False) -> SeedCurve:
    rows = history(n, seed, validated=validated)
    return SeedCurve(
        seed=seed,
        history=rows,
        kept=rows[-1],
        test_accuracy=0.97 + seed * 1e-3,
        test_accuracy_95=(0.9, 0.99),
        is_kept=is_kept,
    )


def saved(figure: Figure, path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, path)
    image = Image.open(path)
    image.load()
    assert float((np.asarray(image.convert("L")) < 250).mean()) > 0.01
    return image


def drawn(figure: Figure, panel: int) -> list[tuple[str, int]]:
    """Colour and length of the lines of a panel that are more than a dot."""
    lines = figure.axes[panel].get_lines()
    return [
        (str(line.get_color()), len(line.get_xdata()))  # type: ignore[arg-type]
        for line in lines
        if len(line.get_xdata()) > 1  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("count", [1, 5, 20])
def test_each_seed_has_its_curves(tmp_path: Path, count: int) -> None:
    curves = [curve(seed, is_kept=seed == count - 1) for seed in range(count)]
    figure = seeds_figure(
        curves, objective=ACCURACY, title=NASTY, interval=(0.965, 0.98) if count > 1 else None
    )
    saved(figure, tmp_path / "seeds.png")
    assert len(drawn(figure, 0)) == len(drawn(figure, 1)) == 2 * count
    dots = [line for line in figure.axes[2].get_lines() if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in dots] == [c.test_accuracy for c in curves]  # type: ignore[index]
    seeds = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert seeds == [str(c.seed) for c in curves]
    low, high = figure.axes[2].get_ylim()
    assert low < 0.9 < 0.99 < high  # differences are seen beside what chance makes


def test_seeds_of_many_digits_do_not_run_into_each_other() -> None:
    curves = [curve(2**32 - 1 - seed, 2, is_kept=seed == 0) for seed in range(60)]
    curves = [dataclasses.replace(c, test_accuracy=0.97) for c in curves]
    figure = seeds_figure(curves, objective=ACCURACY, title="t")
    figure.draw_without_rendering()
    labels = figure.axes[2].get_xticklabels()
    assert labels[1].get_text() == str(curves[3].seed)  # each third
    boxes = [label.get_window_extent() for label in labels]
    assert not any(first.overlaps(second) for first, second in itertools.pairwise(boxes))


def test_without_validation_there_is_no_curve_of_it(tmp_path: Path) -> None:
    curves = [curve(seed, validated=False, is_kept=seed == 0) for seed in range(3)]
    figure = seeds_figure(curves, objective=ACCURACY, title="digits", interval=(0.96, 0.98))
    saved(figure, tmp_path / "seeds.png")
    assert len(drawn(figure, 0)) == len(drawn(figure, 1)) == 3
    single = curves_figure(curves[0].history, objective=ACCURACY, title="digits, mlp-3 retrained")
    saved(single, tmp_path / "curves.png")
    labels = [text.get_text() for text in single.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert not any("validation" in label or "nan" in label for label in labels)
    assert any("kept: epoch 11, " in label for label in labels)


@pytest.mark.parametrize("row", OBJECTIVES, ids=lambda row: row.name)
@pytest.mark.parametrize("epochs", [1, 2])
def test_every_objective_and_short_trainings(tmp_path: Path, row: Objective, epochs: int) -> None:
    curves = [curve(seed, epochs, is_kept=seed == 1) for seed in range(2)]
    figure = seeds_figure(curves, title="t", objective=row, interval=(0.0, 1.0))
    saved(figure, tmp_path / "seeds.png")
    values = [0.95 + 0.01 * number for number in range(3)]
    candidates = [
        CandidateValues(name=f"cnn-{number}", searched=0.99 - number / 200, values=tuple(values))
        for number in range(2)
    ]
    image = saved(
        candidates_figure(candidates, title="t", objective=row), tmp_path / "candidates.png"
    )
    assert min(image.size) > 300


@pytest.mark.parametrize("count", [1, 5, 25])
def test_each_candidate_has_a_line(tmp_path: Path, count: int) -> None:
    candidates = [
        CandidateValues(
            name=f"{NASTY[:30]}-{number}",
            searched=0.99 - number / 500,
            values=() if number == 1 else (0.96, 0.97 - number / 300, 0.975),
        )
        for number in range(count)
    ]
    figure = candidates_figure(candidates, objective=ACCURACY, title=NASTY)
    saved(figure, tmp_path / "candidates.png")
    (axes,) = figure.axes
    diamonds = [line for line in axes.get_lines() if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in diamonds] == [c.searched for c in candidates]  # type: ignore[index]
    folds = [line for line in axes.get_lines() if line.get_marker() == "|" and line.get_alpha()]
    assert len(folds) == count - (count > 1)
    # The search's best is at the top.
    top, bottom = axes.get_ylim()[1], axes.get_ylim()[0]
    assert top < 0 < bottom


def test_a_failed_best_leaves_the_legend_whole(tmp_path: Path) -> None:
    candidates = [
        CandidateValues(name="a-1", searched=0.9, values=()),
        CandidateValues(name="b-2", searched=0.8, values=(0.7, 0.8)),
    ]
    figure = candidates_figure(candidates, objective=ACCURACY, title="t")
    saved(figure, tmp_path / "c.png")
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["in the search", "each fold", "mean of the folds, standard error"]
