"""Model families: one file each, found by its name. To add one, add a file; see `_family.py`."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from hpsearch.config import EarlyStopping, Precision, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import SpaceError
from hpsearch.families._family import NO_WEIGHTS, Family, Start, Suggestion, ask_start
from hpsearch.families._parameter import (
    SEARCH,
    Override,
    Parameter,
    ParamValue,
    Range,
    format_list,
    listed_values,
    parse_override,
)
from hpsearch.families._recipe import suggest_training
from hpsearch.families._space import (
    Explorer,
    Suggester,
    TrialLike,
    explore,
    settle,
    space_fingerprint,
)
from hpsearch.families._unknown import unknown_family, unknown_parameter
from hpsearch.families._weights import load_weights, resolve_weights
from hpsearch.names import family_label
from hpsearch.training.init import initialise
from hpsearch.training.model import StagedModel
from hpsearch.training.objectives import DEFAULT_OBJECTIVE

__all__ = [
    "SEARCH",
    "Family",
    "Override",
    "ParamValue",
    "Parameter",
    "Range",
    "Start",
    "Suggester",
    "Suggestion",
    "TrialLike",
    "ask_start",
    "build_model",
    "check_overrides",
    "default_params",
    "explore",
    "family_label",
    "family_names",
    "format_list",
    "get_family",
    "initial_model",
    "known_config",
    "known_good",
    "own_overrides",
    "parse_override",
    "resolve_config",
    "resolve_weights",
    "space_fingerprint",
    "space_of",
    "suggest_config",
    "suggest_training",
    "weights_of",
]


def family_names() -> tuple[str, ...]:
    """The names of all families that come with hpsearch, sorted."""
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    )


def get_family(name: str) -> Family:
    """The family called `name`; a path that ends in .py is a file of the user's own.

    Raises:
        SpaceError: there is none, or the file cannot be run or defines none.
    """
    if name.endswith(".py") and family_label(name):
        path = Path(name)
        if not path.is_file():
            known = ", ".join(family_names())
            raise SpaceError(f"there is no family file {name}; known families: {known}")
        if path.stem in family_names():
            raise SpaceError(
                f"family file {name} is called as a family of hpsearch, {path.stem}; rename it"
            )
        return _from_file(str(path.resolve()), path.stat().st_mtime_ns)
    loaded = not name.startswith("_") and f"{__name__}.{name}" in sys.modules
    if not loaded and name not in family_names():
        raise unknown_family(name, family_names())
    family: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return family


@functools.cache
def _from_file(path: str, changed: int) -> Family:
    spec = importlib.util.spec_from_file_location(f"hpsearch_family_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise SpaceError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise SpaceError(f"family file {path} raised {type(error).__name__}: {reason}") from error
    family = getattr(module, "FAMILY", None)
    if not isinstance(family, Family):
        raise SpaceError(f"family file {path} must set FAMILY = Family(...), but it is {family!r}")
    if not family.defaults:
        raise SpaceError(f"family file {path}: defaults must hold one setting known to work")
    return family


def own_overrides(name: str, overrides: Mapping[str, Override] | None) -> dict[str, Override]:
    """The overrides that are meant for one family: those by the name of a parameter, and those
    by family and parameter, as resnet.lr, which come before them.
    """
    plain = {key: value for key, value in (overrides or {}).items() if "." not in key}
    prefix = f"{family_label(name)}."
    mine = {
        key.removeprefix(prefix): value
        for key, value in (overrides or {}).items()
        if key.startswith(prefix)
    }
    return plain | mine


def _suggestion(
    name: str, trial: TrialLike, shape: ImageShape, overrides: Mapping[str, Override] | None
) -> Suggestion:
    return get_family(name).suggest(Suggester(trial, own_overrides(name, overrides)), shape)


def space_of(
    name: str,
    shape: ImageShape,
    overrides: Mapping[str, Override] | None = None,
    *,
    everything: bool = False,
) -> tuple[Parameter, ...]:
    """The parameters of a family's space for images of `shape`, under `overrides`.

    Args:
        everything: with those that are not searched unless an override says so.
    """
    return explore(lambda trial: _suggestion(name, trial, shape, overrides), everything=everything)


def check_overrides(
    families: tuple[str, ...], shape: ImageShape, overrides: Mapping[str, Override]
) -> None:
    """Checks each override against the spaces of `families`; a name may be in some of them only.

    Raises:
        SpaceError: a name that none of the spaces has, a value outside of a range, or a
            parameter that the other overrides take away.
    """
    if not overrides:
        return
    asked = {name: {row.name for row in space_of(name, shape, overrides)} for name in families}
    for key in overrides:
        rows = families_with(key, families, shape)
        if not any(row.name in asked[family] for family, row in rows.items()):
            raise does_not_exist(key, next(iter(rows.values())))


def families_with(key: str, families: tuple[str, ...], shape: ImageShape) -> dict[str, Parameter]:
    """Those of `families` that have the parameter `key`, such as lr, or resnet.lr of that family
    only; each with its row in the family's whole space.

    Raises:
        SpaceError: none of them has it.
    """
    labels = {family_label(name): name for name in families}
    label, dot, name = key.rpartition(".")
    if dot and label not in labels:
        raise SpaceError(f"{key}: no family {label!r} is searched, but {', '.join(labels)}")
    meant = (labels[label],) if dot else families
    spaces = {family: whole_space(family, shape) for family in meant}
    rows = {family: space[name] for family, space in spaces.items() if name in space}
    if not rows:
        raise unknown_parameter(key, [family_label(family) for family in meant], spaces.values())
    return rows


def does_not_exist(key: str, row: Parameter) -> SpaceError:
    """The error about a parameter, of the whole space's `row`, that other values take away."""
    where = "; ".join(
        f"{other} is {listed_values(values) if any(values) else 'not given'}"
        for other, values in row.condition.items()
    )
    return SpaceError(
        f"parameter {key!r} does not exist under the other values that are set; "
        f"leave it out{f', or see to it that {where}' if where else ''}"
    )


def whole_space(name: str, shape: ImageShape) -> Mapping[str, Parameter]:
    """All parameters of a family by name, also those that only an override has searched."""
    return _whole_space(name, get_family(name), shape)


@functools.lru_cache(maxsize=32)
def _whole_space(name: str, family: Family, shape: ImageShape) -> dict[str, Parameter]:
    # `family` is in the key, as a user's file can change.
    return {row.name: row for row in space_of(name, shape, everything=True)}


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
    that had to be moved least come first. Those meant for training from weights are left out where
    it is from scratch, and the other way round.
    """
    settled: list[tuple[dict[str, ParamValue], dict[str, ParamValue]]] = []
    for default in known_good(name, shape):
        starts: list[Suggestion] = []
        moved = settle(
            lambda trial, starts=starts: starts.append(_suggestion(name, trial, shape, overrides)),  # type: ignore[misc]
            default,
        )
        from_scratch = default.get("weights", NO_WEIGHTS) == NO_WEIGHTS
        if "weights" not in default or from_scratch == (starts[0].weights is None):
            settled.append((moved, default))
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
    objective: str = DEFAULT_OBJECTIVE,
    overrides: Mapping[str, Override] | None = None,
) -> TrainConfig:
    """Asks `trial` for the parameters of a family and resolves them to a configuration.

    Args:
        shape: of the data's images.
        epochs: where the space does not decide them.
    """
    suggestion = _suggestion(name, trial, shape, overrides)
    values = {
        field.name: getattr(suggestion, field.name) for field in dataclasses.fields(suggestion)
    }
    return TrainConfig(
        **{**values, "epochs": suggestion.epochs or epochs},
        family=name,
        early_stopping=early_stopping,
        objective=objective,
        precision=precision,
        seed=seed,
    )


def known_config(
    name: str,
    shape: ImageShape,
    *,
    epochs: int,
    seed: int,
    precision: Precision,
    overrides: Mapping[str, Override] | None = None,
) -> TrainConfig:
    """The first of the family's `default_params`, as a configuration."""
    return suggest_config(
        name,
        Explorer(default_params(name, shape, overrides)[0]),
        shape,
        epochs=epochs,
        seed=seed,
        precision=precision,
        overrides=overrides,
    )


def weights_of(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> tuple[tuple[str, str | None], ...]:
    """The weights that trials of a family can start from: their source, and the model of
    torchvision that they are meant for.
    """
    published, found = get_family(name).published, set()
    own = own_overrides(name, overrides)
    given = own.get("weights")
    if given == SEARCH:
        given = (NO_WEIGHTS,) if published is None else ("imagenet", NO_WEIGHTS)
    # One after the other: what depends on two choices at once is found by chance only.
    for source in given if isinstance(given, tuple) else (given,):
        fixed = own if source is None else {**own, "weights": source}

        def note(trial: TrialLike, fixed: Mapping[str, Override] = fixed) -> None:
            suggestion = _suggestion(name, trial, shape, fixed)
            if suggestion.weights is not None:
                model = None if published is None else published(suggestion.options)
                found.add((suggestion.weights.source, model))

        explore(note)
    return tuple(sorted(found, key=str))


def build_model(config: TrainConfig, shape: ImageShape, n_classes: int) -> StagedModel:
    """An untrained model on the CPU; its initial weights come from the configuration's seed.

    Args:
        shape: of the model's input (see `hpsearch.data.preprocessing.input_shape`).

    Raises:
        ConfigError: an unknown option.
        InfeasibleError: options that do not fit the shape.
        SpaceError: an unknown family.
    """
    family = get_family(config.family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = family.build(config.options, shape, n_classes)
        initialise(model, config.init)
    return model


def resolve_config(config: TrainConfig) -> TrainConfig:
    """`config` with the SHA-256 of the weights that it starts from; they are fetched if needed.

    Raises:
        CheckpointError: they cannot be had, or the file is another one than it was.
    """
    if config.weights is None:
        return config
    weights = resolve_weights(config.weights, family=config.family, published=_published(config))
    return dataclasses.replace(config, weights=weights)


def initial_model(config: TrainConfig, shape: ImageShape, n_classes: int) -> StagedModel:
    """The model that training starts from: `build_model`'s, with the configuration's weights.

    Raises:
        CheckpointError: the weights are missing, altered, or those of another network.
        ConfigError, SpaceError: as `build_model`.
    """
    model = build_model(config, shape, n_classes)
    if config.weights is not None:
        load_weights(
            model,
            config.weights,
            family=config.family,
            published=_published(config),
            shape=shape,
        )
    return model


def _published(config: TrainConfig) -> str | None:
    published = get_family(config.family).published
    return None if published is None else published(config.options)
