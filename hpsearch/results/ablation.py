"""What an ablation shows, as tables: of each parameter a row for each value."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hpsearch.engine.ablation import Ablation, Variation
from hpsearch.engine.records import TrialRecord
from hpsearch.families import ParamValue
from hpsearch.results.intervals import accuracy_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One value of one parameter, and how it did.

    Attributes:
        is_center: it is the value of the configuration in the middle.
        trial: name of the trial; empty where there is none.
        state: of the trial; "waiting" where there is none.
        value: the objective's; None unless the trial is complete.
        difference: to the center's, above 0 where it is better; None where one is missing, and
            in the center's own row.
        best_epoch: counted from 0.
        failure: why it failed or cannot be trained, or empty.
    """

    setting: ParamValue
    is_center: bool
    trial: str
    state: str
    value: float | None
    difference: float | None
    val_accuracy: float | None
    val_loss: float | None
    best_epoch: int | None
    failure: str


def ablation_rows(ablation: Ablation) -> dict[str, list[AblationRow]]:
    """By name of a parameter its values, the center's among them."""
    return {
        name: [_row(ablation, variation) for variation in variations]
        for name, variations in ablation.parameters.items()
    }


def ablation_document(ablation: Ablation) -> dict[str, Any]:
    """What an ablation has found, as plain JSON types.

    Returns:
        `center` has the name of the trial in the middle (None where it is missing) and, of each
        parameter that is varied, its value there; `parameters` has by name the rows (see
        `AblationRow`); `note` is how far differences can be trusted, in words.
    """
    return {
        "center": {
            "trial": ablation.center.name if ablation.center else None,
            "values": {
                name: next(variation.value for variation in variations if variation.is_center)
                for name, variations in ablation.parameters.items()
            },
        },
        "parameters": {
            name: [dataclasses.asdict(row) for row in rows]
            for name, rows in ablation_rows(ablation).items()
        },
        "note": chance_note(ablation),
    }


def _row(ablation: Ablation, variation: Variation) -> AblationRow:
    trial = variation.trial
    value, base = outcome(trial), outcome(ablation.center)
    difference = None
    if value is not None and base is not None and not variation.is_center:
        rises = ablation.record.objective.direction == "maximize"
        difference = value - base if rises else base - value
    complete = trial if trial is not None and trial.state == "complete" else None
    return AblationRow(
        setting=variation.value,
        is_center=variation.is_center,
        trial=trial.name if trial else "",
        state=trial.state if trial else "waiting",
        value=value,
        difference=difference,
        val_accuracy=complete.val_accuracy if complete else None,
        val_loss=complete.val_loss if complete else None,
        best_epoch=complete.best_epoch if complete else None,
        failure=trial.failure if trial else "",
    )


def outcome(trial: TrialRecord | None) -> float | None:
    """The objective's value of a trial that is complete."""
    return trial.value if trial is not None and trial.state == "complete" else None


def chance_band(ablation: Ablation) -> tuple[float, float] | None:
    """The 95 % interval of the center's validation accuracy, as of images that have nothing to do
    with each other; None where that is not what trials are ranked by, or the center is missing.
    """
    accuracy = outcome(ablation.center)
    if accuracy is None or ablation.record.objective.name != "val_accuracy":
        return None
    images = ablation.record.data["counts"]["val"]
    right = np.arange(images) < round(accuracy * images)
    return accuracy_interval(right, None)[0]


def chance_note(ablation: Ablation, *, drawn: bool = False) -> str:
    """How far its differences can be trusted, in words.

    Args:
        drawn: below the figure, which shows the interval.
    """
    if ablation.same_seed:
        seeds = "One training each, all with the same seed: another seed can turn small differences"
    else:
        seeds = "One training each, with seeds of their own, which alone make small differences"
    band = chance_band(ablation)
    if band is None:
        return f"{seeds}."
    images = ablation.record.data["counts"]["val"]
    low, high = (f"{100 * end:.2f} %" for end in band)
    return (
        f"{seeds}. {low} to {high}{' (gray)' if drawn else ''} is the 95 % interval of the "
        f"center's accuracy, from its {images:,} validation images alone: what lies within is no "
        "sure difference."
    )
