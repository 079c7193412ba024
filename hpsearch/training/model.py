"""The form of every model: stages from input to output, the first of which can be frozen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from hpsearch.errors import ConfigError


class StagedModel(nn.Module):
    """A chain of named stages; the last one gives the logits.

    Args:
        stages: modules by name, from input to output.

    Shapes:
        input float32 (n, channels, height, width), output (n, classes).
    """

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stages = nn.Sequential(OrderedDict(stages))
        self.freeze_depth = 0

    def freeze(self, depth: int) -> Self:
        """Stops the training of the first `depth` stages; BatchNorm and dropout in them stay in
        evaluation mode.

        Raises:
            ConfigError: no stage would be left to train.
        """
        if not 0 <= depth < len(self.stages):
            raise ConfigError(
                f"freeze_depth must be between 0 and {len(self.stages) - 1}, but is {depth}: the "
                f"model's stages are {', '.join(name for name, _ in self.stages.named_children())}"
            )
        self.freeze_depth = depth
        for number, stage in enumerate(self.stages):
            stage.requires_grad_(number >= depth)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, but leaves frozen stages in evaluation mode."""
        super().train(mode)
        for stage in list(self.stages)[: self.freeze_depth]:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of normalised images."""
        logits: Tensor = self.stages(images)
        return logits


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """How many parameters `model` has, and how many of them are trained."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)
