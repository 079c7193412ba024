"""AlexNet (Krizhevsky, arXiv 1404.5997), from torchvision."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hpsearch.checks import Options
from hpsearch.data.dataset import ImageShape
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

MODEL = "alexnet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlexNetOptions(ZooOptions):
    """Those of all models of torchvision. The pool is one to 6 x 6, and cannot be flat."""

    family: ClassVar[str] = "alexnet"


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """How it is trained; head, pool and stem are there for an override.

    Raises:
        InfeasibleError: images too small for the stem, or a stem or pool that does not fit.
    """
    start = ask_start(s, shape, pretrained=usual_weights(shape))
    if start.options is None:
        options = AlexNetOptions(**ask_architecture(s, start, MODEL))
    else:
        options = AlexNetOptions.from_dict(start.options)
    return suggest_zoo(s, start, options, MODEL, [MODEL])


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Five convolutions, two fully connected layers with dropout, each a stage, and the head. The
    small stem has a convolution of 5 x 5, and no pool after it.

    Raises:
        InfeasibleError: the images are too small for the stem, or the pool is flat.
        ConfigError: a wrong option.
    """
    return build_zoo(MODEL, AlexNetOptions.from_dict(options), shape, n_classes)


FAMILY = Family(
    summary="AlexNet: five convolutions and three fully connected layers, pretrained or not",
    suggest=suggest,
    build=build,
    # Without BatchNorm, it takes smaller steps than the other models.
    defaults=zoo_defaults(scratch=(3e-4, 0.01), pretrained=(1e-4, 2e-3)),
    published=lambda _: MODEL,
)
