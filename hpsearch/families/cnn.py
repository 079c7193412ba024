"""Convolutional network: blocks of convolutions, each block ending in a pool, and a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpsearch.checks import Options
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError
from hpsearch.families._convnet import (
    HEAD_DROPOUTS,
    NORMS,
    PADDINGS,
    POOLS,
    VIEWS,
    CnnOptions,
    build,
    is_tiny,
    most_blocks,
)
from hpsearch.families._family import Family, Start, Suggestion, ask_start, by_shape
from hpsearch.families._heads import ACTIVATIONS
from hpsearch.families._recipe import MOST_STAGES, RECIPES, suggest_training
from hpsearch.families._space import Suggester


def _reference(**options: Any) -> Options:
    """What the networks of the reference reports have in common, and the rest of one of them."""
    return dataclasses.asdict(CnnOptions(bias=True, view="flat", head_dropout="hidden", **options))


PRESETS: Mapping[str, Options] = {
    # STL-10: 8,807,106 parameters for 10 classes at 64x64x3.
    "stl4": _reference(
        convs=1, widths=(256, 512, 512, 1000), padding="none", pool_size=3, fc=(512, 256)
    ),
    # Photos of two classes: 2,304 features before the head at 444x444.
    "photos6x5": _reference(
        blocks=6,
        convs=1,
        channels=8,
        kernel=5,
        padding="none",
        fc=(1000, 500, 100),
        fc_activation="none",
    ),
    # Hands: the order of the layers is the report's, the channels and units are ours. Three
    # convolutions and a pool, twice, and three fully connected layers; and
    "hands6": _reference(blocks=2, convs=3, channels=32, fc=(256, 64)),
    # the same five times, and four fully connected layers.
    "hands15": _reference(blocks=5, convs=3, channels=16, fc=(512, 256, 64)),
}


def _usual_blocks(shape: ImageShape) -> int:
    return max(2, min(4, most_blocks(shape) - 2))


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Depth, width and head of the network, no deeper than the images allow with the usual
    kernel, padding and pool; how deep others can be, `build` says.

    Raises:
        InfeasibleError: the images are too small for one block.
    """
    start = ask_start(s, shape, presets=PRESETS)
    fixed = start.options
    options = _ask_options(s, start) if fixed is None else CnnOptions.from_dict(fixed)
    return suggest_training(
        s,
        start,
        options=dataclasses.asdict(options),
        stages=len(options.block_channels) + 1,
        most_stages=None if start.weights and len(start.sources) == 1 else MOST_STAGES,
        dropout=options.has_dropout,
        augment=("rotate", "translate", "scale"),
        label_smoothing=True,
    )


def _ask_options(s: Suggester, start: Start) -> CnnOptions:
    if most_blocks(start.shape) < 1:
        raise InfeasibleError(
            "cnn needs images of at least 2x2 pixels, but they are "
            f"{start.shape.height}x{start.shape.width}; use the families logistic or mlp"
        )
    # A range must be the same in all trials: where they differ in the size of the images, `build`
    # says which blocks are too many.
    most = max(1, most_blocks(start.largest))
    usual = CnnOptions()
    values: dict[str, Any] = {}
    values["widths"] = s.numbers(
        "widths", help="channels of each block; instead of blocks, channels and growth"
    )
    if not values["widths"]:
        values["blocks"] = s.int(
            "blocks", 1, min(4, most), limits=(1, most), help="each ends in a pool of stride 2"
        )
    values["convs"] = s.int("convs", 1, 3, limits=(1, 16), help="convolutions in a block")
    if not values["widths"]:
        values["channels"] = s.number(
            "channels", (16, 32, 48, 64), least=1, help="of the first block"
        )
        values["growth"] = s.number(
            "growth", (1, 2), least=1, off=usual.growth, help="of the channels, block by block"
        )
    values["fc"] = s.numbers("fc", help="units of layers before the last; instead of hidden")
    if not values["fc"]:
        values["hidden"] = s.number(
            "hidden", (0, 128, 256), least=0, help="units of a layer before the last; 0: no layer"
        )
    if values["fc"] or values["hidden"]:
        values["fc_activation"] = s.categorical(
            "fc_activation",
            [name for name in ACTIVATIONS if name != "none"],
            also=("none",),
            off=usual.fc_activation,
            help="after each layer before the last",
        )
    norm = s.categorical("norm", NORMS, off=usual.norm, help="after each convolution")
    if norm != "none":
        values["bias"] = s.flag("bias", off=usual.bias, help="of convolutions")
    return CnnOptions(
        **values,
        norm=norm,
        kernel=s.number("kernel", (3, 5, 7), also=(1, 9, 11), off=usual.kernel, help="side"),
        padding=s.categorical(
            "padding", PADDINGS, off=usual.padding, help="same: maps keep their size"
        ),
        activation=s.categorical(
            "activation",
            [name for name in ACTIVATIONS if name != "none"],
            off=usual.activation,
            help="after each convolution",
        ),
        pool=s.categorical("pool", POOLS, off=usual.pool, help="of each block"),
        pool_size=s.number("pool_size", (2, 3), off=usual.pool_size, help="side of its window"),
        view=s.categorical(
            "view",
            VIEWS,
            off=usual.view,
            help="of the last map by the head: all (flat), or one number a channel",
        ),
        head_dropout=s.categorical(
            "head_dropout",
            HEAD_DROPOUTS,
            off=usual.head_dropout,
            help="before each fully connected layer, or not before the first",
        ),
    )


FAMILY = Family(
    summary="convolutional network: blocks of convolutions and pooling",
    suggest=suggest,
    build=build,
    presets=PRESETS,
    # On larger images fewer convolutions, smaller batches and, for SGD, a lower rate do better.
    defaults=tuple(
        {
            **recipe,
            "blocks": _usual_blocks,
            "convs": by_shape(is_tiny, 2, 1),
            "channels": 32,
            "hidden": 0,
            "scale": 0.1,
            "batch_size": by_shape(is_tiny, 64, 32),
            "lr": by_shape(is_tiny, tiny_lr, lr),
        }
        for recipe, tiny_lr, lr in zip(RECIPES, (3e-3, 0.05), (3e-3, 0.01), strict=True)
    ),
)
