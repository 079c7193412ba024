"""Rows over several searches: who is the best, what was varied, and what the test split said."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.engine.place import HISTORY
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import ASIDE
from hpsearch.errors import CheckpointError
from hpsearch.families import build_model
from hpsearch.results.reports.cells import scores_of
from hpsearch.training.costs import count_macs
from hpsearch.training.history import read_history
from hpsearch.training.model import parameter_counts
from hpsearch.training.objectives import objective_info

_FEW = 6
"""So many different numbers are listed; of more, the least and the greatest one."""


def leaderboard(records: Sequence[SearchRecord]) -> list[dict[str, Any]]:
    """A row for each family of each search, the best first, as plain JSON types.

    Where the searches cannot be ranked in one order (see `why_not_ranked`), the rows are in that
    of the validation accuracy. Families without a complete trial come last.

    Returns:
        `test` is None unless the row's trial was exported or retrained: nothing else has a test
        score. `test_openings` counts the looks at the test split by that search.
    """
    ranked = not why_not_ranked(records)
    pairs = [
        (_row(record, family, leader), _key(leader, by_objective=ranked))
        for record in records
        for family in record.families
        for leader in (record.leader(family),)
    ]
    return [row for row, _ in sorted(pairs, key=lambda pair: pair[1], reverse=True)]


def why_not_ranked(records: Sequence[SearchRecord]) -> str:
    """Why values of these searches cannot be compared, in a sentence; empty where they can."""
    differences = []
    for what, values in (
        ("objectives", [record.objective.name for record in records]),
        ("data", [record.fingerprints["data"] for record in records]),
        ("splits", [record.fingerprints["split"] for record in records]),
    ):
        if len(set(values)) > 1:
            differences.append(what)
    if not differences:
        return ""
    return (
        f"These searches have different {' and '.join(differences)}, so their values cannot be "
        "ranked in one order; the rows are in that of the validation accuracy."
    )


def varied_rows(records: Sequence[SearchRecord]) -> list[dict[str, Any]]:
    """For each family of each search what was varied, and what the best trial reached, as plain
    JSON types.

    Returns:
        `varied` has, by the name of a parameter that had several values, either all of them
        ("values") or the least and the greatest one ("low", "high"). Losses and accuracies are
        those of the best trial's best epoch; those of the training are None where its history is
        gone.
    """
    return [
        _varied_row(record, family, record.leader(family))
        for record in records
        for family in record.families
    ]


def varied(trials: Sequence[TrialRecord]) -> dict[str, dict[str, Any]]:
    """What the trials that were trained differ in; see `varied_rows`."""
    found: dict[str, list[Any]] = {}
    for trial in trials:
        if trial.state not in (*ASIDE, "waiting"):
            for name, value in trial.params.items():
                found.setdefault(name, []).append(value)
    return {
        name: _range(values)
        for name, values in found.items()
        if len({repr(value) for value in values}) > 1
    }


def newest_test(record: SearchRecord, trial: TrialRecord | None) -> dict[str, Any] | None:
    """What the last export or retraining of `trial` gave on the test split; None where there was
    none: nothing else has a test score.
    """
    results = [r for r in record.results if trial is not None and r.trial == trial.name]
    if not results:
        return None
    result = results[-1]
    return {
        "kind": result.kind,
        "when": result.when,
        "folder": result.folder,
        **scores_of(result.accuracy, result.details),
    }


def _range(values: Sequence[Any]) -> dict[str, Any]:
    distinct = {repr(value): value for value in values}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return {"values": [distinct[key] for key in sorted(distinct)]}
    # Values that were drawn from a range hardly ever come twice.
    is_drawn = any(isinstance(v, float) for v in values) and 2 * len(distinct) > len(values)
    if len(distinct) <= _FEW and not is_drawn:
        return {"values": sorted(distinct.values())}
    return {"low": min(values), "high": max(values)}


def _key(leader: TrialRecord | None, *, by_objective: bool) -> tuple[float, ...]:
    if leader is None:
        return (-math.inf, -math.inf)
    if by_objective:
        return leader.key
    return objective_info("val_accuracy").key_of(
        math.nan if leader.val_accuracy is None else leader.val_accuracy,
        math.nan if leader.val_loss is None else leader.val_loss,
    )


def _row(record: SearchRecord, family: str, leader: TrialRecord | None) -> dict[str, Any]:
    trials = [trial for trial in record.trials if trial.family == family]
    best: dict[str, Any] = dict.fromkeys(
        ("trial", "value", "val_accuracy", "val_loss", "parameters", "macs", "images_per_second")
    )
    if leader is not None:
        best = {
            "trial": leader.name,
            "value": leader.value,
            "val_accuracy": leader.val_accuracy,
            "val_loss": leader.val_loss,
            "parameters": leader.parameters,
            "macs": _macs(record, leader),
            "images_per_second": leader.images_per_second or None,
        }
    return {
        "search": record.name,
        "family": family,
        "objective": record.objective.name,
        **best,
        "test": newest_test(record, leader),
        "test_openings": len(record.openings),
        "trials": sum(trial.state not in (*ASIDE, "waiting") for trial in trials),
        "epochs": sum(trial.epochs for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
    }


def _varied_row(record: SearchRecord, family: str, leader: TrialRecord | None) -> dict[str, Any]:
    trials = [trial for trial in record.trials if trial.family == family]
    epoch = None
    if leader is not None:
        # A report of what was found must not fail because files of it were moved away.
        with contextlib.suppress(CheckpointError):
            history = read_history(leader.folder / HISTORY)
            epoch = next((row for row in history if row.epoch == leader.best_epoch), None)
    return {
        "search": record.name,
        "family": family,
        "varied": varied(trials),
        "trial": leader.name if leader else None,
        "train_loss": epoch.train_loss if epoch else None,
        "val_loss": leader.val_loss if leader else None,
        "train_accuracy": epoch.train_accuracy if epoch else None,
        "val_accuracy": leader.val_accuracy if leader else None,
        "test": newest_test(record, leader),
    }


def _macs(record: SearchRecord, trial: TrialRecord) -> int | None:
    """Multiplications of one image's forward pass; None where the model cannot be rebuilt."""
    shape, classes = record.data.get("shape"), record.data.get("classes")
    if trial.config is None or shape is None or classes is None:
        return None
    try:
        given = input_shape(trial.config.input, ImageShape(**shape))
        with torch.device("meta"):
            model = build_model(trial.config, given, len(classes))
        if parameter_counts(model)[0] != trial.parameters:
            return None  # a user's own family file was edited since
        return count_macs(model, given, torch.device("meta"))
    except Exception:
        # A user's own family may fail in any way by now, and it is but one number of a report.
        return None
