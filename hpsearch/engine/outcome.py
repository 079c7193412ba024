"""What a trial leaves behind: its scores in the study, and the checkpoints that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna

from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.pareto import pareto_front
from hpsearch.engine.place import BATCHES, CHECKPOINT, HISTORY, VALIDATION, Place, trial_folder
from hpsearch.engine.records import best_first
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.trial_files import clear
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective

_FILES = (CHECKPOINT, VALIDATION, HISTORY, BATCHES)

_BEHIND = 64
"""So many trials behind the best may still have a checkpoint that is to go: as many workers may
have displaced them at the same moment.
"""


def record_metrics(
    trial: optuna.Trial,
    history: list[EpochResult],
    objective: Objective,
    peak_memory: float | None,
) -> None:
    """Stores what the trial gave: what is kept of it is its best epoch.

    Args:
        peak_memory: MiB, where it is known.
    """
    best = max(history, key=objective.key)
    seconds = sum(result.seconds for result in history)
    images = sum(result.images_per_second * result.seconds for result in history)
    # In this order the dashboard shows them, the first few without scrolling.
    attrs = {
        "epochs": len(history),
        "best_epoch": best.epoch,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
        **({} if peak_memory is None else {"peak_memory_mib": round(peak_memory, 1)}),
        "value": objective.value(best),
        "val_accuracy": best.val_accuracy,
        "val_balanced_accuracy": best.val_balanced_accuracy,
        "val_macro_f1": best.val_macro_f1,
        "val_loss": best.val_loss,
    }
    for key, attr in attrs.items():
        trial.set_user_attr(key, attr)


def tidy(spec: StudySpec, place: Place, studies: Mapping[str, optuna.Study]) -> None:
    """Removes what finished trials should not have, wherever it is: of workers that were killed, or
    of a start that was to keep more checkpoints.

    Args:
        studies: by family.
    """
    ArtifactFiles(place.artifacts).tidy()
    for family, study in studies.items():
        drop_checkpoints(spec, place, study, family, everywhere=True)


def drop_checkpoints(
    spec: StudySpec, place: Place, study: optuna.Study, family: str, *, everywhere: bool = False
) -> None:
    """Removes the checkpoints of all finished trials of a family but its best `keep` and, where
    there are several objectives, its Pareto front.

    Args:
        everywhere: look into all folders, for what was left when a process was killed; otherwise
            only where a trial that has just ended can have changed something.
    """
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    ranked = best_first(finished, spec.objectives)
    kept = {trial.number for trial in ranked[: spec.keep]}
    if len(spec.objectives) > 1:
        points = [trial.user_attrs.get("values", ()) for trial in ranked]
        kept |= {ranked[place].number for place in pareto_front(spec.objectives, points)}
    # Behind the last one that is kept, there is room for those that as many workers displaced.
    looked_at = (
        finished if everywhere or len(spec.objectives) > 1 else ranked[: spec.keep + _BEHIND]
    )
    folders = {
        trial.number: trial_folder(place.runs, spec.name, family, trial.number)
        for trial in looked_at
    }
    if everywhere:
        for folder in _with_leftovers(place.runs / spec.name, list(folders.values())):
            clear(folder)
    for number, folder in folders.items():
        if number not in kept:
            drop_checkpoint(folder)


def drop_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a trial, and what belongs to it."""
    for name in (CHECKPOINT, VALIDATION):
        (folder / name).unlink(missing_ok=True)


def _with_leftovers(search: Path, folders: Sequence[Path]) -> list[Path]:
    """Those of the trials' folders that have, or have beside them, more than a finished trial
    leaves.

    `clear` looks through the folder of the search each time: for all trials that would take time
    by the square of their number.
    """
    if not search.is_dir():
        return []
    beside = {path.name.rpartition(".")[0] for path in search.iterdir()}
    return [
        folder
        for folder in folders
        if folder.name in beside
        or (folder.is_dir() and any(path.name not in _FILES for path in folder.iterdir()))
    ]
