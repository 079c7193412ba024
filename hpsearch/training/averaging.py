"""A moving average of a model's weights, which is often better than the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """An exponential moving average of what training changes in a model: its trained parameters,
    and the statistics of BatchNorm, which belong to them.

    After step t (from 0) each value moves by 1 - min(decay, (1 + t) / (10 + t)) towards the
    model's: at first quickly away from the untrained weights. Counts are not averaged.

    Args:
        model: on its device already; its tensors are changed in place, never replaced.
        decay: share of the old average that a step keeps, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._installed = False
        self._current = [
            *(p.detach() for p in model.parameters() if p.requires_grad),
            *(b for b in model.buffers() if b.is_floating_point()),
        ]
        self._other = [tensor.clone() for tensor in self._current]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's weights after a step; no wait for the device."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        torch._foreach_lerp_(self._other, self._current, 1 - decay)

    def state(self) -> dict[str, Any]:
        """What `load_state` takes to go on; the tensors are shared, and those of the average unless
        it is installed.
        """
        return {"steps": self._steps, "weights": list(self._other)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with the average of another training of the same model."""
        self._steps = state["steps"]
        for own, given in zip(self._other, state["weights"], strict=True):
            own.copy_(given)

    def install(self) -> None:
        """Gives the model the averaged weights, bit for bit; keeps those that it had."""
        self._exchange(installed=True)

    def restore(self) -> None:
        """Gives the model the weights back that `install` took."""
        self._exchange(installed=False)

    @torch.no_grad()
    def _exchange(self, *, installed: bool) -> None:
        if self._installed == installed:
            return
        self._installed = installed
        for current, other in zip(self._current, self._other, strict=True):
            kept = current.clone()
            current.copy_(other)
            other.copy_(kept)
