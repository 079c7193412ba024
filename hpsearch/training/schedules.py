"""Learning-rate schedules: a table of factors on the configured learning rate.

To add one, write a function of the progress and append a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from hpsearch.config import ScheduleConfig
from hpsearch.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """One row: `factor` maps progress (0 at the end of warm-up, towards 1) to a factor."""

    name: str
    help: str
    factor: Callable[[float], float]


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _step(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SCHEDULES: tuple[Schedule, ...] = (
    Schedule(name="constant", help="no change", factor=lambda _: 1.0),
    Schedule(
        name="cosine", help="half a cosine down to 0 (arXiv 1608.03983, one cycle)", factor=_cosine
    ),
    Schedule(name="linear", help="straight down to 0", factor=lambda progress: 1.0 - progress),
    Schedule(name="step", help="divided by 10 at one half, again at three quarters", factor=_step),
)

_BY_NAME = {row.name: row for row in SCHEDULES}


def lr_factor(config: ScheduleConfig, epoch: float, epochs: int) -> float:
    """The factor on the learning rate at the time `epoch` (0 <= epoch < epochs, a fraction
    within an epoch); steps are taken at their middle, so that none of them stands still.

    Raises:
        ConfigError: an unknown schedule.
    """
    if config.name not in _BY_NAME:
        raise ConfigError(f"unknown schedule {config.name!r}; known: {', '.join(_BY_NAME)}")
    progress = epoch / epochs
    if progress < config.warmup:
        return progress / config.warmup
    return _BY_NAME[config.name].factor((progress - config.warmup) / (1 - config.warmup))
