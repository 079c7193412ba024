"""What a family tries first, and whether it can be trained at all."""

from __future__ import annotations

import contextlib

import optuna
import torch
from optuna.samplers import RandomSampler

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.data.splits import DevelopmentData
from hpsearch.data.views import subset_positions
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import quiet_optuna
from hpsearch.errors import InfeasibleError, SpaceError
from hpsearch.families import build_model, initial_model, known_config, suggest_config
from hpsearch.names import family_label
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.model import StagedModel
from hpsearch.training.trainer import check_config

SAMPLES = 50
"""Configurations that are tried before a search is refused because none of them fits the data."""


def first_config(
    spec: StudySpec, family: str, shape: ImageShape, *, precision: Precision
) -> TrainConfig:
    """What a family tries first, under the study's overrides.

    Raises:
        InfeasibleError: it cannot be trained on images of this shape.
    """
    return known_config(
        family,
        shape,
        epochs=spec.epochs,
        seed=spec.seed,
        precision=precision,
        overrides=spec.overrides,
    )


def why_infeasible(spec: StudySpec, family: str, development: DevelopmentData) -> str:
    """Makes the model that a family tries first, to find mistakes before anything is written.

    Returns:
        Why it is infeasible, or nothing; the search may find others that are not.

    Raises:
        InfeasibleError: it is, and so are others drawn at random.
        ConfigError, SpaceError, CheckpointError: a setting, the user's own model or the weights
            are wrong.
    """
    shape, classes = development.train.shape, len(development.train.classes)
    try:
        config = first_config(spec, family, shape, precision="fp32")
        check_config(config)
        given = input_shape(config.input, shape)
        model = initial_model(config, given, classes)
        model.freeze(config.freeze_depth, config.freeze)
        _check_enough(config, development)
        if family.endswith(".py"):
            _try_own(family, model, given, classes)
    except Exception as error:
        if is_out_of_memory(error):
            return f"it does not fit into the memory ({' '.join(str(error).split())[:200]})"
        if not isinstance(error, InfeasibleError):
            raise
        if not _any_feasible(spec, family, development):
            raise InfeasibleError(
                f"no configuration of {family_label(family)} that was tried fits the data: {error}"
            ) from None
        return str(error)
    return ""


def _check_enough(config: TrainConfig, development: DevelopmentData) -> None:
    if config.train_images:
        subset_positions(development.train.labels, min(config.train_images, len(development.train)))


def _try_own(family: str, model: StagedModel, shape: ImageShape, classes: int) -> None:
    """Runs a user's own model once: its mistakes are those of its file."""
    images = torch.zeros(2, shape.channels, shape.height, shape.width)
    try:
        with torch.no_grad():
            outputs = tuple(model.eval()(images).shape)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SpaceError(
            f"family file {family}: its model fails on images of {shape}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if outputs != (2, classes):
        raise SpaceError(
            f"family file {family}: its model gives {outputs} for 2 images, and must give "
            f"{(2, classes)}: one number for each class"
        )


def _any_feasible(spec: StudySpec, family: str, development: DevelopmentData) -> bool:
    """Whether one of some configurations drawn at random can be built."""
    shape, classes = development.train.shape, len(development.train.classes)
    with quiet_optuna():
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        for _ in range(SAMPLES):
            with contextlib.suppress(InfeasibleError):
                config = suggest_config(
                    family,
                    study.ask(),
                    shape,
                    epochs=spec.epochs,
                    seed=0,
                    precision="fp32",
                    overrides=spec.overrides,
                )
                _check_enough(config, development)
                with torch.device("meta"):
                    build_model(config, input_shape(config.input, shape), classes)
                return True
    return False
