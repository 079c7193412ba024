"""Dropout whose rate changes during training, by a schedule from a table.

To add a schedule, write a function of the progress and append a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from hpsearch.config import DropoutConfig
from hpsearch.errors import ConfigError


class ScheduledDropout(nn.Dropout):
    """Dropout whose rate the trainer sets before each epoch; 0 until then."""

    def __init__(self) -> None:
        super().__init__(p=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropoutSchedule:
    """One row: `factor` maps progress (0 in the first epoch, 1 in the last) to a factor."""

    name: str
    help: str
    factor: Callable[[float], float]


DROPOUT_SCHEDULES: tuple[DropoutSchedule, ...] = (
    DropoutSchedule(name="constant", help="the same in every epoch", factor=lambda _: 1.0),
    DropoutSchedule(
        name="linear", help="from 0 up to the rate in the last epoch", factor=lambda p: p
    ),
    DropoutSchedule(
        name="late",
        help="0 in the first half of the epochs, the rate from then on",
        factor=lambda progress: float(progress >= 0.5),
    ),
)

_BY_NAME = {row.name: row for row in DROPOUT_SCHEDULES}


def dropout_rate(config: DropoutConfig, epoch: int, epochs: int) -> float:
    """The rate in `epoch` (from 0) of `epochs`.

    Raises:
        ConfigError: an unknown schedule.
    """
    if config.schedule not in _BY_NAME:
        raise ConfigError(
            f"unknown dropout schedule {config.schedule!r}; known: {', '.join(_BY_NAME)}"
        )
    return config.rate * _BY_NAME[config.schedule].factor(epoch / max(1, epochs - 1))


def set_dropout(model: nn.Module, rate: float) -> None:
    """Gives every `ScheduledDropout` of `model` this rate."""
    for module in model.modules():
        if isinstance(module, ScheduledDropout):
            module.p = rate
