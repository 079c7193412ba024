"""The figure of an ablation: what is drawn for each value, and where."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from hpsearch.figures.ablation import VariedLine, ablation_figure
from hpsearch.figures.png import save_png
from hpsearch.training.objectives import Objective, objective_info

ACCURACY = objective_info("val_accuracy")
LOSS = objective_info("val_loss")


def line(
    value: float | str,
    outcome: float | None = 0.9,
    state: str = "complete",
    *,
    center: bool = False,
) -> VariedLine:
    curve = {} if outcome is None else {0: outcome / 2, 1: outcome}
    return VariedLine(value=value, curve=curve, outcome=outcome, state=state, is_center=center)


def panels(lines: Sequence[VariedLine], name: str = "lr") -> tuple[Axes, Axes]:
    figure = ablation_figure({name: lines}, objective=ACCURACY, title="a search")
    curves, outcomes = figure.axes
    return curves, outcomes


def points(axes: Axes) -> dict[float, float]:
    """Where the dots of outcomes are."""
    dots = [row for row in axes.get_lines() if row.get_marker() == "o"]
    return {float(row.get_xdata()[0]): float(row.get_ydata()[0]) for row in dots}


def test_each_value_has_its_curve_and_its_outcome() -> None:
    curves, outcomes = panels([line(1, 0.5), line(2, 0.75, center=True), line(3, 0.8)])
    drawn = curves.get_lines()
    assert [list(row.get_ydata()) for row in drawn] == [[0.25, 0.5], [0.375, 0.75], [0.4, 0.8]]
    assert len({str(row.get_color()) for row in drawn}) == 3
    widths = [row.get_linewidth() for row in drawn]
    assert widths[1] > widths[0] == widths[2]
    legend = curves.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["1", "2 (center)", "3"]
    assert points(outcomes) == {1: 0.5, 2: 0.75, 3: 0.8}
    rings = [row for row in outcomes.get_lines() if row.get_markerfacecolor() == "none"]
    assert [list(row.get_xdata()) for row in rings] == [[2]]


@pytest.mark.parametrize("state", ["failed", "infeasible", "running"])
def test_what_was_not_completed_is_shown_as_such(state: str) -> None:
    curves, outcomes = panels([line(1, center=True), line(2, None, state)])
    assert points(outcomes) == {1: 0.9}
    crosses = [row for row in outcomes.get_lines() if row.get_marker() == "x"]
    assert [list(row.get_xdata()) for row in crosses] == [[2]]
    assert [text.get_text() for text in outcomes.texts] == [state]
    legend = curves.get_legend()
    assert legend is not None
    assert legend.get_texts()[1].get_text() == f"2 ({state})"


@pytest.mark.parametrize(
    ("values", "scale", "places", "labels"),
    [
        ((1, 2, 3), "linear", (1, 2, 3), ["1", "2", "3"]),
        ((0, 0.25, 0.5), "linear", (0, 0.25, 0.5), ["0", "0.25", "0.5"]),
        ((1e-4, 1e-2, 1), "log", (1e-4, 1e-2, 1), ["0.0001", "0.01", "1"]),
        ((0, 1e-4, 1e-2), "linear", (0, 1, 2), ["0", "0.0001", "0.01"]),
        (("adamw", "sgd"), "linear", (0, 1), ["adamw", "sgd"]),
        (("", "512/256"), "linear", (0, 1), ["–", "512/256"]),
        ((5,), "linear", (5,), ["5"]),
    ],
)
def test_values_are_where_their_scale_has_them(
    values: Sequence[float | str], scale: str, places: Sequence[float], labels: list[str]
) -> None:
    _, outcomes = panels([line(value) for value in values])
    assert outcomes.get_xscale() == scale
    assert tuple(points(outcomes)) == places
    assert [tick.get_text() for tick in outcomes.get_xticklabels()] == labels


def test_labels_that_would_touch_are_left_to_the_axis() -> None:
    _, outcomes = panels([line(value) for value in (1e-4, 2.9e-3, 3e-3, 1e-1)])
    labels = {tick.get_text() for tick in outcomes.get_xticklabels()}
    assert "0.0029" not in labels


def test_of_a_loss_what_failed_is_at_the_upper_end() -> None:
    heights = {}
    for objective in (ACCURACY, LOSS):
        figure = ablation_figure(
            {"lr": [line(1), line(2, None, "failed")]}, objective=objective, title=""
        )
        (cross,) = [row for row in figure.axes[1].get_lines() if row.get_marker() == "x"]
        heights[objective.name] = float(cross.get_ydata()[0])
    assert heights["val_accuracy"] < 0.2 < 0.8 < heights["val_loss"]


@pytest.mark.parametrize("name", ["$x$", "\x1b[31mred", "two\nlines", "\u202eleft", "x" * 300])
def test_names_from_outside_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    figure = ablation_figure(
        {"weights": [line("none", center=True), line(name)]},
        objective=ACCURACY,
        title=name,
        note=name,
        band=(0.8, 0.95),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, tmp_path / "figure.png")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    shown = legend.get_texts()[1].get_text()
    assert shown.isprintable()
    assert len(shown) <= 24
    assert figure.axes[1].get_xticklabels()[1].get_text() == shown
    figure.draw_without_rendering()
    box, page = figure.texts[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert min(axes.get_window_extent().height for axes in figure.axes) > 100


@pytest.mark.parametrize("objective", [ACCURACY, LOSS], ids=lambda row: row.name)
@pytest.mark.parametrize("count", [1, 8])
def test_nothing_trained_yet_is_a_picture_too(
    tmp_path: Path, count: int, objective: Objective
) -> None:
    lines = [line(1, None, "waiting", center=True), line(10, None, "waiting")]
    figure = ablation_figure(
        {f"p{number}": lines for number in range(count)},
        objective=objective,
        title="",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, tmp_path / "figure.png")
    assert len(figure.axes) == 2 * count
