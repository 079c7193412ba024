"""Optimizers: a table, one row each.

To add one, append a row: its torch class, the learning rates worth searching, and the
settings that only it has. Spaces, validation and `--set` follow from the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hpsearch.config import OptimizerConfig
from hpsearch.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOption:
    """A setting that only some optimizers have: its range (inclusive) and default."""

    low: float
    high: float
    default: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """One row of the table.

    Attributes:
        lr: least and greatest learning rate worth searching, on a log scale.
        arguments: further fixed arguments of the torch class.
        options: settings taken from `OptimizerConfig.options`, passed on by the same name.
    """

    name: str
    help: str
    optimizer: type[torch.optim.Optimizer]
    lr: tuple[float, float]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, OptimizerOption] = dataclasses.field(default_factory=dict)


_MOMENTUM = OptimizerOption(low=0.0, high=0.99, default=0.9)

OPTIMIZERS: tuple[OptimizerInfo, ...] = (
    OptimizerInfo(
        name="adamw",
        help="Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)",
        optimizer=torch.optim.AdamW,
        lr=(1e-4, 3e-2),
    ),
    OptimizerInfo(
        name="sgd",
        help="stochastic gradient descent with Nesterov momentum",
        optimizer=torch.optim.SGD,
        lr=(1e-3, 0.5),
        options={"momentum": _MOMENTUM},
    ),
    OptimizerInfo(
        name="adam",
        help="Adam with weight decay in the gradient (Kingma and Ba, arXiv 1412.6980)",
        optimizer=torch.optim.Adam,
        lr=(1e-4, 3e-2),
    ),
    OptimizerInfo(
        name="rmsprop",
        help="RMSprop (Hinton, Coursera lecture 6e)",
        optimizer=torch.optim.RMSprop,
        lr=(1e-5, 1e-2),
        options={"momentum": OptimizerOption(low=0.0, high=0.99, default=0.0)},
    ),
)

_BY_NAME = {row.name: row for row in OPTIMIZERS}


def optimizer_info(name: str) -> OptimizerInfo:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"unknown optimizer {name!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over the parameters of `model` that require a gradient.

    Biases and normalisation weights (all parameters of one dimension) get no weight decay.

    Raises:
        ConfigError: an unknown optimizer or option, or an option out of its range.
    """
    row = optimizer_info(config.name)
    options = {name: option.default for name, option in row.options.items()}
    for name, value in config.options.items():
        if name not in row.options:
            has = f"its options: {', '.join(row.options)}" if row.options else "it has no options"
            raise ConfigError(f"optimizer {row.name!r} has no option {name!r}; {has}")
        low, high = row.options[name].low, row.options[name].high
        if not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{name} must be between {low:g} and {high:g}, but is {value!r}")
        options[name] = float(value)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    arguments: dict[str, Any] = {**row.arguments, **options}
    if row.optimizer is torch.optim.SGD:
        arguments["nesterov"] = options["momentum"] > 0  # torch refuses it without momentum
    return row.optimizer(
        [group for group in groups if group["params"]],
        lr=config.lr,
        **arguments,  # type: ignore[call-arg]
    )
