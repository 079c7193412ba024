"""How fast a training runs, not what is trained: precision, memory format, execution.

What is best depends on the model, the shapes and the device. Where a training is short, a row of
`RULES` decides; where it is long, `hpsearch.training.probe` measures.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from hpsearch.checks import JsonConfig
from hpsearch.config import Execution, MemoryFormat, Precision, TrainConfig
from hpsearch.training.optimizers import optimizer_info

Auto = Literal["auto"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(JsonConfig):
    """What `TrainConfig` says by the same names."""

    precision: Precision
    memory_format: MemoryFormat
    execution: Execution = "eager"

    @classmethod
    def of(cls, config: TrainConfig) -> Setting:
        """That of a configuration."""
        return cls(
            precision=config.precision,
            memory_format=config.memory_format,
            execution=config.execution,
        )

    def applied(self, config: TrainConfig) -> TrainConfig:
        """`config` with this setting."""
        return dataclasses.replace(config, **self.to_dict())

    def __str__(self) -> str:
        words = {"contiguous": "NCHW", "channels_last": "channels_last"}
        parts = [self.precision, words[self.memory_format]]
        return " ".join(parts if self.execution == "eager" else [*parts, self.execution])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user forces; "auto" is free."""

    precision: Auto | Precision = "auto"
    memory_format: Auto | MemoryFormat = "auto"
    execution: Auto | Execution = "auto"

    def forced(self, setting: Setting) -> Setting:
        """`setting` with what is forced."""
        values = dataclasses.asdict(self)
        return dataclasses.replace(setting, **{k: v for k, v in values.items() if v != "auto"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One row: the setting for the devices that it is for."""

    help: str
    applies: Callable[[torch.device], bool]
    setting: Setting


def _computes_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


RULES: tuple[Rule, ...] = (
    Rule(
        help="GPUs that compute in bf16",
        applies=_computes_bf16,
        setting=Setting(precision="bf16", memory_format="channels_last"),
    ),
    Rule(
        # Also where bf16 would be faster: the same results everywhere are worth more than the
        # seconds that a short training could save.
        help="all others",
        applies=lambda _: True,
        setting=Setting(precision="fp32", memory_format="channels_last"),
    ),
)


def rule_setting(device: torch.device) -> Setting:
    """What the first row that applies to `device` says."""
    return next(row.setting for row in RULES if row.applies(device))


def possible_settings(
    model: nn.Module, config: TrainConfig, device: torch.device, wanted: Wanted
) -> list[Setting]:
    """The settings worth comparing, the usual one first. What is forced, they all have; but a step
    that cannot be captured in a graph is run as it is.

    Models without convolutions do not know an order of channels.
    """
    graphed = device.type == "cuda" and optimizer_info(config.optimizer.name).graph is not None
    if wanted.execution == "graph" and not graphed:
        wanted = dataclasses.replace(wanted, execution="eager")
    usual = rule_setting(device)
    maps = any(isinstance(module, nn.Conv2d) for module in model.modules())
    formats = typing.get_args(MemoryFormat) if maps else (usual.memory_format,)
    settings = [usual]
    for precision, memory_format in itertools.product(typing.get_args(Precision), formats):
        eager = Setting(precision=precision, memory_format=memory_format)
        settings += [eager, dataclasses.replace(eager, execution="graph")] if graphed else [eager]
    if device.type == "cuda":  # on a CPU torch.compile never won
        settings.append(dataclasses.replace(usual, execution="compile"))
    return list(dict.fromkeys(wanted.forced(setting) for setting in settings))
