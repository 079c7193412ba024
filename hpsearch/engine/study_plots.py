"""Interactive figures of a search for the dashboard, as Plotly's JSON.

They are written by hand: Plotly itself takes longer to load than all of them to be made, and puts
more into a figure than is needed here.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpsearch.engine.records import SearchRecord, TrialRecord, rank
from hpsearch.engine.states import ASIDE, FINISHED
from hpsearch.names import printable
from hpsearch.training.objectives import Objective
from hpsearch.training.units import duration, floor_of, objective_value

MOST_CURVES = 100
"""In one figure: the best trials and the newest ones, half of them each."""

MOST_POINTS = 120
"""Of one curve; of longer ones so many epochs are drawn, the last one among them."""

_COLORS = ("#1f5fa8", "#d9701a", "#2e7d32", "#7b3fa0", "#b3261e", "#00838f", "#8d6e63", "#6b7280")
_STATES = {"complete": "#1f5fa8", "pruned": "#d9701a", "failed": "#b3261e"}
_OTHER = "#6b7280"
_MARKS = {"complete": "circle", "pruned": "x", "failed": "triangle-down"}
_MARGIN = {"t": 50, "b": 50, "l": 70, "r": 20}
_LEGEND = {"orientation": "h", "y": -0.2, "font": {"size": 11}}


def study_plots(record: SearchRecord, family: str) -> dict[str, str]:
    """The figures of one family's study, as JSON by the name that the dashboard keeps them under;
    those that there is nothing for yet are left out.
    """
    figures = {name: draw(record, family) for name, draw in _PLOTS.items()}
    return {
        name: json.dumps(figure, separators=(",", ":"), allow_nan=False)
        for name, figure in figures.items()
        if figure is not None
    }


def _leaderboard(record: SearchRecord, _: str) -> dict[str, Any] | None:
    """The best value of each family, as its trials ended; the best family first."""
    objective = record.objective
    ranked: list[tuple[tuple[float, float], dict[str, Any]]] = []
    for number, family in enumerate(record.families):
        steps = _gains(record, family)
        if not steps:
            continue
        leader = steps[-1][1]
        # To its last trial, so that one sees for how long nothing was better.
        steps.append((sum(record.count(state, family) for state in FINISHED), leader))
        value = objective_value(objective, leader.value)
        trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{_text(family)}: {value} ({_text(leader.name)})",
            "x": [count for count, _ in steps],
            "y": [_rounded(trial.value) for _, trial in steps],
            "text": [_text(trial.name) for _, trial in steps],
            "line": {"shape": "hv", "color": _COLORS[number % len(_COLORS)]},
        }
        ranked.append((leader.key, trace))
    if not ranked:
        return None
    ranked.sort(key=lambda pair: pair[0], reverse=True)
    return {
        "data": [trace for _, trace in ranked],
        "layout": {
            **_layout(f"Leaderboard over families: best {objective.label} so far"),
            "xaxis": {"title": {"text": "trials of the family that ended"}, "rangemode": "tozero"},
            # From the worst family's best one: each is seen, and each of their gains at the end.
            "yaxis": _value_axis(objective, [trace["y"][-1] for _, trace in ranked]),
        },
    }


def _gains(record: SearchRecord, family: str) -> list[tuple[int, TrialRecord]]:
    """The trials of a family that were the best so far when they ended, and how many had ended."""
    ended = [t for t in record.trials if t.family == family and t.state in FINISHED]
    ended.sort(key=lambda trial: (trial.ended or datetime.datetime.min, trial.number))
    steps: list[tuple[int, TrialRecord]] = []
    for count, trial in enumerate(ended, start=1):
        if trial.state != "complete" or _rounded(trial.value) is None:
            continue
        if not steps or trial.key > steps[-1][1].key:
            steps.append((count, trial))
    return steps


def _curves(record: SearchRecord, family: str) -> dict[str, Any] | None:
    """The learning curves of a family's trials; where one was stopped, its curve ends with a
    mark.
    """
    own = [t for t in record.trials if t.family == family and t.state not in (*ASIDE, "waiting")]
    curves = {trial.name: _points(trial) for trial in own}
    trained = [trial for trial in own if curves[trial.name]]
    if not trained:
        return None
    objective, leader = record.objective, record.leader(family)
    shown = _chosen(trained)
    traces = [
        _curve(trial, curves[trial.name], objective, is_best=trial is leader) for trial in shown
    ]
    for state in sorted({trial.state for trial in shown}):
        ends = [(trial, curves[trial.name][-1]) for trial in shown if trial.state == state]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{state} ({sum(trial.state == state for trial in trained):,})",
                "x": [epoch for _, (epoch, _) in ends],
                "y": [value for _, (_, value) in ends],
                "text": [_text(trial.name) for trial, _ in ends],
                "marker": {
                    "color": _STATES.get(state, _OTHER),
                    "symbol": _MARKS.get(state, "circle-open"),
                    "size": 6,
                },
            }
        )
    of = f": {len(shown)} of {len(trained):,}, the best and the newest" if shown != trained else ""
    finals = [trial.value for trial in shown if trial.value is not None]
    every = [value for trial in shown for _, value in curves[trial.name]]
    return {
        "data": traces,
        "layout": {
            **_layout(f"Learning curves of all trials of {_text(family)}{of}"),
            "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
            "yaxis": _value_axis(
                objective, every, floor=floor_of(objective, finals or every, every)
            ),
            "hovermode": "closest",
        },
    }


def _chosen(trials: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """Those of many trials that are drawn, in their order."""
    if len(trials) <= MOST_CURVES:
        return trials
    chosen = {trial.name for trial in rank(trials)[: MOST_CURVES // 2]}
    others = [trial.name for trial in trials if trial.name not in chosen]
    chosen.update(others[len(chosen) - MOST_CURVES :])
    return [trial for trial in trials if trial.name in chosen]


def _points(trial: TrialRecord) -> list[tuple[int, float]]:
    """Epochs and values of a curve; what is not finite cannot be drawn."""
    reported = sorted(trial.reported.items())
    points = [(epoch, v) for epoch, value in reported if (v := _rounded(value)) is not None]
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(n * last / (MOST_POINTS - 1))] for n in range(MOST_POINTS)]


def _curve(
    trial: TrialRecord, points: Sequence[tuple[int, float]], objective: Objective, *, is_best: bool
) -> dict[str, Any]:
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    start, count = epochs[0], len(epochs)
    whole = epochs == list(range(start, start + count))
    name = f"{_text(trial.name)}, {trial.state}, {objective_value(objective, trial.value)}"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"the best: {name}" if is_best else name,
        "showlegend": is_best,
        **({"x0": start, "dx": 1} if whole else {"x": epochs}),
        "y": values,
        "opacity": 1 if is_best else 0.5,
        "line": {"color": _STATES.get(trial.state, _OTHER), "width": 3 if is_best else 1},
    }


def _budget(record: SearchRecord, _: str) -> dict[str, Any] | None:
    """Trials and training time of each family, by what became of the trials."""
    trained = [trial for trial in record.trials if trial.state in FINISHED]
    if not trained:
        return None
    families = list(reversed(record.families))  # bars go from the bottom to the top
    traces = []
    for state in FINISHED:
        own = [[t for t in trained if t.state == state and t.family == f] for f in families]
        seconds = [sum(trial.seconds for trial in trials) for trials in own]
        for axis, values, words in (
            ("", [len(trials) for trials in own], [f"{len(trials):,}" for trials in own]),
            ("2", [_rounded(value) for value in seconds], [duration(s) for s in seconds]),
        ):
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": state,
                    "legendgroup": state,
                    "showlegend": not axis,
                    "x": values,
                    "y": [_text(family) for family in families],
                    "hovertext": words,
                    "hoverinfo": "y+name+text",
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "marker": {"color": _STATES[state]},
                }
            )
    return {
        "data": traces,
        "layout": {
            **_layout("Budget by family"),
            "barmode": "stack",
            "xaxis": {"title": {"text": "trials"}, "domain": [0, 0.46]},
            "xaxis2": {"title": {"text": "training time (s)"}, "domain": [0.54, 1]},
            "yaxis": {"type": "category", "automargin": True},
            "yaxis2": {
                "type": "category",
                "anchor": "x2",
                "matches": "y",
                "showticklabels": False,
            },
        },
    }


_PLOTS: Mapping[str, Callable[[SearchRecord, str], dict[str, Any] | None]] = {
    "leaderboard-over-families": _leaderboard,
    "learning-curves-of-all-trials": _curves,
    "budget-by-family": _budget,
}


def _layout(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 15}},
        "margin": _MARGIN,
        "legend": _LEGEND,
    }


def _value_axis(
    objective: Objective, values: Sequence[float], *, floor: float | None = None
) -> dict[str, Any]:
    """An axis of the objective; of a share that of `values`, or from `floor` on."""
    axis: dict[str, Any] = {"title": {"text": objective.label}}
    if not objective.is_share:
        return {**axis, "type": "log" if min(values) > 0 else "linear"}
    low, high = min(values) if floor is None else floor, max(values)
    margin = 0.05 * (high - low) or 0.02
    return {
        **axis,
        "tickformat": ".1%",
        "range": [_rounded(low - margin), _rounded(high + margin)],
    }


def _rounded(value: float | None) -> float | None:
    """With five digits; None, a gap, where it is no number."""
    rounded = math.nan if value is None else float(f"{value:.5g}")
    return rounded if math.isfinite(rounded) else None


def _text(text: str) -> str:
    """A name from outside, which Plotly would take for markup."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")
