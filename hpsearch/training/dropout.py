"""Dropout whose rate changes during training, by a schedule from a table, and with depth.

To add a schedule, write a function of a `Moment` and append a row to `DROPOUT_SCHEDULES`; to
add a way in which rates go with depth, append a row to `DEPTHS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.checks import look_up
from hpsearch.config import DropoutConfig
from hpsearch.errors import ConfigError
from hpsearch.training.options import OptionInfo, read_options
from hpsearch.training.schedules import History, Moment, Schedule, check_rates


class ScheduledDropout(nn.Dropout):
    """Dropout whose rate the trainer sets before each epoch; 0 until then."""

    def __init__(self) -> None:
        super().__init__(p=0.0)
        self._rate: Tensor | None = None

    def use_tensor(self, device: torch.device) -> None:
        """Reads the rate from a tensor on `device` from now on, as steps in a CUDA graph have to:
        numbers are fixed when they are captured.
        """
        self._rate = torch.tensor(self.p, device=device)

    def set_rate(self, rate: float) -> None:
        """Drops this share of the inputs from now on."""
        self.p = rate
        if self._rate is not None:
            self._rate.fill_(rate)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """As `nn.Dropout`: what is left is scaled so that its mean stays."""
        if self._rate is None or not self.training:
            return super().forward(input)
        kept = torch.rand(input.shape, device=input.device) >= self._rate
        return input * (kept / (1 - self._rate)).to(input.dtype)


def _steps(moment: Moment, options: Mapping[str, Any]) -> float:
    rates, epochs = options["rates"], options["epochs"]
    if epochs:
        begun = sum(moment.epoch >= epoch for epoch in epochs)
    else:
        begun = min(int(moment.progress * (len(rates) + 1)), len(rates))
    return float(rates[begun - 1] / max(rates)) if begun else 0.0


def _check_steps(peak: float, options: Mapping[str, Any]) -> None:
    owner, rates, epochs = "dropout schedule 'steps'", options["rates"], options["epochs"]
    if epochs and len(epochs) != len(rates):
        raise ConfigError(
            f"{owner}: epochs must be as many as rates, but are {epochs!r} for {rates!r}"
        )
    if max(rates) == 0:
        raise ConfigError(f"{owner}: rates must hold one above 0, but are {rates!r}")
    check_rates(owner, "dropout", peak, rates)


def _adaptive(moment: Moment, options: Mapping[str, Any]) -> float:
    share = 0.0
    for result in moment.history:
        excess = result.train_accuracy - result.val_accuracy - options["gap"]
        share = min(1.0, max(0.0, share + options["speed"] * excess))
    return share


DROPOUT_SCHEDULES: tuple[Schedule, ...] = (
    Schedule(name="constant", help="the same in every epoch", factor=lambda _moment, _options: 1.0),
    Schedule(
        name="linear",
        help="from 0 up to the rate in the last epoch",
        factor=lambda moment, _: moment.progress,
    ),
    Schedule(
        name="late",
        help="0 in the first half of the epochs, the rate from then on",
        factor=lambda moment, _: float(moment.progress >= 0.5),
    ),
    Schedule(
        name="steps",
        help="0 at first, then given rates in turn, from given epochs on; dropout is the greatest",
        factor=_steps,
        options={
            "rates": OptionInfo(
                kind="list",
                help="rates in turn, after 0, such as 0.5, 0.6",
                default=(),
                low=0.0,
                high=0.95,
                required=True,
            ),
            "epochs": OptionInfo(
                kind="list",
                help="epochs, counted from 0, that each of the rates begins with; none: 0 and the "
                "rates have equal shares",
                default=(),
                low=0,
                high=1_000_000,
                whole=True,
                rising=True,
            ),
        },
        check=_check_steps,
    ),
    Schedule(
        name="adaptive",
        help="from 0, up by as much as training accuracy was above validation accuracy and `gap`, "
        "or down by as much as it was less; never above the rate",
        factor=_adaptive,
        follows_epochs=True,
        options={
            "gap": OptionInfo(
                help="difference of the accuracies that changes nothing",
                default=0.05,
                low=0.0,
                high=0.2,
                limits=(-1.0, 1.0),
            ),
            "speed": OptionInfo(
                help="share of the rate that it rises by in an epoch, for each 1 above the gap",
                default=2.0,
                low=0.5,
                high=10.0,
                limits=(1e-3, 1e3),
                log=True,
            ),
        },
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth:
    """One row: how the rates of a model's places of dropout go with depth.

    Attributes:
        share: (place, counted from 0 at the input; number of places) -> factor on the rate.
    """

    name: str
    help: str
    share: Callable[[int, int], float]


DEPTHS: tuple[Depth, ...] = (
    Depth(name="flat", help="the same rate everywhere", share=lambda _place, _places: 1.0),
    Depth(
        name="falling",
        help="the rate at the input, falling evenly towards the output: 0.9, 0.6, 0.3",
        share=lambda place, places: (places - place) / places,
    ),
    Depth(
        name="rising",
        help="rising evenly to the rate at the output: 0.3, 0.6, 0.9",
        share=lambda place, places: (place + 1) / places,
    ),
)

_BY_NAME = {row.name: row for row in DROPOUT_SCHEDULES}
_DEPTH_BY_NAME = {row.name: row for row in DEPTHS}


def dropout_info(name: str) -> Schedule:
    """The row of `DROPOUT_SCHEDULES` called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("dropout schedule", name, _BY_NAME)


def _row(config: DropoutConfig) -> tuple[Schedule, dict[str, Any]]:
    row = dropout_info(config.schedule)
    return row, read_options(f"dropout schedule {row.name!r}", row.options, config.options)


def _depth(name: str) -> Depth:
    return look_up("dropout depth", name, _DEPTH_BY_NAME)


def check_dropout(config: DropoutConfig) -> None:
    """Raises `ConfigError` where the schedule, the depth or an option is unknown, or an option is
    out of its limits or does not fit the rate.
    """
    _depth(config.depth)
    row, options = _row(config)
    row.check(config.rate, options)


def dropout_rate(config: DropoutConfig, epoch: int, epochs: int, history: History = ()) -> float:
    """The rate in `epoch` (from 0) of `epochs`; `history`: all epochs before it.

    Raises:
        ConfigError: an unknown schedule or option, or an option out of its limits.
    """
    row, options = _row(config)
    moment = Moment(progress=epoch / max(1, epochs - 1), epoch=epoch, history=history)
    return config.rate * row.factor(moment, options)


def set_dropout(model: nn.Module, rate: float, depth: str = "flat") -> None:
    """Gives every `ScheduledDropout` of `model` this rate, or its share by a row of `DEPTHS`.

    Raises:
        ConfigError: an unknown depth.
    """
    share = _depth(depth).share
    places = [module for module in model.modules() if isinstance(module, ScheduledDropout)]
    for place, module in enumerate(places):
        module.set_rate(rate * share(place, len(places)))
