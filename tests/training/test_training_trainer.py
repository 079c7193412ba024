from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.data.batches import TrainBatch, eval_batches, train_batches
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.errors import ConfigError, NonFiniteLossError
from hpsearch.families import build_model
from hpsearch.training import trainer
from hpsearch.training.dropout import ScheduledDropout, dropout_rate
from hpsearch.training.epoch import EpochResult
from hpsearch.training.evaluation import EVAL_BATCH_SIZE, evaluate
from hpsearch.training.model import StagedModel
from hpsearch.training.objectives import objective_info
from hpsearch.training.schedules import lr_factor
from hpsearch.training.seeds import derive_seed, seeded
from hpsearch.training.trainer import train

CPU = torch.device("cpu")
SMALL_CNN = TrainConfig(
    family="cnn",
    options={"blocks": 2, "convs": 1, "channels": 8, "hidden": 0},
    optimizer=OptimizerConfig(lr=1e-2, weight_decay=1e-2),
    dropout=DropoutConfig(rate=0.2),
    augment={"rotate": 10.0, "translate": 0.1},
    batch_size=32,
    epochs=3,
    seed=1,
)
SMALL_MLP = TrainConfig(
    family="mlp",
    options={"layers": 2, "width": 32, "batch_norm": True},
    optimizer=OptimizerConfig(lr=1e-2),
    batch_size=32,
    epochs=4,
)
LOGISTIC = TrainConfig(
    family="logistic", optimizer=OptimizerConfig(lr=1e-2), batch_size=32, epochs=4
)


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, **changes)


def built(config: TrainConfig, data: ResidentData) -> StagedModel:
    return build_model(config, data.preprocessing.shape, len(data.classes))


def trained(config: TrainConfig, data: ResidentData) -> tuple[StagedModel, list[EpochResult]]:
    model = built(config, data)
    return model, list(train(model, data, config, device=CPU))


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """What a model gives for images, and the mean loss of it."""

    logits: Tensor
    loss: float
    accuracy: float


def evaluated(
    model: StagedModel, images: ResidentImages, preprocessing: Preprocessing
) -> Evaluated:
    found = evaluate(model, images, preprocessing, "fp32", "channels_last")
    loss = F.cross_entropy(found.logits, images.labels).item()
    return Evaluated(found.logits, loss, found.accuracy)


def numbers(history: list[EpochResult]) -> list[dict[str, Any]]:
    """The history without the times of the clock."""
    clock = {"seconds", "images_per_second"}
    return [{k: v for k, v in dataclasses.asdict(r).items() if k not in clock} for r in history]


def same_weights(first: StagedModel, second: StagedModel) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


class TestLearning:
    @pytest.mark.parametrize("config", [SMALL_CNN, SMALL_MLP, LOGISTIC], ids=lambda c: c.family)
    def test_it_learns_the_digits(self, tiny_digits: ResidentData, config: TrainConfig) -> None:
        _, history = trained(changed(config, epochs=8), tiny_digits)
        assert [result.epoch for result in history] == list(range(8))
        assert history[-1].train_loss < history[0].train_loss / 2
        assert history[-1].val_loss < history[0].val_loss
        assert history[-1].val_accuracy > 0.7

    @pytest.mark.parametrize("config", [SMALL_CNN, SMALL_MLP], ids=lambda c: c.family)
    def test_it_learns_twenty_images_by_heart(
        self, twenty_digits: ResidentData, config: TrainConfig
    ) -> None:
        plain = changed(config, augment={}, dropout=DropoutConfig(), batch_size=10, epochs=30)
        model, history = trained(plain, twenty_digits)
        assert history[-1].train_accuracy == 1.0
        preprocessing = twenty_digits.preprocessing
        learnt = evaluated(model, twenty_digits.train, preprocessing)
        assert learnt.accuracy == 1.0
        assert learnt.loss < 0.1

    def test_a_wrong_label_is_learnt_as_it_is(self, twenty_digits: ResidentData) -> None:
        # The labels go with the images through shuffling: turned by one, they are learnt so.
        train_part = twenty_digits.train
        turned = dataclasses.replace(train_part, labels=(train_part.labels + 1) % 10)
        data = dataclasses.replace(twenty_digits, train=turned)
        model, _ = trained(changed(SMALL_MLP, batch_size=10, epochs=30), data)
        outputs = evaluated(model, twenty_digits.train, data.preprocessing).logits
        assert torch.equal(outputs.argmax(dim=1), turned.labels)


class TestRepetition:
    def test_the_same_configuration_gives_the_same_bits(self, tiny_digits: ResidentData) -> None:
        first, first_history = trained(SMALL_CNN, tiny_digits)
        torch.manual_seed(12345)  # what others did to the global state does not matter
        second, second_history = trained(SMALL_CNN, tiny_digits)
        assert numbers(first_history) == numbers(second_history)
        assert same_weights(first, second)

    def test_another_seed_gives_another_training(self, tiny_digits: ResidentData) -> None:
        other = changed(SMALL_CNN, seed=2)
        _, history = trained(SMALL_CNN, tiny_digits)
        _, other_history = trained(other, tiny_digits)
        assert numbers(history) != numbers(other_history)
        # The same initial weights: the order, augmentation and dropout differ as well.
        same_start = built(SMALL_CNN, tiny_digits)
        same_start_history = list(train(same_start, tiny_digits, other, device=CPU))
        assert numbers(same_start_history) != numbers(history)

    @pytest.mark.parametrize(
        ("augment", "rate"), [({"translate": 0.1}, 0.0), ({}, 0.5)], ids=["augmented", "dropout"]
    )
    def test_each_epoch_draws_anew(
        self, tiny_digits: ResidentData, augment: dict[str, float], rate: float
    ) -> None:
        # One batch an epoch and a learning rate that moves nothing: only the draws differ.
        still = changed(
            SMALL_MLP,
            optimizer=OptimizerConfig(name="sgd", lr=1e-30, options={"momentum": 0.0}),
            schedule=ScheduleConfig(name="constant"),
            augment=augment,
            dropout=DropoutConfig(rate=rate),
            batch_size=len(tiny_digits.train),
        )
        _, history = trained(still, tiny_digits)
        losses = [result.train_loss for result in history]
        assert max(losses) - min(losses) > 1e-4

    def test_the_global_random_state_is_not_touched(self, tiny_digits: ResidentData) -> None:
        model = built(SMALL_CNN, tiny_digits)
        torch.manual_seed(7)
        state = torch.get_rng_state()
        for _ in train(model, tiny_digits, SMALL_CNN, device=CPU):
            assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(torch.get_rng_state(), state)

    def test_random_numbers_drawn_between_epochs_change_nothing(
        self, tiny_digits: ResidentData
    ) -> None:
        _, undisturbed = trained(SMALL_CNN, tiny_digits)
        history = []
        for result in train(built(SMALL_CNN, tiny_digits), tiny_digits, SMALL_CNN, device=CPU):
            history.append(result)
            torch.rand(13)
        assert numbers(history) == numbers(undisturbed)

    def test_the_data_is_not_changed(self, tiny_digits: ResidentData) -> None:
        before = tiny_digits.train.pixels.clone(), tiny_digits.train.labels.clone()
        trained(SMALL_CNN, tiny_digits)
        assert torch.equal(tiny_digits.train.pixels, before[0])
        assert torch.equal(tiny_digits.train.labels, before[1])


class TestResults:
    def test_the_learning_rate_is_that_of_the_last_step(self, tiny_digits: ResidentData) -> None:
        config = changed(LOGISTIC, schedule=ScheduleConfig(name="linear"), epochs=5)
        _, history = trained(config, tiny_digits)
        steps = math.ceil(len(tiny_digits.train) / 32)
        expected = [0.01 * (1 - (epoch + (steps - 0.5) / steps) / 5) for epoch in range(5)]
        assert [result.lr for result in history] == pytest.approx(expected)

    def test_a_warm_up_starts_low(self, tiny_digits: ResidentData) -> None:
        schedule = ScheduleConfig(name="constant", warmup=0.5)
        config = changed(LOGISTIC, schedule=schedule, batch_size=1000)  # a step an epoch
        _, history = trained(config, tiny_digits)
        expected = [0.01 * 0.25, 0.01 * 0.75, 0.01, 0.01]
        assert [result.lr for result in history] == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [("constant", [0.3, 0.3, 0.3]), ("linear", [0.0, 0.15, 0.3]), ("late", [0.0, 0.3, 0.3])],
    )
    def test_dropout_follows_its_schedule(
        self, tiny_digits: ResidentData, schedule: str, expected: list[float]
    ) -> None:
        config = changed(SMALL_MLP, dropout=DropoutConfig(schedule=schedule, rate=0.3), epochs=3)
        model = built(config, tiny_digits)
        for result, rate in zip(
            train(model, tiny_digits, config, device=CPU), expected, strict=True
        ):
            assert result.dropout == pytest.approx(rate)
            in_use = {m.p for m in model.modules() if isinstance(m, ScheduledDropout)}
            assert in_use == {result.dropout}

    def test_is_best_marks_what_no_epoch_before_reached(self, tiny_digits: ResidentData) -> None:
        # A high learning rate: the accuracy goes up and down, and repeats itself.
        optimizer = OptimizerConfig(name="sgd", lr=0.3)
        _, history = trained(changed(SMALL_MLP, optimizer=optimizer, epochs=15), tiny_digits)
        best: tuple[float, float] | None = None
        for result in history:
            key = objective_info("val_accuracy").key(result)
            assert result.is_best == (best is None or key > best)
            best = key if best is None else max(best, key)
        assert {result.is_best for result in history[1:]} == {True, False}

    def test_the_training_loss_is_that_of_the_batches(self, tiny_digits: ResidentData) -> None:
        # One batch holds all images, so the loss is that of the initial weights.
        config = changed(LOGISTIC, label_smoothing=0.1, batch_size=1000, epochs=1)
        model = built(config, tiny_digits)
        batches = eval_batches(tiny_digits.train, tiny_digits.preprocessing, 1000)
        ((images, labels),) = batches
        with torch.no_grad():
            logits = model(images).double()
        log_p = logits - logits.logsumexp(dim=1, keepdim=True)
        smoothed = 0.9 * F.one_hot(labels, 10) + 0.1 / 10
        (result,) = train(model, tiny_digits, config, device=CPU)
        assert result.train_loss == pytest.approx(
            -(smoothed * log_p).sum(1).mean().item(), rel=1e-5
        )
        hits = (logits.argmax(dim=1) == labels).double().mean().item()
        assert result.train_accuracy == pytest.approx(hits)

    def test_validation_is_that_of_the_weights_after_the_epoch(
        self, tiny_digits: ResidentData
    ) -> None:
        config = changed(SMALL_CNN, label_smoothing=0.2)
        model = built(config, tiny_digits)
        for result in train(model, tiny_digits, config, device=CPU):
            again = evaluated(model, tiny_digits.val, tiny_digits.preprocessing)
            assert (again.loss, again.accuracy) == (result.val_loss, result.val_accuracy)

    def test_speed_is_images_by_seconds(self, tiny_digits: ResidentData) -> None:
        _, (result, *_) = trained(LOGISTIC, tiny_digits)
        assert result.seconds > 0
        assert result.images_per_second * result.seconds == pytest.approx(len(tiny_digits.train))


def stop_epochs(history: list[EpochResult], patience: int, min_gain: float) -> int:
    """How many epochs of `history` early stopping lets run, by its definition."""
    best, stale = -math.inf, 0
    for number, result in enumerate(history, start=1):
        stale = 0 if result.val_accuracy > best + min_gain else stale + 1
        best = max(best, result.val_accuracy)
        if stale == patience:
            return number
    return len(history)


class TestEarlyStopping:
    @pytest.mark.parametrize("patience", [1, 2, 3])
    @pytest.mark.parametrize("min_gain", [0.0, 0.02, 0.1])
    def test_it_stops_after_so_many_epochs_without_gain(
        self, tiny_digits: ResidentData, patience: int, min_gain: float
    ) -> None:
        config = changed(SMALL_MLP, epochs=15)
        _, whole = trained(config, tiny_digits)
        stopping = EarlyStopping(patience=patience, min_gain=min_gain)
        _, stopped = trained(changed(config, early_stopping=stopping), tiny_digits)
        n = stop_epochs(whole, patience, min_gain)
        assert n < 15
        # And it changes nothing of the epochs that it lets run.
        assert numbers(stopped) == numbers(whole[:n])

    def test_without_any_gain_it_runs_one_epoch_more_than_its_patience(
        self, tiny_digits: ResidentData
    ) -> None:
        optimizer = OptimizerConfig(name="sgd", lr=1e-30)
        stopping = EarlyStopping(patience=2)
        config = changed(LOGISTIC, optimizer=optimizer, early_stopping=stopping, epochs=9)
        _, history = trained(config, tiny_digits)
        assert len({result.val_accuracy for result in history}) == 1
        assert len(history) == 3

    def test_a_patience_beyond_the_epochs_stops_nothing(self, tiny_digits: ResidentData) -> None:
        _, history = trained(
            changed(LOGISTIC, early_stopping=EarlyStopping(patience=50)), tiny_digits
        )
        assert len(history) == LOGISTIC.epochs


class TestWhatCannotBeTrained:
    @pytest.mark.parametrize("config", [SMALL_MLP, LOGISTIC], ids=lambda c: c.family)
    def test_a_loss_that_is_not_finite_ends_it(
        self, tiny_digits: ResidentData, config: TrainConfig
    ) -> None:
        absurd = changed(config, optimizer=OptimizerConfig(name="sgd", lr=1e38))
        with pytest.raises(NonFiniteLossError, match=r"in epoch 0 .*learning rate"):
            trained(absurd, tiny_digits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer": OptimizerConfig(name="lion")},
            {"optimizer": OptimizerConfig(name="sgd", options={"momentum": 2.0})},
            {"schedule": ScheduleConfig(name="poly")},
            {"dropout": DropoutConfig(schedule="early")},
            {"dropout": DropoutConfig(depth="deep")},
            {"loss": LossConfig(name="hinge")},
            {"schedule": ScheduleConfig(name="ladder", options={"rates": (0.1,)})},
            {"augment": {"rotation": 3.0}},
            {"augment": {"rotate": 181.0}},
            {"freeze_depth": 3},
            {"freeze": ("hidden9",)},
            # BatchNorm has no deviation of one image.
            {"batch_size": 1},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_it_is_refused_before_the_first_epoch(
        self, tiny_digits: ResidentData, changes: dict[str, Any]
    ) -> None:
        model = built(SMALL_MLP, tiny_digits)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(ConfigError):
            next(train(model, tiny_digits, changed(SMALL_MLP, **changes), device=CPU))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_single_images_train_where_nothing_needs_more(self, tiny_digits: ResidentData) -> None:
        _, history = trained(changed(LOGISTIC, batch_size=1, epochs=1), tiny_digits)
        assert history[0].train_accuracy > 0.3


class TestClosing:
    def test_an_epoch_that_is_not_asked_for_is_not_trained(self, tiny_digits: ResidentData) -> None:
        model = built(SMALL_MLP, tiny_digits)
        with contextlib.closing(train(model, tiny_digits, SMALL_MLP, device=CPU)) as epochs:
            result = next(epochs)
        after = evaluated(model, tiny_digits.val, tiny_digits.preprocessing)
        assert (after.loss, after.accuracy) == (result.val_loss, result.val_accuracy)
        with pytest.raises(StopIteration):
            next(epochs)

    def test_closing_lets_go_of_model_and_data(self, noise: Callable[..., ImageDataset]) -> None:
        part = ResidentImages.of(noise(20, 20).part(), CPU)
        preprocessing = Preprocessing.of(noise(20, 20).part())
        data = ResidentData(part, part, ("a", "b"), preprocessing)
        model = build_model(LOGISTIC, preprocessing.shape, 2)
        epochs = train(model, data, LOGISTIC, device=CPU)
        next(epochs)
        held = weakref.ref(model), weakref.ref(data)
        del model, data
        assert all(ref() is not None for ref in held)
        epochs.close()
        gc.collect()
        assert [ref() for ref in held] == [None, None]

    def test_nothing_happens_before_the_first_epoch_is_asked_for(
        self, tiny_digits: ResidentData
    ) -> None:
        model = built(LOGISTIC, tiny_digits)
        train(model, tiny_digits, LOGISTIC, device=CPU).close()
        assert same_weights(model, built(LOGISTIC, tiny_digits))


PLAIN_SGD = OptimizerConfig(name="sgd", lr=0.1, options={"momentum": 0.0})
CONSTANT = ScheduleConfig(name="constant")


def weights_by_epoch(config: TrainConfig, data: ResidentData) -> list[dict[str, Tensor]]:
    """The model's state before the training, then at each epoch's end as the caller sees it."""
    model = built(config, data)
    states = [copied(model)]
    for _ in train(model, data, config, device=CPU):
        states.append(copied(model))
    return states


def copied(model: StagedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name in first:
        assert torch.equal(first[name], second[name]), name


class TestAveraging:
    CONFIG = changed(SMALL_CNN, ema=0.7)

    def test_it_does_not_touch_the_training(self, tiny_digits: ResidentData) -> None:
        _, averaged = trained(self.CONFIG, tiny_digits)
        _, plain = trained(SMALL_CNN, tiny_digits)
        for ours, theirs in zip(averaged, plain, strict=True):
            assert ours.train_loss == theirs.train_loss
            assert ours.val_loss != theirs.val_loss

    def test_what_is_evaluated_is_what_the_caller_sees(self, tiny_digits: ResidentData) -> None:
        model = built(self.CONFIG, tiny_digits)
        seen = copied(model)
        for result in train(model, tiny_digits, self.CONFIG, device=CPU):
            seen = copied(model)
            other = built(self.CONFIG, tiny_digits)
            other.load_state_dict(seen)
            again = evaluated(other, tiny_digits.val, tiny_digits.preprocessing)
            assert (again.loss, again.accuracy) == (result.val_loss, result.val_accuracy)
        assert_same_state(copied(model), seen)

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_it_stays_so_when_the_training_is_closed(
        self, tiny_digits: ResidentData, epochs: int
    ) -> None:
        model = built(self.CONFIG, tiny_digits)
        with contextlib.closing(train(model, tiny_digits, self.CONFIG, device=CPU)) as training:
            for _ in range(epochs):
                result = next(training)
            seen = copied(model)
        assert_same_state(copied(model), seen)
        after = evaluated(model, tiny_digits.val, tiny_digits.preprocessing)
        assert (after.loss, after.accuracy) == (result.val_loss, result.val_accuracy)

    def test_it_stays_so_when_the_training_stops_early(self, tiny_digits: ResidentData) -> None:
        stopping = EarlyStopping(patience=1, min_gain=0.5)
        config = changed(self.CONFIG, early_stopping=stopping, epochs=9)
        model, history = trained(config, tiny_digits)
        assert len(history) < 9
        after = evaluated(model, tiny_digits.val, tiny_digits.preprocessing)
        assert after.loss == history[-1].val_loss

    @pytest.mark.parametrize("optimizer", ["sgd", "muon"])
    def test_it_is_the_average_of_the_weights_after_each_step(
        self, tiny_digits: ResidentData, optimizer: str
    ) -> None:
        # One batch an epoch: the weights after each step are there to be seen.
        config = changed(
            SMALL_MLP,
            optimizer=OptimizerConfig(name=optimizer, lr=0.05),
            batch_size=len(tiny_digits.train),
            epochs=6,
        )
        plain = weights_by_epoch(config, tiny_digits)
        averaged = weights_by_epoch(changed(config, ema=0.4), tiny_digits)
        expected = {name: tensor.double() for name, tensor in plain[0].items()}
        for step in range(6):
            kept = min(0.4, (1 + step) / (10 + step))
            for name, tensor in plain[step + 1].items():
                expected[name] = kept * expected[name] + (1 - kept) * tensor
                if tensor.is_floating_point():
                    found = averaged[step + 1][name]
                    torch.testing.assert_close(found, expected[name].float(), rtol=1e-4, atol=1e-6)


class TestClipping:
    def one_step(self, data: ResidentData, **changes: Any) -> dict[str, Tensor]:
        config = changed(
            SMALL_MLP,
            optimizer=PLAIN_SGD,
            schedule=CONSTANT,
            batch_size=len(data.train),
            epochs=1,
            **changes,
        )
        before, after = weights_by_epoch(config, data)
        names = [name for name, _ in built(config, data).named_parameters()]
        return {name: after[name] - before[name] for name in names}

    def test_the_gradient_is_no_longer_than_the_limit(self, tiny_digits: ResidentData) -> None:
        free = self.one_step(tiny_digits)
        length = torch.cat([move.flatten() for move in free.values()]).norm().item() / 0.1
        limit = length / 3
        clipped = self.one_step(tiny_digits, grad_clip=limit)
        moved = torch.cat([move.flatten() for move in clipped.values()]).norm().item()
        assert moved == pytest.approx(0.1 * limit, rel=1e-4)
        for name, move in clipped.items():
            torch.testing.assert_close(move, free[name] / 3, rtol=1e-3, atol=1e-6)

    def test_a_shorter_gradient_is_left_as_it_is(self, tiny_digits: ResidentData) -> None:
        assert_same_state(self.one_step(tiny_digits), self.one_step(tiny_digits, grad_clip=1000.0))


class TestStages:
    def test_each_stage_moves_by_its_own_learning_rate(self, tiny_digits: ResidentData) -> None:
        config = changed(
            SMALL_MLP,
            optimizer=PLAIN_SGD,
            schedule=CONSTANT,
            batch_size=len(tiny_digits.train),
            epochs=1,
        )
        slower = dataclasses.replace(PLAIN_SGD, stage_decay=0.5)
        before, equal = weights_by_epoch(config, tiny_digits)
        _, after = weights_by_epoch(changed(config, optimizer=slower), tiny_digits)
        for name, share in (("hidden1", 0.25), ("hidden2", 0.5), ("head", 1.0)):
            for tensor in (n for n in before if n.startswith(f"stages.{name}.")):
                if "running" not in tensor and "num_batches" not in tensor:
                    torch.testing.assert_close(
                        after[tensor] - before[tensor],
                        share * (equal[tensor] - before[tensor]),
                        rtol=1e-3,
                        atol=1e-6,
                    )

    def test_the_rate_that_is_told_is_the_last_stages(self, tiny_digits: ResidentData) -> None:
        optimizer = OptimizerConfig(lr=0.02, stage_decay=0.5, lr_per=64)
        _, history = trained(
            changed(SMALL_MLP, optimizer=optimizer, schedule=CONSTANT), tiny_digits
        )
        # Batches of 32, and a rate for batches of 64.
        assert {result.lr for result in history} == {0.01}

    def test_stages_can_be_frozen_by_name(self, tiny_digits: ResidentData) -> None:
        config = changed(SMALL_MLP, freeze=("hidden2", "head"), epochs=1)
        before, after = weights_by_epoch(config, tiny_digits)
        for name in before:
            assert torch.equal(before[name], after[name]) != name.startswith("stages.hidden1.")

    def test_a_frozen_stage_drops_nothing(self, tiny_digits: ResidentData) -> None:
        config = changed(
            SMALL_MLP, freeze_depth=1, dropout=DropoutConfig(rate=0.9, depth="falling"), epochs=1
        )
        model = built(config, tiny_digits)
        next(train(model, tiny_digits, config, device=CPU))
        first, second = (m for m in model.modules() if isinstance(m, ScheduledDropout))
        assert (first.p, second.p) == pytest.approx((0.9, 0.45))
        model.train()
        assert not first.training
        assert second.training


class TestSchedulesThatLookBack:
    def test_plateau_sees_the_validation_losses(self, tiny_digits: ResidentData) -> None:
        schedule = ScheduleConfig(name="plateau", options={"patience": 0, "gamma": 0.5})
        config = changed(
            SMALL_MLP,
            optimizer=OptimizerConfig(name="sgd", lr=0.5),
            schedule=schedule,
            epochs=12,
        )
        _, history = trained(config, tiny_digits)
        expected = [0.5 * lr_factor(schedule, epoch, 12, history[:epoch]) for epoch in range(12)]
        assert [result.lr for result in history] == pytest.approx(expected)
        assert len(set(expected)) > 1

    def test_adaptive_dropout_sees_the_accuracies(self, tiny_digits: ResidentData) -> None:
        dropout = DropoutConfig(schedule="adaptive", rate=0.6, options={"gap": -0.2, "speed": 3.0})
        _, history = trained(changed(SMALL_MLP, dropout=dropout, epochs=6), tiny_digits)
        expected = [dropout_rate(dropout, epoch, 6, history[:epoch]) for epoch in range(6)]
        assert [result.dropout for result in history] == expected
        assert expected[0] == 0.0
        assert len(set(expected)) > 2

    def test_steps_of_dropout_come_in_their_epochs(self, tiny_digits: ResidentData) -> None:
        dropout = DropoutConfig(
            schedule="steps", rate=0.6, options={"rates": (0.5, 0.6), "epochs": (1, 3)}
        )
        _, history = trained(changed(SMALL_MLP, dropout=dropout), tiny_digits)
        assert [result.dropout for result in history] == pytest.approx([0.0, 0.5, 0.5, 0.6])

    def test_a_ladder_gives_its_rates(self, tiny_digits: ResidentData) -> None:
        schedule = ScheduleConfig(name="ladder", options={"rates": (1e-2, 1e-4)})
        _, history = trained(changed(LOGISTIC, schedule=schedule), tiny_digits)
        assert [result.lr for result in history] == pytest.approx([1e-2, 1e-2, 1e-4, 1e-4])


def first_batch(config: TrainConfig, data: ResidentData) -> TrainBatch:
    with seeded(derive_seed(config.seed, "epoch", 0), CPU) as generator:
        return next(train_batches(data, config, generator))


@pytest.fixture
def unequal(noise: Callable[..., ImageDataset]) -> ResidentData:
    """Noise in three classes of 40, 8 and 12 images."""
    part = noise(40, 8, 12).part()
    images = ResidentImages.of(part, CPU)
    return ResidentData(images, images, ("a", "b", "c"), Preprocessing.of(part))


class TestLosses:
    @pytest.mark.parametrize("balance", ["none", "weights"])
    def test_the_training_loss_is_the_configured_one(
        self, unequal: ResidentData, balance: Any
    ) -> None:
        config = changed(LOGISTIC, balance=balance, batch_size=60, epochs=1)
        model = built(config, unequal)
        batch = first_batch(config, unequal)
        weight = torch.tensor([0.5, 2.5, 5 / 3]) if balance == "weights" else None
        with torch.no_grad():
            expected = F.cross_entropy(model(batch.images), batch.labels, weight=weight).item()
        (result,) = train(model, unequal, config, device=CPU)
        assert result.train_loss == pytest.approx(expected, rel=1e-5)
        # And validation is plain cross-entropy all the same.
        images = next(eval_batches(unequal.val, unequal.preprocessing, 60))
        plain = F.cross_entropy(model(images[0]), images[1]).item()
        assert result.val_loss == pytest.approx(plain, rel=1e-5)

    @pytest.mark.parametrize("name", ["focal", "mse"])
    def test_other_losses_learn_as_well(self, tiny_digits: ResidentData, name: str) -> None:
        config = changed(SMALL_MLP, loss=LossConfig(name=name), epochs=8, label_smoothing=0.1)
        _, history = trained(config, tiny_digits)
        assert history[-1].train_loss < history[0].train_loss / 2
        assert history[-1].val_accuracy > 0.7

    def test_balanced_sampling_is_asked_for(self, unequal: ResidentData) -> None:
        # Of noise a model learns the shares of the classes, and here they are made equal.
        spreads = {}
        for balance in ("none", "sampling"):
            model, _ = trained(changed(LOGISTIC, balance=balance, epochs=20), unequal)
            outputs = evaluated(model, unequal.val, unequal.preprocessing).logits
            spreads[balance] = outputs.mean(dim=0).std().item()
        assert spreads["sampling"] < spreads["none"] / 2

    def test_mixed_images_are_trained_on_both_labels(
        self, tiny_digits: ResidentData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = changed(LOGISTIC, batch_size=1000, epochs=1)
        plain = first_batch(config, tiny_digits)
        other, share = plain.labels.flip(0), torch.linspace(0, 1, len(plain.labels))
        mixed = dataclasses.replace(plain, other=other, share=share)
        monkeypatch.setattr(trainer, "train_batches", lambda *_: iter([mixed]))
        model = built(config, tiny_digits)
        with torch.no_grad():
            logits = model(plain.images)
        losses = [
            F.cross_entropy(logits, labels, reduction="none") for labels in (plain.labels, other)
        ]
        expected = (share * losses[0] + (1 - share) * losses[1]).mean().item()
        (result,) = train(model, tiny_digits, config, device=CPU)
        assert result.train_loss == pytest.approx(expected, rel=1e-5)
        hits = (logits.argmax(dim=1) == plain.labels).double().mean().item()
        assert result.train_accuracy == pytest.approx(hits)


class TestRepeating:
    def test_an_epoch_shows_the_images_so_many_times(self, tiny_digits: ResidentData) -> None:
        once = changed(LOGISTIC, schedule=ScheduleConfig(name="linear"), epochs=1)
        _, (single,) = trained(once, tiny_digits)
        _, (result,) = trained(changed(once, repeat=5), tiny_digits)
        shown = result.images_per_second * result.seconds
        assert shown == pytest.approx(5 * len(tiny_digits.train))
        assert 0 <= result.train_accuracy <= 1
        assert result.val_accuracy > single.val_accuracy
        # The schedule spans all steps: the last one is half a step before the end.
        steps = math.ceil(5 * len(tiny_digits.train) / 32)
        assert result.lr == pytest.approx(0.01 * 0.5 / steps)


MANY_AT_ONCE = changed(
    SMALL_CNN,
    optimizer=OptimizerConfig(
        name="muon", lr=1e-2, lr_per=64, stage_decay=0.7, weight_decay=0.01, decay_all=True
    ),
    schedule=ScheduleConfig(name="onecycle", warmup=0.1),
    dropout=DropoutConfig(schedule="adaptive", rate=0.3, depth="rising", options={"gap": -0.3}),
    loss=LossConfig(name="focal"),
    augment={"rotate": 10.0, "translate": 0.1, "mixup": 0.2},
    label_smoothing=0.1,
    repeat=2,
    balance="weights",
    grad_clip=1.0,
    ema=0.9,
    epochs=4,
)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_many_settings_at_once_repeat_bit_for_bit(tiny_digits: ResidentData, balance: Any) -> None:
    config = changed(MANY_AT_ONCE, balance=balance)
    first, first_history = trained(config, tiny_digits)
    torch.manual_seed(12345)
    again = TrainConfig.from_dict(config.to_dict())
    second, second_history = trained(again, tiny_digits)
    assert numbers(first_history) == numbers(second_history)
    assert same_weights(first, second)
    assert first_history[-1].train_loss < first_history[0].train_loss


class TestEvaluate:
    def test_it_is_what_numpy_makes_of_it(self, noise: Callable[..., ImageDataset]) -> None:
        n = EVAL_BATCH_SIZE + 88  # more than one batch
        data = noise(n // 3, n // 3, n // 3, height=5, width=3, channels=3)
        preprocessing = Preprocessing.of(data.part())
        model = build_model(LOGISTIC, preprocessing.shape, 3)
        found = evaluated(model, ResidentImages.of(data.part(), CPU), preprocessing)

        pixels = (data.images / 255.0 - preprocessing.mean) / preprocessing.std
        inputs = np.moveaxis(pixels, -1, 1).reshape(len(data), -1)
        linear = model.stages.head[1]
        logits = inputs @ linear.weight.detach().double().numpy().T
        logits += linear.bias.detach().double().numpy()
        np.testing.assert_allclose(found.logits.numpy(), logits, atol=1e-4)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(data)), data.labels]).mean()
        assert found.loss == pytest.approx(loss, rel=1e-5)
        assert found.accuracy == (logits.argmax(axis=1) == data.labels).mean()
        assert found.logits.dtype == torch.float32
        assert not found.logits.requires_grad

    def test_it_switches_dropout_and_batch_statistics_off(self, tiny_digits: ResidentData) -> None:
        model, _ = trained(SMALL_CNN, tiny_digits)
        model.train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        first, second = (
            evaluated(model, tiny_digits.val, tiny_digits.preprocessing) for _ in range(2)
        )
        assert torch.equal(first.logits, second.logits)
        assert not model.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_bf16_learns_with_less_precision(tiny_digits: ResidentData) -> None:
    config = changed(SMALL_CNN, precision="bf16", augment={}, epochs=6)
    model, history = trained(config, tiny_digits)
    _, exact = trained(changed(config, precision="fp32"), tiny_digits)
    assert numbers(history) != numbers(exact)
    assert history[-1].val_accuracy > 0.7
    # The weights stay in full precision; only the computation is in bf16.
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class TestSeeds:
    def test_near_inputs_give_unrelated_seeds(self) -> None:
        parts = [(s, name, n) for s in range(20) for name in ("epoch", "split") for n in range(20)]
        seeds = {derive_seed(*part) for part in parts}
        assert len(seeds) == len(parts)
        assert derive_seed(1, "epoch", 2) == derive_seed(1, "epoch", 2)
        assert derive_seed(1, 23) != derive_seed(12, 3)
        assert all(0 <= seed < 2**63 for seed in seeds)
        # Bits are as often 1 as 0: four standard errors of 800 draws.
        ones = [sum(seed >> bit & 1 for seed in seeds) / len(seeds) for bit in range(63)]
        assert all(abs(share - 0.5) < 4 * 0.5 / math.sqrt(len(seeds)) for share in ones)

    def test_the_block_is_repeatable_and_leaves_no_trace(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        drawn = []
        for _ in range(2):
            with seeded(11, CPU) as generator:
                drawn.append((torch.rand(5), torch.rand(5, generator=generator)))
        assert torch.equal(drawn[0][0], drawn[1][0])
        assert torch.equal(drawn[0][1], drawn[1][1])
        assert torch.equal(torch.rand(4), expected)

    def test_an_error_in_the_block_leaves_no_trace(self) -> None:
        state = torch.get_rng_state()
        with contextlib.suppress(ZeroDivisionError), seeded(11, CPU):
            torch.rand(5)
            raise ZeroDivisionError
        assert torch.equal(torch.get_rng_state(), state)
