"""Export: a trial's model, and what it does on test images that nothing before has seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import development_data
from hpsearch.data.words import plural
from hpsearch.engine.ledger import record_opening, record_result
from hpsearch.engine.place import BATCHES, HISTORY
from hpsearch.engine.records import SearchRecord, TrialRecord, require_checkpoint
from hpsearch.errors import CheckpointError
from hpsearch.results.bundle import Trained, is_bundle, write_model, write_test_report
from hpsearch.results.folder import (
    BATCH_LOSSES,
    CARD,
    CONFIG,
    CONFUSION,
    CURVES,
    METRICS,
    MISTAKES,
    MODEL,
    ONNX,
    PAGE,
    PREDICTIONS,
    PROGRAM,
    new_folder,
    writing,
)
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.metrics import study_details, validation_interval
from hpsearch.results.source import SearchData, search_data, search_of
from hpsearch.results.words import best_of_many
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
        notes: what a user should know, in sentences.
    """

    folder: Path
    test_accuracy: float
    times_opened: int
    metrics: dict[str, Any] = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The model's checkpoint."""
        return self.folder / MODEL

    @property
    def program(self) -> Path | None:
        """The model for PyTorch alone; None where it could not be made (`notes` say why)."""
        return self._where_there(PROGRAM)

    @property
    def onnx(self) -> Path | None:
        """The model for ONNX Runtime; None where it was not asked for."""
        return self._where_there(ONNX)

    @property
    def config_json(self) -> Path:
        """All it takes to rebuild the model."""
        return self.folder / CONFIG

    @property
    def metrics_json(self) -> Path:
        """The scores."""
        return self.folder / METRICS

    @property
    def confusion_png(self) -> Path:
        """The confusion matrix as a picture."""
        return self.folder / f"{CONFUSION}.png"

    @property
    def confusion_csv(self) -> Path:
        """The confusion matrix: a row for each true class, a column for each predicted one."""
        return self.folder / f"{CONFUSION}.csv"

    @property
    def predictions_csv(self) -> Path:
        """Each test image with its true class and what the model says."""
        return self.folder / PREDICTIONS

    @property
    def mistakes_png(self) -> Path:
        """The most confident mistakes as a picture."""
        return self.folder / MISTAKES

    @property
    def curves_png(self) -> Path:
        """The learning curves as a picture."""
        return self.folder / f"{CURVES}.png"

    @property
    def curves_csv(self) -> Path:
        """The learning curves: a row an epoch."""
        return self.folder / f"{CURVES}.csv"

    @property
    def batches_csv(self) -> Path | None:
        """The loss of each mini-batch; None where the search did not record it, being of the first
        version.
        """
        return self._where_there(BATCH_LOSSES)

    @property
    def report_html(self) -> Path:
        """All of it on one page."""
        return self.folder / PAGE

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / CARD

    def _where_there(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None


def export(
    trial: TrialRecord,
    out: str | Path,
    *,
    replace: bool = False,
    device: str = "auto",
    onnx: bool = False,
) -> Export:
    """Writes a trial's model and its report on the test split to the folder `out`.

    The folder appears whole or not at all. The opening of the test split is recorded in the
    study before the test images are read, and what it gave afterwards.

    Args:
        replace: take the place of an export that exists.
        onnx: write the model for ONNX Runtime, too.

    Raises:
        ConfigError: no such device here.
        SearchError: `out` exists, or cannot be written.
        CheckpointError: the trial's checkpoint was not kept, is damaged, is another trial's, or
            does not give the validation accuracy that the search recorded; or the ONNX form
            cannot be made.
        DataError: the data is not that of the search any more.
    """
    out, target = Path(out), resolve_device(device)
    file = require_checkpoint(trial)
    with new_folder(out, "export", is_ours=is_bundle, replace=replace) as folder:
        checkpoint = load_checkpoint(file)
        _check_trial(trial, checkpoint)
        data = search_data(trial)
        model = restore_model(checkpoint)
        images = development_data(data.dataset, data.split).val
        validation = run_model(model, checkpoint, images, target)
        _check_validation(trial, validation.accuracy, len(images))
        # All that can fail comes before the look at the test images.
        trained, facts = _trained(trial, checkpoint, data), _facts(trial, data)
        facts["validation"] |= validation_interval(validation.logits, images)
        with writing(out):
            facts["notes"] += write_model(folder, trained, data, onnx=onnx)
        record_opening(trial, "export")
        test = open_test_split(data.dataset, data.split)
        logits = run_model(model, checkpoint, test, target).logits
        opened = len(search_of(trial).openings)
        with writing(out):
            metrics = write_test_report(folder, trained, test, logits, opened=opened, facts=facts)
    accuracy = metrics["test"]["accuracy"]
    record_result(
        trial,
        kind="export",
        folder=str(out.absolute()),
        accuracy=accuracy,
        details=study_details(metrics),
    )
    return Export(
        folder=out,
        test_accuracy=accuracy,
        times_opened=opened,
        metrics=metrics,
        notes=tuple(metrics["notes"]),
    )


def _luck_notes(trial: TrialRecord, data: SearchData) -> list[str]:
    is_best = data.record.finished > 1 and data.record.best.name == trial.name
    return [best_of_many(data.record.finished, len(data.split.val))] if is_best else []


def _facts(trial: TrialRecord, data: SearchData) -> dict[str, Any]:
    """What `metrics.json` says of the trial before the test scores, as plain JSON types."""
    return {
        "search": trial.search,
        "trial": trial.name,
        "chosen": _chosen(trial, data.record),
        "epoch": trial.best_epoch,
        "objective": {"name": trial.objective, "value": trial.value},
        "validation": {
            "accuracy": trial.val_accuracy,
            "balanced_accuracy": trial.val_balanced_accuracy,
            "macro_f1": trial.val_macro_f1,
            "loss": trial.val_loss,
        },
        "parameters": trial.parameters,
        "data": data.facts(),
        "notes": _luck_notes(trial, data),
    }


def _chosen(trial: TrialRecord, record: SearchRecord) -> str:
    """Where the model comes from, in a sentence."""
    ranked = [other.name for other in record.ranked()]
    place = ranked.index(trial.name) + 1
    best = "the best" if place == 1 else f"number {place}"
    return (
        f"Trial {trial.name} of search {trial.search}: {best} of "
        f"{plural(record.finished, 'finished trial')} by {record.objective.label} "
        f"({trial.value:.4f}), with the weights of epoch {1 + (trial.best_epoch or 0)} of "
        f"{trial.epochs}."
    )


def _trained(trial: TrialRecord, checkpoint: Checkpoint, data: SearchData) -> Trained:
    batches = trial.folder / BATCHES
    return Trained(
        checkpoint=checkpoint,
        history=read_history(trial.folder / HISTORY),
        batches=batches if batches.is_file() else None,
        objective=trial.objective,
        title=f"{trial.search}, {trial.name}",
        start=data.start_of(checkpoint.config),
    )


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
