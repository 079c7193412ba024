"""What a trial was trained with, and on, as the search stored it."""

from __future__ import annotations

import dataclasses

import optuna
import torch

from hpsearch.config import TrainConfig
from hpsearch.engine.database import open_storage
from hpsearch.engine.hidden import SETTING, hidden
from hpsearch.engine.place import study_name
from hpsearch.engine.records import TrialRecord
from hpsearch.errors import SearchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a trial was run on.

    Attributes:
        device: its name; empty where it is not known.
        threads: of torch, which change the last bits of sums on a CPU; None where they are not
            known.
        is_gpu: whether it is known to have been one.
    """

    device: str
    threads: int | None
    is_gpu: bool


def surroundings(trial: TrialRecord) -> Surroundings:
    """As they are stored: with the trial, in searches of the first version with the study."""
    study = optuna.load_study(
        study_name=study_name(trial.search, trial.family), storage=open_storage(trial.place)
    )
    stored = hidden(study.get_trials(deepcopy=False)[trial.number], SETTING) or {}
    return Surroundings(
        device=stored.get("device", ""),
        threads=stored.get("threads", study.user_attrs.get("threads")),
        is_gpu=stored.get("kind") == "cuda",
    )


def stored_config(trial: TrialRecord, device: torch.device) -> TrainConfig:
    """What a complete trial was trained with, for a training on `device`: what was compiled for a
    GPU is run as it is on a CPU.

    Raises:
        SearchError: the trial is not complete.
    """
    if trial.state != "complete" or trial.config is None:
        raise SearchError(
            f"trial {trial.name} of search {trial.search!r} is {trial.state}, and only complete "
            "trials can be trained again; 'hpsearch report' lists the best ones"
        )
    if device.type == "cpu" and trial.config.execution != "eager" and surroundings(trial).is_gpu:
        return dataclasses.replace(trial.config, execution="eager")
    return trial.config
