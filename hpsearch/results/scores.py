"""Scores of a model on labelled images, from its outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)
from torch import Tensor

from hpsearch.data.dataset import FloatArray, ImagePart, Int64Array
from hpsearch.errors import CheckpointError
from hpsearch.results.intervals import accuracy_interval

BINS = 15
"""Of the confidence, where it is compared with the accuracy; as many as Guo et al. have."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ColumnScores:
    """What a model got of one of the columns that the label joins, such as the gender alone.

    Attributes:
        values: that the column has, in the order of the classes.
        accuracy: share of the images whose predicted class has the true value.
        accuracy_95: its 95 % interval.
        matrix: int64 (values, values); rows are the true values, columns the predicted ones.
    """

    name: str
    values: tuple[str, ...]
    accuracy: float
    accuracy_95: tuple[float, float]
    matrix: Int64Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a model got on a set of images.

    Attributes:
        metrics: plain JSON types:
            images, errors: how many.
            accuracy: with its 95 % interval `accuracy_95`, [low, high]; `interval` says how that
                was found.
            balanced_accuracy: over the classes that occur, as in training.
            macro_f1: over the classes that occur or are predicted, as in training;
                `macro_f1_classes` says how many these are.
            log_loss: mean cross-entropy, natural logarithm.
            calibration_error: by how much the confidence differs from the accuracy in the mean,
                over 15 bins of the confidence (Guo et al., On Calibration of Modern Neural
                Networks, 2017).
            classes: for each class `precision`, `recall`, `f1` (0 where they are not defined) and
                `support`, which is how many images it has.
            columns: `accuracy` and `accuracy_95` of each of `columns`.
        matrix: int64 (classes, classes); rows are the true classes, columns the predicted ones.
        probabilities: float64 (N, classes), in the order of the images.
        columns: where the label joins several columns, what the model got of each.
    """

    metrics: dict[str, Any]
    matrix: Int64Array
    probabilities: FloatArray
    columns: tuple[ColumnScores, ...]

    @property
    def predicted(self) -> Int64Array:
        """int64 (N,): the class with the greatest probability."""
        predicted: Int64Array = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def confidence(self) -> FloatArray:
        """float64 (N,): the probability of the predicted class."""
        confidence: FloatArray = self.probabilities.max(axis=1)
        return confidence


def score(logits: Tensor, part: ImagePart) -> Scores:
    """Scores a model's outputs for all images of `part`, of which there is at least one.

    Args:
        logits: float (N, classes), on the CPU.

    Raises:
        CheckpointError: outputs that are no numbers.
    """
    if not bool(logits.isfinite().all()):
        bad = int((~logits.isfinite()).any(dim=1).sum())
        raise CheckpointError(
            f"the model's outputs are not finite for {bad:,} of {len(part):,} images: train it "
            "again in fp32"
        )
    probabilities = logits.double().softmax(dim=1).numpy()
    predicted, labels = probabilities.argmax(axis=1), part.labels
    names = part.dataset.groups
    groups = None if names is None else [names[row] for row in part.rows]
    right = predicted == labels
    interval, how = accuracy_interval(right, groups)
    columns = _columns(predicted, part, groups)
    metrics: dict[str, Any] = {
        "images": len(labels),
        "errors": int((~right).sum()),
        "accuracy": float(right.mean()),
        "accuracy_95": list(interval),
        "interval": how,
        # The mean recall of the classes that have images is what balanced_accuracy_score gives,
        # which complains about others.
        "balanced_accuracy": float(
            recall_score(labels, predicted, labels=np.unique(labels), average="macro")
        ),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "macro_f1_classes": len(np.union1d(labels, predicted)),
        "log_loss": float(log_loss(labels, probabilities, labels=list(range(len(part.classes))))),
        "calibration_error": calibration_error(probabilities.max(axis=1), right),
        "classes": _classes(predicted, part),
        "columns": {
            column.name: {"accuracy": column.accuracy, "accuracy_95": list(column.accuracy_95)}
            for column in columns
        },
    }
    return Scores(
        metrics=metrics,
        matrix=_matrix(labels, predicted, len(part.classes)),
        probabilities=probabilities,
        columns=columns,
    )


def calibration_error(confidence: FloatArray, right: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """The expected calibration error: the difference of accuracy and mean confidence in each of 15
    bins of equal width, weighted by how many images are in it (Guo et al. 2017).

    Args:
        confidence: (N,): the probability of the predicted class, above 0.
        right: (N,).
    """
    # As in the paper, a bin holds its upper end.
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _classes(predicted: Int64Array, part: ImagePart) -> dict[str, dict[str, float | int]]:
    indices = list(range(len(part.classes)))
    rows = precision_recall_fscore_support(
        part.labels, predicted, labels=indices, zero_division=0.0
    )
    return {
        name: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(part.classes, *rows, strict=True)
    }


def _columns(
    predicted: Int64Array, part: ImagePart, groups: list[str] | None
) -> tuple[ColumnScores, ...]:
    found = []
    for number, name in enumerate(part.dataset.columns):
        of_class = [values[number] for values in part.dataset.class_parts]
        values = tuple(dict.fromkeys(of_class))
        codes = np.array([values.index(value) for value in of_class], dtype=np.int64)
        true, guessed = codes[part.labels], codes[predicted]
        right = true == guessed
        column = ColumnScores(
            name=name,
            values=values,
            accuracy=float(right.mean()),
            accuracy_95=accuracy_interval(right, groups)[0],
            matrix=_matrix(true, guessed, len(values)),
        )
        found.append(column)
    return tuple(found)


def _matrix(true: Int64Array, predicted: Int64Array, n: int) -> Int64Array:
    matrix: Int64Array = confusion_matrix(true, predicted, labels=list(range(n))).astype(np.int64)
    return matrix
