"""How a trial is run on the device at hand: in the fastest setting, in parts that fit its memory.

Both are decided once, and stored: on the trial, so that it is run the same way when it is taken up
again or repeated; and what fits the memory on the study, for its other trials.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import optuna
import torch

from hpsearch.config import TrainConfig
from hpsearch.data.resident import ResidentData
from hpsearch.engine.estimate import Pace, largest_batch, total_steps
from hpsearch.engine.hidden import CONFIG, SETTING, hidden, hide
from hpsearch.engine.records import NOTE
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import InfeasibleError
from hpsearch.training.model import StagedModel, learns_statistics
from hpsearch.training.probe import Choice, choose_setting, is_worth_probing
from hpsearch.training.settings import Setting, possible_settings
from hpsearch.training.tuning import device_name, model_key

_LARGER = 3
"""A trial's model may need so many times what the family's first one needs."""


class Fit:
    """The decisions for one trial.

    Args:
        pace: of its family.
    """

    def __init__(
        self,
        spec: StudySpec,
        pace: Pace,
        device: torch.device,
        study: optuna.Study,
        trial: optuna.Trial,
    ) -> None:
        self._spec = spec
        self._pace = pace
        self._device = device
        self._study = study
        self._trial = trial
        self._model = ""  # its name, for the limits that are remembered

    def decided(self, config: TrainConfig, model: StagedModel, data: ResidentData) -> TrainConfig:
        """`config` with the setting, and with parts where it is known that a whole batch of this
        model does not fit.

        Args:
            model: not trained yet.
        """
        model.freeze(config.freeze_depth, config.freeze)
        # Training changes what the name is made from: the rates of dropout.
        self._model = model_key(model, config, data.preprocessing.shape)
        stored = self._study._storage.get_trial(self._trial._trial_id)
        if hidden(stored, SETTING) is not None:
            return config
        choice = self._choice(self._limited(config), model, data)
        config = self._limited(choice.setting.applied(config))
        self._store(config, model)
        self._hide(SETTING, _record(choice, self._device))
        return config

    def _choice(self, config: TrainConfig, model: StagedModel, data: ResidentData) -> Choice:
        wanted = dataclasses.replace(self._spec.wanted, precision=self._pace.precision)
        steps = total_steps(data, config)
        settings = possible_settings(model, config, self._device, wanted)
        worth = is_worth_probing(_LARGER * steps * self._pace.step_seconds)
        if len(settings) == 1 or not worth:
            forced = "auto" not in dataclasses.astuple(self._spec.wanted)
            return Choice(setting=settings[0], source="forced" if forced else "rules")
        shape, classes = data.preprocessing.shape, len(data.classes)
        return choose_setting(
            model,
            config,
            shape,
            classes,
            self._device,
            steps=steps,
            batch=largest_batch(data, config),
            wanted=wanted,
        )

    def _limited(self, config: TrainConfig) -> TrainConfig:
        limit = self._study.user_attrs.get(self._limit_key(config))
        if limit is None or limit >= config.batch_size:
            return config
        return dataclasses.replace(config, micro_batch=limit)

    def smaller(self, config: TrainConfig, model: StagedModel, data: ResidentData) -> TrainConfig:
        """As `in_smaller_parts`; the study remembers it."""
        config = in_smaller_parts(config, data, self._device)
        self._study.set_user_attr(self._limit_key(config), config.micro_batch)
        self._store(config, model)
        return config

    def _limit_key(self, config: TrainConfig) -> str:
        """Under what the study remembers how many images of the model fit at once."""
        return f"fits:{self._model}:{Setting.of(config)}"

    def _store(self, config: TrainConfig, model: StagedModel) -> None:
        self._hide(CONFIG, config.to_dict())
        if config.micro_batch:
            norms = "; BatchNorm sees the parts" if learns_statistics(model) else ""
            self._trial.set_user_attr(
                NOTE,
                f"batches of {config.batch_size} images are taken in parts of at most "
                f"{config.micro_batch}, since more did not fit into the memory{norms}",
            )

    def _hide(self, key: str, value: dict[str, Any]) -> None:
        hide(self._study, self._trial._trial_id, key, value)


def in_smaller_parts(config: TrainConfig, data: ResidentData, device: torch.device) -> TrainConfig:
    """`config` with parts of half the size, after the memory was not enough.

    Raises:
        InfeasibleError: one image does not fit.
    """
    whole = largest_batch(data, config)
    size = min(config.micro_batch or whole, whole)
    if size == 1:
        raise InfeasibleError(
            f"training on one image of {data.preprocessing.shape} at a time needs more memory than "
            f"there is on {device_name(device)}"
        )
    return dataclasses.replace(config, micro_batch=size // 2)


def _record(choice: Choice, device: torch.device) -> dict[str, Any]:
    return {
        "setting": str(choice.setting),
        "chosen_by": choice.source,
        "images_per_second": choice.images_per_second,
        "device": device_name(device),
        "kind": device.type,
        "threads": torch.get_num_threads(),
    }
