"""Stems: the first layers of a model of torchvision, changed for small or gray images.

The published stems make an image four times smaller at once, which leaves little of a small one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpsearch.families._architectures import Architecture, Step

STEMS = ("standard", "small", "stride1")
"""standard: as published. small: the first convolution has stride 1 and a smaller kernel, and no
pool follows, as ResNets have it for CIFAR (He et al., arXiv 1512.03385, sec. 4.2); models that cut
the image into patches cut smaller ones. stride1: the same, but the kernel is the published one, so
that published weights fit; where that is as small already, the two are the same.
"""


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The convolution that gets the image, and its path in `model`."""
    return next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))


def stems_of(architecture: Architecture, model: nn.Module) -> tuple[str, ...]:
    """Those of `STEMS` that a model has."""
    if not architecture.small:
        return STEMS[:1]
    return STEMS[:2] if _cuts_patches(first_convolution(model)[1]) else STEMS


def keeps_kernel(model: nn.Module, stem: str, small: int) -> bool:
    """Whether a stem has the first kernel of the published one, so that its weights fit.

    Args:
        small: side of the kernel in the small stem.
    """
    return stem != "small" or first_convolution(model)[1].kernel_size == (small, small)


def change_stem(model: nn.Module, stem: str, small: int) -> None:
    """Gives `model` another first convolution, in place.

    Args:
        small: side of the kernel in the small stem.
    """
    if stem == "standard":
        return
    path, convolution = first_convolution(model)
    side = small if stem == "small" else convolution.kernel_size[0]
    if _cuts_patches(convolution):
        model.set_submodule(path, _another(convolution, kernel_size=side, stride=side))
    elif side != convolution.kernel_size[0]:
        model.set_submodule(path, _another(convolution, kernel_size=side, padding=side // 2))
    else:
        convolution.stride = (1, 1)
        convolution.padding = (side // 2, side // 2)


def without_pool(stage: list[Step]) -> list[Step]:
    """The steps of a first stage, with none in place of each pool."""
    return [(n, nn.Identity() if isinstance(m, nn.MaxPool2d) else m) for n, m in stage]


def take_gray(model: nn.Module) -> None:
    """Lets `model` take images of one channel, in place: what it does with them is what it did
    with images of three equal channels.
    """
    path, convolution = first_convolution(model)
    gray = _another(
        convolution,
        in_channels=1,
        kernel_size=convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
    )
    with torch.no_grad():
        gray.weight.copy_(convolution.weight.sum(dim=1, keepdim=True))
        if gray.bias is not None and convolution.bias is not None:
            gray.bias.copy_(convolution.bias)
    model.set_submodule(path, gray)


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == convolution.stride != (1, 1)


def _another(convolution: nn.Conv2d, **changed: Any) -> nn.Conv2d:
    """A new convolution with the same outputs, and the initial weights of torchvision's ResNets,
    or those of its ViT for patches.
    """
    options = {"in_channels": convolution.in_channels, **changed}
    bias = convolution.bias is not None
    new = nn.Conv2d(out_channels=convolution.out_channels, bias=bias, **options)
    if _cuts_patches(new):
        fan_in = new.weight[0].numel()
        nn.init.trunc_normal_(new.weight, std=fan_in**-0.5)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
