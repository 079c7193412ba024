"""The form of every model: stages from input to output, the first of which can be frozen."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpsearch.config import MemoryFormat
from hpsearch.data.preprocessing import torch_format
from hpsearch.errors import ConfigError


class StagedModel(nn.Module):
    """A chain of named stages; the last one gives the logits.

    Args:
        stages: modules by name, from input to output.
        published: by the name of a tensor in `state_dict`, its name in the files of weights that
            are published for this architecture; empty where there are none.

    Shapes:
        input float32 (n, channels, height, width), output (n, classes).
    """

    def __init__(
        self, stages: Mapping[str, nn.Module], *, published: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential(OrderedDict(stages))
        self.published = dict(published or {})
        self._frozen: list[nn.Module] = []

    @property
    def stage_names(self) -> tuple[str, ...]:
        """From input to output."""
        return tuple(name for name, _ in self.stages.named_children())

    def freeze(self, depth: int, names: Sequence[str] = ()) -> Self:
        """Stops the training of the first `depth` stages and of whatever `names` match;
        BatchNorm and dropout in them stay in evaluation mode.

        Args:
            names: of stages, or of modules in them such as head.1, with * and ?.

        Raises:
            ConfigError: a name matches nothing, or no parameter would be left to train.
        """
        if not 0 <= depth < len(self.stages):
            raise ConfigError(
                f"freeze_depth must be between 0 and {len(self.stages) - 1}, but is {depth}: the "
                f"model's stages are {', '.join(self.stage_names)}"
            )
        frozen: list[nn.Module] = list(self.stages)[:depth]
        for name in names:
            matched = [
                module
                for path, module in self.stages.named_modules()
                if path and fnmatch.fnmatchcase(path, name)
            ]
            if not matched:
                raise ConfigError(
                    f"freeze: nothing in the model is called {name!r}; its stages are "
                    f"{', '.join(self.stage_names)}"
                )
            frozen += matched
        fixed = {id(parameter) for module in frozen for parameter in module.parameters()}
        if all(id(parameter) in fixed for parameter in self.parameters()):
            raise ConfigError(
                f"freeze_depth {depth} with freeze {', '.join(names) or 'empty'} leaves nothing to "
                f"train; the model's stages are {', '.join(self.stage_names)}"
            )
        self._frozen = frozen
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) not in fixed)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, but leaves what is frozen in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of normalised images."""
        logits: Tensor = self.stages(images)
        return logits


def place(model: StagedModel, device: torch.device, memory_format: MemoryFormat) -> StagedModel:
    """`model` on `device`, its kernels in this order in memory."""
    order = torch_format(memory_format)
    placed: StagedModel = model.to(device=device, memory_format=order)  # type: ignore[call-overload]
    return placed


def learns_statistics(model: StagedModel) -> bool:
    """Whether a BatchNorm in `model` learns from batches in training; frozen ones do not."""
    mode = model.training
    modules = model.train().modules()
    found = any(isinstance(module, _BatchNorm) and module.training for module in modules)
    model.train(mode)
    return found


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """How many parameters `model` has, and how many of them are trained."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)
