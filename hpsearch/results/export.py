"""Export: a trial's checkpoint, and what it does on test images that nothing before has seen."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.sealed import open_test_split
from hpsearch.data.sources import load_dataset
from hpsearch.data.splits import Split, development_data, load_split
from hpsearch.engine.records import (
    HISTORY,
    SPLIT,
    TrialRecord,
    load_search,
    record_opening,
    require_checkpoint,
)
from hpsearch.errors import CheckpointError, DataError, SearchError
from hpsearch.figures import confusion_figure, curves_figure, save_png
from hpsearch.files import whole_folder
from hpsearch.results.evaluation import Scores, restore_model, run_model, score
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint
from hpsearch.training.device import resolve_device
from hpsearch.training.history import read_history


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What `export` wrote.

    Attributes:
        test_accuracy: on the test split.
        times_opened: how often the search's test split has been opened, this time included.
        metrics: the content of `metrics.json`.
    """

    folder: Path
    checkpoint: Path
    confusion_png: Path
    confusion_csv: Path
    metrics_json: Path
    curves_png: Path
    curves_csv: Path
    test_accuracy: float
    times_opened: int
    metrics: dict[str, Any]


def export(
    trial: TrialRecord, out: str | Path, *, replace: bool = False, device: str = "auto"
) -> Export:
    """Writes a trial's checkpoint and its report on the test split to the folder `out`.

    The folder appears whole or not at all. The opening of the test split is recorded in the
    study before the test images are read.

    Args:
        replace: take the place of an export that exists.

    Raises:
        SearchError: `out` exists, or cannot be written.
        CheckpointError: the trial's checkpoint was not kept, is damaged, or does not give
            the validation accuracy that the search recorded.
        DataError: the data is not that of the search any more.
    """
    out = Path(out)
    if out.exists() and not (replace and _is_export(out)):
        hint = "replace it with --force" if _is_export(out) else "it is no export of ours"
        raise SearchError(f"{out} exists already ({hint}); name another folder with -o")
    target = resolve_device(device)
    checkpoint = load_checkpoint(require_checkpoint(trial))
    dataset, split = _same_data(trial, checkpoint)
    model = restore_model(checkpoint)
    validation = run_model(model, checkpoint, development_data(dataset, split).val, target)
    _check_validation(trial, validation.accuracy)
    try:
        with whole_folder(out, replace=replace) as folder:
            record_opening(trial, "export")
            test = open_test_split(dataset, split)
            outputs = run_model(model, checkpoint, test, target)
            scores = score(outputs.logits, test.labels, checkpoint.classes)
            opened = len(load_search(trial.runs, trial.search).openings)
            metrics = _metrics(trial, checkpoint, scores, opened)
            _write(folder, trial, checkpoint, scores, metrics)
    except OSError as error:
        raise SearchError(f"{out} cannot be written: {error.strerror or error}") from None
    return Export(
        folder=out,
        checkpoint=out / "model.pt",
        confusion_png=out / "confusion_matrix.png",
        confusion_csv=out / "confusion_matrix.csv",
        metrics_json=out / "metrics.json",
        curves_png=out / "learning_curves.png",
        curves_csv=out / "learning_curves.csv",
        test_accuracy=scores.metrics["accuracy"],
        times_opened=opened,
        metrics=metrics,
    )


def _is_export(folder: Path) -> bool:
    return (folder / "model.pt").is_file() and (folder / "metrics.json").is_file()


def _same_data(trial: TrialRecord, checkpoint: Checkpoint) -> tuple[ImageDataset, Split]:
    origin = checkpoint.origin
    dataset = load_dataset(str(origin["data"]))
    split = load_split(trial.runs / trial.search / SPLIT)
    for what, now in (("data", dataset.fingerprint), ("split", split.fingerprint)):
        then = str(origin[f"{what}_fingerprint"])
        if now != then:
            raise DataError(
                f"the {what} of search {trial.search!r} is not what it was when {trial.name} was "
                f"trained (fingerprint {then[:8]} then, {now[:8]} now): {origin['data']!r} changed"
            )
    return dataset, split


def _check_validation(trial: TrialRecord, accuracy: float) -> None:
    """The file must do what the search saw: else it is not the model that was chosen.

    Another device or library rounds differently, so a few images may change sides.
    """
    if trial.val_accuracy is None or abs(accuracy - trial.val_accuracy) > 0.02:
        raise CheckpointError(
            f"the checkpoint of {trial.name} gets a validation accuracy of {accuracy:.4f}, but the "
            f"search recorded {trial.val_accuracy}: it is not the model that the search chose"
        )


def _metrics(
    trial: TrialRecord, checkpoint: Checkpoint, scores: Scores, opened: int
) -> dict[str, Any]:
    return {
        "search": trial.search,
        "trial": trial.name,
        "epoch": trial.best_epoch,
        "validation": {"accuracy": trial.val_accuracy, "loss": trial.val_loss},
        "test": scores.metrics,
        "test_split_opened": opened,
        "parameters": trial.parameters,
        "config": checkpoint.config.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }


def _write(
    folder: Path,
    trial: TrialRecord,
    checkpoint: Checkpoint,
    scores: Scores,
    metrics: dict[str, Any],
) -> None:
    shutil.copyfile(require_checkpoint(trial), folder / "model.pt")
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_confusion_csv(folder / "confusion_matrix.csv", scores.matrix, checkpoint.classes)
    test = scores.metrics
    title = (
        f"{trial.search}, {trial.name}: {test['accuracy']:.2%} of {test['images']} test images "
        f"(errors: {test['errors']})"
    )
    save_png(
        confusion_figure(scores.matrix, checkpoint.classes, title=title),
        folder / "confusion_matrix.png",
    )
    history = read_history(trial.folder / HISTORY)
    shutil.copyfile(trial.folder / HISTORY, folder / "learning_curves.csv")
    save_png(
        curves_figure(history, title=f"{trial.search}, {trial.name}"),
        folder / "learning_curves.png",
    )


def write_confusion_csv(path: Path, matrix: np.ndarray, classes: tuple[str, ...]) -> None:
    """Writes the matrix as CSV: a row for each true class, a column for each predicted one.

    Headers say which is which, so no class name stands first in a cell, where a spreadsheet
    could take it for a formula.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(f"predicted {name}" for name in classes)])
        for name, row in zip(classes, matrix.tolist(), strict=True):
            writer.writerow([f"true {name}", *row])
