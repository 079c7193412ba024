"""Convolutional network: blocks of 3x3 convolutions, each block ending in a pool, and a head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from torch import nn

from hpsearch.config import JsonConfig, Options, check_int
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.families._family import RECIPES, Family, Suggestion, suggest_training
from hpsearch.families._space import ParamValue, Suggester
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel

# In images of up to this many pixels a side, where something is tells as much as what it is: the
# head sees the whole last map. In larger ones it would learn each place on its own, from too few
# images: it sees the strongest answer of each channel, wherever that is.
LARGEST_FLAT = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class CnnOptions(JsonConfig):
    """`blocks` blocks of `convs` convolutions; `channels` in the first block, doubled by each
    next one; `hidden` units in a fully connected layer before the classifier, or 0 for none.
    """

    blocks: int = 2
    convs: int = 2
    channels: int = 32
    hidden: int = 0

    def __post_init__(self) -> None:
        check_int("cnn: blocks", self.blocks, low=1)
        check_int("cnn: convs", self.convs, low=1)
        check_int("cnn: channels", self.channels, low=1)
        check_int("cnn: hidden", self.hidden, low=0)


def most_blocks(shape: ImageShape) -> int:
    """How many times images of `shape` can be halved before a side is gone."""
    return int(math.log2(min(shape.height, shape.width)))


def _is_tiny(shape: ImageShape) -> bool:
    return max(shape.height, shape.width) <= LARGEST_FLAT


def _by_size(tiny: ParamValue, larger: ParamValue) -> Callable[[ImageShape], ParamValue]:
    return lambda shape: tiny if _is_tiny(shape) else larger


def _usual_blocks(shape: ImageShape) -> int:
    return max(2, min(4, most_blocks(shape) - 2))


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Depth, width and head of the network, no deeper than the images allow.

    Raises:
        ConfigError: the images are too small for one block.
    """
    if most_blocks(shape) < 1:
        raise ConfigError(
            f"cnn needs images of at least 2x2 pixels, but they are {shape.height}x{shape.width}; "
            "use the families logistic or mlp"
        )
    options = CnnOptions(
        blocks=s.int("blocks", 1, min(4, most_blocks(shape))),
        convs=s.int("convs", 1, 3),
        channels=s.number("channels", (16, 32, 48, 64)),
        hidden=s.number("hidden", (0, 128, 256)),
    )
    return suggest_training(
        s,
        options=options.to_dict(),
        dropout=True,
        augment=("rotate", "translate", "scale"),
        label_smoothing=True,
    )


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Convolution, BatchNorm, ReLU; the last of a block is pooled (2x2) before its ReLU, which
    is the same function for a quarter of the work.

    Raises:
        ConfigError: more blocks than the images can be halved.
    """
    o = CnnOptions.from_dict(options)
    if o.blocks > most_blocks(shape):
        raise ConfigError(
            f"cnn: {o.blocks} blocks halve the image {o.blocks} times and need at least "
            f"{2**o.blocks} pixels a side, but the images are {shape.height}x{shape.width}; "
            f"use at most {most_blocks(shape)} blocks"
        )
    stages: dict[str, nn.Module] = {}
    inputs, outputs = shape.channels, o.channels
    for block in range(1, o.blocks + 1):
        layers: list[nn.Module] = []
        for number in range(1, o.convs + 1):
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            if number == o.convs:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU())
            inputs = outputs
        stages[f"block{block}"] = nn.Sequential(*layers)
        outputs *= 2
    height, width = shape.height >> o.blocks, shape.width >> o.blocks
    head: list[nn.Module] = []
    if not _is_tiny(shape):
        head.append(nn.AdaptiveMaxPool2d(1))
        height = width = 1
    features = inputs * height * width
    head += [nn.Flatten(), ScheduledDropout()]
    if o.hidden:
        head += [nn.Linear(features, o.hidden), nn.ReLU(), ScheduledDropout()]
    head.append(nn.Linear(o.hidden or features, n_classes))
    stages["head"] = nn.Sequential(*head)
    return StagedModel(stages)


FAMILY = Family(
    summary="convolutional network: blocks of 3x3 convolutions and pooling",
    suggest=suggest,
    build=build,
    # On larger images fewer convolutions, smaller batches and, for SGD, a lower rate do better.
    defaults=tuple(
        {
            **recipe,
            "blocks": _usual_blocks,
            "convs": _by_size(2, 1),
            "channels": 32,
            "hidden": 0,
            "scale": 0.1,
            "batch_size": _by_size(64, 32),
            "lr": _by_size(tiny_lr, lr),
        }
        for recipe, tiny_lr, lr in zip(RECIPES, (3e-3, 0.05), (3e-3, 0.01), strict=True)
    ),
)
