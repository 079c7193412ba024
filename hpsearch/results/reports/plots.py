"""What the pictures of a report are made of: a family's parameters, the most important first."""

from __future__ import annotations

import dataclasses
import math
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

from hpsearch.engine.database import open_storage
from hpsearch.engine.place import study_name
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import ASIDE
from hpsearch.figures.factors import Factor
from hpsearch.figures.trials import TrialCurve
from hpsearch.results.reports.rows import varied
from hpsearch.training.objectives import Objective

MOST_PARAMETERS = 8
"""The most important ones are shown."""

LEAST_TRIALS = 3
"""Of fewer complete trials no importance is shown: it would be of chance alone."""

_COLUMNS = 6
"""Whole numbers with so few different values are columns."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyStudy:
    """What pictures of a family need beside the records of its trials.

    Attributes:
        study: Optuna's.
        records: the trials that were trained.
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
    leaders = {family: record.leader(family) for family in record.families}
    return {
        family: [
            _curve(trial, leader)
            for trial in record.trials
            if trial.family == family and trial.state not in (*ASIDE, "waiting")
        ]
        for family, leader in leaders.items()
    }


def factors_of(family: FamilyStudy, leader: TrialRecord | None) -> list[Factor]:
    """The most important parameters with the trials that have them."""
    kinds = _distributions(family.study)
    return [
        _factor(name, kinds.get(name), family.records, leader)
        for name in family.parameters[:MOST_PARAMETERS]
    ]


def _importances(study: optuna.Study, objective: Objective) -> dict[str, float]:
    complete = complete_trials(study)
    names = sorted(varied_in(complete))
    if len(complete) < LEAST_TRIALS or not names:
        return {}
    with without_warnings():
        return optuna.importance.get_param_importances(
            study, params=names, target=lower_is_better(objective)
        )


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Those whose value is a number."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if math.isfinite(objective_of(trial))]


def varied_in(trials: Sequence[FrozenTrial]) -> set[str]:
    """Parameters that have several values in them."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(repr(value))
    return {name for name, distinct in values.items() if len(distinct) > 1}


def objective_of(trial: FrozenTrial) -> float:
    """The value of the objective that trials are ranked by."""
    value: float = trial.values[0]
    return value


def lower_is_better(objective: Objective) -> Any:
    """The value such that less is better: Optuna's importance is that for low values."""
    sign = -1.0 if objective.direction == "maximize" else 1.0
    return lambda trial: sign * objective_of(trial)


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


@contextmanager
def without_warnings() -> Iterator[None]:
    """Optuna warns of few trials in words that say nothing to whoever reads the report."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
