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

from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.resident import Preprocessing, ResidentData, ResidentImages, eval_batches
from hpsearch.errors import ConfigError, NonFiniteLossError
from hpsearch.families import build_model
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel
from hpsearch.training.trainer import (
    EVAL_BATCH_SIZE,
    EpochResult,
    derive_seed,
    evaluate,
    seeded,
    selection_key,
    train,
)

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
        learnt = evaluate(model, twenty_digits.train, preprocessing, "fp32")
        assert learnt.accuracy == 1.0
        assert learnt.loss < 0.1

    def test_a_wrong_label_is_learnt_as_it_is(self, twenty_digits: ResidentData) -> None:
        # The labels go with the images through shuffling: turned by one, they are learnt so.
        train_part = twenty_digits.train
        turned = dataclasses.replace(train_part, labels=(train_part.labels + 1) % 10)
        data = dataclasses.replace(twenty_digits, train=turned)
        model, _ = trained(changed(SMALL_MLP, batch_size=10, epochs=30), data)
        outputs = evaluate(model, twenty_digits.train, data.preprocessing, "fp32").logits
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
            key = selection_key(result.val_accuracy, result.val_loss)
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
            again = evaluate(model, tiny_digits.val, tiny_digits.preprocessing, "fp32")
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
        absurd = changed(config, optimizer=OptimizerConfig(name="sgd", lr=1e36))
        with pytest.raises(NonFiniteLossError, match=r"in epoch 0 .*learning rate"):
            trained(absurd, tiny_digits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer": OptimizerConfig(name="lion")},
            {"optimizer": OptimizerConfig(name="sgd", options={"momentum": 2.0})},
            {"schedule": ScheduleConfig(name="poly")},
            {"dropout": DropoutConfig(schedule="early")},
            {"augment": {"rotation": 3.0}},
            {"augment": {"rotate": 181.0}},
            {"freeze_depth": 3},
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
        after = evaluate(model, tiny_digits.val, tiny_digits.preprocessing, "fp32")
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


class TestEvaluate:
    def test_it_is_what_numpy_makes_of_it(self, noise: Callable[..., ImageDataset]) -> None:
        n = EVAL_BATCH_SIZE + 88  # more than one batch
        data = noise(n // 3, n // 3, n // 3, height=5, width=3, channels=3)
        preprocessing = Preprocessing.of(data.part())
        model = build_model(LOGISTIC, preprocessing.shape, 3)
        found = evaluate(model, ResidentImages.of(data.part(), CPU), preprocessing, "fp32")

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
            evaluate(model, tiny_digits.val, tiny_digits.preprocessing, "fp32") for _ in range(2)
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


class TestSelection:
    def test_accuracy_comes_first_and_ties_go_to_the_lower_loss(self) -> None:
        ranked = [(0.9, 0.1), (0.91, 5.0), (0.91, 0.2), (0.92, 9.0)]
        assert sorted(ranked, key=lambda pair: selection_key(*pair)) == ranked


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
