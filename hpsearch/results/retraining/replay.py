"""Configurations for a training that has no images to validate on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hpsearch.config import DropoutConfig, ScheduleConfig, TrainConfig
from hpsearch.training.dropout import dropout_info, dropout_rate
from hpsearch.training.epoch import EpochResult
from hpsearch.training.schedules import lr_factor, schedule_info

_LEAST_RATE = 1e-12
"""Of the schedule of given learning rates."""


def follows_validation(config: TrainConfig) -> tuple[str, ...]:
    """Which of its schedules look at what the epochs before gave, in words."""
    found = []
    if schedule_info(config.schedule.name).follows_epochs:
        found.append(f"the learning rate (schedule {config.schedule.name})")
    if dropout_info(config.dropout.schedule).follows_epochs:
        found.append(f"dropout (schedule {config.dropout.schedule})")
    return tuple(found)


def replayed(config: TrainConfig, epochs: int, history: Sequence[EpochResult]) -> TrainConfig:
    """`config` for a training of `epochs` epochs that has nothing to validate on: without early
    stopping, and where a schedule follows the validation, with the rates that it gave in a training
    that had some, epoch by epoch. After the end of that they stay.

    Args:
        history: of a training with `config`, at least one epoch.
    """
    schedule, optimizer, dropout = config.schedule, config.optimizer, config.dropout
    numbers = [min(epoch, len(history) - 1) for epoch in range(epochs)]
    if schedule_info(schedule.name).follows_epochs:
        factors = [
            lr_factor(schedule, number + 0.5, config.epochs, history[:number]) for number in numbers
        ]
        rates = tuple(max(optimizer.lr * factor, _LEAST_RATE) for factor in factors)
        schedule = ScheduleConfig(name="ladder", options={"rates": rates})
        optimizer = dataclasses.replace(optimizer, lr=max(rates))
    if dropout_info(dropout.schedule).follows_epochs:
        rates = tuple(
            dropout_rate(dropout, number, config.epochs, history[:number]) for number in numbers
        )
        dropout = _given(rates, dropout.depth)
    return dataclasses.replace(
        config,
        schedule=schedule,
        optimizer=optimizer,
        dropout=dropout,
        epochs=epochs,
        early_stopping=None,
    )


def _given(rates: tuple[float, ...], depth: str) -> DropoutConfig:
    """Dropout with these rates, one for each epoch."""
    if not any(rates):
        return DropoutConfig(depth=depth)
    options = {"rates": rates, "epochs": tuple(range(len(rates)))}
    return DropoutConfig(schedule="steps", rate=max(rates), depth=depth, options=options)
