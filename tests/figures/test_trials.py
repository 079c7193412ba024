"""The pictures of all trials: what is drawn for every state, and when values are odd."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection
from PIL import Image

from hpsearch.figures.factors import Factor, factors_figure
from hpsearch.figures.front import front_figure
from hpsearch.figures.png import save_png
from hpsearch.figures.trials import TrialCurve, trials_figure
from hpsearch.training.goals import objective_rows
from hpsearch.training.objectives import Objective, objective_info
from hpsearch.training.units import floor_of

ACCURACY, LOSS = objective_info("val_accuracy"), objective_info("val_loss")
NAMES = ["$x$", "<script>", "two\nlines", "日本語", "", "x" * 200]


def curve(*values: float, state: str = "complete", is_best: bool = False) -> TrialCurve:
    return TrialCurve(
        state=state,
        value=max(values, default=None),
        reported=dict(enumerate(values)),
        is_best=is_best,
    )


TRIALS = (
    curve(0.5, 0.8, 0.9, is_best=True),
    curve(0.5, 0.7, 0.85),
    curve(0.4, 0.6, state="pruned"),
    curve(0.4, state="failed"),
    curve(state="running"),
    curve(math.nan, math.inf, state="failed"),
)


def test_each_trial_has_a_curve_and_pruned_ones_an_end(tmp_path: Path) -> None:
    figure = trials_figure({"cnn": TRIALS, "$mlp$": TRIALS[:1]}, objective=ACCURACY, title="$t$")
    first, second = figure.axes
    (lines,) = (c for c in first.collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == len(TRIALS)
    assert max(lines.get_linewidths()) == lines.get_linewidths()[-1]  # the best lies on top
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == ["the best", "complete (2)", "pruned (1)", "failed (2)", "running (1)"]
    ends = [
        tuple(point)
        for drawn in first.collections
        if isinstance(drawn, PathCollection)
        for point in np.asarray(drawn.get_offsets()).tolist()
    ]
    assert sorted(ends) == [(0, 0.4), (1, 0.6), (2, 0.85), (2, 0.9)]
    assert second.get_title() == "$mlp$"
    save_png(figure, tmp_path / "curves.png")


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_every_family_has_a_panel(count: int) -> None:
    families = {f"family {number}": TRIALS for number in range(count)}
    figure = trials_figure(families, objective=ACCURACY, title="t")
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == list(families)


@pytest.mark.parametrize("objective", [ACCURACY, LOSS], ids=lambda row: row.name)
@pytest.mark.parametrize(
    "trials", [(), (curve(state="running"),), (curve(0.5),), (curve(0.0, 0.0),), TRIALS]
)
def test_few_or_odd_values_are_no_trouble(
    objective: Objective, trials: tuple[TrialCurve, ...], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(trials_figure({"a": trials}, objective=objective, title="t"), tmp_path / "a.png")
        if trials:
            factor = Factor(name="lr", values=tuple(range(len(trials))), trials=trials)
            named = dataclasses.replace(
                factor, choices=("a", "b"), values=tuple("ab"[n % 2] for n in range(len(trials)))
            )
            figure = factors_figure([factor, named], objective=objective, title="t")
            save_png(figure, tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 300


def test_bad_trials_do_not_hide_the_good_ones() -> None:
    good = [curve(0.9, 0.98 + n / 1000) for n in range(10)]
    figure = trials_figure({"a": [*good, curve(0.05, 0.06)]}, objective=ACCURACY, title="t")
    (axes,) = figure.axes
    assert 0.9 < axes.get_ylim()[0] < 0.98
    assert axes.get_legend().get_texts()[-1].get_text() == "1 lies below the picture"
    figure = trials_figure({"a": good}, objective=ACCURACY, title="t")
    assert "below" not in figure.axes[0].get_legend().get_texts()[-1].get_text()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_two_of_three_trials_are_always_in_the_picture(finals: list[float]) -> None:
    floor = floor_of(ACCURACY, finals, finals)
    assert min(finals) <= floor <= max(finals)
    assert 3 * sum(value >= floor for value in finals) >= 2 * len(finals)
    assert floor_of(LOSS, finals, finals) == min(finals)


class TestFactors:
    def test_numbers_stand_on_an_axis_and_choices_in_columns(self, tmp_path: Path) -> None:
        values = (1e-4, 1e-3, 1e-2, 0.1)
        numbers = Factor(name="lr", values=values, trials=TRIALS[:4], log=True)
        names = ("sgd", "adamw", "sgd", "sgd")
        choices = Factor(
            name="optimizer", values=names, trials=TRIALS[:4], choices=("adamw", "sgd")
        )
        figure = factors_figure([numbers, choices], objective=ACCURACY, title="t")
        by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
        axis = by_title["lr: best by value"]
        assert axis.get_xscale() == "log"
        drawn = {
            tuple(point)
            for c in axis.collections
            if isinstance(c, PathCollection)
            for point in np.asarray(c.get_offsets()).tolist()
        }
        assert drawn == {(1e-4, 0.9), (1e-3, 0.85), (1e-2, 0.6), (0.1, 0.4)}
        columns = by_title["optimizer: best by value"]
        labels = [label.get_text() for label in columns.get_xticklabels()]
        assert labels == ["adamw\n(1)", "sgd\n(3)"]
        points = [
            (round(x), y)
            for c in columns.collections
            if isinstance(c, PathCollection)
            for x, y in np.asarray(c.get_offsets()).tolist()
        ]
        assert sorted(points) == [(0, 0.85), (1, 0.4), (1, 0.6), (1, 0.9)]
        save_png(figure, tmp_path / "factors.png")

    @pytest.mark.parametrize("high", [1.5, 2.5, 6, 20, 1e6])
    @pytest.mark.parametrize("low", [2.4e-3, 0.7])
    def test_numbers_below_a_logarithmic_axis_can_be_read(self, low: float, high: float) -> None:
        values = (low, low * high**0.4, low * high**0.5, low * high)
        factor = Factor(name="lr", values=values, trials=TRIALS[:4], log=True)
        figure = factors_figure([factor], objective=ACCURACY, title="t")
        figure.canvas.draw()
        axes = next(axes for axes in figure.axes if "best by value" in axes.get_title(loc="left"))
        (left, right), labels = axes.get_xlim(), axes.get_xticklabels(which="both")
        seen = [
            label.get_window_extent()
            for label in labels
            if label.get_text() and left <= label.get_position()[0] <= right
        ]
        assert len(seen) >= 2
        seen.sort(key=lambda box: box.x0)
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(seen))

    def test_of_many_choices_the_most_frequent_are_drawn(self) -> None:
        names = tuple(f"value {number}" for number in range(30))
        values = (*names, *names[20:])
        factor = Factor(
            name="layers", values=values, trials=tuple(TRIALS[0] for _ in values), choices=names
        )
        figure = factors_figure([factor], objective=ACCURACY, title="t")
        right = next(axes for axes in figure.axes if "best by value" in axes.get_title(loc="left"))
        labels = [label.get_text().partition("\n")[0] for label in right.get_xticklabels()]
        assert labels == list(names[20:])
        assert "10 of 30 values" in right.get_title(loc="left")

    def test_names_from_outside_are_shown_as_they_are(self, tmp_path: Path) -> None:
        values = tuple(NAMES)
        factor = Factor(name="$x$", values=values, trials=TRIALS, choices=values)
        figure = factors_figure([factor], objective=ACCURACY, title="$")
        save_png(figure, tmp_path / "names.png")
        labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
        assert [label.partition("\n(")[0] for label in labels[:5]] == [
            "$x$",
            "<script>",
            "two\\nlines",
            "日本語",
            "(empty)",
        ]


def test_the_front_is_filled_and_joined(tmp_path: Path) -> None:
    points = {
        "a$": [((0.9, 100.0, 1.0), True), ((0.8, 200.0, 2.0), False)],
        "b": [((0.95, 300.0, 0.0), True)],
        "none": [],
    }
    rows = objective_rows("val_accuracy,params,latency")
    figure = front_figure(points, objectives=rows, title="t")
    by_params, by_latency = figure.axes
    (line,) = by_params.get_lines()
    assert line.get_xydata().tolist() == [[100.0, 0.9], [300.0, 0.95]]
    assert (by_params.get_xscale(), by_latency.get_xscale()) == ("log", "linear")
    save_png(figure, tmp_path / "front.png")
