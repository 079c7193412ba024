"""What a search will take, and the precision in which each family trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.batches import batch_sizes, epoch_size, steps_per_epoch
from hpsearch.data.resident import ResidentData
from hpsearch.data.views import DataViews
from hpsearch.engine.events import FamilyEstimate
from hpsearch.engine.feasibility import first_config
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import ConfigError
from hpsearch.families import initial_model, resolve_config
from hpsearch.names import family_label
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.model import StagedModel
from hpsearch.training.probe import choose_setting, epoch_seconds
from hpsearch.training.settings import rule_setting
from hpsearch.training.trainer import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """How a family trains on a device.

    Attributes:
        precision: of all its trials.
        epoch_seconds: of what it tries first; 0 where that cannot be trained.
        step_seconds: of its training in the usual setting, as it was measured once on this
            machine; 0 where it was not.
    """

    precision: Precision
    epoch_seconds: float = 0.0
    step_seconds: float = 0.0

    def decided(self) -> dict[str, Any]:
        """What a search keeps of it, in plain JSON types."""
        return {"precision": self.precision, "step_seconds": self.step_seconds}


def total_steps(data: ResidentData, config: TrainConfig) -> int:
    """How many steps a training has."""
    return config.epochs * steps_per_epoch(epoch_size(data, config), config.batch_size)


def largest_batch(data: ResidentData, config: TrainConfig) -> int:
    """How many images the largest batch has: fewer than the batch size where there are no more."""
    return batch_sizes(epoch_size(data, config), config.batch_size)[1]


def measure_families(
    spec: StudySpec,
    trials: Mapping[str, int],
    data: DataViews,
    device: torch.device,
    stored: Mapping[str, Pace],
) -> dict[str, Pace]:
    """The pace of each family, measured on what it tries first where it has trials left.

    Args:
        trials: by family, how many are left.
        stored: what was decided for a search that exists, by family; it stays.
    """
    paces = {}
    for family, count in trials.items():
        pace = stored.get(family_label(family))
        if count:
            # What cannot be trained is no reason not to search: its trial will say so.
            try:
                pace = _measure(spec, family, count, data, device, pace)
            except Exception as error:
                known = isinstance(error, ConfigError) or is_out_of_memory(error)
                if not known and not family.endswith(".py"):
                    raise  # a bug of ours; one in a user's own model is a failed trial
        paces[family] = pace or Pace(precision=spec.wanted.forced(rule_setting(device)).precision)
    return paces


def _measure(
    spec: StudySpec,
    family: str,
    trials: int,
    data: DataViews,
    device: torch.device,
    stored: Pace | None,
) -> Pace:
    wanted = spec.wanted
    if stored is not None:
        wanted = dataclasses.replace(wanted, precision=stored.precision)
    usual = wanted.forced(rule_setting(device))
    config = usual.applied(first_config(spec, family, data.shape, precision=usual.precision))
    view = data.view(config)
    model = _model(config, view)
    Training(model, view, config, device=device)  # refuses what it cannot train
    if stored is None:
        choice = choose_setting(
            model,
            config,
            view.preprocessing.shape,
            len(view.classes),
            device,
            steps=trials * total_steps(view, config),
            batch=largest_batch(view, config),
            wanted=wanted,
        )
        config = choice.setting.applied(config)
        stored = Pace(precision=config.precision, step_seconds=choice.step_seconds)
    return dataclasses.replace(stored, epoch_seconds=epoch_seconds(model, view, config, device))


def family_epoch_seconds(
    spec: StudySpec, family: str, data: DataViews, device: torch.device, pace: Pace
) -> float:
    """How long an epoch takes of what a family tries first, with the threads that are set; 0 where
    that cannot be trained.
    """
    if not pace.epoch_seconds:
        return 0.0
    usual = spec.wanted.forced(rule_setting(device))
    usual = dataclasses.replace(usual, precision=pace.precision)
    config = usual.applied(first_config(spec, family, data.shape, precision=usual.precision))
    view = data.view(config)
    return epoch_seconds(_model(config, view), view, config, device)


def _model(config: TrainConfig, view: ResidentData) -> StagedModel:
    return initial_model(resolve_config(config), view.preprocessing.shape, len(view.classes))


def precision_text(paces: Mapping[str, Pace]) -> str:
    """Such as fp32, or bf16 (cnn) and fp32 (logistic, mlp)."""
    families: dict[str, list[str]] = {}
    for family, pace in paces.items():
        families.setdefault(pace.precision, []).append(family_label(family))
    if len(families) == 1:
        return next(iter(families))
    parts = (f"{precision} ({', '.join(names)})" for precision, names in families.items())
    return " and ".join(parts)


def estimates(
    paces: Mapping[str, Pace], trials: Mapping[str, int], epochs: Mapping[str, tuple[int, int]]
) -> tuple[FamilyEstimate, ...]:
    """The time of what is left to do.

    Args:
        epochs: by family, the least and the greatest number of a trial.
    """
    return tuple(
        FamilyEstimate(
            family=family_label(family),
            trials=trials[family],
            epoch_seconds=pace.epoch_seconds,
            seconds=pace.epoch_seconds * epochs[family][1] * trials[family],
        )
        for family, pace in paces.items()
    )
