"""One training of a stored configuration, outside of any study."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import closing

import torch

from hpsearch.config import TrainConfig
from hpsearch.data.views import DataViews
from hpsearch.engine.fit import in_smaller_parts
from hpsearch.families import initial_model
from hpsearch.training.checkpoint import Checkpoint, epoch_metrics
from hpsearch.training.epoch import EpochResult
from hpsearch.training.memory import is_out_of_memory, release_memory
from hpsearch.training.trainer import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunEpoch:
    """An epoch of one of several trainings is over.

    Attributes:
        what: which training, such as "seed 2 of 5".
        epochs: that it has at most.
    """

    what: str
    epochs: int
    result: EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOver:
    """One of several trainings is over.

    Attributes:
        what: which, such as "seed 2 of 5".
        epochs: that it had at most.
        kept: the epoch whose weights are kept; None where it failed.
        failure: why it failed, or empty.
    """

    what: str
    epochs: int
    kept: EpochResult | None
    failure: str = ""


Watch = Callable[[RunEpoch | RunOver], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What a training gave.

    Attributes:
        checkpoint: of the epoch that is kept; its configuration is what was trained with, in
            smaller parts than asked where the memory was short.
        history: all epochs. Where there was nothing to validate on, their validation scores are
            not numbers.
        kept: the epoch of the checkpoint.
    """

    checkpoint: Checkpoint
    history: tuple[EpochResult, ...]
    kept: EpochResult


def run_training(
    config: TrainConfig,
    data: DataViews,
    device: torch.device,
    *,
    origin: Mapping[str, str | int],
    length: int | None = None,
    watch: Callable[[EpochResult], None] = lambda _: None,
) -> Run:
    """Trains `config` from its first epoch; where the memory is short, in smaller parts.

    Args:
        origin: of the checkpoint.
        length: to stop after so many epochs and keep the last one's weights, as there are no
            validation images to choose by; None: the best epoch's are kept, as in the search.
        watch: is told of each epoch.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
        InfeasibleError: not even one image fits into the memory.
        HpsearchError: as `Training` and `initial_model`.
    """
    while True:
        try:
            return _train(config, data, device, origin, length, watch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        config = in_smaller_parts(config, data.view(config), device)
        release_memory(device)


def _train(
    config: TrainConfig,
    data: DataViews,
    device: torch.device,
    origin: Mapping[str, str | int],
    length: int | None,
    watch: Callable[[EpochResult], None],
) -> Run:
    images = data.view(config)
    model = initial_model(config, images.preprocessing.shape, len(images.classes))
    history: list[EpochResult] = []
    state: dict[str, torch.Tensor] = {}
    with closing(Training(model, images, config, device=device).run()) as epochs:
        for result in epochs:
            if length is not None:
                result = unvalidated(result, is_best=result.epoch + 1 == length)
            history.append(result)
            if result.is_best:
                state = {
                    name: tensor.detach().to("cpu", copy=True)
                    for name, tensor in model.state_dict().items()
                }
            watch(result)
            if len(history) == length:
                break
    kept = next(result for result in reversed(history) if result.is_best)
    checkpoint = Checkpoint(
        state=state,
        config=config,
        classes=images.classes,
        preprocessing=images.preprocessing,
        metrics=epoch_metrics(kept),
        origin=origin,
    )
    return Run(checkpoint=checkpoint, history=tuple(history), kept=kept)


def unvalidated(result: EpochResult, *, is_best: bool) -> EpochResult:
    """`result` without its validation scores."""
    fields = [field.name for field in dataclasses.fields(result) if field.name.startswith("val_")]
    nothing = dict.fromkeys(fields, math.nan)
    return dataclasses.replace(result, is_best=is_best, **nothing)  # type: ignore[arg-type]
