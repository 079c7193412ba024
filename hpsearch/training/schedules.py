"""Learning-rate schedules: a table of factors on the configured learning rate.

A factor depends on the time and on the epochs so far, and on nothing else: a training that is
taken up again gets the rates that it would have had. To add a schedule, write a function of a
`Moment` and of the schedule's options, and append a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hpsearch.checks import look_up
from hpsearch.config import ScheduleConfig
from hpsearch.errors import ConfigError
from hpsearch.training.options import OptionInfo, read_options


class EpochScores(Protocol):
    """What a schedule may know of an epoch that is over: part of an `EpochResult`."""

    @property
    def train_accuracy(self) -> float:
        """From 0 to 1, of the training images as they were trained on."""

    @property
    def val_accuracy(self) -> float:
        """From 0 to 1."""

    @property
    def val_loss(self) -> float:
        """Mean over the validation images."""


History = Sequence[EpochScores]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """A time in a training.

    Attributes:
        progress: from 0 at the start of the schedule to 1 at its end.
        epoch: since the start of the training, a fraction within an epoch.
        history: the epochs that are over.
    """

    progress: float
    epoch: float
    history: History = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """One row of a table of schedules, of the learning rate or of dropout.

    Attributes:
        factor: (moment, options) -> factor on the configured number, from 0 to 1.
        follows_epochs: whether it looks at what the epochs so far gave (`Moment.history`).
        check: (the configured number, options) raises `ConfigError` where they do not fit.
    """

    name: str
    help: str
    factor: Callable[[Moment, Mapping[str, Any]], float]
    options: Mapping[str, OptionInfo] = dataclasses.field(default_factory=dict)
    follows_epochs: bool = False
    check: Callable[[float, Mapping[str, Any]], None] = lambda _peak, _options: None


def check_rates(owner: str, name: str, peak: float, rates: Sequence[float]) -> None:
    """Raises `ConfigError` unless `peak`, called `name`, is the greatest of `rates`."""
    if not math.isclose(peak, max(rates), rel_tol=1e-9):
        raise ConfigError(
            f"{owner}: {name} must be the greatest of its rates, {max(rates):g}, but is {peak!r}"
        )


def _cosine(moment: Moment, _: Mapping[str, Any]) -> float:
    return 0.5 * (1 + math.cos(math.pi * moment.progress))


def _exponential(moment: Moment, options: Mapping[str, Any]) -> float:
    return float(options["final"] ** moment.progress)


def _divided(gamma: float, times: int) -> float:
    # Not gamma ** times: 0.1 ** 2 is not 0.01, but 1 / 10 ** 2 is.
    try:
        return float(1 / (1 / gamma) ** times)
    except OverflowError:
        return 0.0


def _halfway(moment: Moment) -> int:
    return (moment.progress >= 0.5) + (moment.progress >= 0.75)


def _step(moment: Moment, options: Mapping[str, Any]) -> float:
    size = options["step_size"]
    return _divided(options["gamma"], int(moment.epoch // size) if size else _halfway(moment))


def _multistep(moment: Moment, options: Mapping[str, Any]) -> float:
    passed = sum(moment.epoch >= milestone for milestone in options["milestones"])
    return _divided(options["gamma"], passed if options["milestones"] else _halfway(moment))


# As in torch.optim.lr_scheduler.OneCycleLR: what the rate starts from, and ends at.
_CYCLE_START = 1 / 25
_CYCLE_END = _CYCLE_START / 1e4


def _onecycle(moment: Moment, options: Mapping[str, Any]) -> float:
    peak = options["peak_at"]
    if moment.progress < peak:
        low, to_peak = _CYCLE_START, moment.progress / peak
    else:
        low, to_peak = _CYCLE_END, (1 - moment.progress) / (1 - peak)
    return float(low + (1 - low) * 0.5 * (1 - math.cos(math.pi * to_peak)))


# A loss this much lower, as a share, is a better one: as in torch's ReduceLROnPlateau.
_PLATEAU_GAIN = 1e-4


def _plateau(moment: Moment, options: Mapping[str, Any]) -> float:
    best, stale, times = math.inf, 0, 0
    for result in moment.history:
        if result.val_loss < best * (1 - _PLATEAU_GAIN):
            best, stale = result.val_loss, 0
        else:
            stale += 1
        if stale > options["patience"]:
            stale, times = 0, times + 1
    return _divided(options["gamma"], times)


def _ladder(moment: Moment, options: Mapping[str, Any]) -> float:
    rates = options["rates"]
    return float(rates[min(int(moment.progress * len(rates)), len(rates) - 1)] / max(rates))


_GAMMA = OptionInfo(
    help="what the rate is multiplied by",
    default=0.1,
    low=0.05,
    high=0.9,
    limits=(1e-3, 1.0),
    log=True,
)

SCHEDULES: tuple[Schedule, ...] = (
    Schedule(name="constant", help="no change", factor=lambda _moment, _options: 1.0),
    Schedule(
        name="cosine", help="half a cosine down to 0 (arXiv 1608.03983, one cycle)", factor=_cosine
    ),
    Schedule(
        name="linear", help="straight down to 0", factor=lambda moment, _: 1.0 - moment.progress
    ),
    Schedule(
        name="exponential",
        help="down by the same factor in each epoch",
        factor=_exponential,
        options={
            "final": OptionInfo(
                help="share of the rate that is left at the end",
                default=1e-2,
                low=1e-4,
                high=1e-1,
                limits=(1e-9, 1.0),
                log=True,
            )
        },
    ),
    Schedule(
        name="step",
        help="multiplied by gamma at one half, again at three quarters; or every so many epochs",
        factor=_step,
        options={
            "step_size": OptionInfo(
                kind="int",
                help="epochs between drops; 0: drops at one half and three quarters",
                default=0,
                low=1,
                high=100,
                limits=(0, 1_000_000),
            ),
            "gamma": _GAMMA,
        },
    ),
    Schedule(
        name="multistep",
        help="multiplied by gamma at given epochs",
        factor=_multistep,
        options={
            "milestones": OptionInfo(
                kind="list",
                help="epochs at which the rate drops; none: one half and three quarters of all",
                default=(),
                low=1,
                high=1_000_000,
                whole=True,
                rising=True,
            ),
            "gamma": _GAMMA,
        },
    ),
    Schedule(
        name="onecycle",
        help="up from a 25th along a cosine, and down to almost 0 (Smith, arXiv 1708.07120); "
        "momentum stays",
        factor=_onecycle,
        options={
            "peak_at": OptionInfo(
                help="share of the time at which the rate is highest",
                default=0.3,
                low=0.1,
                high=0.5,
                limits=(0.01, 0.99),
            )
        },
    ),
    Schedule(
        name="plateau",
        help="multiplied by gamma where the validation loss has not become lower for some epochs",
        factor=_plateau,
        follows_epochs=True,
        options={
            "patience": OptionInfo(
                kind="int",
                help="it drops after more epochs than this without a lower loss",
                default=5,
                low=2,
                high=20,
                limits=(0, 1_000_000),
            ),
            "gamma": _GAMMA,
        },
    ),
    Schedule(
        name="ladder",
        help="given learning rates, each for an equal share of the epochs; lr is the greatest",
        factor=_ladder,
        options={
            "rates": OptionInfo(
                kind="list",
                help="learning rates in turn, such as 5e-4, 1e-5, 5e-6",
                default=(),
                low=1e-12,
                high=1e3,
                required=True,
            )
        },
        check=lambda lr, options: check_rates("schedule 'ladder'", "lr", lr, options["rates"]),
    ),
)

_BY_NAME = {row.name: row for row in SCHEDULES}


def schedule_info(name: str) -> Schedule:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("schedule", name, _BY_NAME)


def _row(config: ScheduleConfig) -> tuple[Schedule, dict[str, Any]]:
    row = schedule_info(config.name)
    return row, read_options(f"schedule {row.name!r}", row.options, config.options)


def check_schedule(config: ScheduleConfig, lr: float) -> None:
    """Raises `ConfigError` where the schedule or an option is unknown, an option is out of its
    limits, or does not fit the learning rate `lr`.
    """
    row, options = _row(config)
    row.check(lr, options)


def lr_factor(config: ScheduleConfig, epoch: float, epochs: int, history: History = ()) -> float:
    """The factor on the learning rate at the time `epoch` (0 <= epoch < epochs, a fraction
    within an epoch); steps are taken at their middle, so that none of them stands still.

    Schedules take the time after the warm-up, which rises linearly from 0 to where they start;
    epochs that an option names are counted from the start of the training all the same.

    Args:
        history: all epochs that are over.

    Raises:
        ConfigError: an unknown schedule or option, or an option out of its limits.
    """
    row, options = _row(config)
    progress = epoch / epochs
    if progress < config.warmup:
        start = Moment(progress=0.0, epoch=config.warmup * epochs, history=history)
        return progress / config.warmup * row.factor(start, options)
    progress = (progress - config.warmup) / (1 - config.warmup)
    return row.factor(Moment(progress=progress, epoch=epoch, history=history), options)
