"""Multi-layer perceptron: fully connected hidden layers on the pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from hpsearch.checks import JsonConfig, Options, check_bool, check_int
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family import Family, Suggestion, ask_start
from hpsearch.families._heads import (
    ACTIVATIONS,
    activation_layers,
    check_activation,
    check_widths,
)
from hpsearch.families._recipe import MOST_STAGES, RECIPES, suggest_training
from hpsearch.families._space import Suggester
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpOptions(JsonConfig):
    """The architecture.

    Attributes:
        layers: how many hidden layers.
        width: units of each.
        widths: units of each hidden layer, in place of `layers` and `width`.
        batch_norm: whether each hidden layer has BatchNorm, instead of a bias.
        activation: of the hidden layers, a row of `ACTIVATIONS` in `_heads.py`.
        input_dropout: whether there is dropout on the pixels too, not only after hidden layers.
    """

    layers: int = 2
    width: int = 256
    widths: tuple[int, ...] = ()
    batch_norm: bool = True
    activation: str = "relu"
    input_dropout: bool = False

    def __post_init__(self) -> None:
        check_int("mlp: layers", self.layers, low=1)
        check_int("mlp: width", self.width, low=1)
        check_widths("mlp: widths", self.widths)
        check_bool("mlp: batch_norm", self.batch_norm)
        check_activation("mlp: activation", self.activation)
        check_bool("mlp: input_dropout", self.input_dropout)

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return self.widths or (self.width,) * self.layers


def _preset(*widths: int, activation: str = "relu", input_dropout: bool = False) -> Options:
    return dataclasses.asdict(
        MlpOptions(
            widths=widths, batch_norm=False, activation=activation, input_dropout=input_dropout
        )
    )


# The networks of the reference reports: of STL-10 (three depths; activation and norm are not
# reported, ReLU without norm is ours), and of sign language (tanh did better than ReLU; dropout of
# 0.9, 0.6 and 0.3 from the input on).
PRESETS: Mapping[str, Options] = {
    "stl-fc3": _preset(512, 256, 128),
    "stl-fc5": _preset(512, 512, 256, 256, 128),
    "stl-fc7": _preset(1024, 1024, 512, 512, 256, 256, 128),
    "signs": _preset(500, 50, activation="tanh", input_dropout=True),
    "signs2": _preset(5000, 500, activation="tanh", input_dropout=True),
}


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Depth and width of the network; dropout and shifts against overfitting."""
    start = ask_start(s, shape, presets=PRESETS)
    fixed = start.options
    options = _ask_options(s) if fixed is None else MlpOptions.from_dict(fixed)
    return suggest_training(
        s,
        start,
        options=dataclasses.asdict(options),
        stages=len(options.hidden_widths) + 1,
        most_stages=None if start.weights and len(start.sources) == 1 else MOST_STAGES,
        dropout=True,
        augment=("rotate", "translate"),
        label_smoothing=True,
    )


def _ask_options(s: Suggester) -> MlpOptions:
    usual = MlpOptions()
    values: dict[str, Any] = {}
    values["widths"] = s.numbers(
        "widths", help="units of each hidden layer; instead of layers and width"
    )
    if not values["widths"]:
        values["layers"] = s.int("layers", 1, 4, limits=(1, 64), help="hidden ones")
        values["width"] = s.number(
            "width", (64, 128, 256, 512), least=1, help="units of a hidden layer"
        )
    return MlpOptions(
        **values,
        batch_norm=s.flag("batch_norm", help="BatchNorm in each hidden layer"),
        activation=s.categorical(
            "activation",
            [name for name in ACTIVATIONS if name != "none"],
            also=("none",),
            off=usual.activation,
            help="of the hidden layers",
        ),
        input_dropout=s.flag("input_dropout", off=usual.input_dropout, help="on the pixels, too"),
    )


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Linear, BatchNorm, activation, dropout for each hidden layer; then a linear classifier.

    Raises:
        ConfigError: a wrong option.
    """
    o = MlpOptions.from_dict(options)
    stages: dict[str, nn.Module] = {}
    features = shape.height * shape.width * shape.channels
    for number, width in enumerate(o.hidden_widths, start=1):
        layers: list[nn.Module] = []
        if number == 1:
            layers += [nn.Flatten(), *([ScheduledDropout()] if o.input_dropout else [])]
        layers.append(nn.Linear(features, width, bias=not o.batch_norm))
        if o.batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers += [*activation_layers(o.activation), ScheduledDropout()]
        stages[f"hidden{number}"] = nn.Sequential(*layers)
        features = width
    stages["head"] = nn.Linear(features, n_classes)
    return StagedModel(stages)


FAMILY = Family(
    summary="fully connected network on the pixels",
    suggest=suggest,
    build=build,
    presets=PRESETS,
    defaults=tuple(
        {**recipe, "layers": 2, "width": 256, "batch_norm": "yes"} for recipe in RECIPES
    ),
)
