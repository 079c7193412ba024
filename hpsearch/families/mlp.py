"""Multi-layer perceptron: fully connected hidden layers on the pixels."""

from __future__ import annotations

import dataclasses

from torch import nn

from hpsearch.config import JsonConfig, Options, check_bool, check_int
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family import RECIPES, Family, Suggestion, suggest_training
from hpsearch.families._space import Suggester
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpOptions(JsonConfig):
    """`layers` hidden layers of `width` units, each with BatchNorm or without."""

    layers: int = 2
    width: int = 256
    batch_norm: bool = True

    def __post_init__(self) -> None:
        check_int("mlp: layers", self.layers, low=1)
        check_int("mlp: width", self.width, low=1)
        check_bool("mlp: batch_norm", self.batch_norm)


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Depth and width of the network; dropout and shifts against overfitting."""
    options = MlpOptions(
        layers=s.int("layers", 1, 4),
        width=s.number("width", (64, 128, 256, 512)),
        batch_norm=s.categorical("batch_norm", ("yes", "no")) == "yes",
    )
    return suggest_training(
        s,
        options=options.to_dict(),
        dropout=True,
        augment=("rotate", "translate"),
        label_smoothing=True,
    )


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Linear, BatchNorm, ReLU, dropout for each hidden layer; then a linear classifier."""
    o = MlpOptions.from_dict(options)
    stages: dict[str, nn.Module] = {}
    features = shape.height * shape.width * shape.channels
    for number in range(1, o.layers + 1):
        layers: list[nn.Module] = [nn.Flatten()] if number == 1 else []
        layers.append(nn.Linear(features, o.width, bias=not o.batch_norm))
        if o.batch_norm:
            layers.append(nn.BatchNorm1d(o.width))
        layers += [nn.ReLU(), ScheduledDropout()]
        stages[f"hidden{number}"] = nn.Sequential(*layers)
        features = o.width
    stages["head"] = nn.Linear(features, n_classes)
    return StagedModel(stages)


FAMILY = Family(
    summary="fully connected network on the pixels",
    suggest=suggest,
    build=build,
    defaults=tuple(
        {**recipe, "layers": 2, "width": 256, "batch_norm": "yes"} for recipe in RECIPES
    ),
)
