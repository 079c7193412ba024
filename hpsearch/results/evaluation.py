"""Scores of a model on labelled images: computed by scikit-learn from its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)
from torch import Tensor

from hpsearch.data.dataset import ImagePart
from hpsearch.data.preprocessing import resized_part
from hpsearch.data.resident import ResidentImages
from hpsearch.families import build_model
from hpsearch.training.checkpoint import Checkpoint
from hpsearch.training.model import StagedModel, place
from hpsearch.training.trainer import Evaluation, evaluate


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a model got on a set of images.

    Attributes:
        metrics: plain JSON types: accuracy with a 95 % Wilson interval, balanced accuracy, macro
            F1, log loss, and per class precision, recall, F1 and support.
        matrix: int64 (classes, classes); rows are the true classes, columns the predicted ones.
    """

    metrics: dict[str, Any]
    matrix: npt.NDArray[np.int64]


def restore_model(checkpoint: Checkpoint) -> StagedModel:
    """The model of a checkpoint, in evaluation mode, on the CPU."""
    model = build_model(checkpoint.config, checkpoint.preprocessing.shape, len(checkpoint.classes))
    model.load_state_dict(dict(checkpoint.state))
    return model.eval()


def run_model(
    model: StagedModel, checkpoint: Checkpoint, part: ImagePart, device: torch.device
) -> Evaluation:
    """The model's outputs for all images of `part`, computed as in training: in the size that the
    checkpoint's preprocessing brings images to, cut to their centre where it says so.

    Args:
        part: in the size of the data set.
    """
    config = checkpoint.config
    model = place(model, device, config.memory_format)
    images = ResidentImages.of(resized_part(part, checkpoint.preprocessing.full_size), device)
    return evaluate(model, images, checkpoint.preprocessing, config.precision, config.memory_format)


def score(logits: Tensor, labels: npt.NDArray[np.int64], classes: Sequence[str]) -> Scores:
    """Scores outputs against labels.

    Args:
        logits: float32 (N, classes), on the CPU.
        labels: (N,).
    """
    indices = list(range(len(classes)))
    probabilities = logits.double().softmax(dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=indices).astype(np.int64)
    correct, total = int(np.trace(matrix)), int(matrix.sum())
    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    metrics: dict[str, Any] = {
        "images": total,
        "errors": total - correct,
        "accuracy": correct / total,
        "accuracy_95": [float(interval.low), float(interval.high)],
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        # Of the classes that occur, as in training.
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "log_loss": float(log_loss(labels, probabilities, labels=indices)),
        "classes": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(classes)
        },
    }
    return Scores(metrics=metrics, matrix=matrix)
