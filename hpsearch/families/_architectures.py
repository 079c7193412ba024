"""The classes of torchvision's classification models, taken apart into steps: a table.

What a class does in its `forward` between its modules becomes a module here. To add a class of a
new torchvision, append a row to `ARCHITECTURES`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchvision
import torchvision.models as zoo
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError, InfeasibleError

Step = tuple[str, nn.Module]

# How much smaller a map must become for a new stage to begin. Unpadded convolutions shave off less.
_SHRINKS = 1.5
# A first layer that shrinks by so much cuts patches, and is a stage of its own.
_PATCHES = 4
_VIT_GROUPS = 4


class ClassToken(nn.Module):
    """The first of a sequence: (n, tokens, features) -> (n, features)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """That token."""
        return tokens[:, 0]


class Patches(nn.Module):
    """The patches of an image as a sequence behind a class token, with their positions:
    (n, 3, height, width) -> (n, 1 + patches, features).

    It takes these parts from a `VisionTransformer`, which itself takes square images of one size
    only.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.conv_proj = vit.conv_proj
        self.class_token = vit.class_token
        self.pos_embedding = vit.encoder.pos_embedding
        self.dropout = vit.encoder.dropout

    def forward(self, images: Tensor) -> Tensor:
        """The sequence; patches come row by row."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        # Not len(images): torch.export would take it for a number that never changes.
        token = self.class_token.expand(images.shape[0], -1, -1)
        sequence: Tensor = self.dropout(torch.cat([token, patches], dim=1) + self.pos_embedding)
        return sequence


class FromImageNet(nn.Module):
    """What was normalised with ImageNet's mean and deviation becomes pixels from -1 to 1, which
    the published weights of GoogLeNet and Inception were trained on. Gray images stay as they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
        std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
        self.register_buffer("scale", std / 0.5, persistent=False)
        self.register_buffer("shift", (mean - 0.5) / 0.5, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The same images, float32 NCHW."""
        return images if images.shape[1] != 3 else images * self.scale + self.shift


def steps(module: nn.Module, *, until: str = "") -> list[Step]:
    """The children of `module`, in their order; those before the one called `until`."""
    children = list(module.named_children())
    names = [name for name, _ in children]
    return children[: names.index(until)] if until else children


def _make(name: str, shape: ImageShape, **options: Any) -> nn.Module:
    model: nn.Module = zoo.get_model(name, weights=None, num_classes=2, **options)
    return model


def _make_inception(name: str, shape: ImageShape) -> nn.Module:
    return _make(name, shape, aux_logits=False, init_weights=True)


def _make_regnet(name: str, shape: ImageShape) -> nn.Module:
    """RegNet computes its widths with tensors, which need values: where there should be none, only
    its own parameters are made without.
    """
    if torch.get_default_device().type != "meta":
        return _make(name, shape)
    with torch.device("cpu"), _HollowParameters():
        model = _make(name, shape)
    return model.to("meta")


class _HollowParameters(TorchFunctionMode):
    """Tensors that are to be filled later, as layers make them, have no values."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


def _make_maxvit(name: str, shape: ImageShape) -> nn.Module:
    """Its maps are cut into 7 x 7 windows and 7 x 7 grids, down to the last one."""
    if shape.height != shape.width or shape.height % 224:
        raise InfeasibleError(
            f"{name} takes square images whose sides are multiples of 224, but they are "
            f"{shape.height}x{shape.width}; bring them to 224x224 (square ones: image_size=224)"
        )
    return _make(name, shape, input_size=(shape.height, shape.width))


def _fit_vit(vit: Any, shape: ImageShape) -> None:
    """As many positions as there are patches."""
    height, width = patch_grid(vit.conv_proj.kernel_size, shape)
    positions = vit.encoder.pos_embedding
    if positions.shape[1] != 1 + height * width:
        size = 1, 1 + height * width, positions.shape[2]
        positions.data = torch.empty(size).normal_(std=0.02)


def patch_grid(patch: Sequence[int], shape: ImageShape) -> tuple[int, int]:
    """How many patches of this height and width there are below and beside each other."""
    return shape.height // patch[0], shape.width // patch[1]


def _cut_by_size(chain: Sequence[Step], sides: Sequence[int]) -> list[int]:
    """A stage begins with each layer that makes the map smaller, and after each pool that does."""
    starts, weighted = [0], False
    for number, (_, module) in enumerate(chain):
        shrinks = sides[number] / sides[number + 1] >= _SHRINKS
        own = any(True for _ in module.parameters())
        if shrinks and own and weighted:
            starts.append(number)
            weighted = False
        weighted = weighted or own
        patches = sides[number] / sides[number + 1] >= _PATCHES
        if ((shrinks and not own) or patches) and number + 1 < len(chain):
            starts.append(number + 1)
            weighted = False
    return starts


def _cut_by_convolution(chain: Sequence[Step], sides: Sequence[int]) -> list[int]:
    return [number for number, (_, module) in enumerate(chain) if isinstance(module, nn.Conv2d)]


def _cut_by_group(chain: Sequence[Step], sides: Sequence[int]) -> list[int]:
    """The first step, and the others in groups of the same number of blocks."""
    blocks = len(chain) - 2  # without the patches, and the norm at the end
    return [0, *(1 + blocks * group // _VIT_GROUPS for group in range(_VIT_GROUPS))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row: how the models of one class are made and taken apart.

    Attributes:
        trunk: (model) -> the steps from images to the last map, float32 NCHW (or to the last
            sequence, where the tail begins with a class token).
        tail: (model) -> the steps from the pooling to what the last linear layer gets. The first
            is the pooling.
        cut: (trunk, sides of the map before each step and after the last) -> the numbers of the
            steps that stages begin with.
        stem: name of the first stage; empty: it is numbered like the others.
        stage: the other stages are called this, with a number from 1.
        small: side of the first kernel in the stem for small images, which has stride 1 (for
            patches: side of the small patches); 0: there is no such stem.
        make: (name, shape of the images) -> the model, of two classes.
        fit: changes the model so that it takes images of a shape, where that is needed.
    """

    trunk: Callable[[Any], list[Step]]
    tail: Callable[[Any], list[Step]]
    cut: Callable[[Sequence[Step], Sequence[int]], list[int]] = _cut_by_size
    stem: str = "stem"
    stage: str = "stage"
    small: int = 3
    make: Callable[[str, ImageShape], nn.Module] = _make
    fit: Callable[[Any, ImageShape], None] | None = None


def _average_tail(model: Any) -> list[Step]:
    """Where the class averages the map in its `forward`, or by a module in front of the last."""
    return [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]


def _classifier_tail(model: Any) -> list[Step]:
    """Where layers come between the pooling and the last one."""
    return [("avgpool", model.avgpool), ("flatten", nn.Flatten()), *steps(model.classifier)[:-1]]


_INCEPTION = Architecture(
    trunk=lambda m: [("from_imagenet", FromImageNet()), *steps(m, until="avgpool")],
    tail=_average_tail,
    make=_make_inception,
)

ARCHITECTURES: Mapping[type[nn.Module], Architecture] = {
    zoo.AlexNet: Architecture(
        trunk=lambda m: steps(m.features),
        tail=_classifier_tail,
        cut=_cut_by_convolution,
        stem="",
        stage="conv",
        small=5,
    ),
    zoo.ConvNeXt: Architecture(
        trunk=lambda m: steps(m.features),
        tail=lambda m: [("avgpool", m.avgpool), *steps(m.classifier)[:-1]],
        small=2,
    ),
    zoo.DenseNet: Architecture(
        trunk=lambda m: [*steps(m.features), ("relu5", nn.ReLU(inplace=True))],
        tail=_average_tail,
    ),
    zoo.EfficientNet: Architecture(trunk=lambda m: steps(m.features), tail=_average_tail),
    zoo.GoogLeNet: _INCEPTION,
    zoo.Inception3: _INCEPTION,
    zoo.MNASNet: Architecture(trunk=lambda m: steps(m.layers), tail=_average_tail),
    zoo.MaxVit: Architecture(
        trunk=lambda m: [("stem", m.stem), *steps(m.blocks)],
        tail=lambda m: steps(m.classifier)[:-1],
        small=0,
        make=_make_maxvit,
    ),
    zoo.MobileNetV2: Architecture(trunk=lambda m: steps(m.features), tail=_average_tail),
    zoo.MobileNetV3: Architecture(trunk=lambda m: steps(m.features), tail=_classifier_tail),
    zoo.RegNet: Architecture(
        trunk=lambda m: [("stem", m.stem), *steps(m.trunk_output)],
        tail=_average_tail,
        make=_make_regnet,
    ),
    zoo.ResNet: Architecture(
        trunk=lambda m: steps(m, until="avgpool"), tail=_average_tail, stage="layer"
    ),
    zoo.ShuffleNetV2: Architecture(trunk=lambda m: steps(m, until="fc"), tail=_average_tail),
    # Its last layer is a convolution with a ReLU, averaged then. A linear layer behind the average
    # is the same but for that ReLU, which would keep logits from being negative.
    zoo.SqueezeNet: Architecture(trunk=lambda m: steps(m.features), tail=_average_tail),
    zoo.SwinTransformer: Architecture(
        trunk=lambda m: [*steps(m.features), ("norm", m.norm), ("permute", m.permute)],
        tail=_average_tail,
        small=2,
    ),
    zoo.VGG: Architecture(
        trunk=lambda m: steps(m.features),
        tail=_classifier_tail,
        stem="",
        stage="block",
        small=0,
    ),
    zoo.VisionTransformer: Architecture(
        trunk=lambda m: [("patches", Patches(m)), *steps(m.encoder.layers), ("ln", m.encoder.ln)],
        tail=lambda _: [("token", ClassToken())],
        cut=_cut_by_group,
        stem="patches",
        stage="blocks",
        small=4,
        fit=_fit_vit,
    ),
}


def model_names() -> tuple[str, ...]:
    """The names of torchvision's classification models, sorted."""
    return tuple(zoo.list_models(module=zoo))


@functools.cache
def architecture_of(name: str) -> Architecture:
    """The row for the model called `name`.

    Raises:
        ConfigError: torchvision has no such model, or it is of a class without a row.
    """
    if name not in model_names():
        raise ConfigError(f"model must be one of {', '.join(model_names())}, but is {name!r}")
    made = typing.get_type_hints(zoo.get_model_builder(name)).get("return", nn.Module)
    if made not in ARCHITECTURES:
        known = ", ".join(sorted(row.__name__ for row in ARCHITECTURES))
        raise ConfigError(
            f"model {name!r} of torchvision {torchvision.__version__} is a {made.__name__}, which "
            f"this hpsearch cannot take apart; use a model of {known}"
        )
    return ARCHITECTURES[made]
