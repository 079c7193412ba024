"""The folder that a user carries away: the model in several forms, and what it does on test images.

It is written in two steps: first all that needs no test image and can fail (`write_model`), then,
after the look at the test split was recorded, the rest (`write_test_report`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from hpsearch.data.dataset import ImagePart, Int64Array
from hpsearch.data.known_images import HASHES, write_known_images
from hpsearch.data.splits import development_data
from hpsearch.errors import CheckpointError
from hpsearch.families._start_images import StartOverlap
from hpsearch.figures.confusion import confusion_figure
from hpsearch.figures.curves import curves_figure
from hpsearch.figures.mistakes import worst_mistakes_figure
from hpsearch.figures.png import save_png
from hpsearch.files import write_text
from hpsearch.results.bundle_page import bundle_page
from hpsearch.results.card import model_card
from hpsearch.results.folder import (
    BATCH_LOSSES,
    CARD,
    CONFIG,
    CONFUSION,
    CURVES,
    FORMAT,
    METRICS,
    MISTAKES,
    MODEL,
    ONNX,
    PAGE,
    PREDICTIONS,
    PROGRAM,
)
from hpsearch.results.metrics import without_seen
from hpsearch.results.portable import write_onnx, write_program
from hpsearch.results.predictions import write_predictions
from hpsearch.results.scores import Scores, score
from hpsearch.results.source import SearchData
from hpsearch.results.tables import write_table
from hpsearch.results.words import guess_notes, start_notes
from hpsearch.training.checkpoint import Checkpoint, save_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_batches, write_history
from hpsearch.training.objectives import objective_info

_SAMPLE = 16
"""Validation images on which the model's other forms must do what it does."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained model, and how it came to be.

    Attributes:
        history: of its training, one result an epoch.
        batches: the file of its mini-batch losses; None where there is none.
        objective: by which its epoch was chosen.
        title: of figures and pages, such as "digits, cnn-7".
        start: what the weights that it started from had seen of the search's data; None where it
            started from none.
    """

    checkpoint: Checkpoint
    history: tuple[EpochResult, ...]
    batches: Path | None
    objective: str
    title: str
    start: StartOverlap | None


def is_bundle(folder: Path) -> bool:
    """Whether a folder is one that this module wrote; it may be replaced by another one then."""
    return (folder / MODEL).is_file() and (folder / METRICS).is_file()


def write_model(
    folder: Path, trained: Trained, data: SearchData, *, onnx: bool = False
) -> tuple[str, ...]:
    """Writes the model in all its forms, its configuration, what images it knows, and its learning
    curves.

    Args:
        onnx: for ONNX Runtime, too.

    Returns:
        What a user should know, in sentences: why a form is missing.

    Raises:
        CheckpointError: the ONNX form was asked for, and cannot be made.
        OSError: a file cannot be written.
    """
    checkpoint, notes = trained.checkpoint, []
    save_checkpoint(folder / MODEL, checkpoint)
    _write_json(folder / CONFIG, _config_document(checkpoint, data))
    seen = None if trained.start is None else trained.start.images
    write_known_images(folder / HASHES, data.dataset, data.split, seen)
    write_history(folder / f"{CURVES}.csv", trained.history)
    if trained.batches is not None:
        shutil.copyfile(trained.batches, folder / BATCH_LOSSES)
    save_png(_curves(trained), folder / f"{CURVES}.png")
    validation = development_data(data.dataset, data.split).val
    sample = validation.dataset.images[validation.rows[:_SAMPLE]]
    try:
        write_program(folder / PROGRAM, checkpoint, sample=sample)
    except CheckpointError as error:
        notes.append(f"there is no {PROGRAM}: {error}")
    if onnx:
        write_onnx(folder / ONNX, checkpoint, sample=sample)
    return tuple(notes)


def write_test_report(
    folder: Path,
    trained: Trained,
    test: ImagePart,
    logits: Tensor,
    *,
    opened: int,
    facts: Mapping[str, Any],
    more: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Writes what the model does on test images: scores, matrices, predictions, a page and a card.

    Args:
        logits: float32 (N, classes), on the CPU, of all images of `test`.
        opened: how often the search's test split was opened, this time included.
        facts: more entries of `metrics.json`, which come first: plain JSON types. "search",
            "trial", "data" and "notes" must be there.
        more: other PNG files for the page, by what they show.

    Returns:
        The content of `metrics.json`.

    Raises:
        CheckpointError: the model's outputs are no numbers.
        OSError: a file cannot be written.
    """
    checkpoint, scores = trained.checkpoint, score(logits, test)
    metrics = {
        **facts,
        "test": scores.metrics,
        **without_seen(trained.start, test, logits),
        "test_split_opened": opened,
        "config": checkpoint.config.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }
    metrics["notes"] = [*facts["notes"], *start_notes(metrics), *guess_notes(scores.metrics)]
    _write_json(folder / METRICS, metrics)
    pictures = write_figures(folder, test, scores, title=trained.title)
    write_predictions(folder / PREDICTIONS, test, scores)
    pictures |= {"learning curves": folder / f"{CURVES}.png", **(more or {})}
    files = sorted({path.name for path in folder.iterdir()} | {PAGE, CARD})
    write_text(folder / CARD, model_card(metrics, title=trained.title, files=files))
    write_text(folder / PAGE, bundle_page(metrics, pictures, title=trained.title))
    return metrics


def write_figures(folder: Path, part: ImagePart, scores: Scores, *, title: str) -> dict[str, Path]:
    """Writes matrices and mistakes as pictures, and the matrices as CSV; gives the pictures by
    what they show.
    """
    test = scores.metrics
    errors = f"{test['accuracy']:.2%} of {test['images']:,} images (errors: {test['errors']:,})"
    matrix = _write_matrix(
        folder / CONFUSION, scores.matrix, part.classes, title=f"{title}: {errors}", what="class"
    )
    pictures = {"confusion matrix": matrix}
    names = _file_names(column.name for column in scores.columns)
    for column, name in zip(scores.columns, names, strict=True):
        pictures[f"confusion matrix of {column.name} alone"] = _write_matrix(
            folder / f"{CONFUSION}-{name}",
            column.matrix,
            column.values,
            title=f"{title}, {column.name} alone: {column.accuracy:.2%}",
            what=column.name,
        )
    figure = worst_mistakes_figure(part, scores.predicted, scores.confidence, title=title)
    pictures["mistakes"] = folder / MISTAKES
    save_png(figure, folder / MISTAKES)
    return pictures


def _write_matrix(
    stem: Path, matrix: Int64Array, names: tuple[str, ...], *, title: str, what: str
) -> Path:
    """Writes it as CSV and as a picture; gives the picture's path."""
    # The headers say which is which: a matrix that is read the wrong way round misleads.
    write_table(
        stem.with_name(f"{stem.name}.csv"),
        ["", *(f"predicted {name}" for name in names)],
        ([f"true {name}", *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    )
    picture = stem.with_name(f"{stem.name}.png")
    save_png(confusion_figure(matrix, names, title=title, what=what), picture)
    return picture


def _file_names(columns: Iterable[str]) -> list[str]:
    """What files of these columns are called: no two alike, also where a and A are the same."""
    names: list[str] = []
    for column in columns:
        plain = "".join(letter if letter.isalnum() else "-" for letter in column)[:60]
        numbered = itertools.chain([plain], (f"{plain}-{n}" for n in itertools.count(2)))
        taken = {name.lower() for name in names}
        names.append(next(name for name in numbered if name.lower() not in taken))
    return names


def _curves(trained: Trained) -> Figure:
    batches = None if trained.batches is None else read_batches(trained.batches)
    return curves_figure(
        trained.history,
        objective=objective_info(trained.objective),
        title=trained.title,
        batches=batches,
    )


def _config_document(checkpoint: Checkpoint, data: SearchData) -> dict[str, Any]:
    """Everything to rebuild the model and to bring images to it, without the weights."""
    return {
        "format": FORMAT,
        "family": checkpoint.config.family,
        "options": dict(checkpoint.config.options),
        "classes": list(checkpoint.classes),
        "images": {**dataclasses.asdict(data.dataset.shape), "fit": data.source.fit},
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "config": checkpoint.config.to_dict(),
        "data": {
            "name": data.dataset.name,
            "counts": data.split.counts,
            "split": dict(data.record.spec["split"]),
        },
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
