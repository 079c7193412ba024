"""Optimizers: a table, one row each.

To add one, append a row: its torch class, the learning rates worth searching, and the
settings that only it has. Spaces, validation and `--set` follow from the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hpsearch.checks import look_up
from hpsearch.config import OptimizerConfig
from hpsearch.errors import ConfigError
from hpsearch.training.model import StagedModel
from hpsearch.training.muon import MuonWithAdamW, hidden_matrices
from hpsearch.training.options import OptionInfo, read_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """One row of the table.

    Attributes:
        lr: least and greatest learning rate worth searching, on a log scale.
        options: settings taken from `OptimizerConfig.options`.
        arguments: options -> further arguments of the class.
        matrices: the class wants to be told, by a flag "matrices" of each group of parameters,
            which are the weight matrices of hidden layers.
        fused: the class has an implementation that passes over the weights once.
        graph: what the class needs to be part of a CUDA graph; None: it cannot.
    """

    name: str
    help: str
    optimizer: Callable[..., torch.optim.Optimizer]
    lr: tuple[float, float]
    options: Mapping[str, OptionInfo] = dataclasses.field(default_factory=dict)
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    matrices: bool = False
    fused: bool = True
    graph: Mapping[str, bool] | None = None


def _sgd(options: Mapping[str, Any]) -> dict[str, Any]:
    momentum = options["momentum"]
    # torch refuses Nesterov's way of momentum where there is none.
    return {"momentum": momentum, "nesterov": options["nesterov"] and momentum > 0}


def _with_betas(options: Mapping[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in options.items() if name not in ("beta1", "beta2")}
    return {**others, "betas": (options["beta1"], options["beta2"])}


_MOMENTUM = OptionInfo(
    help="share of the last step that is taken again", default=0.9, high=0.99, searched=True
)
_EPS = OptionInfo(
    help="added to the denominator of a step", default=1e-8, low=1e-10, high=1e-2, log=True
)
_BETAS = {
    "beta1": OptionInfo(
        help="decay of the mean of the gradients",
        default=0.9,
        low=0.8,
        high=0.98,
        limits=(0.0, 0.9999),
    ),
    "beta2": OptionInfo(
        help="decay of the mean of the squared gradients",
        default=0.999,
        low=0.9,
        high=0.9999,
        limits=(0.0, 0.99999),
    ),
}

OPTIMIZERS: tuple[OptimizerInfo, ...] = (
    OptimizerInfo(
        name="adamw",
        help="Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)",
        optimizer=torch.optim.AdamW,
        lr=(1e-4, 3e-2),
        options={**_BETAS, "eps": _EPS},
        arguments=_with_betas,
        graph={"capturable": True},
    ),
    OptimizerInfo(
        name="sgd",
        help="stochastic gradient descent with Nesterov momentum",
        optimizer=torch.optim.SGD,
        lr=(1e-3, 0.5),
        options={
            "momentum": _MOMENTUM,
            "nesterov": OptionInfo(
                kind="flag", help="momentum in Nesterov's way, where there is any", default=True
            ),
        },
        arguments=_sgd,
        graph={},
    ),
    OptimizerInfo(
        name="adam",
        help="Adam with weight decay in the gradient (Kingma and Ba, arXiv 1412.6980)",
        optimizer=torch.optim.Adam,
        lr=(1e-4, 3e-2),
        options={**_BETAS, "eps": _EPS},
        arguments=_with_betas,
        graph={"capturable": True},
    ),
    OptimizerInfo(
        name="rmsprop",
        help="RMSprop (Hinton, Coursera lecture 6e)",
        optimizer=torch.optim.RMSprop,
        lr=(1e-5, 1e-2),
        options={
            "momentum": dataclasses.replace(_MOMENTUM, default=0.0, searched=False),
            "alpha": dataclasses.replace(_BETAS["beta2"], default=0.99),
            "eps": _EPS,
        },
        fused=False,
    ),
    OptimizerInfo(
        name="muon",
        help="Muon for the matrices of hidden layers, AdamW for all else (arXiv 2502.16982)",
        optimizer=MuonWithAdamW,
        lr=(1e-4, 3e-2),
        options={
            "momentum": OptionInfo(
                help="decay of the mean of the gradients of matrices",
                default=0.95,
                low=0.8,
                high=0.99,
                limits=(0.0, 0.9999),
            ),
            **_BETAS,
        },
        arguments=_with_betas,
        matrices=True,
        fused=False,
    ),
)

_BY_NAME = {row.name: row for row in OPTIMIZERS}


def optimizer_info(name: str) -> OptimizerInfo:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("optimizer", name, _BY_NAME)


def check_optimizer(config: OptimizerConfig) -> None:
    """Raises `ConfigError` where the optimizer or an option is unknown, or an option is out of its
    limits.
    """
    _options(optimizer_info(config.name), config)


def _options(row: OptimizerInfo, config: OptimizerConfig) -> dict[str, Any]:
    return read_options(f"optimizer {row.name!r}", row.options, config.options)


def base_lr(config: OptimizerConfig, batch_size: int) -> float:
    """The learning rate of the last stage at a factor of 1 of the schedule."""
    return config.lr * batch_size / config.lr_per if config.lr_per else config.lr


def build_optimizer(
    model: StagedModel, config: OptimizerConfig, *, batch_size: int, capturable: bool = False
) -> torch.optim.Optimizer:
    """An optimizer over the parameters of `model` that require a gradient.

    Biases and normalisation weights (all parameters of one dimension) get no weight decay, unless
    the configuration says so. Each group of parameters has an "lr_scale", by which the learning
    rate of the last stage is to be multiplied.

    Args:
        capturable: its steps are to be part of a CUDA graph.

    Raises:
        ConfigError: an unknown optimizer or option, an option out of its limits, or an optimizer
            that cannot be part of a graph.
    """
    row = optimizer_info(config.name)
    arguments = row.arguments(_options(row, config))
    if row.fused:
        arguments["fused"] = True
    if capturable:
        if row.graph is None:
            able = ", ".join(other.name for other in OPTIMIZERS if other.graph is not None)
            raise ConfigError(
                f"optimizer {row.name!r} cannot be part of a CUDA graph; use execution eager, or "
                f"one of {able}"
            )
        arguments |= row.graph
    lr = base_lr(config, batch_size)
    hidden = {id(matrix) for matrix in hidden_matrices(model)} if row.matrices else set()
    groups = []
    for scale, part in _parts(model, config.stage_decay):
        trained = [parameter for parameter in part if parameter.requires_grad]
        for kind in ((True, True), (False, True), (False, False)):
            chosen = [p for p in trained if (id(p) in hidden, p.ndim > 1) == kind]
            matrices, decayed = kind[0], kind[1] or config.decay_all
            groups.append(
                {
                    "params": chosen,
                    "weight_decay": config.weight_decay if decayed else 0.0,
                    "lr": lr * scale,
                    "lr_scale": scale,
                    **({"matrices": matrices} if row.matrices else {}),
                }
            )
    return row.optimizer([group for group in groups if group["params"]], lr=lr, **arguments)


def _parts(model: StagedModel, stage_decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """What shares a learning rate, and the factor on it; what is in no stage is with the last."""
    if stage_decay == 1:
        return [(1.0, list(model.parameters()))]
    *earlier, _ = model.stages
    parts: list[tuple[float, list[nn.Parameter]]] = []
    taken: set[nn.Parameter] = set()
    for place, module in enumerate((*earlier, model)):
        own = [parameter for parameter in module.parameters() if parameter not in taken]
        parts.append((stage_decay ** (len(earlier) - place), own))
        taken.update(own)
    return parts
