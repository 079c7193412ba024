"""The report of a search: one document, for people as tables and for machines as JSON."""

from __future__ import annotations

from typing import Any

from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import ASIDE, DUPLICATE, INFEASIBLE

_COUNTED = (
    "complete",
    "pruned",
    "failed",
    INFEASIBLE,
    DUPLICATE,
    "running",
    "interrupted",
    "paused",
)


def report_document(record: SearchRecord, *, best: int = 5) -> dict[str, Any]:
    """What a search has found, as plain JSON types.

    Args:
        best: how many of the best trials to list.

    Returns:
        `leaderboard` has one row a family, the best first; `best_trials` are complete ones of all
        families; `pareto` are those that no other one dominates, and empty where there is but one
        objective; `test_openings` counts the looks at the test split so far.
    """
    rows = [_family_row(record, family) for family in record.families]
    keys = {
        family: leader.key if (leader := record.leader(family)) else (float("-inf"),)
        for family in record.families
    }
    return {
        "search": record.name,
        "runs": str(record.place.runs),
        "data": {**record.data, "fingerprint": record.fingerprints["data"]},
        "split": {**record.spec["split"], "fingerprint": record.fingerprints["split"]},
        "objective": record.objective.name,
        "objectives": [
            {"name": row.name, "label": row.label, "direction": row.direction, "unit": row.unit}
            for row in record.objectives
        ],
        "epochs": record.spec["epochs"],
        "seed": record.spec["seed"],
        "trials": {"asked": record.spec["trials"], "finished": record.finished},
        "leaderboard": sorted(rows, key=lambda row: keys[row["family"]], reverse=True),
        "best_trials": [_trial_row(record, trial) for trial in record.ranked()[:best]],
        "pareto": (
            [_trial_row(record, trial) for trial in record.pareto()]
            if len(record.objectives) > 1
            else []
        ),
        "failures": [
            {"trial": trial.name, "state": trial.state, "reason": trial.failure}
            for trial in record.trials
            if trial.failure and trial.state not in ASIDE
        ],
        "notes": [
            {"trial": trial.name, "note": trial.note}
            for trial in record.trials
            if trial.note and trial.state not in ASIDE
        ],
        "infeasible": _set_aside(record, INFEASIBLE),
        "duplicates": _set_aside(record, DUPLICATE),
        **{
            state: [trial.name for trial in record.trials if trial.state == state]
            for state in ("interrupted", "paused")
        },
        "test_openings": [
            {"when": o.when, "trial": o.trial, "purpose": o.purpose} for o in record.openings
        ],
    }


def _set_aside(record: SearchRecord, state: str) -> list[dict[str, str]]:
    return [
        {"trial": trial.name, "reason": trial.failure}
        for trial in record.trials
        if trial.state == state
    ]


def _family_row(record: SearchRecord, family: str) -> dict[str, Any]:
    trials = [trial for trial in record.trials if trial.family == family]
    leader = record.leader(family)
    return {
        "family": family,
        **{state: record.count(state, family) for state in _COUNTED},
        "model_based": sum(trial.chosen_by == "model" for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
        "best": _trial_row(record, leader) if leader else None,
    }


def _trial_row(record: SearchRecord, trial: TrialRecord) -> dict[str, Any]:
    names = [row.name for row in record.objectives]
    return {
        "trial": trial.name,
        "value": trial.value,
        "values": dict(zip(names, trial.values or (trial.value,), strict=False)),
        "val_accuracy": trial.val_accuracy,
        "val_balanced_accuracy": trial.val_balanced_accuracy,
        "val_macro_f1": trial.val_macro_f1,
        "val_loss": trial.val_loss,
        "best_epoch": trial.best_epoch,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "chosen_by": trial.chosen_by,
        "params": dict(trial.params),
        "checkpoint": str(trial.checkpoint) if trial.checkpoint else None,
    }
