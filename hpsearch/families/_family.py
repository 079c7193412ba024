"""What a family is, and the part of the space that families share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from hpsearch.config import DropoutConfig, OptimizerConfig, Options, ScheduleConfig
from hpsearch.data.augment import augmentation
from hpsearch.data.dataset import ImageShape
from hpsearch.families._space import ParamValue, Suggester
from hpsearch.training.dropout import DROPOUT_SCHEDULES
from hpsearch.training.model import StagedModel
from hpsearch.training.optimizers import optimizer_info


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What a family's space decides of a `TrainConfig`; the study decides the rest."""

    options: Options
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    batch_size: int
    dropout: DropoutConfig = DropoutConfig()
    augment: Mapping[str, float] = dataclasses.field(default_factory=dict)
    label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: each file of this folder that has no leading underscore defines one as
    `FAMILY`, and its name is the file's.

    Attributes:
        summary: one line for `--help` and tables.
        suggest: asks for the parameters, for images of a shape.
        build: (options, shape of an image, number of classes) -> an untrained model. It
            takes plain values, never a trial.
        defaults: settings known to work, tried first; each a value for every parameter that
            the space asks for under them. Values for parameters that it does not ask for are
            passed over; they serve where an override leads to these parameters. A value that
            depends on the images is a function of their shape.
    """

    summary: str
    suggest: Callable[[Suggester, ImageShape], Suggestion]
    build: Callable[[Options, ImageShape, int], StagedModel]
    defaults: tuple[Mapping[str, ParamValue | Callable[[ImageShape], ParamValue]], ...]


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
    *,
    options: Options,
    optimizers: Sequence[str] = ("adamw", "sgd"),
    batch_sizes: Sequence[int] = (16, 32, 64, 128),
    schedules: Sequence[str] = ("cosine", "linear", "step"),
    dropout: bool = False,
    augment: Sequence[str] = (),
    label_smoothing: bool = False,
) -> Suggestion:
    """Asks for what every family trains with, and for the rest where a family has it.

    One learning rate spans the ranges of the optimizers that are left to choose from, so that
    it is one axis of every plot.
    """
    ranges = [optimizer_info(name).lr for name in s.choices("optimizer", optimizers)]
    optimizer = s.categorical("optimizer", optimizers)
    lr = s.float("lr", min(low for low, _ in ranges), max(high for _, high in ranges), log=True)
    settings = {
        name: s.float(name, option.low, option.high)
        for name, option in optimizer_info(optimizer).options.items()
    }
    weight_decay = s.float("weight_decay", 1e-6, 1e-1, log=True)
    batch_size = s.number("batch_size", batch_sizes)
    schedule = s.categorical("schedule", schedules)
    warmup = s.float("warmup", 0.0, 0.2)
    rate, dropout_schedule = 0.0, "constant"
    if dropout:
        rate = s.float("dropout", 0.0, 0.6)
        dropout_schedule = s.categorical(
            "dropout_schedule", [row.name for row in DROPOUT_SCHEDULES]
        )
    return Suggestion(
        options=options,
        optimizer=OptimizerConfig(
            name=optimizer, lr=lr, weight_decay=weight_decay, options=settings
        ),
        schedule=ScheduleConfig(name=schedule, warmup=warmup),
        batch_size=batch_size,
        dropout=DropoutConfig(schedule=dropout_schedule, rate=rate),
        augment={name: s.float(name, 0.0, augmentation(name).high) for name in augment},
        label_smoothing=s.float("label_smoothing", 0.0, 0.2) if label_smoothing else 0.0,
    )
