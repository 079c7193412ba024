"""Each knob of the five reference reports has a parameter of its study, or an option in a command
of its docstring.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from study_commands import NAMES, commands, shape, study

from hpsearch.cli.ablate import parse_vary
from hpsearch.families import Parameter, ParamValue, space_of

RATES = (1e-1, 1e-2, 1e-3, 1e-4)

SEARCHED: Mapping[tuple[str, str], Mapping[str, tuple[Any, ...]]] = {
    ("hands", "cnn"): {
        "preset": ("hands6", "hands15"),
        "image_size": (32, 256),
        "batch_size": (16, 64, 128),
        "lr": (5e-4, 1e-5),
        "schedule": ("step",),
        "lr_step_size": (30,),
        "lr_ladder": ("0.0005/1e-05/5e-06/1e-07",),
        "momentum": (0, 0.9),
        "weight_decay": (1e-4,),
        "loss": ("cross_entropy", "mse"),
        "optimizer": ("sgd", "adam"),
        "dropout": (0, 0.5),
        "dropout_schedule": ("constant", "adaptive"),
        "dropout_rates": ("0.1", "0.5/0.6"),
    },
    ("hands", "resnet"): {
        "weights": ("imagenet",),
        "depth": (18,),
        "image_size": (224,),
        "freeze_depth": (5, 4, 3),
        "head": ("", "500/64"),
        "batch_size": (16, 64, 128),
        "lr_ladder": ("0.0005/1e-05/5e-06/1e-07",),
        "schedule": ("step",),
        "momentum": (0, 0.9),
        "weight_decay": (1e-4,),
    },
    ("caltech101", "alexnet"): {
        "weights": ("imagenet", "none"),
        "init": ("xavier",),
        "freeze_depth": (7, 5),
        "freeze": ("fc*",),
        "jitter": (0, 0.2),
        "hflip": (0, 0.5),
        "rotate": (0, 20),
        "lr": RATES,
        "optimizer": ("sgd",),
        "batch_size": (256,),
        "schedule": ("step",),
        "lr_step_size": (10, 20),
    },
    ("caltech101", "resnet"): {
        "weights": ("imagenet",),
        "depth": (34,),
        "freeze_depth": (5, 0),
        "dropout": (0.5,),
        "batch_size": (16,),
        "lr": RATES,
        "jitter": (0, 0.2),
        "hflip": (0, 0.5),
        "rotate": (0, 20),
    },
    ("photos", "cnn"): {
        "blocks": (6, 5, 4),
        "fc": ("1000/500/100", "500/100"),
        "fc_activation": ("none",),
        "kernel": (5,),
        "padding": ("none",),
        "channels": (8,),
        "image_size": (444,),
        "batch_size": (100, 32),
        "lr": (1e-4, 1e-5),
        "lr_per": (100,),
        "optimizer": ("adam",),
        "normalise": ("auto", "none"),
    },
    ("photos", "resnet"): {
        "depth": (101,),
        "pool": ("flat",),
        "freeze_depth": (5,),
        "weights": ("imagenet",),
        "normalise": ("auto", "none"),
        "batch_size": (100, 32),
    },
    ("sign_language", "mlp"): {
        "widths": ("500/50", "5000/500"),
        "activation": ("tanh", "relu"),
        "dropout": (0.5, 0.9),
        "dropout_depth": ("flat", "falling"),
        "input_dropout": ("yes",),
        "weight_decay": (0.01, 0.5),
        "rotate": (20, 25),
        "hflip": (0.5,),
        "blur": (0.8,),
        "momentum": (0, 0.9),
        "image_size": (224,),
    },
    ("sign_language", "alexnet"): {"weights": ("imagenet",), "freeze_depth": (7,), "blur": (0.8,)},
    ("stl10", "logistic"): {"image_size": (64,), "lr": RATES[1:], "jitter": (0.2,)},
    ("stl10", "mlp"): {
        "preset": ("stl-fc3", "stl-fc5", "stl-fc7"),
        "image_size": (64,),
        "lr": (1e-2, 1e-5),
        "batch_size": (8, 512),
        "optimizer": ("sgd", "adam"),
        "dropout": (0, 0.5),
    },
    ("stl10", "cnn"): {
        "preset": ("stl4",),
        "image_size": (64,),
        "lr": (1e-2, 1e-5),
        "batch_size": (8, 512),
        "optimizer": ("sgd", "adam"),
        "dropout": (0, 0.2, 0.5),
        "jitter": (0, 0.2),
        "hflip": (0.5,),
        "rotate": (0, 20),
    },
    ("stl10", "mobilenet"): {
        "version": ("v2",),
        "weights": ("imagenet",),
        "head": ("512/256",),
        "freeze_depth": (5, 0),
        "image_size": (64,),
        "jitter": (0, 0.2),
        "hflip": (0.5,),
        "rotate": (0, 20),
    },
}
"""By study and family the knobs that each trial has: the values of the report."""

ABLATED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "hands": {
        "image_size": (32, 256),
        "batch_size": (16, 64, 128),
        "freeze_depth": (3, 4, 5),
        "head": ("500/64",),
        "lr_step_size": (30, 100, 200),
        "dropout_rates": (0.1, "0.5/0.6"),
    },
    "caltech101": {
        "lr": RATES,
        "epochs": (6, 75),
        "freeze": ("fc*",),
        "init": ("xavier",),
        "lr_step_size": (5, 10, 20),
        "rotate": (0, 20),
    },
    "photos": {"epochs": (3,), "blocks": (3, 4, 5, 6, 7), "normalise": ("none",)},
    "sign_language": {
        "activation": ("relu",),
        "weight_decay": (0.01, 0.1, 0.5),
        "train_images": (20,),
        "repeat": (20,),
        "widths": ("5000/500",),
    },
    "stl10": {
        "lr": (1e-2, 1e-3, 1e-4, 1e-5),
        "batch_size": (8, 512),
        "dropout": (0, 0.1, 0.2, 0.3, 0.4, 0.5),
        "preset": ("stl-fc5", "stl-fc7"),
        "freeze_depth": (5,),
    },
}
"""By study the knobs that its docstring has one curve each for."""

OPTIONS = (
    ("hands", "--ignore-groups"),
    ("hands", "--size 1200x1600"),
    ("hands", "--epochs 300"),
    ("caltech101", "--split 40/40/20"),
    ("sign_language", "--set train_images=20 --set repeat=20"),
    ("sign_language", "check studies/sign_language.py"),
    ("stl10", "data preview stl10"),
)
"""What is not a trial's: by study, a part of a command."""


@functools.cache
def space(name: str, family: str) -> Mapping[str, Parameter]:
    spec = study(name)
    return {row.name: row for row in space_of(family, shape(name), spec.overrides)}


def values(items: Mapping[tuple[str, str], Mapping[str, tuple[Any, ...]]]) -> list[Any]:
    return [(*key, name, value) for key, row in items.items() for name, value in row.items()]


@pytest.mark.parametrize(("name", "family", "parameter", "tried"), values(SEARCHED))
def test_a_search_can_try_what_the_report_tried(
    name: str, family: str, parameter: str, tried: tuple[ParamValue, ...]
) -> None:
    row = space(name, family)[parameter]
    assert [value for value in tried if not row.allows(value)] == []


@pytest.mark.parametrize("name", NAMES)
def test_one_factor_experiments_are_commands(name: str) -> None:
    given: dict[str, set[Any]] = {}
    for command in commands(name):
        if command[0] == "ablate":
            texts = [t for option, t in itertools.pairwise(command) if option == "--values"]
            for key, tried in parse_vary(None, texts).items():
                given.setdefault(key, set()).update(tried or ())
    missing = {key: {*tried} - given.get(key, set()) for key, tried in ABLATED[name].items()}
    assert {key: left for key, left in missing.items() if left} == {}


@pytest.mark.parametrize(("name", "words"), OPTIONS)
def test_what_no_trial_varies_is_an_option(name: str, words: str) -> None:
    assert any(words in " ".join(command) for command in commands(name))


def test_every_study_and_family_has_its_knobs() -> None:
    assert {(name, family) for name in NAMES for family in study(name).families} == set(SEARCHED)
