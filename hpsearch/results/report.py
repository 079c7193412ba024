"""The report of a search: one document, for people as tables and for machines as JSON."""

from __future__ import annotations

from typing import Any

from hpsearch.engine.records import INFEASIBLE, SearchRecord, TrialRecord


def report_document(record: SearchRecord, *, best: int = 5) -> dict[str, Any]:
    """What a search has found, as plain JSON types.

    Args:
        best: how many of the best trials to list.

    Returns:
        `leaderboard` has one row a family, the best first; `best_trials` are complete ones of all
        families; `test_openings` counts the looks at the test split so far.
    """
    rows = [_family_row(record, family) for family in record.families]
    keys = {
        family: leader.key if (leader := record.leader(family)) else (float("-inf"),)
        for family in record.families
    }
    return {
        "search": record.name,
        "runs": str(record.runs),
        "data": {**record.data, "fingerprint": record.fingerprints["data"]},
        "split": {**record.spec["split"], "fingerprint": record.fingerprints["split"]},
        "objective": record.objective.name,
        "epochs": record.spec["epochs"],
        "seed": record.spec["seed"],
        "trials": {"asked": record.spec["trials"], "finished": record.finished},
        "leaderboard": sorted(rows, key=lambda row: keys[row["family"]], reverse=True),
        "best_trials": [_trial_row(trial) for trial in record.ranked()[:best]],
        "failures": [
            {"trial": trial.name, "state": trial.state, "reason": trial.failure}
            for trial in record.trials
            if trial.failure and trial.state != INFEASIBLE
        ],
        "notes": [
            {"trial": trial.name, "note": trial.note}
            for trial in record.trials
            if trial.note and trial.state != INFEASIBLE
        ],
        "infeasible": [
            {"trial": trial.name, "reason": trial.failure}
            for trial in record.trials
            if trial.state == INFEASIBLE
        ],
        "test_openings": [
            {"when": o.when, "trial": o.trial, "purpose": o.purpose} for o in record.openings
        ],
    }


def _family_row(record: SearchRecord, family: str) -> dict[str, Any]:
    trials = [trial for trial in record.trials if trial.family == family]
    leader = record.leader(family)
    return {
        "family": family,
        "complete": record.count("complete", family),
        "pruned": record.count("pruned", family),
        "failed": record.count("failed", family),
        "infeasible": record.count(INFEASIBLE, family),
        "running": record.count("running", family),
        "model_based": sum(trial.chosen_by == "model" for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
        "best": _trial_row(leader) if leader else None,
    }


def _trial_row(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.name,
        "value": trial.value,
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
