"""What one epoch of a training gave."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: counted from 0.
        train_loss, train_accuracy, train_balanced_accuracy, train_macro_f1: over the augmented
            training images as they were trained on, dropout on; the weights changed meanwhile. The
            loss is what is trained with; in mixed images, the label with the first share is the
            right one. For the scores see `hpsearch.training.scores`.
        val_loss, val_accuracy, val_balanced_accuracy, val_macro_f1: over all validation images
            after the epoch. The loss is cross-entropy without smoothing or weights, whatever is
            trained with: so trials compare.
        lr: learning rate of the last step, in the last stage.
        dropout: highest rate in this epoch.
        seconds: wall time, validation included.
        images_per_second: training images by `seconds`.
        is_best: no epoch before was better (see `hpsearch.training.objectives`).
        batch_losses: mean training loss of each mini-batch, in their order.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    train_balanced_accuracy: float
    train_macro_f1: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    lr: float
    dropout: float
    seconds: float
    images_per_second: float
    is_best: bool
    batch_losses: tuple[float, ...]
