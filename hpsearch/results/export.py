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
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, development_data, load_split
from hpsearch.data.store import load_dataset
from hpsearch.engine.ledger import record_opening
from hpsearch.engine.records import (
    BATCHES,
    HISTORY,
    SPLIT,
    SearchRecord,
    TrialRecord,
    load_search,
    require_checkpoint,
)
from hpsearch.errors import CheckpointError, DataError, SearchError
from hpsearch.figures import confusion_figure, curves_figure, save_png
from hpsearch.files import whole_folder
from hpsearch.results.evaluation import Scores, restore_model, run_model, score
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hpsearch.training.device import resolve_device
from hpsearch.training.history import read_history, write_history

_BATCHES = "learning_curves_batches.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What `export` wrote.

    Attributes:
        test_accuracy: on the test split.
        times_opened: how often the search's test split has been opened, this time included.
        batches_csv: the loss of each mini-batch; None where the search did not record it, being of
            the first version.
        metrics: the content of `metrics.json`.
    """

    folder: Path
    checkpoint: Path
    confusion_png: Path
    confusion_csv: Path
    metrics_json: Path
    curves_png: Path
    curves_csv: Path
    batches_csv: Path | None
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
        CheckpointError: the trial's checkpoint was not kept, is damaged, is another trial's, or
            does not give the validation accuracy that the search recorded.
        DataError: the data is not that of the search any more.
    """
    out = Path(out)
    if out.is_symlink() or (out.exists() and not (replace and _is_export(out))):
        hint = (
            "replace it with --force, in Python with replace=True"
            if _is_export(out)
            else "it is no export of ours"
        )
        raise SearchError(f"{out} exists already ({hint}); name another folder with -o")
    target = resolve_device(device)
    checkpoint = load_checkpoint(require_checkpoint(trial))
    _check_trial(trial, checkpoint)
    dataset, split = _same_data(trial)
    model = restore_model(checkpoint)
    validation = run_model(model, checkpoint, development_data(dataset, split).val, target)
    _check_validation(trial, validation.accuracy, len(split.val))
    try:
        with whole_folder(out, replace=replace) as folder:
            # All that can fail comes before the look at the test images.
            save_checkpoint(folder / "model.pt", checkpoint)
            history = read_history(trial.folder / HISTORY)
            write_history(folder / "learning_curves.csv", history)
            save_png(
                curves_figure(
                    history, title=f"{trial.search}, {trial.name}", objective=trial.objective
                ),
                folder / "learning_curves.png",
            )
            has_batches = (trial.folder / BATCHES).is_file()
            if has_batches:
                shutil.copyfile(trial.folder / BATCHES, folder / _BATCHES)
            record_opening(trial, "export")
            test = open_test_split(dataset, split)
            outputs = run_model(model, checkpoint, test, target)
            scores = score(outputs.logits, test.labels, checkpoint.classes)
            opened = len(_search_of(trial).openings)
            metrics = _metrics(trial, checkpoint, scores, opened)
            _write_scores(folder, trial, scores, metrics, checkpoint.classes)
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
        batches_csv=out / _BATCHES if has_batches else None,
        test_accuracy=scores.metrics["accuracy"],
        times_opened=opened,
        metrics=metrics,
    )


def _is_export(folder: Path) -> bool:
    return (folder / "model.pt").is_file() and (folder / "metrics.json").is_file()


def _check_trial(trial: TrialRecord, checkpoint: Checkpoint) -> None:
    """The file must be the trial's own, of the epoch that the search chose."""
    origin, metrics = checkpoint.origin, checkpoint.metrics
    found = (origin["search"], origin["trial"], metrics["epoch"], metrics["val_accuracy"])
    expected = (trial.search, trial.name, trial.best_epoch, trial.val_accuracy)
    if found != expected or checkpoint.config != trial.config:
        raise CheckpointError(
            f"{trial.checkpoint} is not the model that the search chose: it is of trial {found[1]} "
            f"of search {found[0]!r}, epoch {found[2]}, validation accuracy {found[3]}; expected "
            f"{trial.name} of {trial.search!r}, epoch {trial.best_epoch}, {trial.val_accuracy}"
        )


def _same_data(trial: TrialRecord) -> tuple[ImageDataset, Split]:
    record = load_search(trial.runs, trial.search, storage=trial.place.address)
    source = record.data["source"]
    source = DataSpec.of(source) if isinstance(source, str) else DataSpec.from_dict(source)
    dataset = load_dataset(source)
    then, now = record.fingerprints["data"], dataset.fingerprint
    if now != then:
        raise DataError(
            f"the data of search {trial.search!r} changed since: {source.source} (fingerprint "
            f"{then[:8]} then, {now[:8]} now)"
        )
    path = record.folder / SPLIT
    split = load_split(path)
    then, now = record.fingerprints["split"], split.fingerprint
    if now != then:
        raise DataError(
            f"{path} is not the split that the search was made with (fingerprint {then[:8]} then, "
            f"{now[:8]} now)"
        )
    return dataset, split


def _check_validation(trial: TrialRecord, accuracy: float, images: int) -> None:
    """The model must do what the search saw.

    Another device or library rounds differently, so an image or two may change sides.
    """
    expected = trial.val_accuracy
    if expected is None or abs(accuracy - expected) > max(2 / images, 0.002) + 1e-9:
        raise CheckpointError(
            f"the checkpoint of {trial.name} gets a validation accuracy of {accuracy:.4f} here, "
            f"but the search recorded {expected}: the model does not do what was chosen"
        )


def _metrics(
    trial: TrialRecord, checkpoint: Checkpoint, scores: Scores, opened: int
) -> dict[str, Any]:
    return {
        "search": trial.search,
        "trial": trial.name,
        "epoch": trial.best_epoch,
        "objective": {"name": trial.objective, "value": trial.value},
        "validation": {
            "accuracy": trial.val_accuracy,
            "balanced_accuracy": trial.val_balanced_accuracy,
            "macro_f1": trial.val_macro_f1,
            "loss": trial.val_loss,
        },
        "test": scores.metrics,
        "test_split_opened": opened,
        "parameters": trial.parameters,
        "config": checkpoint.config.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }


def _write_scores(
    folder: Path,
    trial: TrialRecord,
    scores: Scores,
    metrics: dict[str, Any],
    classes: tuple[str, ...],
) -> None:
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_confusion_csv(folder / "confusion_matrix.csv", scores.matrix, classes)
    test = scores.metrics
    title = (
        f"{trial.search}, {trial.name}: {test['accuracy']:.2%} of {test['images']} test images "
        f"(errors: {test['errors']})"
    )
    save_png(confusion_figure(scores.matrix, classes, title=title), folder / "confusion_matrix.png")


def _search_of(trial: TrialRecord) -> SearchRecord:
    """As it is now."""
    return load_search(trial.runs, trial.search, storage=trial.place.address)


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
