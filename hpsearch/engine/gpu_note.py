"""What a trial that runs on a GPU tells of it, for those who look on from elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable

import optuna
import torch
from optuna.trial import FrozenTrial

from hpsearch.engine.hidden import hidden, hide
from hpsearch.training.gpu import GpuLoad, GpuReader

EVERY_SECONDS = 10.0
_GPU = "gpu"


class GpuNote:
    """Stores the load of a GPU with the trial that runs there, now and then; of a CPU nothing."""

    def __init__(
        self, device: torch.device, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._device = device
        self._clock = clock
        self._reader: GpuReader | None = None
        self._last = clock()

    def write(self, trial: optuna.Trial) -> None:
        """Stores it, unless it is too soon for that."""
        if self._device.type != "cuda" or self._clock() - self._last < EVERY_SECONDS:
            return
        self._last = self._clock()
        self._reader = self._reader or GpuReader([str(self._device)])
        for load in self._reader.read():
            hide(trial.study, trial._trial_id, _GPU, dataclasses.asdict(load))


def read_gpu(trial: FrozenTrial) -> GpuLoad | None:
    """What a trial stored last, if it stored something."""
    with contextlib.suppress(TypeError):  # nothing, or another version's
        return GpuLoad(**hidden(trial, _GPU))
    return None
