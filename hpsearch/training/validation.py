"""What a model made of each validation image, as a file beside its checkpoint."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hpsearch.data.dataset import Int64Array
from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole

_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading something else than such a file raises."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """What a model made of the validation images, in their order in the split.

    Attributes:
        epoch: after which, from 0.
        predicted: int64 (N,): the class with the greatest probability, by its number.
        confidence: float32 (N,): that probability.
    """

    epoch: int
    predicted: Int64Array
    confidence: npt.NDArray[np.float32]

    @classmethod
    def of(cls, epoch: int, logits: Tensor) -> Validation:
        """What the outputs of a model say, float (N, classes) on any device."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        return cls(
            epoch=epoch,
            predicted=predicted.cpu().numpy(),
            confidence=confidence.float().cpu().numpy(),
        )


def write_validation(path: Path, validation: Validation) -> None:
    """Writes it to `path` as NPZ, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                epoch=np.int64(validation.epoch),
                predicted=validation.predicted.astype(np.int32),
                confidence=validation.confidence,
            )

    write_whole(path, write)


def read_validation(path: Path) -> Validation:
    """Reads what `write_validation` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            epoch, predicted, confidence = (
                arrays[name] for name in ("epoch", "predicted", "confidence")
            )
        if epoch.shape or predicted.ndim != 1 or predicted.shape != confidence.shape:
            raise ValueError("its arrays do not fit together")
        return Validation(
            epoch=int(epoch),
            predicted=predicted.astype(np.int64),
            confidence=confidence.astype(np.float32),
        )
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: the predictions of the validation images cannot be read: {error}"
        ) from None
