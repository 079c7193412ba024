"""Can a configuration learn a handful of images by heart? If not, something is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from hpsearch.config import DropoutConfig, ScheduleConfig, TrainConfig
from hpsearch.data.batches import steps_per_epoch
from hpsearch.data.progress import Progress
from hpsearch.data.resident import ResidentData
from hpsearch.data.views import DataViews
from hpsearch.engine.feasibility import first_config
from hpsearch.engine.place import Place
from hpsearch.engine.search_reader import load_search
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import NonFiniteLossError, SearchError
from hpsearch.families import initial_model, resolve_config
from hpsearch.names import family_label
from hpsearch.training.device import resolve_device
from hpsearch.training.epoch import EpochResult
from hpsearch.training.settings import rule_setting
from hpsearch.training.trainer import train

IMAGES_A_CLASS = 2
STEPS = 300
"""A sound configuration needs tens of steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverfitCheck:
    """What became of it.

    Attributes:
        name: of the family or trial.
        passed: all images were classified right, without dropout and augmentation.
        images: how many there were.
        epochs: how many were trained.
        accuracy: the best on these images.
        first_loss, last_loss: of the first and the last epoch; None where there was none.
        findings: what was seen, and what may be wrong, in sentences; empty where it passed.
    """

    name: str
    passed: bool
    images: int
    epochs: int
    accuracy: float
    first_loss: float | None
    last_loss: float | None
    seconds: float
    findings: tuple[str, ...]


def check_study(
    spec: StudySpec,
    *,
    runs: str | Path = "runs",
    storage: str | None = None,
    trial: str | None = None,
    device: str = "auto",
    watch: Callable[[Progress], None] | None = None,
) -> Iterator[OverfitCheck]:
    """Checks the settings that each family of a study tries first, or those of one trial.

    Args:
        runs, storage: where the search of `trial` is.
        trial: of the search that is called as the study is, such as cnn-7.
        watch: is told how far the decoding of data has come that is not in the store yet.

    Raises:
        HpsearchError: as `search`; or there is no such trial, or it has no configuration yet.
    """
    target = resolve_device(device)
    prepared = prepare_data(spec, None, Place.of(runs, storage), watch=watch)
    views = prepared.views(target, watch=watch)
    if trial is not None:
        search = load_search(runs, spec.name, storage=storage)
        record = search.trial(trial)
        if record.config is None:
            raise SearchError(f"trial {trial} has no configuration yet: it is {record.state}")
        for part in ("data", "split"):
            if search.fingerprints[part] != prepared.fingerprints[part]:
                raise SearchError(
                    f"search {search.name!r} was made with other {part} than these "
                    f"({search.data['name']}): give the study file, or the same --data, --split "
                    "and other options that it was started with"
                )
        yield check_overfit(record.config, views, name=trial, device=target)
        return
    for family in spec.families:
        config = first_config(
            spec, family, views.shape, precision=spec.wanted.forced(rule_setting(target)).precision
        )
        yield check_overfit(config, views, name=family_label(family), device=target)


def check_overfit(
    config: TrainConfig,
    views: DataViews,
    *,
    name: str,
    device: torch.device,
    watch: Callable[[EpochResult], None] | None = None,
) -> OverfitCheck:
    """Trains `config` on two images of each class, with nothing in the way of learning them by
    heart: no augmentation, dropout, label smoothing, weight decay or averaging, and a constant
    learning rate. Stops as soon as it knows them.

    Raises:
        ConfigError, CheckpointError: the configuration cannot be trained at all.
    """
    start = time.perf_counter()
    data = few_images(views.view(config))
    steps = steps_per_epoch(len(data.train), config.batch_size)
    config = plain(resolve_config(config), epochs=-(-STEPS // steps))
    model = initial_model(config, data.preprocessing.shape, len(data.classes))
    history: list[EpochResult] = []
    findings: list[str] = []
    try:
        with contextlib.closing(train(model, data, config, device=device)) as epochs:
            for result in epochs:
                history.append(result)
                if watch is not None:
                    watch(result)
                if result.val_accuracy == 1.0:
                    break
    except NonFiniteLossError as error:
        findings.append(str(error))
    accuracy = max((result.val_accuracy for result in history), default=0.0)
    passed = accuracy == 1.0
    if not passed:
        findings += _findings(config, data, history)
    return OverfitCheck(
        name=name,
        passed=passed,
        images=len(data.train),
        epochs=len(history),
        accuracy=accuracy,
        first_loss=history[0].train_loss if history else None,
        last_loss=history[-1].train_loss if history else None,
        seconds=time.perf_counter() - start,
        findings=tuple(findings),
    )


def plain(config: TrainConfig, *, epochs: int) -> TrainConfig:
    """`config` without all that makes learning by heart harder."""
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, weight_decay=0.0),
        schedule=ScheduleConfig(name="constant"),
        dropout=DropoutConfig(),
        augment={},
        repeat=1,
        train_images=0,
        balance="none",
        label_smoothing=0.0,
        ema=0.0,
        epochs=epochs,
        early_stopping=None,
    )


def few_images(data: ResidentData) -> ResidentData:
    """The first two training images of each class, as training and as validation images."""
    labels = data.train.labels.cpu().numpy()
    rows = [np.flatnonzero(labels == label)[:IMAGES_A_CLASS] for label in np.unique(labels)]
    few = data.train.at(torch.from_numpy(np.sort(np.concatenate(rows))))
    return dataclasses.replace(data, train=few, val=few)


def _findings(config: TrainConfig, data: ResidentData, history: list[EpochResult]) -> list[str]:
    findings = []
    chance = 1 / len(data.classes)
    if history:
        first, last = history[0], history[-1]
        best = max(result.val_accuracy for result in history)
        findings.append(
            f"after {len(history)} epochs the loss went from {first.train_loss:.3g} to "
            f"{last.train_loss:.3g}, and at best {best:.0%} of the images were right "
            f"(guessing gives {chance:.0%})"
        )
        lr = f"the learning rate {config.optimizer.lr:.3g} of {config.optimizer.name}"
        if last.train_loss > 0.9 * first.train_loss:
            findings.append(f"the loss hardly fell: {lr} may be too low, or so high that it jumps")
        elif last.train_loss < 0.1 * first.train_loss and best < 1.0:
            findings.append(
                "the loss fell, but not in evaluation mode: with batches this small, "
                "BatchNorm's running statistics may be far from those of the batches"
            )
        else:
            findings.append(f"it learns, but slowly: {lr} may be too low, or the model too small")
    if config.freeze_depth or config.freeze:
        names = f" and freeze {'/'.join(config.freeze)}" if config.freeze else ""
        findings.append(
            f"freeze_depth {config.freeze_depth}{names} leave few weights to learn with: try less"
        )
    clashes = _same_images(data)
    if clashes:
        findings.append(
            f"{clashes} pairs of these images are the same to the bit, but have different labels; "
            "see 'hpsearch data check'"
        )
    return findings


def _same_images(data: ResidentData) -> int:
    """How many pairs of images are equal, but labelled differently."""
    n = len(data.train)
    pixels = data.train.raw_batch(torch.arange(n, device=data.train.labels.device)).cpu()
    labels = data.train.labels.tolist()
    seen: dict[bytes, list[int]] = {}
    for image, label in zip(pixels.numpy(), labels, strict=True):
        seen.setdefault(image.tobytes(), []).append(label)
    return sum(a != b for group in seen.values() for i, a in enumerate(group) for b in group[:i])
