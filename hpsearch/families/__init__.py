"""Model families: one file each, found by its name. To add one, add a file; see `_family.py`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

import torch

from hpsearch.config import EarlyStopping, Precision, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import SpaceError
from hpsearch.families._family import Family, Suggestion, suggest_training
from hpsearch.families._space import (
    Override,
    Parameter,
    ParamValue,
    Range,
    Suggester,
    TrialLike,
    explore,
    parse_override,
    settle,
    space_fingerprint,
)
from hpsearch.training.model import StagedModel

__all__ = [
    "Family",
    "Override",
    "ParamValue",
    "Parameter",
    "Range",
    "Suggester",
    "Suggestion",
    "TrialLike",
    "build_model",
    "check_overrides",
    "default_params",
    "explore",
    "family_names",
    "get_family",
    "known_good",
    "parse_override",
    "space_fingerprint",
    "space_of",
    "suggest_config",
    "suggest_training",
]


def family_names() -> tuple[str, ...]:
    """The names of all families, sorted."""
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    )


def get_family(name: str) -> Family:
    """The family called `name`.

    Raises:
        SpaceError: there is none.
    """
    if name not in family_names():
        raise SpaceError(f"unknown family {name!r}; known: {', '.join(family_names())}")
    family: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return family


def space_of(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> tuple[Parameter, ...]:
    """The parameters of a family's space for images of `shape`, under `overrides`."""
    family = get_family(name)
    return explore(lambda trial: family.suggest(Suggester(trial, overrides), shape))


def check_overrides(
    families: tuple[str, ...], shape: ImageShape, overrides: Mapping[str, Override]
) -> None:
    """Checks each override against the spaces of `families`; a name may be in some of them only.

    Raises:
        SpaceError: a name that none of the spaces has, a value outside of a range, or a
            parameter that the other overrides take away.
    """
    spaces = {name: {row.name: row for row in space_of(name, shape)} for name in families}
    for name, override in overrides.items():
        rows = [space[name] for space in spaces.values() if name in space]
        if not rows:
            known = sorted({row for space in spaces.values() for row in space})
            raise SpaceError(
                f"unknown parameter {name!r}; {', '.join(families)} have {', '.join(known)}"
            )
        for row in rows:
            row.narrowed(override)
    asked = {row.name for name in families for row in space_of(name, shape, overrides)}
    for name in overrides:
        if name not in asked:
            raise SpaceError(
                f"parameter {name!r} does not exist under the other values that are set; "
                "leave it out"
            )


def known_good(name: str, shape: ImageShape) -> list[dict[str, ParamValue]]:
    """The family's settings known to work for images of `shape`, as the family's file has them."""
    return [
        {key: value(shape) if callable(value) else value for key, value in default.items()}
        for default in get_family(name).defaults
    ]


def default_params(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> list[dict[str, ParamValue]]:
    """The family's settings known to work, moved into what `shape` and `overrides` allow; those
    that had to be moved least come first.
    """
    family = get_family(name)

    def moved(default: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        return settle(lambda trial: family.suggest(Suggester(trial, overrides), shape), default)

    settled = [(moved(default), default) for default in known_good(name, shape)]
    settled.sort(key=lambda pair: sum(pair[1].get(key) != value for key, value in pair[0].items()))
    params = [pair[0] for pair in settled]
    return [row for number, row in enumerate(params) if row not in params[:number]]


def suggest_config(
    name: str,
    trial: TrialLike,
    shape: ImageShape,
    *,
    epochs: int,
    seed: int,
    precision: Precision,
    early_stopping: EarlyStopping | None = None,
    overrides: Mapping[str, Override] | None = None,
) -> TrainConfig:
    """Asks `trial` for the parameters of a family and resolves them to a configuration."""
    suggestion = get_family(name).suggest(Suggester(trial, overrides), shape)
    return TrainConfig(
        family=name,
        options=suggestion.options,
        optimizer=suggestion.optimizer,
        schedule=suggestion.schedule,
        dropout=suggestion.dropout,
        augment=suggestion.augment,
        label_smoothing=suggestion.label_smoothing,
        batch_size=suggestion.batch_size,
        epochs=epochs,
        early_stopping=early_stopping,
        precision=precision,
        seed=seed,
    )


def build_model(config: TrainConfig, shape: ImageShape, n_classes: int) -> StagedModel:
    """An untrained model on the CPU; its initial weights come from the configuration's seed.

    Raises:
        ConfigError: an unknown option, or options that do not fit the shape.
        SpaceError: an unknown family.
    """
    family = get_family(config.family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return family.build(config.options, shape, n_classes)
