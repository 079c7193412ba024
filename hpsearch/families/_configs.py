"""From the values of a trial to the configuration of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hpsearch.config import EarlyStopping, Precision, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family_space import suggestion_of
from hpsearch.families._known_good import default_params
from hpsearch.families._parameter import Override
from hpsearch.families._space import Explorer, TrialLike
from hpsearch.training.objectives import DEFAULT_OBJECTIVE


def suggest_config(
    name: str,
    trial: TrialLike | Explorer,
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

    Raises:
        InfeasibleError: it cannot be trained on such images.
    """
    suggestion = suggestion_of(name, trial, shape, overrides)
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
    """The first of the family's `default_params`, as a configuration.

    Raises:
        InfeasibleError: there is none that can be trained on such images.
    """
    return suggest_config(
        name,
        Explorer(default_params(name, shape, overrides)[0]),
        shape,
        epochs=epochs,
        seed=seed,
        precision=precision,
        overrides=overrides,
    )
