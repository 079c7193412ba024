"""Measures steps of training, to choose the fastest setting and to estimate times."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from hpsearch.config import TrainConfig
from hpsearch.data.batches import TrainBatch, epoch_size, steps_per_epoch, train_batches
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import torch_format
from hpsearch.data.resident import ResidentData
from hpsearch.training.device import wait_for
from hpsearch.training.evaluation import outputs
from hpsearch.training.graph import WARM_UP
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.model import StagedModel, place
from hpsearch.training.seeds import seeded
from hpsearch.training.settings import Setting, Wanted, possible_settings
from hpsearch.training.step import Step
from hpsearch.training.tuning import Tuning, tuning_key

PROBE_SECONDS = 2.0
"""For all settings together; large models need longer, for each is tried three times at least."""

WORTH = 40
"""A probe is worth it where the training takes so many times as long."""

COMPILE_SECONDS = 60.0
"""What torch.compile takes, about; it is tried where the training takes `WORTH` times as long."""

MARGIN = 0.1
"""What is usual stays unless another setting is faster by this share: a tie is decided the same
way each time.
"""

_HOPELESS = 3
"""A setting that needs so many times as long as the usual one is not tried again."""

_ROUNDS = 2
"""At least, after the warm-up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting, and why.

    Attributes:
        source: "forced" by the user, from the "rules", or measured ("probe"), now or before.
        step_seconds: of the usual setting; 0 where there was nothing to choose.
        images_per_second: in training, by setting, where they were compared.
    """

    setting: Setting
    source: Literal["forced", "rules", "probe"]
    step_seconds: float = 0.0
    images_per_second: dict[str, float] = dataclasses.field(default_factory=dict)


def is_worth_probing(seconds: float) -> bool:
    """Whether trainings that take so long in all are worth a probe."""
    return seconds > WORTH * PROBE_SECONDS


def choose_setting(
    model: StagedModel,
    config: TrainConfig,
    shape: ImageShape,
    classes: int,
    device: torch.device,
    *,
    steps: int,
    batch: int,
    wanted: Wanted = Wanted(),  # noqa: B008 (frozen)
    tuning: Tuning | None = None,
) -> Choice:
    """The fastest way to run `config`, where finding out is worth it; else the usual one.

    All measurements are remembered: on one machine, the same question has the same answer.

    Args:
        model: left as it is, but for what is frozen.
        shape: of the model's input.
        steps: how many will be run with this setting, in all trainings together.
        batch: images of a step.
        wanted: what is not to be chosen.
        tuning: where measurements are remembered; by default the user's.
    """
    settings = possible_settings(model, config, device, wanted)
    usual = settings[0]
    if len(settings) == 1:
        return Choice(setting=usual, source="rules" if wanted == Wanted() else "forced")
    tuning = tuning or Tuning()
    model.freeze(config.freeze_depth, config.freeze)
    bench = _Bench(model, config, shape, classes, device, batch)
    step_seconds, speeds = 0.0, dict[str, float]()
    try:
        key = tuning_key("step", model, config, shape, device, also=f"{usual}, {batch} images")
        speeds = _recalled(tuning, key, str(usual), lambda: bench.compare([usual], 0.0))
        step_seconds = batch / speeds.pop(str(usual))
        seconds = steps * step_seconds
        if seconds < WORTH * COMPILE_SECONDS and wanted.execution == "auto":
            settings = [setting for setting in settings if setting.execution != "compile"]
        if is_worth_probing(seconds) and steps > WORTH * (_ROUNDS + 1) * len(settings):
            key = tuning_key("all", model, config, shape, device, also=f"{settings}, {batch}")
            speeds = _recalled(
                tuning, key, str(usual), lambda: bench.compare(settings, PROBE_SECONDS)
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise  # the training will find it out, and what to do
    fastest = max(settings, key=lambda setting: speeds.get(str(setting), 0.0))
    better = speeds.get(str(fastest), 0.0) * (1 - MARGIN) > speeds.get(str(usual), 0.0)
    return Choice(
        setting=fastest if better else usual,
        source="probe" if speeds else "rules",
        step_seconds=step_seconds,
        images_per_second=speeds,
    )


def _recalled(
    tuning: Tuning, key: str, usual: str, measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """What is remembered under `key`, or else measured now; the usual setting is in it. All
    processes of a user go by what the first one remembered.
    """
    found = tuning.get(key)
    if found is None or not found.get(usual, 0.0) > 0:
        measured = measure()
        tuning.put(key, measured, replace=found is not None)
        found = tuning.get(key) or measured
    return dict(found)


@dataclasses.dataclass(frozen=True, eq=False)
class _Bench:
    """Times steps of copies of a model, on a batch of noise."""

    model: StagedModel
    config: TrainConfig
    shape: ImageShape
    classes: int
    device: torch.device
    batch: int

    def compare(self, settings: Sequence[Setting], least_seconds: float) -> dict[str, float]:
        """By setting images a second, of those that run here. They take turns, so that
        whatever else the machine does disturbs all alike.
        """
        usual = settings[0]
        timed: dict[Setting, _TimedStep] = {}
        slowest = 0.0
        with seeded(0, self.device):
            for setting in settings:
                try:
                    step = self._timed(setting)
                    step.seconds()  # libraries warm up
                    took = step.seconds()
                except Exception as error:
                    # Graphs and compilers have limits of their own; what does not fit beside the
                    # others is not worth more.
                    if setting == usual or not (
                        setting.execution != "eager" or is_out_of_memory(error)
                    ):
                        raise
                    continue
                if setting == usual:
                    slowest = _HOPELESS * took
                if took <= slowest:
                    timed[setting] = step
            times: dict[Setting, list[float]] = {setting: [] for setting in timed}
            start, rounds = time.perf_counter(), 0
            while rounds < _ROUNDS or time.perf_counter() - start < least_seconds:
                for setting, step in timed.items():
                    times[setting].append(step.seconds())
                rounds += 1
        return {str(s): self.batch / min(taken) for s, taken in times.items()}

    def _timed(self, setting: Setting) -> _TimedStep:
        config = setting.applied(self.config)
        return _TimedStep(
            self.model, config, self.shape, self.classes, self.device, batch=self.batch
        )


class _TimedStep:
    """Steps on one batch of noise, with a copy of the model."""

    def __init__(
        self,
        model: StagedModel,
        config: TrainConfig,
        shape: ImageShape,
        classes: int,
        device: torch.device,
        *,
        batch: int,
    ) -> None:
        copied = place(copy.deepcopy(model), device, config.memory_format)
        copied.freeze(config.freeze_depth, config.freeze).train()
        self._device = device
        self._lr = config.optimizer.lr
        counts = torch.ones(classes, dtype=torch.int64, device=device)
        self._step = Step(copied, config, counts, device)
        images = torch.randn(batch, shape.channels, shape.height, shape.width, device=device)
        images = images.contiguous(memory_format=torch_format(config.memory_format))
        self._batch = TrainBatch(images, torch.arange(batch, device=device) % classes)
        if config.execution == "graph":
            for _ in range(WARM_UP + 1):  # the last one is captured
                self._step(self._batch, self._lr)

    def seconds(self) -> float:
        """Takes one step."""
        wait_for(self._device)
        start = time.perf_counter()
        self._step(self._batch, self._lr)
        wait_for(self._device)
        return time.perf_counter() - start


def epoch_seconds(
    model: StagedModel,
    data: ResidentData,
    config: TrainConfig,
    device: torch.device,
    *,
    at_most: float = 1.0,
) -> float:
    """How long an epoch takes, about, from some of its steps and a part of its validation.

    The model is changed.

    Args:
        at_most: seconds that this may take; large models need longer, for three steps.
    """
    model = place(model, device, config.memory_format)
    model.freeze(config.freeze_depth, config.freeze).train()
    step = Step(model, config, data.class_counts, device)
    steps = steps_per_epoch(epoch_size(data, config), config.batch_size)
    with seeded(0, device) as generator:
        times = list(_timed_steps(step, data, config, generator, at_most))
    each = statistics.median(times[1:] or times)  # libraries warm up in the first one
    part = data.val.head(min(len(data.val), config.batch_size))
    took = []
    for _ in range(2):
        start = time.perf_counter()
        outputs(model, part, data.preprocessing, config.precision, config.memory_format)
        wait_for(device)
        took.append(time.perf_counter() - start)
    return steps * each + min(took) * len(data.val) / len(part)


def _timed_steps(
    step: Step,
    data: ResidentData,
    config: TrainConfig,
    generator: torch.Generator,
    at_most: float,
) -> Iterator[float]:
    begin = start = time.perf_counter()
    for number, batch in enumerate(train_batches(data, config, generator), start=1):
        step(batch, config.optimizer.lr)
        wait_for(generator.device)
        now = time.perf_counter()
        yield now - start
        if number >= 3 and now - begin > at_most:
            return
        start = time.perf_counter()
