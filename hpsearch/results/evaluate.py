"""An export on other labelled data: the scores that it gets there."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.dataset import ImageDataset, ImagePart, Int64Array
from hpsearch.data.known_images import read_known_images
from hpsearch.data.progress import Watch
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset
from hpsearch.errors import DataError
from hpsearch.families._start_images import overlap_of, start_of, weights_name
from hpsearch.files import write_text
from hpsearch.names import listed, printable
from hpsearch.results.bundle import write_figures
from hpsearch.results.folder import METRICS, PREDICTIONS, new_folder, read_metrics, writing
from hpsearch.results.inference import run_model
from hpsearch.results.overlap import Overlap
from hpsearch.results.predictions import write_predictions
from hpsearch.results.predictor import Predictor, load
from hpsearch.results.scores import Scores, score

FORMAT = "hpsearch-evaluation-1"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """What a model got on labelled data.

    Attributes:
        folder: where it was written to; None where it was not.
        scores: over all images. Classes are the model's, in its order; those that do not occur in
            the data have a support of 0.
        new: over those that are no training or validation images of the model's search, or of the
            weights that it started from; None where this is all of them or none, or is not known.
        document: the content of `metrics.json`: plain JSON types.
        warnings: what makes the scores worth less, in sentences.
    """

    folder: Path | None
    scores: Scores
    new: Scores | None
    document: dict[str, Any]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        metrics = self.scores.metrics
        return (
            f"Evaluated(accuracy={metrics['accuracy']:.4f}, images={metrics['images']}, "
            f"folder={None if self.folder is None else str(self.folder)!r}, "
            f"warnings={list(self.warnings)})"
        )


def evaluate(
    export: str | os.PathLike[str] | Predictor,
    data: DataSpec | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    replace: bool = False,
    device: str = "auto",
    watch: Watch | None = None,
) -> Evaluated:
    """What an export's model gets on other labelled data.

    Classes are matched by name, in whatever order the data has them; it need not have all of them.
    Images of the model's own search are found by their pixels, as long as no pixel is another one.

    Args:
        data: read in the size, with the channels and the fit of the data that the model was made
            with, whatever it says itself.
        out: folder for `metrics.json`, the confusion matrix, predictions and mistakes; it appears
            whole or not at all.
        replace: take the place of an evaluation that exists.
        device: where the export is loaded to.

    Raises:
        ConfigError: no such device here.
        CheckpointError: as `hpsearch.results.predictor.load`; or the hashes of the images that the
            model knows are damaged.
        DataError: the data cannot be read, or has a class that the model does not know.
        SearchError: `out` exists, or cannot be written.
    """
    predictor = export if isinstance(export, Predictor) else load(export, device=device)
    if out is None:
        return _evaluated(predictor, data, watch)[0]
    folder = Path(out)
    with new_folder(folder, "evaluation", is_ours=_is_evaluation, replace=replace) as temporary:
        found, part = _evaluated(predictor, data, watch)
        title = f"{predictor.folder.name} on {part.dataset.name}"
        with writing(folder):
            text = json.dumps(found.document, indent=2, ensure_ascii=False)
            write_text(temporary / METRICS, text + "\n")
            write_figures(temporary, part, found.scores, title=title)
            write_predictions(temporary / PREDICTIONS, part, found.scores)
    return dataclasses.replace(found, folder=folder)


def _evaluated(
    predictor: Predictor, data: DataSpec | str | os.PathLike[str], watch: Watch | None
) -> tuple[Evaluated, ImagePart]:
    """What the model got, and the images with its classes."""
    spec = _as_the_model_has_it(DataSpec.of(data), predictor)
    read = load_dataset(spec, watch=watch)
    overlap = _overlap(predictor, read, spec)
    part = with_classes(read, predictor.classes).part()
    logits = run_model(predictor.model, predictor.checkpoint, part, predictor.device).logits
    scores = score(logits, part)
    new = None
    if overlap is not None and 0 < len(overlap.new) < len(part):
        new = score(logits[overlap.new], part.dataset.part(overlap.new))
    warnings = _warnings(predictor, read, overlap)
    document = {
        "format": FORMAT,
        "export": str(predictor.folder),
        "data": {
            "source": spec.source,
            "name": read.name,
            "fingerprint": read.fingerprint,
            "images": {**dataclasses.asdict(read.shape), "fit": spec.fit},
            "classes": sorted({part.classes[label] for label in np.unique(part.labels).tolist()}),
            "skipped": len(read.skipped),
            "notes": list(read.notes),
        },
        "evaluation": scores.metrics,
        "of_the_search": None if overlap is None else overlap.counts,
        "of_the_start": None if overlap is None else overlap.only_start,
        "evaluation_of_new": None if new is None else new.metrics,
        "warnings": list(warnings),
        "origin": dict(predictor.checkpoint.origin),
    }
    return (
        Evaluated(folder=None, scores=scores, new=new, document=document, warnings=warnings),
        part,
    )


def with_classes(dataset: ImageDataset, classes: tuple[str, ...]) -> ImageDataset:
    """`dataset` with labels that are indices into `classes`, matched by name; the pixels are
    shared.

    Raises:
        DataError: a class that has images is not one of `classes`.
    """
    occurring = np.unique(dataset.labels).tolist()
    unknown = [dataset.classes[n] for n in occurring if dataset.classes[n] not in classes]
    if unknown:
        raise DataError(
            f"{dataset.name}: the model does not know the class {listed(unknown, 3)}; it knows "
            f"{listed(classes, 20)}: leave images of others out (--exclude), or rename them"
        )
    where = {name: number for number, name in enumerate(classes)}
    renumbered: Int64Array = np.array([where.get(name, -1) for name in dataset.classes])
    parts: tuple[tuple[str, ...], ...] = ()
    if dataset.class_parts and set(classes) <= set(dataset.classes):
        parts = tuple(dataset.class_parts[dataset.classes.index(name)] for name in classes)
    matched = dataclasses.replace(
        dataset,
        labels=renumbered[dataset.labels],
        classes=classes,
        columns=dataset.columns if parts else (),
        class_parts=parts,
    )
    # They are of the pixels, which are the same: hashing them again would take long.
    return matched.knowing(moments=dataset.moments, digests=dataset.digests)


def _as_the_model_has_it(spec: DataSpec, predictor: Predictor) -> DataSpec:
    shape = predictor.target.shape
    return dataclasses.replace(
        spec,
        size=(shape.height, shape.width),
        fit=predictor.target.fit,
        gray=shape.channels == 1,
    )


def _overlap(predictor: Predictor, dataset: ImageDataset, spec: DataSpec) -> Overlap | None:
    """Which images the model knows; None where its export does not say."""
    known = read_known_images(predictor.folder)
    if known is None:
        return None
    both = predictor.checkpoint.origin.get("retrained") == "train+val"
    fitted = ("train", "val") if both else ("train",)
    weights, start = predictor.checkpoint.config.weights, None
    if weights is not None:
        images = start_of(known, weights)
        start = overlap_of(images, weights_name(weights), dataset, spec)
    return Overlap(parts=known.parts_of(dataset), fitted=fitted, start=start)


def _warnings(
    predictor: Predictor, dataset: ImageDataset, overlap: Overlap | None
) -> tuple[str, ...]:
    if overlap is not None:
        return overlap.warnings
    if predictor.checkpoint.origin.get("data_fingerprint") != dataset.fingerprint:
        return ()
    return (
        f"{printable(dataset.name)} is the data of the model's own search: most of these images "
        "were trained on, so this says nothing about new ones; the export has the scores of its "
        "test images",
    )


def _is_evaluation(folder: Path) -> bool:
    return read_metrics(folder).get("format") == FORMAT
