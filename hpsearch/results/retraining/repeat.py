"""Whether a trial's training, run again with its own seed, gives its own curve again."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence

import torch

from hpsearch.engine.place import HISTORY
from hpsearch.engine.records import TrialRecord
from hpsearch.errors import CheckpointError
from hpsearch.results.retraining.rerun import Run
from hpsearch.results.retraining.stored import Surroundings
from hpsearch.training.checkpoint import library_versions, load_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_history
from hpsearch.training.tuning import device_name

_MEASURED = ("seconds", "images_per_second", "batch_losses")
"""What no repetition has in common."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeat:
    """How a training compares with the trial's own.

    Attributes:
        exact: every number of every epoch is the same, to the bit; None where the trial's own
            curve is not there any more.
        text: the same as a sentence, with the reasons for a difference that are known.
    """

    exact: bool | None
    text: str


def compare_with_trial(
    trial: TrialRecord, run: Run, device: torch.device, then: Surroundings
) -> Repeat:
    """Compares a training of the trial's configuration and seed with the trial's own.

    To be called with the threads that `run` had.
    """
    try:
        own = read_history(trial.folder / HISTORY)
    except CheckpointError:
        return Repeat(exact=None, text="The trial's own curve is not there any more to compare.")
    if is_same(own, run.history):
        return Repeat(
            exact=True, text="The first seed gave the trial's own curve again, to the bit."
        )
    return Repeat(
        exact=False,
        text=f"The first seed did not give the trial's own curve to the bit: "
        f"{_difference(own, run)}. {_reasons(trial, run, device, then)}.",
    )


def is_same(first: Sequence[EpochResult], second: Sequence[EpochResult]) -> bool:
    """Whether two histories have the same numbers, to the bit; what is measured, and what the first
    version did not write, aside.
    """
    return len(first) == len(second) and all(map(_is_same, first, second))


def _is_same(first: EpochResult, second: EpochResult) -> bool:
    for field in dataclasses.fields(EpochResult):
        own, other = getattr(first, field.name), getattr(second, field.name)
        if field.name not in _MEASURED and own != other and not math.isnan(own):
            return False
    return True


def _difference(own: Sequence[EpochResult], run: Run) -> str:
    pairs = list(zip(own, run.history, strict=False))
    first = next((a.epoch for a, b in pairs if not _is_same(a, b)), len(pairs))
    loss = max(abs(a.val_loss - b.val_loss) for a, b in pairs)
    accuracy = max(abs(a.val_accuracy - b.val_accuracy) for a, b in pairs)
    length = "" if len(own) == len(run.history) else f", {len(run.history)} epochs for {len(own)}"
    return (
        f"from epoch {first + 1} on, validation accuracy differs by up to {100 * accuracy:.2f} "
        f"points and validation loss by up to {loss:.2g}{length}"
    )


def _reasons(trial: TrialRecord, run: Run, device: torch.device, then: Surroundings) -> str:
    found = []
    now = device_name(device)
    if then.device and then.device != now:
        found.append(f"the search trained it on {then.device}, this was {now}")
    config = run.checkpoint.config
    if trial.config is not None and config.micro_batch != trial.config.micro_batch:
        found.append(f"it took parts of {config.micro_batch} images, as the memory was short")
    if trial.checkpoint is not None:
        with contextlib.suppress(CheckpointError, OSError):
            versions = load_checkpoint(trial.checkpoint).versions
            found += [
                f"{name} was {versions[name]} and is {version}"
                for name, version in library_versions().items()
                if versions.get(name, version) != version
            ]
    if device.type == "cuda":
        found.append("a GPU does not add up in the same order each time")
    if not found:
        return "Another computer, or other versions of libraries, can be why"
    return "Why that can be: " + "; ".join(found)
