"""How well predicted classes agree with the labels, as scikit-learn defines it, on any device."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1.

    Attributes:
        accuracy: of the images whose class was predicted right.
        balanced_accuracy: mean over the classes that have images of the share of their images
            that was predicted right.
        macro_f1: mean F1 of the classes that occur, as a label or as a prediction.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def classification_scores(labels: Tensor, predicted: Tensor, classes: int) -> Scores:
    """Scores predicted classes; it waits for the device once.

    Args:
        labels, predicted: int64 (n,) on one device, n at least 1, from 0 to `classes` - 1.
    """
    # Sums by class of whole numbers, not torch.bincount: it would wait for the device each time.
    counts = labels.new_zeros(3, classes)
    counts[0].index_add_(0, labels, (labels == predicted).long())
    counts[1].index_add_(0, labels, torch.ones_like(labels))
    counts[2].index_add_(0, predicted, torch.ones_like(predicted))
    right, labelled, guessed = counts.cpu().double()
    has_images, occurs = labelled > 0, labelled + guessed > 0
    recall = right[has_images] / labelled[has_images]
    f1 = 2 * right[occurs] / (labelled + guessed)[occurs]
    return Scores(
        accuracy=right.sum().item() / len(labels),
        balanced_accuracy=recall.mean().item(),
        macro_f1=f1.mean().item(),
    )
