"""The part of the space that families share: how a model is trained."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Protocol

from hpsearch.checks import Option, Options
from hpsearch.config import (
    Balance,
    DropoutConfig,
    InputConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    WeightsConfig,
)
from hpsearch.data.augment import AUGMENTATIONS, augmentation
from hpsearch.data.preprocessing import NORMALISATIONS
from hpsearch.errors import SpaceError
from hpsearch.families._family import Start, Suggestion, make_input
from hpsearch.families._parameter import ParamValue
from hpsearch.families._space import Suggester
from hpsearch.families._weights import weights_info
from hpsearch.training.dropout import DEPTHS, DROPOUT_SCHEDULES, dropout_info
from hpsearch.training.init import INITS
from hpsearch.training.losses import LOSSES, loss_info
from hpsearch.training.optimizers import OPTIMIZERS, optimizer_info
from hpsearch.training.options import OptionInfo
from hpsearch.training.schedules import SCHEDULES, schedule_info

DROPOUTS = ("constant", "linear", "late")
"""Dropout schedules that are searched."""

MOST_STAGES = 10
"""Of networks whose number of stages is searched, too."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def help(self) -> str: ...


TABLES: Mapping[str, Sequence[_Named]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "dropout_schedule": DROPOUT_SCHEDULES,
    "dropout_depth": DEPTHS,
    "loss": LOSSES,
    "init": INITS,
}
"""By name of a parameter the table whose rows it chooses from."""


class _HasOptions(Protocol):
    @property
    def options(self) -> Mapping[str, OptionInfo]: ...


_RECIPE: dict[str, ParamValue] = {
    "momentum": 0.9,
    "batch_size": 64,
    "schedule": "cosine",
    "warmup": 0.05,
    "dropout": 0.2,
    "dropout_schedule": "constant",
    "rotate": 10.0,
    "translate": 0.1,
    "label_smoothing": 0.05,
}
RECIPES: tuple[Mapping[str, ParamValue], ...] = (
    {**_RECIPE, "optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-2},
    {**_RECIPE, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4},
)
"""Ways to train that work for many networks; a family adds its own parameters to them."""


def suggest_training(
    s: Suggester,
    start: Start,
    *,
    options: Options,
    stages: int = 1,
    most_stages: int | None = None,
    published: str | None = None,
    optimizers: Sequence[str] = ("adamw", "sgd"),
    batch_sizes: Sequence[int] = (16, 32, 64, 128),
    schedules: Sequence[str] = ("cosine", "linear", "step"),
    dropout: bool = False,
    augment: Sequence[str] = (),
    label_smoothing: bool = False,
) -> Suggestion:
    """Asks for how a model is trained. What the arguments name is searched; all else is there for
    an override to switch on, and has its usual value until then.

    Args:
        options: the family's own, resolved.
        stages: how many the model has; with initial weights, how many of them are frozen is
            searched.
        most_stages: how many any model of the space has, where that depends on the options: the
            range of a parameter must not. Beyond the model's own it means all before the head.
        published: the model of torchvision whose weights are meant, where the source is a name.
        dropout: whether the model has any.
        augment: names of the augmentations that are searched.
    """
    lr_ladder = s.numbers(
        "lr_ladder",
        least=1e-12,
        most=1e3,
        whole=False,
        help="learning rates in turn, each for an equal share of the epochs; instead of lr and "
        "schedule",
    )
    most_stages = most_stages or stages
    optimizer = _ask_optimizer(s, start, optimizers, max(lr_ladder, default=0.0), most_stages)
    batch_size = s.number("batch_size", batch_sizes, least=1, help="images a step")
    schedule = _ask_schedule(s, schedules, lr_ladder)
    drop = _ask_dropout(s) if dropout else DropoutConfig()
    strengths = {name: _ask_strength(s, name, searched=True) for name in augment}
    smoothing = s.float(
        "label_smoothing",
        0.0,
        0.2,
        limits=(0.0, 0.9),
        off=None if label_smoothing else 0.0,
        help="share of the target spread over all classes",
    )
    others = (row.name for row in AUGMENTATIONS if row.name not in strengths)
    strengths |= {name: _ask_strength(s, name, searched=False) for name in others}
    source, data_input = _ask_input(s, start, published)
    return Suggestion(
        options=options,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=batch_size,
        dropout=drop,
        weights=source,
        input=data_input,
        augment={k: v for k, v in strengths.items() if k in augment or v > 0},
        label_smoothing=smoothing,
        loss=_ask_loss(s),
        init=s.categorical(
            "init", [row.name for row in INITS], off="default", help="of the weights"
        ),
        repeat=s.number(
            "repeat", (1, 2, 5, 20), least=1, off=1, help="times an epoch shows each image"
        ),
        train_images=s.number(
            "train_images",
            (100, 300, 1000, 3000),
            least=1,
            off=0,
            help="training images used; 0: all",
        ),
        balance=typing.cast(
            Balance,
            s.categorical(
                "balance",
                typing.get_args(Balance),
                off="none",
                help="against unequal classes: weights of the loss, or each class drawn as often",
            ),
        ),
        grad_clip=s.float(
            "grad_clip",
            0.1,
            10.0,
            log=True,
            limits=(1e-6, 1e6),
            off=0.0,
            help="greatest norm of the gradient; 0: no limit",
        ),
        ema=s.float(
            "ema",
            0.9,
            0.9999,
            limits=(0.0, 0.999999),
            off=0.0,
            help="decay a step of averaged weights; 0: not averaged",
        ),
        epochs=s.int(
            "epochs",
            5,
            200,
            log=True,
            limits=(1, 10**6),
            off=0,
            help="0: those of the study. Where they vary, no trial is pruned",
        ),
        freeze_depth=min(_ask_freeze_depth(s, start, most_stages), stages - 1),
        freeze=() if most_stages == 1 else s.names("freeze", help="what is not trained either"),
    )


def _ask_optimizer(
    s: Suggester, start: Start, optimizers: Sequence[str], fixed_lr: float, stages: int
) -> OptimizerConfig:
    """One learning rate spans the ranges of the optimizers that are left to choose from, so that
    it is one axis of every plot. Weights that are good already take smaller steps.
    """
    also = [row.name for row in OPTIMIZERS if row.name not in optimizers]
    name = s.categorical("optimizer", optimizers, also=also, help="what takes the steps")
    ranges = [optimizer_info(choice).lr for choice in s.choices("optimizer")]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if any(start.sources):
        low /= 10
    if all(start.sources):
        high /= 5
    lr = fixed_lr or s.float(
        "lr", low, high, log=True, limits=(1e-12, 1e3), help="learning rate of the head"
    )
    settings = _ask_options(s, optimizer_info(name))
    return OptimizerConfig(
        name=name,
        lr=lr,
        weight_decay=s.float(
            "weight_decay",
            1e-6,
            1e-1,
            log=True,
            limits=(0.0, 10.0),
            help="pull of the weights towards 0",
        ),
        options=settings,
        lr_per=s.number(
            "lr_per", (0, 256), least=0, off=0, help="lr is for batches of so many; 0: for any"
        ),
        stage_decay=1.0
        if stages == 1
        else s.float(
            "stage_decay",
            0.3,
            1.0,
            limits=(1e-3, 1.0),
            off=1.0,
            help="learning rate of a stage, as a factor of the next one's",
        ),
        decay_all=s.flag(
            "decay_all", off=False, help="weight decay on biases and normalisation, too"
        ),
    )


def _ask_schedule(
    s: Suggester, schedules: Sequence[str], ladder: tuple[float, ...]
) -> ScheduleConfig:
    if ladder:
        return ScheduleConfig(name="ladder", options={"rates": ladder})
    also = [row.name for row in SCHEDULES if row.name not in ("ladder", *schedules)]
    name = s.categorical("schedule", schedules, also=also, help="of the learning rate")
    options = _ask_options(s, schedule_info(name), "lr_")
    return ScheduleConfig(
        name=name,
        warmup=s.float("warmup", 0.0, 0.2, limits=(0.0, 0.9), help="share of the epochs"),
        options=options,
    )


def _ask_dropout(s: Suggester) -> DropoutConfig:
    depth = s.categorical(
        "dropout_depth",
        [row.name for row in DEPTHS],
        off="flat",
        help="from input to output",
    )
    rates = s.numbers(
        "dropout_rates",
        least=0.0,
        most=0.95,
        whole=False,
        help="rates in turn, from 0 up; instead of dropout and dropout_schedule",
    )
    if rates:
        epochs = s.numbers("dropout_epochs", least=0, help="when they begin; else evenly spaced")
        options: dict[str, Option] = {"rates": rates}
        if epochs:
            options["epochs"] = epochs
        return DropoutConfig(schedule="steps", rate=max(rates), depth=depth, options=options)
    rate = s.float("dropout", 0.0, 0.6, limits=(0.0, 0.95), help="highest rate")
    also = [row.name for row in DROPOUT_SCHEDULES if row.name not in ("steps", *DROPOUTS)]
    schedule = s.categorical("dropout_schedule", DROPOUTS, also=also, help="over the epochs")
    return DropoutConfig(
        schedule=schedule,
        rate=rate,
        depth=depth,
        options=_ask_options(s, dropout_info(schedule), "dropout_"),
    )


def _ask_loss(s: Suggester) -> LossConfig:
    name = s.categorical(
        "loss", [row.name for row in LOSSES], off="cross_entropy", help="that training lowers"
    )
    return LossConfig(name=name, options=_ask_options(s, loss_info(name), f"{name}_"))


def _ask_options(s: Suggester, row: _HasOptions, prefix: str = "") -> dict[str, Option]:
    """The settings that only this row of a table has; those that have no value are left out."""
    values = {name: _ask_option(s, prefix + name, option) for name, option in row.options.items()}
    return {name: value for name, value in values.items() if value != ()}


def _ask_option(s: Suggester, name: str, row: OptionInfo) -> Option:
    if row.kind == "list":
        least, most = row.limits or (row.low, row.high)
        return s.numbers(name, least=least, most=most, whole=row.whole, help=row.help)
    if row.kind == "flag":
        return s.flag(name, off=None if row.searched else bool(row.default), help=row.help)
    if row.kind == "int":
        off = None if row.searched else int(row.default)  # type: ignore[arg-type]
        ends = int(row.low), int(row.high)
        return s.int(name, *ends, log=row.log, off=off, limits=row.limits, help=row.help)
    start = None if row.searched else float(row.default)  # type: ignore[arg-type]
    return s.float(
        name, row.low, row.high, log=row.log, off=start, limits=row.limits, help=row.help
    )


def _ask_strength(s: Suggester, name: str, *, searched: bool) -> float:
    row = augmentation(name)
    return s.float(
        name, 0.0, row.high, limits=(0.0, row.limit), off=None if searched else 0.0, help=row.help
    )


def _ask_freeze_depth(s: Suggester, start: Start, stages: int) -> int:
    searched = any(start.sources)
    if stages == 1 or (searched and start.weights is None):
        return 0  # what starts from scratch is trained, where other trials of the search do not
    return s.int(
        "freeze_depth",
        0,
        stages - 1,
        off=None if searched else 0,
        help="stages that are not trained, from the input",
    )


def _ask_input(
    s: Suggester, start: Start, published: str | None
) -> tuple[WeightsConfig | None, InputConfig]:
    info = start.info
    if start.weights is not None and (info is None or info.kind == "file"):
        if published is None:
            raise SpaceError(
                f"weights: {start.weights} is no export of the family {start.family}, and there "
                "are no published weights of it"
            )
        info = weights_info(start.weights, family=start.family, published=published)
    normalise = s.categorical(
        "normalise",
        [row.name for row in NORMALISATIONS],
        off="auto",
        help="mean and deviation of the images' values; auto: those of the weights, or else of the "
        "data set",
    )
    if normalise == "auto":
        normalise = "dataset" if info is None else "weights"
    source = None if start.weights is None else WeightsConfig(source=start.weights)
    return source, make_input(start, info, normalise)
