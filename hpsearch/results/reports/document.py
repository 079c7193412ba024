"""The report of searches: one document, for people as tables and for machines as JSON; and all
their trials as one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpsearch.data.checks.run import stored_report
from hpsearch.data.store import cache_folder
from hpsearch.engine.ablation import ablation_of
from hpsearch.engine.ledger import TestResult
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import ASIDE, DUPLICATE, INFEASIBLE
from hpsearch.families import own_overrides
from hpsearch.results.reports.rows import leaderboard, newest_test, varied_rows, why_not_ranked
from hpsearch.results.tables import Cell, table_text

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

BEST = 5
"""So many of the best trials of a search are listed."""

_SCORES = ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss")

_FIELDS = (
    "search",
    "trial",
    "family",
    "state",
    "chosen_by",
    "objective",
    "value",
    *_SCORES,
    "best_epoch",
    "epochs",
    "seconds",
    "parameters",
    "images_per_second",
    "failure",
    "note",
)
"""Columns of the table of all trials: names of a trial's fields, but of the first two."""


def report_document(
    records: SearchRecord | Sequence[SearchRecord], *, best: int = BEST
) -> dict[str, Any]:
    """What one or several searches have found, as plain JSON types.

    Args:
        best: how many of the best trials of each search to list.

    Returns:
        `leaderboard` has one row a family and search, the best first (see
        `hpsearch.results.reports.rows`); `not_ranked` says why the searches cannot be ranked in one
        order, and is empty where they can; `varied` is the table of what was varied and what came
        of it; `searches` has one document each.
    """
    records = distinct(records)
    return {
        "leaderboard": leaderboard(records),
        "not_ranked": why_not_ranked(records),
        "varied": varied_rows(records),
        "searches": [search_document(record, best=best) for record in records],
    }


def distinct(records: SearchRecord | Sequence[SearchRecord]) -> list[SearchRecord]:
    """The searches in their order, each of them once."""
    several = [records] if isinstance(records, SearchRecord) else records
    return list({(record.place, record.name): record for record in several}.values())


def search_document(record: SearchRecord, *, best: int = BEST) -> dict[str, Any]:
    """What a search has found, as plain JSON types.

    Args:
        best: how many of the best trials to list.

    Returns:
        `leaderboard` has one row a family, the best first; `best_trials` are complete ones of all
        families; `pareto` are those that no other one dominates, and empty where there is but one
        objective; `ablation` is None where the search is none (see
        `hpsearch.results.ablation.ablation_document`); `test_openings` are the looks at the test
        split so far, and `test_results` has what they gave: `look` counts them from 1, and is None
        where it is not known. Epochs are counted from 0.
    """
    return {
        "search": record.name,
        "runs": str(record.place.runs),
        "data": {
            **record.data,
            "fingerprint": record.fingerprints["data"],
            "errors": _data_errors(record),
        },
        "split": {**record.spec["split"], "fingerprint": record.fingerprints["split"]},
        "objective": _objectives(record),
        "objectives": [
            {"name": row.name, "label": row.label, "direction": row.direction, "unit": row.unit}
            for row in record.objectives
        ],
        "epochs": record.spec["epochs"],
        "seed": record.spec["seed"],
        "trials": {"asked": record.spec["trials"], "finished": record.finished},
        "leaderboard": [_family_row(record, family) for family in record.ranked_families()],
        "best_trials": [_trial_row(record, trial) for trial in record.ranked()[:best]],
        "pareto": (
            [_trial_row(record, trial) for trial in record.pareto()]
            if len(record.objectives) > 1
            else []
        ),
        "ablation": _ablation(record),
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
            {
                "when": o.when,
                "search": o.search or record.name,
                "trial": o.trial,
                "purpose": o.purpose,
            }
            for o in record.openings
        ],
        "test_results": [
            {
                "when": result.when,
                "trial": result.trial,
                "kind": result.kind,
                "folder": result.folder,
                "look": _look(record, result),
                "accuracy": result.accuracy,
                "details": dict(result.details),
            }
            for result in record.results
        ],
    }


def trials_csv(records: SearchRecord | Sequence[SearchRecord]) -> str:
    """All trials of the searches as CSV: a row each, with a column `params_NAME` for each parameter
    that a trial has, and `values_NAME` for each objective beside the scores.
    """
    pairs = [(record, trial) for record in distinct(records) for trial in record.trials]
    params = list(dict.fromkeys(name for _, trial in pairs for name in trial.params))
    names = [row.name for record, _ in pairs for row in record.objectives]
    costs = [name for name in dict.fromkeys(names) if name not in _SCORES]
    heads = [*_FIELDS, *(f"values_{name}" for name in costs), *(f"params_{n}" for n in params)]
    rows: list[list[Cell]] = []
    for record, trial in pairs:
        values = dict(zip((row.name for row in record.objectives), trial.values, strict=False))
        rows.append(
            [
                record.name,
                trial.name,
                *(_field(record, trial, name) for name in _FIELDS[2:]),
                *(values.get(name) for name in costs),
                *(trial.params.get(name) for name in params),
            ]
        )
    return table_text(heads, rows)


def _field(record: SearchRecord, trial: TrialRecord, name: str) -> Cell:
    if name == "chosen_by":
        return chosen_by(record, trial)
    if name == "objective":
        return _objectives(record)
    value: Cell = getattr(trial, name)
    return value


def _objectives(record: SearchRecord) -> str:
    """All of them, as `--objective` takes them; trials are ranked by the first one."""
    return ",".join(row.name for row in record.objectives)


def _data_errors(record: SearchRecord) -> list[str]:
    """What the last check found to be wrong with the data."""
    fingerprints = record.fingerprints
    report = stored_report(fingerprints["data"], fingerprints["split"], cache_folder())
    findings = () if report is None else report.findings
    return [finding.message for finding in findings if finding.severity == "error"]


def chosen_by(record: SearchRecord, trial: TrialRecord) -> str:
    """What chose the trial's parameters; of what was tried first, whether the study gave them
    ("ablation" or "given") or they are the family's own ("known-good").
    """
    if trial.chosen_by != "known-good":
        return trial.chosen_by
    for configuration in record.spec.get("first") or ():
        own = own_overrides(trial.family, configuration)
        given = {key: own[key] for key in own if key in trial.params}
        if given and all(_as_parameter(given[key]) == trial.params[key] for key in given):
            return "ablation" if ablation_of(record) else "given"
    return trial.chosen_by


def _as_parameter(value: Any) -> Any:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else value


def _ablation(record: SearchRecord) -> dict[str, Any] | None:
    ablation = ablation_of(record)
    if ablation is None:
        return None
    # Its intervals take SciPy, which all other reports in a terminal can do without.
    from hpsearch.results.ablation import ablation_document

    return ablation_document(ablation)


def _look(record: SearchRecord, result: TestResult) -> int | None:
    """Which look at the test split gave the result: the trial's last one before it."""
    looks = [
        number
        for number, opening in enumerate(record.openings, start=1)
        if opening.trial == result.trial
        and opening.search in ("", record.name)
        and opening.when <= result.when
    ]
    return looks[-1] if looks else None


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
        "chosen_by": chosen_by(record, trial),
        "params": dict(trial.params),
        "checkpoint": str(trial.checkpoint) if trial.checkpoint else None,
        "test": newest_test(record, trial),
    }
