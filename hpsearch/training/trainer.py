"""The one trainer: a generator that yields an `EpochResult` after each epoch.

It knows no Optuna, no disk and no console: pruning, reporting and checkpointing are the body
of the caller's `for`. Close it explicitly (`contextlib.closing`), so that a training that
is broken off gives its memory back at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Generator, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.augment import check_augmentations
from hpsearch.data.batches import epoch_size, eval_batches, steps_per_epoch, train_batches
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.errors import ConfigError, NonFiniteLossError
from hpsearch.training.averaging import WeightAverage
from hpsearch.training.dropout import check_dropout, dropout_rate, set_dropout
from hpsearch.training.losses import BatchLoss, check_loss
from hpsearch.training.model import StagedModel
from hpsearch.training.optimizers import base_lr, build_optimizer, check_optimizer
from hpsearch.training.schedules import check_schedule, lr_factor

EVAL_BATCH_SIZE = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: counted from 0.
        train_loss, train_accuracy: means over the augmented training images as they were
            trained on, dropout on; the weights changed meanwhile. The loss is what is trained
            with; in mixed images, the label with the first share is the right one.
        val_loss, val_accuracy: over all validation images after the epoch. The loss is
            cross-entropy without smoothing or weights, whatever is trained with: so trials compare.
        lr: learning rate of the last step, in the last stage.
        dropout: highest rate in this epoch.
        seconds: wall time, validation included.
        images_per_second: training images by `seconds`.
        is_best: no epoch before was better (see `selection_key`).
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    dropout: float
    seconds: float
    images_per_second: float
    is_best: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Outputs for a set of images: logits float32 (N, classes) on the CPU, mean loss, accuracy."""

    logits: Tensor
    loss: float
    accuracy: float


def selection_key(val_accuracy: float, val_loss: float) -> tuple[float, float]:
    """What is best is the greatest of these: validation accuracy; ties go to the lower loss.

    Epochs of a training and trials of a search are ranked by this one definition.
    """
    return val_accuracy, -val_loss


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from numbers and names: near inputs give unrelated seeds."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seeds torch's global generators (dropout uses them) for the block and puts their states
    back after it; gives a generator on `device`, seeded as well.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.Generator(device=device).manual_seed(seed)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the epochs of one training share."""

    model: StagedModel
    data: ResidentData
    config: TrainConfig
    device: torch.device
    optimizer: torch.optim.Optimizer
    loss: BatchLoss
    average: WeightAverage | None


def check_config(config: TrainConfig) -> None:
    """Refuses what no table of the trainer knows: an optimizer, schedule, loss or augmentation,
    or an option of one, or a value that an option may not have.

    Raises:
        ConfigError: it names what was wrong, and what is known.
    """
    check_optimizer(config.optimizer)
    check_schedule(config.schedule, config.optimizer.lr)
    check_dropout(config.dropout)
    check_loss(config.loss)
    check_augmentations(config.augment)


def train(
    model: StagedModel, data: ResidentData, config: TrainConfig, *, device: torch.device
) -> Generator[EpochResult, None, None]:
    """Trains `model` in place and yields once an epoch.

    The same model, data, configuration and device give the same results, bit for bit on a
    CPU: the randomness of an epoch comes from the configuration's seed and the epoch's number.

    Whenever it yields, and after its end or its closing, the model has the weights that were
    evaluated: the averaged ones, where the configuration asks for an average.

    Args:
        model: freshly built (see `hpsearch.families.build_model`); moved to `device`.
        data: on `device` already; what the configuration says of input and training images is
            done (see `hpsearch.data.views.DataViews`).
        config: `family`, `options`, `weights` and `init` are not looked at, the model being built.

    Raises:
        ConfigError: before the first epoch, where the configuration cannot be trained.
        NonFiniteLossError: at the end of an epoch whose loss was infinite or not a number.
    """
    check_config(config)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.freeze(config.freeze_depth, config.freeze)
    _check_batches(model, epoch_size(data, config), config.batch_size)
    run = _Run(
        model=model,
        data=data,
        config=config,
        device=device,
        optimizer=build_optimizer(model, config.optimizer, batch_size=config.batch_size),
        loss=BatchLoss(config, data.class_counts),
        average=WeightAverage(model, config.ema) if config.ema else None,
    )
    history: list[EpochResult] = []
    best: EpochResult | None = None
    stale = 0
    for epoch in range(config.epochs):
        result = _train_epoch(run, epoch, history, best)
        if not (math.isfinite(result.train_loss) and math.isfinite(result.val_loss)):
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {epoch} (training {result.train_loss:g}, "
                f"validation {result.val_loss:g}): the learning rate "
                f"{config.optimizer.lr:.3g} may be too high"
            )
        history.append(result)
        yield result
        if config.early_stopping is not None:
            gain = math.inf if best is None else result.val_accuracy - best.val_accuracy
            stale = 0 if gain > config.early_stopping.min_gain else stale + 1
            if stale >= config.early_stopping.patience:
                return
        if result.is_best:
            best = result


def _check_batches(model: StagedModel, images: int, batch_size: int) -> None:
    smallest = images // steps_per_epoch(images, batch_size)
    learns = any(isinstance(m, _BatchNorm) and m.training for m in model.train().modules())
    if smallest < 2 and learns:
        raise ConfigError(
            f"batch_size {batch_size} gives batches of one image of the {images} training images, "
            "and BatchNorm cannot learn from one; use a larger batch"
        )


def _train_epoch(
    run: _Run, epoch: int, history: Sequence[EpochResult], best: EpochResult | None
) -> EpochResult:
    start = time.perf_counter()
    config, model, device = run.config, run.model, run.device
    rate = dropout_rate(config.dropout, epoch, config.epochs, history)
    set_dropout(model, rate, config.dropout.depth)
    images = epoch_size(run.data, config)
    steps = steps_per_epoch(images, config.batch_size)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device, dtype=torch.int64)
    highest_lr = base_lr(config.optimizer, config.batch_size)
    lr = highest_lr
    if run.average is not None:
        run.average.restore()
    model.train()
    with seeded(derive_seed(config.seed, "epoch", epoch), device) as generator:
        for step, batch in enumerate(train_batches(run.data, config, generator)):
            time_now = epoch + (step + 0.5) / steps
            lr = highest_lr * lr_factor(config.schedule, time_now, config.epochs, history)
            with autocast(device, config.precision):
                logits = model(batch.images)
            loss = run.loss(logits, batch.labels, batch.other, batch.share)
            _step(run, loss, lr)
            loss_sum += loss.detach() * len(batch.labels)
            correct += (logits.detach().argmax(dim=1) == batch.labels).sum()
    if run.average is not None:
        run.average.install()
    evaluation = evaluate(model, run.data.val, run.data.preprocessing, config.precision)
    # The epoch's only wait for the device, besides the validation's.
    train_loss = loss_sum.item() / images
    train_accuracy = correct.item() / images
    seconds = time.perf_counter() - start
    key = selection_key(evaluation.accuracy, evaluation.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val_loss=evaluation.loss,
        val_accuracy=evaluation.accuracy,
        lr=lr,
        dropout=rate,
        seconds=seconds,
        images_per_second=images / seconds,
        is_best=best is None or key > selection_key(best.val_accuracy, best.val_loss),
    )


def _step(run: _Run, loss: Tensor, lr: float) -> None:
    """Changes the weights by the gradient of `loss`; `lr` is that of the last stage."""
    groups = run.optimizer.param_groups
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if run.config.grad_clip:
        parameters = [parameter for group in groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, run.config.grad_clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update()


def evaluate(
    model: nn.Module, images: ResidentImages, preprocessing: Preprocessing, precision: Precision
) -> Evaluation:
    """The model's outputs for all images, in their order; leaves the model in evaluation mode."""
    device = images.labels.device
    model.eval()
    outputs: list[Tensor] = []
    with torch.inference_mode(), autocast(device, precision):
        for batch, _ in eval_batches(images, preprocessing, EVAL_BATCH_SIZE):
            outputs.append(model(batch).float())
    logits = torch.cat(outputs)
    loss = F.cross_entropy(logits, images.labels).item()
    correct = (logits.argmax(dim=1) == images.labels).sum().item()
    return Evaluation(logits.cpu(), loss, correct / len(images))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Automatic mixed precision where `precision` is "bf16", nothing otherwise."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
