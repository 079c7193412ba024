"""Muon for the matrices of hidden layers, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """What Muon is for: the weights of linear layers, convolutions and attention, but not of the
    last of them, which is the classifier. Grouped convolutions are many small matrices in one
    tensor, and embeddings are looked up rather than multiplied: they are not among them.
    """
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            found.append(module.in_proj_weight)
        elif isinstance(module, nn.Linear) or (
            isinstance(module, _CONVOLUTIONS) and module.groups == 1
        ):
            found.append(module.weight)
    return found[:-1]


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` (Jordan et al. 2024; Liu et al., arXiv 2502.16982) for the groups marked
    "matrices", `torch.optim.AdamW` for the others.

    Muon's steps are scaled to the size of AdamW's ("match_rms_adamw"), so that one learning rate
    and one weight decay suit both. A kernel (out, in, height, width) is a matrix of `out` rows.

    Args:
        groups: as torch's optimizers take them, each with a flag "matrices" as well.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas})
        self._matrices: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._workers = [self._worker(group) for group in self.param_groups]

    def _worker(self, group: dict[str, Any]) -> torch.optim.Optimizer:
        """The optimizer that does the steps of a group."""
        settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        if not group["matrices"]:
            return torch.optim.AdamW(group["params"], betas=group["betas"], fused=True, **settings)
        # A view shares its memory with the parameter, or fails.
        matrices = [
            nn.Parameter(_by_memory(p.detach(), p).view(len(p), -1)) for p in group["params"]
        ]
        self._matrices += zip(group["params"], matrices, strict=True)
        return torch.optim.Muon(
            matrices, momentum=group["momentum"], adjust_lr_fn="match_rms_adamw", **settings
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, with the learning rates and weight decays that `param_groups` have now."""
        if closure is not None:
            raise NotImplementedError("this optimizer takes no closure")
        for parameter, matrix in self._matrices:
            grad = parameter.grad
            matrix.grad = None if grad is None else _by_memory(grad, parameter).flatten(1)
        for group, worker in zip(self.param_groups, self._workers, strict=True):
            for name in ("lr", "weight_decay"):
                worker.param_groups[0][name] = group[name]
            worker.step()
        for _, matrix in self._matrices:  # or it would keep the gradient that `zero_grad` lets go
            matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The groups' settings, and the state of what does their steps."""
        return {**super().state_dict(), "workers": [w.state_dict() for w in self._workers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what `state_dict` gave, of an optimizer for the same model."""
        super().load_state_dict(state_dict)
        for worker, state in zip(self._workers, state_dict["workers"], strict=True):
            worker.load_state_dict(state)


def _by_memory(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, of the shape of `like`, its dimensions after the first in the order that `like` has
    in memory: channels_last kernels have another than contiguous ones. That is the order of a
    matrix's columns, which Muon does not mind.
    """
    inner = sorted(range(1, like.ndim), key=lambda d: like.stride(d), reverse=True)
    return tensor.permute(0, *inner)
