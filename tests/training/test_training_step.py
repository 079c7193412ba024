"""Steps of training: batches in parts, fused optimizers, orders in memory, what an epoch tells."""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from few import subset
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from torch import Tensor, nn

from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.data.batches import TrainBatch, train_batches
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.errors import ConfigError, InfeasibleError
from hpsearch.families import build_model
from hpsearch.training import graph, trainer
from hpsearch.training.evaluation import EVAL_BATCH_SIZE, outputs
from hpsearch.training.graph import GraphedStep, TakeStep, _Captured
from hpsearch.training.losses import LOSSES
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.model import StagedModel, place
from hpsearch.training.optimizers import OPTIMIZERS, OptimizerInfo, build_optimizer
from hpsearch.training.step import Step
from hpsearch.training.trainer import Training, train

CPU = torch.device("cpu")
N, CLASSES = 11, 3
COUNTS = torch.tensor([5, 1, 20])
SGD = OptimizerConfig(name="sgd", lr=0.5, options={"momentum": 0.0})
CONFIG = TrainConfig(family="own", optimizer=SGD, batch_size=N, label_smoothing=0.1)
CNN = TrainConfig(
    family="cnn",
    options={"blocks": 2, "convs": 1, "channels": 8, "hidden": 0},
    optimizer=OptimizerConfig(lr=1e-2),
    batch_size=32,
    epochs=2,
)
MLP = TrainConfig(
    family="mlp",
    options={"layers": 1, "width": 16, "batch_norm": True},
    optimizer=OptimizerConfig(lr=1e-2),
    batch_size=32,
    epochs=3,
)
LOGISTIC = TrainConfig(family="logistic", optimizer=OptimizerConfig(lr=1e-2), epochs=2)


def conv_model(*, batch_norm: bool = False) -> StagedModel:
    """Kernels of 3x3, 1x1 and depthwise ones, of random, fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
        block = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), norm, nn.Tanh())
        deep = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 1), nn.Tanh())
        head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4, CLASSES))
    return StagedModel({"block": block, "deep": deep, "head": head})


def random_batch(n: int = N, *, mixed: bool = False, seed: int = 0) -> TrainBatch:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn((n, 2, 4, 4), generator=draw).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (n,), generator=draw)
    if not mixed:
        return TrainBatch(images, labels)
    return TrainBatch(images, labels, labels.roll(1), torch.rand((n,), generator=draw))


def in_doubles(batch: TrainBatch) -> TrainBatch:
    return dataclasses.replace(batch, images=batch.images.double())


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """What a step did."""

    loss: Tensor
    predicted: Tensor
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def taken(config: TrainConfig, batch: TrainBatch, *, batch_norm: bool = False) -> Taken:
    """One step of float64 weights; the loss itself is always taken in float32."""
    model = place(conv_model(batch_norm=batch_norm), CPU, config.memory_format).double().train()
    loss, predicted = Step(model, config, COUNTS, CPU)(in_doubles(batch), config.optimizer.lr)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return Taken(loss, predicted, gradients, model.state_dict())


def assert_close(found: Taken, expected: Taken) -> None:
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.predicted, expected.predicted)
    for ours, theirs in (
        (found.gradients, expected.gradients),
        (found.state, expected.state),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(
                ours[name], theirs[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


class TestMicroBatches:
    @pytest.mark.parametrize("micro_batch", [1, 3, 5, N - 1])
    @pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
    @pytest.mark.parametrize("balance", ["none", "weights"])
    @pytest.mark.parametrize("loss", [row.name for row in LOSSES])
    def test_parts_give_the_step_of_the_whole_batch(
        self, loss: str, balance: Any, mixed: bool, micro_batch: int
    ) -> None:
        config = dataclasses.replace(CONFIG, loss=LossConfig(name=loss), balance=balance)
        batch = random_batch(mixed=mixed)
        whole = taken(config, batch)
        assert max(gradient.abs().max() for gradient in whole.gradients.values()) > 1e-3
        parts = taken(dataclasses.replace(config, micro_batch=micro_batch), batch)
        assert_close(parts, whole)

    def test_what_is_clipped_is_the_whole_gradient(self) -> None:
        free = taken(CONFIG, random_batch())
        length = torch.stack([g.norm() for g in free.gradients.values()]).norm().item()
        clipped = dataclasses.replace(CONFIG, grad_clip=length / 3)
        whole = taken(clipped, random_batch())
        norms = torch.stack([g.norm() for g in whole.gradients.values()])
        assert norms.norm().item() == pytest.approx(length / 3, rel=1e-4)
        assert_close(taken(dataclasses.replace(clipped, micro_batch=4), random_batch()), whole)

    def test_no_more_images_than_that_go_through_the_model_at_once(self) -> None:
        model, sizes = conv_model(), []
        model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        Step(model, dataclasses.replace(CONFIG, micro_batch=4), COUNTS, CPU)(random_batch(), 0.1)
        assert sizes == [4, 4, 3]

    def test_gradients_of_the_step_before_are_gone(self) -> None:
        config = dataclasses.replace(CONFIG, micro_batch=4)
        model = conv_model()
        step = Step(model, config, COUNTS, CPU)
        step(random_batch(), 0.0)
        first = {name: p.grad.clone() for name, p in model.named_parameters()}
        step(random_batch(), 0.0)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, first[name])

    def test_batch_norm_sees_the_parts(self) -> None:
        # What it learns is not that of the whole batch, and cannot be: the parts are normalised
        # one by one, and the running statistics move once for each.
        whole = taken(CONFIG, random_batch(), batch_norm=True)
        parts = taken(dataclasses.replace(CONFIG, micro_batch=4), random_batch(), batch_norm=True)
        assert whole.state["stages.block.1.num_batches_tracked"] == 1
        assert parts.state["stages.block.1.num_batches_tracked"] == 3
        name = "stages.block.1.running_var"
        assert not torch.allclose(parts.state[name], whole.state[name], rtol=1e-3)

    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    def test_a_training_in_parts_learns_the_same(
        self, tiny_digits: ResidentData, dropout: float
    ) -> None:
        config = dataclasses.replace(
            MLP,
            options={"layers": 1, "width": 16, "batch_norm": False},
            dropout=DropoutConfig(rate=dropout),
        )
        whole = history(config, tiny_digits)
        parts = history(dataclasses.replace(config, micro_batch=5), tiny_digits)
        if dropout:  # drawn by part: other numbers, and the same on average
            assert parts[-1].train_loss == pytest.approx(whole[-1].train_loss, rel=0.3)
        else:
            for ours, theirs in zip(parts, whole, strict=True):
                assert ours.batch_losses == pytest.approx(theirs.batch_losses, rel=1e-3)
                assert ours.train_accuracy == pytest.approx(theirs.train_accuracy, abs=0.01)


class TestParts:
    @given(n=st.integers(1, 70), size=st.integers(0, 80), mixed=st.booleans())
    def test_they_are_even_and_in_order(self, n: int, size: int, mixed: bool) -> None:
        rows = torch.arange(n)
        batch = TrainBatch(torch.arange(n * 4.0).view(n, 1, 2, 2), rows)
        if mixed:
            batch = dataclasses.replace(batch, other=rows + 1000, share=rows / 100)
        parts = batch.parts(size)
        sizes = [len(part.labels) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= (size or n)
        assert len(parts) == (-(-n // size) if size else 1)
        for part in parts:
            assert len(part.tensors) == len(batch.tensors)
        for number, tensor in enumerate(batch.tensors):
            assert torch.equal(torch.cat([part.tensors[number] for part in parts]), tensor)

    def test_they_keep_the_order_in_memory(self) -> None:
        for part in random_batch().parts(4):
            assert part.images.is_contiguous(memory_format=torch.channels_last)


class TestFusedOptimizers:
    @pytest.mark.parametrize(
        "row", [row for row in OPTIMIZERS if row.fused], ids=lambda row: row.name
    )
    def test_they_are_torchs_own(self, row: OptimizerInfo) -> None:
        # They pass over memory without a look at strides: kernels and gradients must agree.
        config = dataclasses.replace(
            CONFIG,
            optimizer=OptimizerConfig(name=row.name, lr=0.01, weight_decay=0.1),
            micro_batch=4,
        )
        models = [place(conv_model(), CPU, "channels_last").train() for _ in range(2)]
        steps = [Step(model, config, COUNTS, CPU) for model in models]
        assert all(group["fused"] for group in steps[0].optimizer.param_groups)
        steps[1].optimizer = unfused(steps[1].optimizer, row)
        for seed in range(5):
            for step in steps:
                step(random_batch(seed=seed), 0.01)
        assert not torch.equal(models[0].stages.deep[0].weight, conv_model().stages.deep[0].weight)
        for name, ours in models[0].state_dict().items():
            torch.testing.assert_close(ours, models[1].state_dict()[name], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
    def test_their_state_lies_in_memory_as_the_weights_do(self, row: OptimizerInfo) -> None:
        model = place(conv_model(), CPU, "channels_last")
        config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name=row.name))
        step = Step(model, config, COUNTS, CPU)
        step(random_batch(), 0.01)
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert by_memory(parameter.grad) == by_memory(parameter)
            for tensor in step.optimizer.state[parameter].values():
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                    assert by_memory(tensor) == by_memory(parameter)


def unfused(optimizer: torch.optim.Optimizer, row: OptimizerInfo) -> torch.optim.Optimizer:
    groups = [{k: v for k, v in group.items() if k != "fused"} for group in optimizer.param_groups]
    assert len(groups) > 1
    return row.optimizer(groups, lr=1.0, fused=False)


def by_memory(tensor: Tensor) -> list[int]:
    """The dimensions with more than one place, from the slowest to the quickest."""
    dims = [d for d in range(tensor.ndim) if tensor.shape[d] > 1]
    return sorted(dims, key=tensor.stride, reverse=True)


class TestMemoryFormat:
    @pytest.mark.parametrize("micro_batch", [0, 10])
    def test_it_changes_nothing_but_roundings(
        self, tiny_digits: ResidentData, micro_batch: int
    ) -> None:
        config = dataclasses.replace(CNN, augment={"rotate": 10.0}, micro_batch=micro_batch)
        usual = history(config, tiny_digits)
        other = history(dataclasses.replace(config, memory_format="contiguous"), tiny_digits)
        for ours, theirs in zip(other, usual, strict=True):
            assert ours.batch_losses == pytest.approx(theirs.batch_losses, rel=1e-2)
            assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-2)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("crop", [False, True])
    @pytest.mark.parametrize("augment", [{}, {"rotate": 10.0}, {"mixup": 0.5}], ids=str)
    def test_it_is_that_of_batches_and_weights(
        self,
        noise: Callable[..., ImageDataset],
        monkeypatch: pytest.MonkeyPatch,
        channels: int,
        crop: bool,
        augment: dict[str, float],
    ) -> None:
        part = noise(20, 20, height=9, width=8, channels=channels).part()
        images = ResidentImages.of(part, CPU)
        preprocessing = dataclasses.replace(
            Preprocessing.of(part),
            channels=3,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            **({"height": 6, "width": 6, "resize": (9, 8)} if crop else {}),
        )
        data = ResidentData(images, images, ("a", "b"), preprocessing)
        seen: list[Tensor] = []
        forward = StagedModel.forward
        monkeypatch.setattr(
            StagedModel, "forward", lambda self, x: (seen.append(x), forward(self, x))[1]
        )
        for memory_format, order in (
            ("channels_last", torch.channels_last),
            ("contiguous", torch.contiguous_format),
        ):
            config: TrainConfig = dataclasses.replace(
                CNN, epochs=1, augment=augment, memory_format=memory_format
            )
            model = build_model(config, preprocessing.shape, 2)
            seen.clear()
            next(train(model, data, config, device=CPU))
            assert len(seen) == 3  # two of training and one of validation
            assert all(batch.is_contiguous(memory_format=order) for batch in seen)
            kernels = [p for p in model.parameters() if p.ndim == 4]
            assert kernels
            assert all(kernel.is_contiguous(memory_format=order) for kernel in kernels)


class TestLearningRate:
    def test_each_step_sets_those_of_the_groups(self) -> None:
        optimizer = dataclasses.replace(SGD, stage_decay=0.5)
        step = Step(conv_model(), dataclasses.replace(CONFIG, optimizer=optimizer), COUNTS, CPU)
        for lr in (0.3, 0.0, 2.0):
            step(random_batch(), lr)
            found = {group["lr"] for group in step.optimizer.param_groups}
            assert found == {lr, lr / 2, lr / 4}

    def test_it_is_the_highest_of_the_schedule(self) -> None:
        optimizer = dataclasses.replace(SGD, lr=0.1, lr_per=N * 2)
        step = Step(conv_model(), dataclasses.replace(CONFIG, optimizer=optimizer), COUNTS, CPU)
        assert step.highest_lr == pytest.approx(0.05)

    def test_a_loaded_optimizer_goes_on_with_the_rates_of_its_steps(self) -> None:
        config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name="adamw"))
        model = conv_model()
        step = Step(model, config, COUNTS, CPU)
        step(random_batch(), 0.1)
        other = copy.deepcopy(model)
        taken_up = Step(other, config, COUNTS, CPU)
        taken_up.load_optimizer(copy.deepcopy(step.optimizer.state_dict()))
        for one in (step, taken_up):
            one(random_batch(seed=1), 0.02)
        for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_a_loaded_optimizer_keeps_the_settings_of_its_own_device(self) -> None:
        config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name="adamw"))
        step = Step(conv_model(), config, COUNTS, CPU)
        state = copy.deepcopy(step.optimizer.state_dict())
        for group in state["param_groups"]:  # as on a GPU, for a graph
            group |= {"capturable": True, "lr": torch.tensor(0.5)}
        before = [dict(group) for group in step.optimizer.param_groups]
        step.load_optimizer(state)
        assert step.optimizer.param_groups == before
        step(random_batch(), 0.1)

    def test_the_average_is_taken_after_each_step(self) -> None:
        model = conv_model()
        step = Step(model, dataclasses.replace(CONFIG, ema=0.5), COUNTS, CPU)
        assert step.average is not None
        before = model.stages.head[1].weight.detach().clone()
        step(random_batch(), 0.1)
        after = model.stages.head[1].weight.detach().clone()
        step.average.install()
        torch.testing.assert_close(model.stages.head[1].weight.detach(), 0.1 * before + 0.9 * after)


def test_a_step_draws_from_the_generators_of_its_training_alone(
    tiny_digits: ResidentData,
) -> None:
    config = dataclasses.replace(
        CNN, dropout=DropoutConfig(rate=0.5), augment={"rotate": 5.0, "mixup": 0.5}, micro_batch=7
    )
    model = build_model(config, tiny_digits.preprocessing.shape, 10)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    training = Training(model, tiny_digits, config, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    for _ in training.run():
        training.state()
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.get_rng_state(), state)


def history(config: TrainConfig, data: ResidentData) -> list[Any]:
    model = build_model(config, data.preprocessing.shape, len(data.classes))
    return list(train(model, data, config, device=CPU))


class TestEpochs:
    def test_they_tell_the_loss_of_each_batch(self, tiny_digits: ResidentData) -> None:
        config = dataclasses.replace(MLP, batch_size=50, repeat=2)
        for result in history(config, tiny_digits):
            sizes = [45] * 8  # 360 images in 8 batches of at most 50
            assert len(result.batch_losses) == len(sizes)
            assert result.train_loss == pytest.approx(sum(result.batch_losses) / 8)
            assert len(set(result.batch_losses)) == 8

    def test_the_mean_is_over_images(
        self, tiny_digits: ResidentData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Batches of very different sizes, which the trainer never makes itself.
        sizes = [150, 20, 10]
        images, labels = tiny_digits.train.batch(torch.arange(180))
        batches = [
            TrainBatch(tiny_digits.preprocessing.normalise(part), of)
            for part, of in zip(images.split(sizes), labels.split(sizes), strict=True)
        ]
        monkeypatch.setattr(trainer, "train_batches", lambda *_: iter(batches))
        (result,) = history(dataclasses.replace(LOGISTIC, epochs=1), tiny_digits)
        expected = sum(a * b for a, b in zip(result.batch_losses, sizes, strict=True)) / 180
        assert result.train_loss == pytest.approx(expected)
        assert abs(expected - sum(result.batch_losses) / 3) > 1e-3

    @pytest.mark.parametrize("micro_batch", [0, 7])
    def test_the_scores_of_training_are_those_of_scikit_learn(
        self, tiny_digits: ResidentData, monkeypatch: pytest.MonkeyPatch, micro_batch: int
    ) -> None:
        batches: list[TrainBatch] = []
        guesses: list[Tensor] = []

        def spied(*args: Any) -> Iterator[TrainBatch]:
            for batch in train_batches(*args):
                batches.append(batch)
                yield batch

        class Spy(Step):
            def __call__(self, batch: TrainBatch, lr: float) -> tuple[Tensor, Tensor]:
                loss, predicted = super().__call__(batch, lr)
                guesses.append(predicted)
                return loss, predicted

        monkeypatch.setattr(trainer, "train_batches", spied)
        monkeypatch.setattr(trainer, "Step", Spy)
        config = dataclasses.replace(MLP, micro_batch=micro_batch, balance="sampling", epochs=1)
        (result,) = history(config, tiny_digits)
        labels = torch.cat([batch.labels for batch in batches]).numpy()
        predicted = torch.cat(guesses).numpy()
        assert result.train_accuracy == pytest.approx(accuracy_score(labels, predicted))
        assert result.train_balanced_accuracy == pytest.approx(
            balanced_accuracy_score(labels, predicted)
        )
        assert result.train_macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))

    @pytest.mark.parametrize(
        "objective", ["val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss"]
    )
    @pytest.mark.parametrize("min_gain", [0.0, 0.04])
    def test_early_stopping_goes_by_the_objective(
        self, tiny_digits: ResidentData, objective: str, min_gain: float
    ) -> None:
        # So high a rate that all of them go up and down.
        config = dataclasses.replace(
            MLP,
            optimizer=OptimizerConfig(name="sgd", lr=0.4),
            schedule=ScheduleConfig(name="constant"),
            objective=objective,
            epochs=14,
        )
        whole = history(config, tiny_digits)
        sign = -1 if objective == "val_loss" else 1
        values = [sign * getattr(result, objective) for result in whole]
        expected = len(values)
        for n in range(3, len(values) + 1):
            best = [max(values[:k]) for k in range(1, n + 1)]
            if all(values[k] <= best[k - 1] + min_gain for k in (n - 2, n - 1)):
                expected = n
                break
        stopping = EarlyStopping(patience=2, min_gain=min_gain)
        stopped = history(dataclasses.replace(config, early_stopping=stopping), tiny_digits)
        assert expected < len(values)
        assert len(stopped) == expected

    def test_the_best_epoch_is_that_of_the_objective(self, tiny_digits: ResidentData) -> None:
        config = dataclasses.replace(
            MLP, optimizer=OptimizerConfig(name="sgd", lr=0.4), objective="val_loss", epochs=12
        )
        lowest = float("inf")
        results = history(config, tiny_digits)
        for result in results:
            assert result.is_best == (result.val_loss < lowest)
            lowest = min(lowest, result.val_loss)
        assert {result.is_best for result in results[1:]} == {True, False}


class TestResuming:
    def test_another_configuration_is_refused(self, tiny_digits: ResidentData) -> None:
        def new() -> StagedModel:
            return build_model(MLP, tiny_digits.preprocessing.shape, 10)

        training = Training(new(), tiny_digits, MLP, device=CPU)
        next(training.run())
        state = training.state()
        for changes in ({"epochs": 4}, {"seed": 1}, {"micro_batch": 8}, {"precision": "bf16"}):
            other = dataclasses.replace(MLP, **changes)
            with pytest.raises(ConfigError, match="another configuration"):
                Training(new(), tiny_digits, other, device=CPU, resume=state)
        Training(new(), tiny_digits, MLP, device=CPU, resume=state)

    def test_a_stopped_training_stays_stopped(self, tiny_digits: ResidentData) -> None:
        config = dataclasses.replace(
            LOGISTIC,
            optimizer=OptimizerConfig(name="sgd", lr=1e-30),
            early_stopping=EarlyStopping(patience=1),
            epochs=9,
        )
        model = build_model(config, tiny_digits.preprocessing.shape, 10)
        training = Training(model, tiny_digits, config, device=CPU)
        assert len(list(training.run())) == 2
        again = Training(model, tiny_digits, config, device=CPU, resume=training.state())
        assert list(again.run()) == []


class Picky(StagedModel):
    """Runs out of memory where it gets more than so many images."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__({"head": nn.Sequential(nn.Flatten(), nn.Linear(16, 2))})
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


class TestOutputs:
    def logits(self, model: StagedModel, noise: Callable[..., ImageDataset]) -> Tensor:
        part = noise(40, 30).part()
        images = ResidentImages.of(part, CPU)
        return outputs(model, images, Preprocessing.of(part), "fp32", "channels_last")

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()], ids=repr)
    @pytest.mark.parametrize("most", [1, 7, 69])
    def test_smaller_batches_where_memory_is_short(
        self, noise: Callable[..., ImageDataset], most: int, error: Exception
    ) -> None:
        model = Picky(10**6, error)
        expected = self.logits(model, noise)
        assert model.sizes == [70]
        model.most = most
        model.sizes.clear()
        torch.testing.assert_close(self.logits(model, noise), expected)
        fitting = EVAL_BATCH_SIZE
        while fitting > most:
            fitting //= 2
        assert sum(size for size in model.sizes if size <= fitting) == 70

    def test_what_does_not_fit_one_by_one_is_an_error(
        self, noise: Callable[..., ImageDataset]
    ) -> None:
        model = Picky(0, torch.OutOfMemoryError("full"))
        with pytest.raises(torch.OutOfMemoryError, match="full"):
            self.logits(model, noise)
        assert model.sizes[-1] == 1

    def test_other_errors_are_not_tried_again(self, noise: Callable[..., ImageDataset]) -> None:
        model = Picky(1, RuntimeError("shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="multiplied"):
            self.logits(model, noise)
        assert model.sizes == [70]


class TestBatchNormAndSmallParts:
    def check(self, data: ResidentData, **changes: Any) -> None:
        config = dataclasses.replace(MLP, epochs=1, **changes)
        model = build_model(config, data.preprocessing.shape, len(data.classes))
        next(train(model, data, config, device=CPU))

    def test_one_image_at_a_time_is_infeasible(self, tiny_digits: ResidentData) -> None:
        with pytest.raises(InfeasibleError, match="one of them would have a single image"):
            self.check(tiny_digits, micro_batch=1)
        plain = {**MLP.options, "batch_norm": False}
        self.check(tiny_digits, micro_batch=1, options=plain)

    @given(n=st.integers(4, 40), batch_size=st.integers(2, 12), micro_batch=st.integers(2, 5))
    def test_no_training_fails_on_a_part_of_one_image(
        self, n: int, batch_size: int, micro_batch: int
    ) -> None:
        # Either it is refused before the first step, or all of its parts have two images or more.
        draw = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (n, 2, 2, 1), generator=draw, dtype=torch.uint8)
        images = ResidentImages(pixels, torch.arange(n), torch.arange(n) % 2)
        preprocessing = Preprocessing(height=2, width=2, channels=1, mean=(0.5,), std=(0.5,))
        data = ResidentData(images, images, ("a", "b"), preprocessing)
        sizes = [len(part) for part in torch.arange(n).tensor_split(-(-n // batch_size))]
        parts = [
            len(part)
            for size in sizes
            for part in torch.arange(size).tensor_split(-(-size // micro_batch))
        ]
        options = {"layers": 1, "width": 2, "batch_norm": True}
        if min(parts) > 1:
            self.check(data, batch_size=batch_size, micro_batch=micro_batch, options=options)
        else:
            with pytest.raises((InfeasibleError, ConfigError), match="BatchNorm"):
                self.check(data, batch_size=batch_size, micro_batch=micro_batch, options=options)


GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class TestGraphs:
    pytestmark = GPU

    def trained(
        self, config: TrainConfig, digits: ImageDataset, rows: Sequence[int] = range(190)
    ) -> list[Any]:
        device = torch.device("cuda", torch.cuda.current_device())
        part = subset(digits, np.array(rows)).part()  # 32 and 31 a batch
        images = ResidentImages.of(part, device)
        data = ResidentData(images, images, digits.classes, Preprocessing.of(part))
        model = build_model(config, data.preprocessing.shape, 10)
        return list(train(model, data, config, device=device))

    @pytest.mark.parametrize("micro_batch", [0, 10])
    @pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
    def test_they_give_what_eager_steps_give(
        self,
        digits: ImageDataset,
        monkeypatch: pytest.MonkeyPatch,
        optimizer: str,
        micro_batch: int,
    ) -> None:
        captured: list[torch.cuda.CUDAGraph] = []
        replays: list[torch.cuda.CUDAGraph] = []

        class Counted(torch.cuda.CUDAGraph):
            def capture_begin(self, *args: Any, **kwargs: Any) -> None:
                captured.append(self)
                super().capture_begin(*args, **kwargs)

            def replay(self) -> None:
                replays.append(self)
                super().replay()

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Counted)
        eager = dataclasses.replace(
            CNN,
            optimizer=OptimizerConfig(name=optimizer, lr=3e-3, weight_decay=0.01),
            dropout=DropoutConfig(rate=0.2),
            ema=0.9,
            grad_clip=1.0,
            balance="weights",
            micro_batch=micro_batch,
            epochs=5,
        )
        expected = self.trained(eager, digits)
        assert not captured
        found = self.trained(dataclasses.replace(eager, execution="graph"), digits)
        # 6 batches an epoch, of two sizes; three of each run as they are.
        assert len(captured) == 2
        assert len(replays) == 5 * 6 - 2 * 3
        for ours, theirs in zip(found, expected, strict=True):
            # Not the same images are dropped.
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.2, abs=2e-2)
            assert ours.val_loss == pytest.approx(theirs.val_loss, rel=0.2, abs=2e-2)
            assert ours.lr == theirs.lr

    def test_steps_before_the_capture_warn_of_nothing(self, digits: ImageDataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.trained(dataclasses.replace(CNN, execution="graph"), digits)

    @pytest.mark.parametrize("schedule", ["linear", "late"])
    def test_they_follow_the_rate_of_dropout(self, digits: ImageDataset, schedule: str) -> None:
        dropout = DropoutConfig(schedule=schedule, rate=0.8)
        eager = dataclasses.replace(CNN, dropout=dropout, epochs=5)
        expected = self.trained(eager, digits)
        found = self.trained(dataclasses.replace(eager, execution="graph"), digits)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dropout == theirs.dropout
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.2, abs=2e-2)

    def test_dropout_is_drawn_anew_in_each_replay(self, digits: ImageDataset) -> None:
        # A rate that moves nothing, one batch an epoch, of one image all over: only what is
        # dropped differs.
        config = dataclasses.replace(
            MLP,
            options={"layers": 1, "width": 16, "batch_norm": False},
            optimizer=dataclasses.replace(SGD, lr=1e-30),
            schedule=ScheduleConfig(name="constant"),
            dropout=DropoutConfig(rate=0.5),
            batch_size=190,
            epochs=9,
            execution="graph",
        )
        results = self.trained(config, digits, [0] * 190)
        losses = sorted(result.train_loss for result in results)
        assert min(b - a for a, b in itertools.pairwise(losses)) > 1e-5
        again = self.trained(config, digits, [0] * 190)
        assert [r.train_loss for r in again] == pytest.approx([r.train_loss for r in results])

    def test_a_graphed_training_goes_on_from_its_state(self, digits: ImageDataset) -> None:
        device = torch.device("cuda", torch.cuda.current_device())
        images = ResidentImages.of(subset(digits, np.arange(190)).part(), device)
        preprocessing = Preprocessing.of(digits.part())
        data = ResidentData(images, images, digits.classes, preprocessing)
        config = dataclasses.replace(CNN, execution="graph", epochs=6)

        def new() -> StagedModel:
            return build_model(config, preprocessing.shape, 10)

        training = Training(new(), data, config, device=device)
        run = training.run()
        for _ in range(3):
            next(run)
        other = Training(new(), data, config, device=device, resume=copy.deepcopy(training.state()))
        for ours, theirs in zip(other.run(), run, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=2e-2, abs=1e-3)


class FakeGraph:
    """Does what a CUDA graph does: the same again with what is in the same places then."""

    def __init__(self, step: Callable[[TrainBatch], tuple[Tensor, Tensor]]) -> None:
        self.step = step
        self.replays = 0

    def capture(self, batch: TrainBatch) -> _Captured:
        held = TrainBatch(*(tensor.clone() for tensor in batch.tensors))
        empty = torch.tensor(torch.nan), torch.full((len(batch.labels),), -1)
        self.held, self.outputs = held, empty
        return _Captured(self, held, empty)  # type: ignore[arg-type]

    def replay(self) -> None:
        self.replays += 1
        for output, value in zip(self.outputs, self.step(self.held), strict=True):
            output.copy_(value)


@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_replayed_works_on_the_batch_that_is_given(
    monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    monkeypatch.setattr(graph, "_stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(GraphedStep, "_aside", lambda _, step, batch: step(batch))
    graphs: list[FakeGraph] = []

    def capture(_: GraphedStep, step: TakeStep, batch: TrainBatch) -> _Captured:
        graphs.append(FakeGraph(step))
        return graphs[-1].capture(batch)

    monkeypatch.setattr(GraphedStep, "_capture", capture)
    models = [conv_model(), conv_model()]
    eager, inner = (Step(model, CONFIG, COUNTS, CPU) for model in models)
    graphed = GraphedStep(CPU)
    kept = []
    for number, n in enumerate([8, 8, 8, 8, 7, 8, 7, 7, 7, 8, 7]):
        batch = random_batch(n, mixed=mixed, seed=number)
        found, expected = graphed(inner._change_weights, batch), eager(batch, 0.5)
        kept += [(found, expected)]
    # 8, 8, 8 as they are, then three replays; 7, 7, 7, and two.
    assert [graph.replays for graph in graphs] == [3, 2]
    for ours, theirs in kept:  # later replays do not change what earlier ones gave
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(p, q)


def test_a_step_that_nobody_needs_gives_its_memory_back_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        step = Step(conv_model(), dataclasses.replace(CONFIG, ema=0.9), COUNTS, CPU)
        step(random_batch(), 0.1)
        gone = weakref.ref(step)
        del step
        assert gone() is None
    finally:
        gc.enable()


def test_graphs_are_for_gpus(tiny_digits: ResidentData) -> None:
    # A state of a graphed training can be gone on with on a CPU.
    config = dataclasses.replace(CNN, epochs=1, execution="graph")
    (found,) = history(config, tiny_digits)
    (expected,) = history(dataclasses.replace(config, execution="eager"), tiny_digits)
    assert found.batch_losses == expected.batch_losses


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
def test_what_cannot_be_part_of_a_graph_says_so(row: OptimizerInfo) -> None:
    def build() -> torch.optim.Optimizer:
        config = OptimizerConfig(name=row.name)
        return build_optimizer(conv_model(), config, batch_size=8, capturable=True)

    if row.graph is None:
        with pytest.raises(ConfigError, match=f"'{row.name}' cannot be part of a CUDA graph"):
            build()
    else:
        assert all(group[key] for key in row.graph for group in build().param_groups)


def test_what_is_compiled_is_what_steps_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            calls.append(len(images))
            logits: Tensor = model(images)
            return logits

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    for execution, expected in (("eager", []), ("compile", [N])):
        config: TrainConfig = dataclasses.replace(CONFIG, execution=execution)
        Step(conv_model(), config, COUNTS, CPU)(random_batch(), 0.1)
        assert calls == expected


def test_what_runs_out_of_memory_when_compiled_is_no_mistake_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed  # imported late: it takes seconds

    def compiled(_: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(_: Tensor) -> Tensor:
            raise BackendCompilerFailed(compiled, errors.pop(0), None)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), ValueError()]
    step = Step(conv_model(), dataclasses.replace(CONFIG, execution="compile"), COUNTS, CPU)
    with pytest.raises(BackendCompilerFailed) as caught:
        step(random_batch(), 0.1)
    assert is_out_of_memory(caught.value)
    with pytest.raises(ConfigError, match="execution compile does not work here"):
        step(random_batch(), 0.1)
