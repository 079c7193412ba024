"""Checkpoints: one file that holds all that is needed to use a trained model, and its own hash
(see `hpsearch.training.content`).
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from torch import Tensor

from hpsearch.config import TrainConfig
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.training.content import known_content, read_content, write_content
from hpsearch.training.epoch import EpochResult

FORMAT = "hpsearch-checkpoint-1"
_KIND = "checkpoint"

_UNTOLD = ("is_best", "seconds", "images_per_second", "batch_losses")
"""What a checkpoint does not tell of its epoch: it differs from one repetition to the next."""


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    libraries = {name: metadata.version(name) for name in ("hpsearch", "torch", "numpy")}
    return {"python": platform.python_version(), **libraries}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model at one epoch, with all that is needed to use it or to train it again.

    Attributes:
        state: the model's `state_dict`.
        classes: names of the classes, in the order of the logits.
        metrics: of the epoch (an `EpochResult`'s numbers).
        origin: where it comes from: search, trial, fingerprints of data and split.
        versions: of Python and the libraries that trained it.
    """

    state: Mapping[str, Tensor]
    config: TrainConfig
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    origin: Mapping[str, str | int]
    versions: Mapping[str, str] = dataclasses.field(default_factory=library_versions)


def epoch_metrics(result: EpochResult) -> dict[str, float]:
    """What a checkpoint tells of its epoch; scores that are not numbers are left out, as there was
    nothing to validate on.
    """
    metrics = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in _UNTOLD
    }
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Writes `checkpoint` to `path`, whole or not at all, and returns its SHA-256 of content."""
    document = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "classes": list(checkpoint.classes),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "metrics": dict(checkpoint.metrics),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }
    return write_content(path, document, checkpoint.state)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, not a checkpoint that this version of hpsearch knows,
            truncated or altered.
        OSError: it cannot be read just now.
    """
    document, state = read_content(path, kind=_KIND, file_format=FORMAT)
    with known_content(path, _KIND):
        return Checkpoint(
            state=state,
            config=TrainConfig.from_dict(document["config"]),
            classes=tuple(document["classes"]),
            preprocessing=Preprocessing.from_dict(document["preprocessing"]),
            metrics=document["metrics"],
            origin=document["origin"],
            versions=document["versions"],
        )
