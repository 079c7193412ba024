"""What a process is that runs trials."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch

from hpsearch.data.views import DataViews
from hpsearch.engine.estimate import Pace
from hpsearch.engine.events import Event
from hpsearch.engine.gallery import Gallery
from hpsearch.engine.gpu_note import GpuNote
from hpsearch.engine.place import Place
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.stop import Stop
from hpsearch.training.epoch import EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """What the trials of one process share.

    Attributes:
        number: from 1; 0: the search's own process.
        should_pause: after each epoch of a trial, by its name, whether it is to be paused there.
    """

    spec: StudySpec
    place: Place
    data: DataViews
    fingerprints: Mapping[str, str]
    device: torch.device
    paces: Mapping[str, Pace]
    watch: Callable[[Event], None]
    stop: Stop
    number: int = 0
    should_pause: Callable[[str, EpochResult], bool] = lambda _name, _result: False

    @functools.cached_property
    def gallery(self) -> Gallery:
        """What it attaches to its trials for the dashboard."""
        return Gallery(self.spec, self.place, self.data.development.val)

    @functools.cached_property
    def gpu(self) -> GpuNote:
        """What it tells of its GPU with the trial that runs."""
        return GpuNote(self.device)
