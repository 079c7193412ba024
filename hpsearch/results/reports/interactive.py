"""Optuna's own interactive figures of a family, as Plotly draws them in a page."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import optuna
from optuna.visualization import (
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
    plot_pareto_front,
    plot_slice,
)

from hpsearch.engine.records import SearchRecord, best_first
from hpsearch.names import printable
from hpsearch.results.reports.plots import (
    MOST_PARAMETERS,
    FamilyStudy,
    complete_trials,
    lower_is_better,
    objective_of,
    varied_in,
    without_warnings,
)

_SLICES = 4
"""In a row."""

_MOST_LINES = 200
"""In a figure of parallel coordinates, where each trial is a line of its own."""

# What Plotly takes for markup in a text, but for what Optuna writes itself.
_MARKUP = re.compile(r"<(?!br>|/?extra>)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """An interactive figure.

    Attributes:
        title: what it shows.
        figure: as Plotly's JSON, which can stand in a script of a page.
        height, width: in pixels; a width of None is that of the page.
    """

    title: str
    figure: str
    height: int
    width: int | None = None


def interactive(family: FamilyStudy, record: SearchRecord) -> list[Plot]:
    """Optuna's figures of a family; those that its trials do not suffice for are left out."""
    complete = complete_trials(family.study)
    if not complete:
        return []
    wanted: dict[str, Any] = {"target": objective_of, "target_name": family.objective.label}
    tried = varied_in(complete)
    names = [name for name in family.parameters if name in tried][:MOST_PARAMETERS]
    # With a target, it would not draw the best value so far.
    of_all: dict[str, Any] = {"target_name": family.objective.label}
    of_history = wanted if len(record.objectives) > 1 else of_all
    with without_warnings():
        figure = plot_optimization_history(family.study, **of_history)
        plots = [_plot("Optimisation history", figure, 380)]
        if family.importances and names:
            figure = plot_param_importances(
                family.study,
                params=names,
                target=lower_is_better(family.objective),
                target_name=family.objective.label,
            )
            plots.append(_plot("Parameter importance", figure, 140 + 32 * len(names)))
        if names and len(complete) > 1:
            for start in range(0, len(names), _SLICES):
                part = names[start : start + _SLICES]
                figure = plot_slice(family.study, params=part, **wanted)
                title = "Slices" if start == 0 else ""
                plots.append(_plot(title, figure, 360, width=160 + 240 * len(part)))
            best = family.study if len(complete) <= _MOST_LINES else _best_of(record, family)
            # With a target, it would take low values for the better ones.
            figure = plot_parallel_coordinate(best, params=names, **of_all)
            title = "Parallel coordinates"
            if best is not family.study:
                title = f"{title} of the best {_MOST_LINES} trials"
            plots.append(_plot(title, figure, 440))
        if len(record.objectives) in (2, 3):
            labels = [row.label for row in record.objectives]
            figure = plot_pareto_front(family.study, target_names=labels)
            plots.append(_plot("Pareto front", figure, 480))
    return plots


def _best_of(record: SearchRecord, family: FamilyStudy) -> optuna.Study:
    """A study of the family's best trials alone."""
    trials = best_first(family.study.get_trials(deepcopy=False), record.objectives)
    study = optuna.create_study(directions=[row.direction for row in record.objectives])
    study.add_trials(trials[:_MOST_LINES])
    return study


def _plot(title: str, figure: Any, height: int, *, width: int | None = None) -> Plot:
    figure.update_layout(
        template="plotly_white",
        title=None,
        height=height,
        width=width,
        autosize=width is None,
        margin={"t": 30, "b": 60},
    )
    document = _plain(json.loads(figure.to_json()))
    # In a script of a page nothing may look like the script's end.
    text = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    return Plot(title=title, figure=text, height=height, width=width)


def _plain(part: Any) -> Any:
    """`part` of a figure's JSON with names in it as text, which Plotly would take for markup."""
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_plain(value) for value in part]
    return _MARKUP.sub("&lt;", printable(part)) if isinstance(part, str) else part
