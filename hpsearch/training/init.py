"""Initial weights: a table, one row each.

To add one, append a row: the standard deviation of its weights, given what a unit sees and what
it is seen by. The option `init`, its search and its validation follow from the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hpsearch.checks import look_up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fans:
    """How many inputs each output of a layer has (`fan_in`), and how many outputs each input."""

    fan_in: int
    fan_out: int
    convolution: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitInfo:
    """One row of the table.

    Attributes:
        std: of the normal distribution around 0 that weights are drawn from; biases are 0. None:
            everything stays as the modules made it.
    """

    name: str
    help: str
    std: Callable[[Fans], float] | None


INITS: tuple[InitInfo, ...] = (
    InitInfo(
        name="default",
        help="each kind of layer's own",
        std=None,
    ),
    InitInfo(
        name="xavier",
        help="normal, for an even flow forward and back (Glorot and Bengio, AISTATS 2010)",
        std=lambda fans: math.sqrt(2 / (fans.fan_in + fans.fan_out)),
    ),
    InitInfo(
        name="kaiming",
        help="normal, for ReLU: by the outputs of convolutions, by the inputs of fully connected "
        "layers (He et al., arXiv 1502.01852)",
        std=lambda fans: math.sqrt(2 / (fans.fan_out if fans.convolution else fans.fan_in)),
    ),
)

_BY_NAME = {row.name: row for row in INITS}


def init_info(name: str) -> InitInfo:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("init", name, _BY_NAME)


def initialise(model: nn.Module, name: str) -> None:
    """Draws the weights of all convolutions and linear layers of `model` anew, in place, those
    inside of attention included. Normalisation, position embeddings and whatever else is no such
    layer stay as they are.

    The numbers come from torch's global generator; "default" draws none.

    Raises:
        ConfigError: an unknown name.
    """
    std = init_info(name).std
    if std is None:
        return
    with torch.no_grad():
        for module in model.modules():
            for weight, fans in _weights(module):
                weight.normal_(0.0, std(fans))
            for bias in _biases(module):
                bias.zero_()


def _weights(module: nn.Module) -> Iterator[tuple[Tensor, Fans]]:
    if isinstance(module, nn.Linear):
        yield module.weight, _linear(module.weight)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        window = math.prod(module.kernel_size)
        # An input is seen by the outputs of its own group only.
        yield (
            module.weight,
            Fans(
                fan_in=module.in_channels // module.groups * window,
                fan_out=module.out_channels // module.groups * window,
                convolution=True,
            ),
        )
    elif isinstance(module, nn.MultiheadAttention):
        if module.in_proj_weight is None:
            separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
            yield from ((weight, _linear(weight)) for weight in separate)
        else:  # query, key and value: three layers in one tensor
            yield from ((weight, _linear(weight)) for weight in module.in_proj_weight.chunk(3))


def _linear(weight: Tensor) -> Fans:
    return Fans(fan_in=weight.shape[1], fan_out=weight.shape[0], convolution=False)


def _biases(module: nn.Module) -> list[Tensor]:
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        biases = [module.bias]
    elif isinstance(module, nn.MultiheadAttention):
        biases = [module.in_proj_bias]
    else:
        biases = []
    return [bias for bias in biases if bias is not None]
