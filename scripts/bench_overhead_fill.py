"""Fills a study for `bench_overhead_growth.py` with finished trials, as the engine leaves them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from bench_common import FAMILY
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import TrialState
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from hpsearch import StudySpec
from hpsearch.config import TrainConfig
from hpsearch.engine.artifacts import artifact_id, metadata
from hpsearch.engine.hidden import CONFIG, SETTING, hidden_key
from hpsearch.engine.lease_table import LEASES
from hpsearch.engine.place import HISTORY, Place, trial_folder
from hpsearch.engine.setup import PreparedData
from hpsearch.engine.storage import SearchStorage
from hpsearch.families import suggest_config


class Drawn:
    """Stands in for a trial: draws at random, and notes what was asked for."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def _note(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.params[name], self.distributions[name] = value, distribution
        return value

    def _between(self, low: float, high: float, log: bool) -> float:
        if log:
            return float(
                np.clip(np.exp(self._random.uniform(np.log(low), np.log(high))), low, high)
            )
        return float(self._random.uniform(low, high))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number, log-uniform if `log`."""
        value = self._between(low, high, log)
        return float(self._note(name, value, FloatDistribution(low, high, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number."""
        value = round(self._between(low, high, log))
        return int(self._note(name, value, IntDistribution(low, high, log=log)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of `choices`."""
        value = choices[self._random.integers(len(choices))]
        return self._note(name, value, CategoricalDistribution(choices))


def fill(
    storage: SearchStorage,
    study: optuna.Study,
    spec: StudySpec,
    data: PreparedData,
    place: Place,
    until: int,
) -> None:
    """Adds finished trials, as the engine leaves them, until the study has `until`.

    Optuna's `add_trials` would take some fifty queries for each.
    """
    study_id, count = study._study_id, len(study.get_trials(deepcopy=False))
    random = np.random.default_rng(count)
    now = datetime.datetime.now()
    numbers = range(count, until)
    trials = [
        {
            "study_id": study_id,
            "number": number,
            "state": TrialState.COMPLETE if number % 3 else TrialState.PRUNED,
            "datetime_start": now,
            "datetime_complete": now,
        }
        for number in numbers
    ]
    if not trials:
        return
    with Session(storage.engine) as session, session.begin():
        session.execute(insert(TrialModel), trials)
        rows_of_trials = session.execute(
            select(TrialModel.number, TrialModel.trial_id)
            .where(TrialModel.study_id == study_id)
            .where(TrialModel.number >= count)
        )
        ids = {row.number: row.trial_id for row in rows_of_trials}
        rows: dict[Any, list[dict[str, Any]]] = {
            table: []
            for table in (
                TrialParamModel,
                TrialUserAttributeModel,
                TrialSystemAttributeModel,
                TrialIntermediateValueModel,
                TrialValueModel,
            )
        }
        for row in trials:
            trial_id, epochs = ids[row["number"]], spec.epochs
            if row["state"] is TrialState.PRUNED:
                epochs //= 2
            drawn = Drawn(random)
            config = suggest_config(
                FAMILY, drawn, data.shape, epochs=spec.epochs, seed=row["number"], precision="fp32"
            )
            best = float(random.uniform(0.7, 0.95))
            reports = [best * (1 - 0.5 ** (epoch + 1)) for epoch in range(epochs)]
            for name, value in drawn.params.items():
                distribution = drawn.distributions[name]
                rows[TrialParamModel].append(
                    {
                        "trial_id": trial_id,
                        "param_name": name,
                        "param_value": distribution.to_internal_repr(value),
                        "distribution_json": distribution_to_json(distribution),
                    }
                )
            for table, attrs in (
                (TrialUserAttributeModel, _attrs(reports)),
                (TrialSystemAttributeModel, _system_attrs(config, row["number"])),
            ):
                rows[table] += [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(attr)}
                    for key, attr in attrs.items()
                ]
            for step, value in enumerate(reports):
                rows[TrialIntermediateValueModel].append(
                    {
                        "trial_id": trial_id,
                        "step": step,
                        "intermediate_value": value,
                        "intermediate_value_type": "FINITE",
                    }
                )
            rows[TrialValueModel].append(
                {
                    "trial_id": trial_id,
                    "objective": 0,
                    "value": reports[-1],
                    "value_type": "FINITE",
                }
            )
        for table, values in rows.items():
            session.execute(insert(table), values)
        lease = {"owner": None, "token": 1, "beat": 0.0, "ended": 1.0, "paused": False}
        lease |= {"died": False, "deaths": 0, "reports": 0, "reason": ""}
        session.execute(insert(LEASES), [{"trial_id": i, **lease} for i in ids.values()])
    for number in numbers:
        folder = trial_folder(place.runs, spec.name, FAMILY, number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "history.csv").touch()


def _system_attrs(config: TrainConfig, number: int) -> dict[str, Any]:
    history, about = metadata(artifact_id(f"{FAMILY} {number}", HISTORY), HISTORY)
    return {
        hidden_key(CONFIG): config.to_dict(),
        hidden_key(SETTING): {"setting": "fp32 channels_last", "chosen_by": "rules", "threads": 1},
        history: about,
    }


def _attrs(reports: Sequence[float]) -> dict[str, Any]:
    best = reports[-1]
    return {
        "chosen_by": "model",
        "parameters": 50_000,
        "device": "cpu (1 thread)",
        "host": "localhost",
        "value": best,
        "val_accuracy": best,
        "val_balanced_accuracy": best,
        "val_macro_f1": best,
        "val_loss": 1 - best,
        "best_epoch": len(reports) - 1,
        "epochs": len(reports),
        "seconds": 10.0,
        "images_per_second": 1000.0,
        "peak_memory_mib": 500.0,
    }
