"""What the pictures of a report are made of: a family's parameters, the most important first, and
Optuna's own interactive figures.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import (
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
    plot_pareto_front,
    plot_slice,
)

from hpsearch.engine.database import open_storage
from hpsearch.engine.place import study_name
from hpsearch.engine.records import SearchRecord, TrialRecord, best_first
from hpsearch.engine.states import ASIDE
from hpsearch.figures.factors import Factor
from hpsearch.figures.trials import TrialCurve
from hpsearch.names import printable
from hpsearch.results.reports.rows import varied
from hpsearch.training.objectives import Objective

MOST_PARAMETERS = 8
"""The most important ones are shown."""

_FEW = 3
"""Of fewer complete trials no importance is shown: it would be of chance alone."""
_COLUMNS = 6
"""Whole numbers with so few different values are columns."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyStudy:
    """What pictures of a family need beside the records of its trials.

    Attributes:
        study: Optuna's.
        trials: those that were trained, as they are drawn.
        parameters: that had several values, the most important first.
        importances: of them, adding up to 1; empty where nothing can be said.
    """

    family: str
    objective: Objective
    study: optuna.Study
    records: tuple[TrialRecord, ...]
    parameters: tuple[str, ...]
    importances: Mapping[str, float]


def family_studies(record: SearchRecord) -> list[FamilyStudy]:
    """The families of a search."""
    storage = open_storage(record.place)
    found = []
    for family in record.families:
        study = optuna.load_study(study_name=study_name(record.name, family), storage=storage)
        trained = [
            trial
            for trial in record.trials
            if trial.family == family and trial.state not in (*ASIDE, "waiting")
        ]
        importances = _importances(study, record.objective)
        names = sorted(varied(trained), key=lambda name: -importances.get(name, 0.0))
        found.append(
            FamilyStudy(
                family=family,
                objective=record.objective,
                study=study,
                records=tuple(trained),
                parameters=tuple(names),
                importances=importances,
            )
        )
    return found


def curves_of(record: SearchRecord) -> dict[str, list[TrialCurve]]:
    """By family the trials that were trained."""
    return {
        family: [
            _curve(trial, record.leader(family))
            for trial in record.trials
            if trial.family == family and trial.state not in (*ASIDE, "waiting")
        ]
        for family in record.families
    }


def factors_of(family: FamilyStudy, leader: TrialRecord | None) -> list[Factor]:
    """The most important parameters with the trials that have them."""
    kinds = _distributions(family.study)
    return [
        _factor(name, kinds.get(name), family.records, leader)
        for name in family.parameters[:MOST_PARAMETERS]
    ]


def interactive(family: FamilyStudy, record: SearchRecord) -> list[Plot]:
    """Optuna's figures of a family; those that its trials do not suffice for are left out."""
    complete = _complete(family.study)
    if not complete:
        return []
    wanted: dict[str, Any] = {"target": _value, "target_name": family.objective.label}
    tried = _varied_in(complete)
    names = [name for name in family.parameters if name in tried][:MOST_PARAMETERS]
    # With a target, it would not draw the best value so far.
    of_all: dict[str, Any] = {"target_name": family.objective.label}
    of_history = wanted if len(record.objectives) > 1 else of_all
    with _quiet():
        figure = plot_optimization_history(family.study, **of_history)
        plots = [_plot("Optimisation history", figure, 380)]
        if family.importances and names:
            figure = plot_param_importances(
                family.study,
                params=names,
                target=_descending(family.objective),
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


def _importances(study: optuna.Study, objective: Objective) -> dict[str, float]:
    complete = _complete(study)
    names = sorted(_varied_in(complete))
    if len(complete) < _FEW or not names:
        return {}
    with _quiet():
        return optuna.importance.get_param_importances(
            study, params=names, target=_descending(objective)
        )


def _best_of(record: SearchRecord, family: FamilyStudy) -> optuna.Study:
    """A study of the family's best trials alone."""
    trials = best_first(family.study.get_trials(deepcopy=False), record.objectives)
    study = optuna.create_study(directions=[row.direction for row in record.objectives])
    study.add_trials(trials[:_MOST_LINES])
    return study


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if math.isfinite(_value(trial))]


def _varied_in(trials: Sequence[FrozenTrial]) -> set[str]:
    """Parameters that have several values in them."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(repr(value))
    return {name for name, distinct in values.items() if len(distinct) > 1}


def _value(trial: FrozenTrial) -> float:
    value: float = trial.values[0]
    return value


def _descending(objective: Objective) -> Any:
    """The value such that less is better: Optuna's importance is that for low values."""
    sign = -1.0 if objective.direction == "maximize" else 1.0
    return lambda trial: sign * _value(trial)


def _distributions(study: optuna.Study) -> dict[str, BaseDistribution]:
    return {
        name: kind
        for trial in study.get_trials(deepcopy=False)
        for name, kind in trial.distributions.items()
    }


def _curve(trial: TrialRecord, leader: TrialRecord | None) -> TrialCurve:
    return TrialCurve(
        state=trial.state,
        value=trial.value,
        reported=trial.reported,
        is_best=leader is not None and trial.name == leader.name,
    )


def _factor(
    name: str,
    kind: BaseDistribution | None,
    records: Sequence[TrialRecord],
    leader: TrialRecord | None,
) -> Factor:
    trials = [trial for trial in records if name in trial.params]
    values = [trial.params[name] for trial in trials]
    curves = tuple(_curve(trial, leader) for trial in trials)
    distinct = {repr(value): value for value in values}
    if isinstance(kind, FloatDistribution) or (
        isinstance(kind, IntDistribution) and len(distinct) > _COLUMNS
    ):
        return Factor(
            name=name,
            trials=curves,
            values=tuple(float(value) for value in values),
            log=kind.log and min(values) > 0,
        )
    if isinstance(kind, CategoricalDistribution):
        order = {repr(choice): place for place, choice in enumerate(kind.choices)}
        chosen = sorted(distinct, key=lambda key: order.get(key, len(order)))
    else:
        chosen = sorted(distinct, key=lambda key: (str(type(distinct[key])), distinct[key]))
    return Factor(
        name=name,
        trials=curves,
        values=tuple(_text(value) for value in values),
        choices=tuple(dict.fromkeys(_text(distinct[key]) for key in chosen)),
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of few trials in words that say nothing to whoever reads the report."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
