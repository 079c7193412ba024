"""The Pareto front."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.engine.pareto import pareto_front
from hpsearch.training.costs import Cost
from hpsearch.training.goals import Objectives, objective_rows
from hpsearch.training.objectives import Objective

# Few different values, so that many are level.
VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, math.inf, -math.inf, math.nan, None])
ROWS = st.sampled_from(
    [
        objective_rows(text)
        for text in (
            "val_loss",
            "val_accuracy,params",
            "val_loss,params",
            "val_accuracy,macs,val_loss",
        )
    ]
)


@st.composite
def fronts(draw: st.DrawFn) -> tuple[Objectives, list[list[float | None]]]:
    rows = draw(ROWS)
    point = st.lists(VALUES, min_size=len(rows), max_size=len(rows))
    return rows, draw(st.lists(point, max_size=12))


def by_definition(rows: Objectives, points: list[list[float | None]]) -> list[int]:
    """Written out once more, each with each."""

    def better(row: Objective | Cost, one: float, other: float) -> bool:
        return one > other if row.direction == "maximize" else one < other

    numbers = {
        place: point
        for place, point in enumerate(points)
        if all(value is not None and not math.isnan(value) for value in point)
    }

    def dominates(one: list[float], other: list[float]) -> bool:
        pairs = list(zip(rows, one, other, strict=True))
        return not any(better(row, b, a) for row, a, b in pairs) and any(
            better(row, a, b) for row, a, b in pairs
        )

    return [
        place
        for place, point in numbers.items()
        if not any(dominates(other, point) for other in numbers.values())  # type: ignore[arg-type]
    ]


class TestTheParetoFront:
    @given(fronts())
    def test_it_is_what_no_other_dominates(
        self, drawn: tuple[Objectives, list[list[float | None]]]
    ) -> None:
        rows, points = drawn
        assert pareto_front(rows, points) == by_definition(rows, points)

    @given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**9)), max_size=40))
    def test_with_values_as_searches_have_them(self, points: list[tuple[float, int]]) -> None:
        rows = objective_rows("val_accuracy,params")
        assert pareto_front(rows, points) == by_definition(rows, [list(p) for p in points])

    def test_level_points_stay(self) -> None:
        rows = objective_rows("val_accuracy,params")
        points = [(0.9, 10.0), (0.8, 10.0), (0.9, 10.0), (0.9, 11.0), (0.7, 5.0)]
        assert pareto_front(rows, points) == [0, 2, 4]

    def test_what_is_incomplete_or_no_number_neither_is_in_it_nor_beats_others(self) -> None:
        rows = objective_rows("val_accuracy,params")
        points = [(1.0,), (), (1.0, math.nan), (None, 1.0), (1.0, 1.0, 1.0), (0.1, 9e9)]
        assert pareto_front(rows, points) == [5]
