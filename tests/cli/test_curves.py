"""The course of trials in letters, and who is ahead."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.cli.curves import BARS, lead, lead_text, scale_of, sparkline
from hpsearch.training.objectives import Objective, objective_info

ACCURACY, LOSS = objective_info("val_accuracy"), objective_info("val_loss")
FINITE = st.floats(-1e6, 1e6)


@given(st.lists(st.floats(), max_size=40), st.integers(0, 60), st.integers(1, 20))
def test_sparklines_are_as_long_as_the_part_that_is_done(
    values: list[float], epochs: int, width: int
) -> None:
    epochs = max(epochs, len(values))
    text = sparkline(values, epochs=epochs, scale=(0.0, 1.0), width=width)
    columns = min(epochs, width)
    begun = [column for column in range(columns) if column * epochs // columns < len(values)]
    assert len(text) == len(begun)
    assert set(text) <= {*BARS, " "}
    if values:
        assert (text[-1] == " ") == (not math.isfinite(values[-1]))


@given(st.lists(FINITE, min_size=1, max_size=30), st.integers(0, 60))
def test_a_column_of_its_own_for_each_epoch_where_there_is_room(
    values: list[float], more: int
) -> None:
    epochs = len(values) + more
    scale = min(values), max(values)
    text = sparkline(values, epochs=epochs, scale=scale, width=epochs)
    assert len(text) == len(values)
    if scale[0] < scale[1]:
        assert text[values.index(scale[0])] == BARS[0]
        assert text[values.index(scale[1])] == BARS[-1]
        pairs = sorted(zip(values, text, strict=True))
        assert "".join(bar for _, bar in pairs) == "".join(sorted(text, key=BARS.index))


def test_two_courses_of_one_length_can_be_read_one_below_the_other() -> None:
    long = [0.01 * epoch for epoch in range(60)]
    scale = scale_of([], long, ACCURACY)
    whole = sparkline(long, epochs=60, scale=scale)
    assert len(whole) == 12
    for done in (5, 10, 30, 59):
        part = sparkline(long[:done], epochs=60, scale=scale)
        assert whole.startswith(part[:-1])
        assert len(part) == math.ceil(done / 5)


def test_one_that_is_far_below_the_best_lies_on_the_ground() -> None:
    best = [0.1, *(0.9 + 0.01 * epoch for epoch in range(10))]
    scale = scale_of([[0.05, 0.1]], best, ACCURACY)
    assert scale == (0.9, 0.99)
    assert sparkline([0.05, 0.1], epochs=11, scale=scale) == "▁▁"
    assert scale_of([[9.0, 8.0]], [5.0, *(1.0 - 0.1 * n for n in range(10))], LOSS)[1] == 1.0
    assert scale_of([[0.5, math.nan]], [], ACCURACY) == (0.5, 0.5)
    assert scale_of([[math.inf]], [math.nan], ACCURACY) == (0.0, 0.0)


@given(st.lists(st.floats()), st.lists(st.floats()), st.sampled_from([ACCURACY, LOSS]))
def test_who_is_ahead_is_behind_the_other_way_round(
    one: list[float], other: list[float], row: Objective
) -> None:
    length = min(len(one), len(other))
    there, back = lead(one[:length], other[:length], row), lead(other[:length], one[:length], row)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there == -back
    assert lead(one, [], row) is None


def test_only_as_many_epochs_of_the_best_are_looked_at() -> None:
    best = [0.5, 0.6, 0.9]
    assert lead([0.55], best, ACCURACY) == pytest.approx(0.05)
    assert lead([0.55, 0.1], best, ACCURACY) == pytest.approx(-0.05)
    # The best one was stopped early: it is what it reached that counts.
    assert lead([0.2] * 5, best, ACCURACY) == pytest.approx(-0.7)
    assert lead([0.4], [0.5], LOSS) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ahead", "short", "long"),
    [
        (0.034, "3.40 ahead", "3.40 points ahead of the best"),
        (-0.034, "3.40 behind", "3.40 points behind the best"),
        (0.00001, "level", "level with the best"),
        (None, "", ""),
    ],
)
def test_a_lead_in_words(ahead: float | None, short: str, long: str) -> None:
    assert lead_text(ahead, ACCURACY, long=False) == short
    assert lead_text(ahead, ACCURACY, long=True) == long
