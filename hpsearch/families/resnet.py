"""ResNets (He et al., arXiv 1512.03385) of 18 to 101 layers, from torchvision."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hpsearch.checks import Options, check_int
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.families._family import Family, Suggestion, ask_start
from hpsearch.families._space import Suggester
from hpsearch.families._zoo import ZooOptions, build_zoo
from hpsearch.families._zoo_space import (
    ask_architecture,
    suggest_zoo,
    usual_weights,
    zoo_defaults,
)
from hpsearch.training.model import StagedModel

DEPTHS = (18, 34, 50, 101)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetOptions(ZooOptions):
    """`depth` is the number of layers; the others are those of all models of torchvision."""

    family: ClassVar[str] = "resnet"

    depth: int = 18

    def __post_init__(self) -> None:
        check_int("resnet: depth", self.depth, low=1)
        if self.depth not in DEPTHS:
            known = ", ".join(str(depth) for depth in DEPTHS)
            raise ConfigError(f"resnet: depth must be one of {known}, but is {self.depth}")
        super().__post_init__()

    @property
    def model(self) -> str:
        """Torchvision's name of it."""
        return f"resnet{self.depth}"


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Depth; head, pool and stem are there for an override.

    Raises:
        InfeasibleError: a stem that published weights do not fit.
    """
    start = ask_start(s, shape, pretrained=usual_weights(shape))
    if start.options is None:
        depth = s.number("depth", DEPTHS[:2], also=DEPTHS[2:], help="number of layers")
        model = ResNetOptions(depth=depth).model
        options = ResNetOptions(depth=depth, **ask_architecture(s, start, model))
    else:
        options = ResNetOptions.from_dict(start.options)
    return suggest_zoo(s, start, options, options.model, [options.model])


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """The stem, four stages of residual blocks, and the head.

    Raises:
        ConfigError: a wrong option.
    """
    o = ResNetOptions.from_dict(options)
    return build_zoo(o.model, o, shape, n_classes)


FAMILY = Family(
    summary="residual network of 18, 34, 50 or 101 layers, pretrained or not",
    suggest=suggest,
    build=build,
    defaults=zoo_defaults(depth=18),
    published=lambda options: ResNetOptions.from_dict(options).model,
)
