"""Logistic regression on the pixels: one linear layer. The baseline of every search."""

from __future__ import annotations

import dataclasses

from torch import nn

from hpsearch.checks import JsonConfig, Options
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family import Family, Suggestion, ask_start
from hpsearch.families._recipe import suggest_training
from hpsearch.families._space import Suggester
from hpsearch.training.model import StagedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticOptions(JsonConfig):
    """There are none: the shape of the images and the classes decide everything."""


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """How it is trained is all there is to search."""
    start = ask_start(s, shape, transfers=False)
    options = dataclasses.asdict(LogisticOptions())
    return suggest_training(s, start, options=options, augment=("translate",))


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """Height * width * channels inputs, one linear layer: 122,890 parameters at 64x64x3 and
    10 classes.
    """
    LogisticOptions.from_dict(options)
    n_pixels = shape.height * shape.width * shape.channels
    return StagedModel({"head": nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, n_classes))})


FAMILY = Family(
    summary="logistic regression on the pixels",
    suggest=suggest,
    build=build,
    defaults=(
        {
            "optimizer": "adamw",
            "lr": 1e-2,
            "momentum": 0.9,
            "weight_decay": 1e-3,
            "batch_size": 64,
            "schedule": "cosine",
            "warmup": 0.0,
            "translate": 0.0,
        },
    ),
)
