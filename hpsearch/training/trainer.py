"""The one trainer: it yields an `EpochResult` after each epoch.

It knows no Optuna, no disk and no console: pruning, reporting and checkpointing are the body
of the caller's `for`. Close it explicitly (`contextlib.closing`), so that a training that
is broken off gives its memory back at once.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import time
from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.config import TrainConfig
from hpsearch.data.augment import check_augmentations
from hpsearch.data.batches import (
    batch_sizes,
    epoch_size,
    steps_per_epoch,
    train_batches,
)
from hpsearch.data.resident import ResidentData
from hpsearch.errors import ConfigError, InfeasibleError, NonFiniteLossError
from hpsearch.training.dropout import check_dropout, dropout_rate, set_dropout
from hpsearch.training.epoch import EpochResult
from hpsearch.training.evaluation import outputs
from hpsearch.training.losses import check_loss
from hpsearch.training.model import StagedModel, learns_statistics, place
from hpsearch.training.objectives import objective_info
from hpsearch.training.optimizers import check_optimizer
from hpsearch.training.schedules import check_schedule, lr_factor
from hpsearch.training.scores import Scores, classification_scores
from hpsearch.training.seeds import derive_seed, seeded
from hpsearch.training.state import TrainingState
from hpsearch.training.step import Step


def check_config(config: TrainConfig) -> None:
    """Refuses what no table of the trainer knows: an optimizer, schedule, loss, augmentation or
    objective, or an option of one, or a value that an option may not have.

    Raises:
        ConfigError: it names what was wrong, and what is known.
    """
    check_optimizer(config.optimizer)
    check_schedule(config.schedule, config.optimizer.lr)
    check_dropout(config.dropout)
    check_loss(config.loss)
    check_augmentations(config.augment)
    objective_info(config.objective)


class Training:
    """One training run, from its first epoch or from a state on.

    The same model, data, configuration and device give the same results, bit for bit on a
    CPU, however often it was stopped between two epochs and taken up again from its state: the
    randomness of an epoch comes from the configuration's seed and the epoch's number.

    Whenever it yields, after its end or its closing, and where it goes on from a state, the model
    has the weights that were evaluated: the averaged ones, where the configuration asks for an
    average.

    Args:
        model: freshly built (see `hpsearch.families.build_model`); moved to `device` and trained
            in place.
        data: on `device` already; what the configuration says of input and training images is
            done (see `hpsearch.data.views.DataViews`).
        config: `family`, `options`, `weights` and `init` are not looked at, the model being built.
        resume: what `state` gave of a training with this configuration, to go on from there.

    Raises:
        ConfigError: the configuration cannot be trained.
    """

    def __init__(
        self,
        model: StagedModel,
        data: ResidentData,
        config: TrainConfig,
        *,
        device: torch.device,
        resume: TrainingState | None = None,
    ) -> None:
        check_config(config)
        self._model = place(model, device, config.memory_format)
        self._model.freeze(config.freeze_depth, config.freeze)
        self._data = data
        self._config = config
        self._device = device
        self._images = epoch_size(data, config)
        self._steps = steps_per_epoch(self._images, config.batch_size)
        self._objective = objective_info(config.objective)
        self._check_batches()
        self._step = Step(self._model, config, data.class_counts, device)
        self._history: list[EpochResult] = []
        self._val_logits: Tensor | None = None
        if resume is not None:
            self._resume(resume)

    def _check_batches(self) -> None:
        """BatchNorm cannot learn from one image."""
        config = self._config
        sizes = batch_sizes(self._images, config.batch_size)
        # The larger batches can have the smaller parts: of 4 images two of 2, of 5 one of 1.
        parts = (batch_sizes(n, config.micro_batch or n)[0] for n in sizes)
        if not learns_statistics(self._model) or min(parts) > 1:
            return
        if min(sizes) > 1:
            raise InfeasibleError(
                f"parts of {config.micro_batch} of a batch of {config.batch_size} images are what "
                "fits into the memory of the device; one of them would have a single image, and "
                "BatchNorm cannot learn from one"
            )
        raise ConfigError(
            f"batch_size {config.batch_size} gives batches of one image of the {self._images} "
            "training images, and BatchNorm cannot learn from one; use a larger batch"
        )

    def _resume(self, state: TrainingState) -> None:
        if state.config != self._config:
            raise ConfigError("the state is of a training with another configuration")
        self._model.load_state_dict(dict(state.model))
        self._step.load_optimizer(state.optimizer)
        if self._step.average is not None and state.average is not None:
            self._step.average.load_state(state.average)
            self._step.average.install()
        self._history = list(state.history)

    def state(self) -> TrainingState:
        """What a training with the same configuration goes on from.

        To be asked for before the first or between two epochs. The tensors are those of this
        training: they are to be saved or copied before it goes on.
        """
        average = self._step.average
        model = dict(self._model.state_dict())
        averaged = None
        if average is not None:
            average.restore()
            model = {name: tensor.clone() for name, tensor in model.items()}
            averaged = average.state()
            averaged["weights"] = [tensor.clone() for tensor in averaged["weights"]]
            average.install()
        return TrainingState(
            config=self._config,
            history=tuple(self._history),
            model=model,
            optimizer=self._step.optimizer.state_dict(),
            average=averaged,
        )

    def run(self) -> Generator[EpochResult, None, None]:
        """Trains epoch by epoch and yields what each gave.

        Raises:
            NonFiniteLossError: at the end of an epoch whose loss was infinite or not a number.
        """
        while not self.is_over:
            result = self._epoch()
            if not (math.isfinite(result.train_loss) and math.isfinite(result.val_loss)):
                raise NonFiniteLossError(
                    f"the loss is not finite in epoch {result.epoch} (training "
                    f"{result.train_loss:g}, validation {result.val_loss:g}): the learning rate "
                    f"{self._config.optimizer.lr:.3g} may be too high"
                )
            self._history.append(result)
            yield result

    @property
    def val_logits(self) -> Tensor:
        """What the model made of the validation images after the epoch that was yielded last:
        float32 (N, classes), on the device. They are gone when the next epoch begins.

        Raises:
            RuntimeError: no epoch has been yielded.
        """
        if self._val_logits is None:
            raise RuntimeError("no epoch has been yielded yet")
        return self._val_logits

    @property
    def is_over(self) -> bool:
        """Whether there are no more epochs to come."""
        return len(self._history) >= self._config.epochs or self._stagnates()

    def _stagnates(self) -> bool:
        """Whether the epochs so far are a reason to stop early."""
        rule = self._config.early_stopping
        if rule is None:
            return False
        best: EpochResult | None = None
        stale = 0
        for result in self._history:
            gain = math.inf if best is None else self._objective.gain(result, best)
            stale = 0 if gain > rule.min_gain else stale + 1
            if result.is_best:
                best = result
        return stale >= rule.patience

    def _best(self) -> EpochResult | None:
        return next((result for result in reversed(self._history) if result.is_best), None)

    def _epoch(self) -> EpochResult:
        start = time.perf_counter()
        self._val_logits = None  # its memory is for the epoch
        config, history, epoch = self._config, self._history, len(self._history)
        rate = dropout_rate(config.dropout, epoch, config.epochs, history)
        set_dropout(self._model, rate, config.dropout.depth)
        losses: list[Tensor] = []
        labels: list[Tensor] = []
        predicted: list[Tensor] = []
        if self._step.average is not None:
            self._step.average.restore()
        self._model.train()
        lr = self._step.highest_lr
        with seeded(derive_seed(config.seed, "epoch", epoch), self._device) as generator:
            for number, batch in enumerate(train_batches(self._data, config, generator)):
                moment = epoch + (number + 0.5) / self._steps
                factor = lr_factor(config.schedule, moment, config.epochs, history)
                lr = self._step.highest_lr * factor
                loss, guesses = self._step(batch, lr)
                losses.append(loss)
                labels.append(batch.labels)
                predicted.append(guesses)
        if self._step.average is not None:
            self._step.average.install()
        val_loss, val = self._validate()
        # Only now is the device waited for.
        batch_losses = torch.stack(losses).tolist()
        sizes = [len(part) for part in labels]
        train_loss = sum(map(operator.mul, batch_losses, sizes)) / self._images
        train = classification_scores(
            torch.cat(labels), torch.cat(predicted), len(self._data.classes)
        )
        seconds = time.perf_counter() - start
        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train.accuracy,
            train_balanced_accuracy=train.balanced_accuracy,
            train_macro_f1=train.macro_f1,
            val_loss=val_loss,
            val_accuracy=val.accuracy,
            val_balanced_accuracy=val.balanced_accuracy,
            val_macro_f1=val.macro_f1,
            lr=lr,
            dropout=rate,
            seconds=seconds,
            images_per_second=self._images / seconds,
            is_best=False,
            batch_losses=tuple(batch_losses),
        )
        best = self._best()
        key = self._objective.key
        is_best = best is None or key(result) > key(best)
        return dataclasses.replace(result, is_best=is_best)

    def _validate(self) -> tuple[float, Scores]:
        data, config = self._data, self._config
        logits = outputs(
            self._model, data.val, data.preprocessing, config.precision, config.memory_format
        )
        loss = F.cross_entropy(logits, data.val.labels)
        scores = classification_scores(data.val.labels, logits.argmax(dim=1), len(data.classes))
        self._val_logits = logits
        return loss.item(), scores


def train(
    model: StagedModel,
    data: ResidentData,
    config: TrainConfig,
    *,
    device: torch.device,
    resume: TrainingState | None = None,
) -> Generator[EpochResult, None, None]:
    """Trains `model` in place and yields once an epoch: `Training(...).run()`."""
    return Training(model, data, config, device=device, resume=resume).run()
