"""Any classification model of torchvision, by its name there."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hpsearch.checks import Options, check_choice
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family import Family, Start, Suggestion, ask_start
from hpsearch.families._space import Suggester
from hpsearch.families._stages import fits
from hpsearch.families._zoo import ZooOptions, build_zoo, model_names
from hpsearch.families._zoo_space import (
    ask_architecture,
    suggest_zoo,
    usual_stem,
    usual_weights,
    zoo_defaults,
)
from hpsearch.training.model import StagedModel

SEARCHED = ("efficientnet_b0", "regnet_y_800mf", "convnext_tiny")
"""By default: good ones that train in reasonable time, each of another kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchvisionOptions(ZooOptions):
    """`model` is torchvision's name of it; the others are those of all its models."""

    family: ClassVar[str] = "torchvision"

    model: str = SEARCHED[0]

    def __post_init__(self) -> None:
        check_choice("torchvision: model", self.model, model_names())
        super().__post_init__()


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Model; head, pool and stem are there for an override.

    Raises:
        InfeasibleError: images too small for the model, or a stem or pool that does not fit.
        ConfigError: a model of a torchvision that is too new.
    """
    start = ask_start(s, shape, pretrained=usual_weights(shape))
    if start.options is None:
        searched = _fitting(start)
        model = s.categorical("model", searched, also=model_names(), help="torchvision's name")
        models = s.choices("model")
        options = TorchvisionOptions(model=model, **ask_architecture(s, start, model))
    else:
        options = TorchvisionOptions.from_dict(start.options)
        models = (options.model,)
    return suggest_zoo(s, start, options, options.model, models)


def _fitting(start: Start) -> tuple[str, ...]:
    """Those of `SEARCHED` that take the largest images of the search; where none does, the first
    says what is wrong with them.
    """
    untrained = dataclasses.replace(start, shape=start.largest, weights=None)
    return (
        tuple(
            model
            for model in SEARCHED
            if fits(model, start.largest, stem=usual_stem(model, untrained))
        )
        or SEARCHED[:1]
    )


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """The stages are found: where the map becomes smaller, or for a ViT every quarter of its
    blocks.

    Raises:
        InfeasibleError: the images are too small for the model, or it has no such stem or pool.
        ConfigError: a wrong option, or a model of a torchvision that is too new.
    """
    o = TorchvisionOptions.from_dict(options)
    return build_zoo(o.model, o, shape, n_classes)


FAMILY = Family(
    summary="any classification model of torchvision by name, pretrained or not",
    suggest=suggest,
    build=build,
    defaults=zoo_defaults(model=SEARCHED[0]),
    published=lambda options: TorchvisionOptions.from_dict(options).model,
)
