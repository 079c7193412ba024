"""The plots of a study: what Plotly draws, small, and with names as text."""

from __future__ import annotations

import json
import math
from typing import Any

import plotly.io
import pytest
from by_hand import make_record, make_trial
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.engine.records import SearchRecord
from hpsearch.engine.study_plots import MOST_CURVES, MOST_POINTS, study_plots

BOARD, CURVES, BUDGET = (
    "leaderboard-over-families",
    "learning-curves-of-all-trials",
    "budget-by-family",
)


def drawn(record: SearchRecord, family: str = "mlp") -> dict[str, dict[str, Any]]:
    """The figures; Plotly refuses what is none of its own."""
    plots = study_plots(record, family)
    for text in plots.values():
        plotly.io.from_json(text)
    return {name: json.loads(text) for name, text in plots.items()}


def lines(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["mode"] == "lines"]


def test_before_the_first_trial_there_is_nothing_to_draw() -> None:
    record, _ = make_record([make_trial(0, "waiting", reported={}), make_trial(1, "duplicate")])
    assert study_plots(record, "mlp") == {}


def test_the_leaderboard_has_the_best_family_first_and_only_gains() -> None:
    values = [0.5, 0.4, 0.7, 0.6]
    trials = [make_trial(n, reported={0: value}) for n, value in enumerate(values)]
    trials += [make_trial(4, "pruned", reported={0: 0.99})]
    trials += [make_trial(0, family="cnn", reported={0: 0.9})]
    record, _ = make_record(trials)
    figure = drawn(record)[BOARD]
    cnn, mlp = figure["data"]
    assert (cnn["name"], mlp["name"]) == ("cnn: 90.00 % (cnn-0)", "mlp: 70.00 % (mlp-2)")
    # The last point only says how many trials there were.
    assert (mlp["x"], mlp["y"], mlp["text"][-1]) == ([1, 3, 5], [0.5, 0.7, 0.7], "mlp-2")
    low, high = figure["layout"]["yaxis"]["range"]
    assert 0.5 < low < 0.7 < 0.9 < high
    assert drawn(record, "cnn")[BOARD] == figure


def test_of_losses_the_lower_ones_are_the_better() -> None:
    trials = [
        make_trial(n, reported={0: value}, objective="val_loss", val_loss=value)
        for n, value in enumerate([0.5, 0.6, 0.2])
    ]
    record, _ = make_record(trials, objective="val_loss")
    figures = drawn(record)
    assert figures[BOARD]["data"][0]["y"] == [0.5, 0.2, 0.2]
    assert figures[BOARD]["layout"]["yaxis"]["type"] == "log"
    assert [t["name"] for t in lines(figures[CURVES]) if t["showlegend"]] == [
        "the best: mlp-2, complete, 0.2000"
    ]


def test_curves_end_with_a_mark_that_tells_what_became_of_the_trial() -> None:
    trials = [
        make_trial(0, reported={0: 0.5, 1: 0.75}),
        make_trial(1, "pruned", reported={0: 0.25}),
        make_trial(2, "failed", reported={0: 0.1, 1: math.nan, 3: 0.3}),
        make_trial(3, "running", reported={}),
        make_trial(4, "complete", family="cnn"),
    ]
    record, _ = make_record(trials)
    figure = drawn(record)[CURVES]
    assert [trace["y"] for trace in lines(figure)] == [[0.5, 0.75], [0.25], [0.1, 0.3]]
    assert [trace.get("x") for trace in lines(figure)] == [None, None, [0, 3]]
    marks = {t["name"]: (t["x"], t["y"]) for t in figure["data"] if t["mode"] == "markers"}
    assert marks == {
        "complete (1)": ([1], [0.75]),
        "pruned (1)": ([0], [0.25]),
        "failed (1)": ([3], [0.3]),
    }


def test_of_many_trials_the_best_and_the_newest_are_drawn() -> None:
    epochs, count = 300, 1000
    trials = [
        make_trial(
            n,
            "pruned" if n % 3 else "complete",
            reported={e: math.sin(n + e) / 3 + 0.5 for e in range(epochs)},
            value=1 - n / (2 * count),
        )
        for n in range(count)
    ]
    record, _ = make_record(trials)
    text = study_plots(record, "mlp")[CURVES]
    assert len(text) < 200_000
    curves = lines(json.loads(text))
    assert len(curves) == MOST_CURVES
    assert all(len(trace["y"]) == MOST_POINTS for trace in curves)
    assert all((trace["x"][0], trace["x"][-1]) == (0, epochs - 1) for trace in curves)
    names = [trace["name"].removeprefix("the best: ").partition(",")[0] for trace in curves]
    assert names[0] == "mlp-0"  # the best
    assert names[-1] == "mlp-999"  # the newest
    assert "100 of 1,000" in json.loads(text)["layout"]["title"]["text"]


def test_the_budget_is_by_family_and_state() -> None:
    trials = [
        make_trial(0, seconds=10.0),
        make_trial(1, seconds=20.0),
        make_trial(2, "pruned", seconds=1.5),
        make_trial(3, "infeasible", seconds=0.0),
        make_trial(0, "failed", family="cnn", seconds=3.0),
    ]
    record, _ = make_record(trials)
    bars = {
        (trace["name"], trace["xaxis"]): dict(zip(trace["y"], trace["x"], strict=True))
        for trace in drawn(record)[BUDGET]["data"]
    }
    assert bars == {
        ("complete", "x"): {"cnn": 0, "mlp": 2},
        ("complete", "x2"): {"cnn": 0, "mlp": 30},
        ("pruned", "x"): {"cnn": 0, "mlp": 1},
        ("pruned", "x2"): {"cnn": 0, "mlp": 1.5},
        ("failed", "x"): {"cnn": 1, "mlp": 0},
        ("failed", "x2"): {"cnn": 3, "mlp": 0},
    }


def test_the_name_of_a_family_is_text() -> None:
    family = "<b>&lt;</b>"
    record, _ = make_record([make_trial(family=family)], families=(family,))
    for figure in drawn(record, family).values():
        assert "<b>" not in json.dumps(figure)
        assert "&lt;b>&amp;lt;&lt;/b>" in json.dumps(figure)


STATES = ("complete", "pruned", "failed", "infeasible", "duplicate", "running", "waiting")
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
@given(data=st.data())
def test_whatever_was_measured_can_be_drawn(objective: str, data: st.DataObject) -> None:
    def trial(number: int) -> Any:
        reported = data.draw(st.dictionaries(st.integers(0, 5), FLOATS, max_size=4))
        return make_trial(
            number,
            data.draw(st.sampled_from(STATES)),
            family=data.draw(st.sampled_from(["mlp", "cnn"])),
            reported=reported,
            value=data.draw(FLOATS | st.none()),
            val_loss=data.draw(FLOATS | st.none()),
            objective=objective,
            seconds=data.draw(st.floats(0, 1e9)),
        )

    count = data.draw(st.integers(0, 6))
    record, _ = make_record([trial(n) for n in range(count)], objective=objective)
    drawn(record)
