"""The network of the family cnn: its options, the sizes of its maps, its layers."""

from __future__ import annotations

import dataclasses

from torch import nn

from hpsearch.checks import JsonConfig, Options, check_bool, check_choice, check_int
from hpsearch.data.dataset import ImageShape
from hpsearch.data.words import plural
from hpsearch.errors import ConfigError
from hpsearch.families._heads import activation_layers, check_activation, check_widths, make_head
from hpsearch.families._sizes import Window, final_size, least_side
from hpsearch.training.model import StagedModel

LARGEST_FLAT = 16
"""In images of up to this many pixels a side, where something is tells as much as what it is: the
head sees the whole last map. In larger ones it would learn each place on its own, from too few
images: it sees the strongest answer of each channel, wherever that is.
"""

PADDINGS = ("same", "none")
NORMS = ("batch", "group", "none")
POOLS = ("max", "avg")
VIEWS = ("auto", "flat", "max", "avg")
HEAD_DROPOUTS = ("all", "hidden")

# These never fall where their input rises, so that they can change places with a maximum.
RISING = frozenset({"relu", "leaky_relu", "elu", "tanh", "none"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CnnOptions(JsonConfig):
    """The architecture; the shape of the images decides the rest.

    Attributes:
        blocks: how many, each ending in a pool of stride 2.
        convs: convolutions in each block, each with norm and activation.
        channels: of the convolutions in the first block.
        growth: the channels of a block are this many times those of the one before.
        widths: channels of each block, in place of `blocks`, `channels` and `growth`.
        kernel: side of the convolutions' kernels, an odd number.
        padding: "same" keeps the size of a map, "none" takes `kernel` - 1 off its sides.
        norm: "batch" or "group" normalisation after each convolution, or "none".
        bias: whether convolutions have one; without norm they always do.
        activation: after each norm, a row of `ACTIVATIONS` in `_heads.py`.
        pool: "max" or "avg".
        pool_size: side of the pool's window, 2 or 3; a row or column left over is dropped.
        view: what the head sees of the last map: "flat", all of it; "max" or "avg" of each
            channel; "auto", flat for images of up to `LARGEST_FLAT` pixels a side and max for
            larger ones.
        hidden: units of a fully connected layer before the classifier, or 0 for none.
        fc: units of each fully connected layer before the classifier, in place of `hidden`.
        fc_activation: after each of these layers, a row of `ACTIVATIONS`.
        head_dropout: "all" puts dropout before each fully connected layer, "hidden" not before
            the first.
    """

    blocks: int = 2
    convs: int = 2
    channels: int = 32
    growth: int = 2
    widths: tuple[int, ...] = ()
    kernel: int = 3
    padding: str = "same"
    norm: str = "batch"
    bias: bool = False
    activation: str = "relu"
    pool: str = "max"
    pool_size: int = 2
    view: str = "auto"
    hidden: int = 0
    fc: tuple[int, ...] = ()
    fc_activation: str = "relu"
    head_dropout: str = "all"

    def __post_init__(self) -> None:
        check_int("cnn: blocks", self.blocks, low=1)
        check_int("cnn: convs", self.convs, low=1)
        check_int("cnn: channels", self.channels, low=1)
        check_int("cnn: growth", self.growth, low=1)
        check_widths("cnn: widths", self.widths)
        check_int("cnn: kernel", self.kernel, low=1)
        if self.kernel % 2 == 0:
            raise ConfigError(f"cnn: kernel must be an odd number, but is {self.kernel}")
        check_choice("cnn: padding", self.padding, PADDINGS)
        check_choice("cnn: norm", self.norm, NORMS)
        check_bool("cnn: bias", self.bias)
        check_activation("cnn: activation", self.activation)
        check_choice("cnn: pool", self.pool, POOLS)
        check_int("cnn: pool_size", self.pool_size, low=2)
        if self.pool_size > 3:
            raise ConfigError(f"cnn: pool_size must be 2 or 3, but is {self.pool_size}")
        check_choice("cnn: view", self.view, VIEWS)
        check_int("cnn: hidden", self.hidden, low=0)
        check_widths("cnn: fc", self.fc)
        check_activation("cnn: fc_activation", self.fc_activation)
        check_choice("cnn: head_dropout", self.head_dropout, HEAD_DROPOUTS)

    @property
    def block_channels(self) -> tuple[int, ...]:
        """Channels of each block."""
        return self.widths or tuple(
            self.channels * self.growth**block for block in range(self.blocks)
        )

    @property
    def fc_widths(self) -> tuple[int, ...]:
        """Units of each fully connected layer before the classifier."""
        return self.fc or ((self.hidden,) if self.hidden else ())

    @property
    def has_dropout(self) -> bool:
        """Whether there is a place for it."""
        return self.head_dropout == "all" or bool(self.fc_widths)


def most_blocks(shape: ImageShape) -> int:
    """How many times images of `shape` can be halved before a side is gone."""
    return min(shape.height, shape.width).bit_length() - 1


def windows_of(o: CnnOptions) -> list[Window]:
    """Its convolutions and pools, from input to head."""
    padding = o.kernel // 2 if o.padding == "same" else 0
    windows = []
    for block in range(1, len(o.block_channels) + 1):
        windows += [
            Window(name=f"block{block}.conv{number}", kernel=o.kernel, padding=padding)
            for number in range(1, o.convs + 1)
        ]
        windows.append(Window(name=f"block{block}.pool", kernel=o.pool_size, stride=2))
    return windows


def _last_map(o: CnnOptions, shape: ImageShape) -> tuple[int, int]:
    windows = windows_of(o)
    of_block = o.convs + 1
    blocks = len(o.block_channels)
    fitting = [
        fewer
        for fewer in range(1, blocks)
        if least_side(windows[: fewer * of_block]) <= min(shape.height, shape.width)
    ]
    advice = f" or at most {plural(fitting[-1], 'block')}" if fitting else ""
    return final_size(windows, shape, network=f"cnn with {plural(blocks, 'block')}", advice=advice)


def is_tiny(shape: ImageShape) -> bool:
    """Whether no side is longer than `LARGEST_FLAT`."""
    return max(shape.height, shape.width) <= LARGEST_FLAT


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Convolution, norm, activation, `convs` times a block, and a pool at its end; then the head.

    Where it is the same function, the last activation of a block comes after the pool, for a
    quarter of the work.

    Raises:
        InfeasibleError: the images are too small for the blocks.
        ConfigError: a wrong option.
    """
    o = CnnOptions.from_dict(options)
    height, width = _last_map(o, shape)
    stages: dict[str, nn.Module] = {}
    inputs = shape.channels
    for block, outputs in enumerate(o.block_channels, start=1):
        layers: list[nn.Module] = []
        for number in range(1, o.convs + 1):
            layers += _convolution(o, inputs, outputs)
            activation = activation_layers(o.activation)
            if number < o.convs:
                layers += activation
            elif o.pool == "max" and o.activation in RISING:
                layers += [_pool(o), *activation]
            else:
                layers += [*activation, _pool(o)]
            inputs = outputs
        stages[f"block{block}"] = nn.Sequential(*layers)
    view = o.view if o.view != "auto" else "flat" if is_tiny(shape) else "max"
    head: list[nn.Module] = []
    if view != "flat":
        head.append(nn.AdaptiveMaxPool2d(1) if view == "max" else nn.AdaptiveAvgPool2d(1))
        height = width = 1
    fc = make_head(inputs * height * width, o.fc_widths, n_classes, activation=o.fc_activation)
    head += [nn.Flatten(), *(fc if o.head_dropout == "all" else fc[1:])]
    stages["head"] = nn.Sequential(*head)
    return StagedModel(stages)


def _convolution(o: CnnOptions, inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(
        inputs,
        outputs,
        kernel_size=o.kernel,
        padding=o.kernel // 2 if o.padding == "same" else 0,
        bias=o.bias or o.norm == "none",
    )
    if o.norm == "batch":
        return [convolution, nn.BatchNorm2d(outputs)]
    if o.norm == "group":
        return [convolution, nn.GroupNorm(group_count(outputs), outputs)]
    return [convolution]


def group_count(channels: int) -> int:
    """How many groups GroupNorm makes of `channels`: at most 32, as in its paper (Wu and He,
    arXiv 1803.08494), of four channels or more, so that a map of one pixel is not all mean.
    """
    most = min(32, max(1, channels // 4))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _pool(o: CnnOptions) -> nn.Module:
    pool = nn.MaxPool2d if o.pool == "max" else nn.AvgPool2d
    return pool(o.pool_size, stride=2)
