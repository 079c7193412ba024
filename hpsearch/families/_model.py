"""From a configuration to its model, and to the weights that it starts from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import torch

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError
from hpsearch.families._family_space import own_overrides, space_of, suggestion_of
from hpsearch.families._parameter import Override
from hpsearch.families._registry import get_family
from hpsearch.families._space import Explorer, explore
from hpsearch.families._weights import load_weights, resolve_weights
from hpsearch.training.init import initialise
from hpsearch.training.model import StagedModel


def weights_of(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> tuple[tuple[str, str | None], ...]:
    """The weights that trials of a family can start from: their source, and the model of
    torchvision that they are meant for.
    """
    published, found = get_family(name).published, set()
    own = own_overrides(name, overrides)
    row = next((row for row in space_of(name, shape, overrides) if row.name == "weights"), None)
    # One after the other: what depends on two choices at once is found by chance only.
    for source in (None,) if row is None else row.choices:
        fixed = own if source is None else {**own, "weights": source}

        def note(trial: Explorer, fixed: Mapping[str, Override] = fixed) -> None:
            suggestion = suggestion_of(name, trial, shape, fixed)
            if suggestion.weights is not None:
                model = None if published is None else published(suggestion.options)
                found.add((suggestion.weights.source, model))

        with contextlib.suppress(InfeasibleError):  # no trial can start from these
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
        # torch.manual_seed would seed the GPU's generators, too, which nobody here puts back.
        torch.default_generator.manual_seed(config.seed)
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
