from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpsearch.config import DropoutConfig, OptimizerConfig, TrainConfig
from hpsearch.data.resident import ResidentData
from hpsearch.errors import ConfigError
from hpsearch.families import build_model
from hpsearch.training.dropout import ScheduledDropout, set_dropout
from hpsearch.training.model import StagedModel, learns_statistics, parameter_counts
from hpsearch.training.trainer import train

CPU = torch.device("cpu")
CNN = {"blocks": 3, "convs": 1, "channels": 4, "hidden": 8}
MLP = {"layers": 3, "width": 16, "batch_norm": True}
DEPTHS = [
    *(("cnn", CNN, depth) for depth in range(4)),
    *(("mlp", MLP, depth) for depth in range(4)),
    ("logistic", {}, 0),
]


def configured(family: str, options: dict[str, int | bool], depth: int) -> TrainConfig:
    return TrainConfig(
        family=family,
        options=options,
        optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.1),
        dropout=DropoutConfig(rate=0.1),
        batch_size=32,
        epochs=2,
        freeze_depth=depth,
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("family", "options", "depth"), DEPTHS)
def test_training_moves_no_frozen_tensor_and_every_other(
    tiny_digits: ResidentData, family: str, options: dict[str, int | bool], depth: int
) -> None:
    config = configured(family, options, depth)
    model = build_model(config, tiny_digits.preprocessing.shape, 10)
    before = state(model)
    assert len(list(train(model, tiny_digits, config, device=CPU))) == 2
    stages = [name for name, _ in model.stages.named_children()]
    frozen = tuple(f"stages.{name}." for name in stages[:depth])
    # The state holds the parameters, and BatchNorm's running statistics.
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(frozen), name


@pytest.mark.parametrize(("family", "options"), [("cnn", CNN), ("mlp", MLP), ("logistic", {})])
@pytest.mark.parametrize("beyond", [0, 1, 100])
def test_a_model_without_a_stage_to_train_is_refused(
    tiny_digits: ResidentData, family: str, options: dict[str, int | bool], beyond: int
) -> None:
    config = configured(family, options, 0)
    model = build_model(config, tiny_digits.preprocessing.shape, 10)
    depth = len(model.stages) + beyond
    with pytest.raises(ConfigError, match=f"freeze_depth.*{depth}") as caught:
        next(train(model, tiny_digits, configured(family, options, depth), device=CPU))
    for name, _ in model.stages.named_children():
        assert name in str(caught.value)


def staged() -> StagedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = {
            name: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), ScheduledDropout())
            for name in ("one", "two", "three")
        }
    return StagedModel(stages)


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        staged().freeze(-1)


def test_a_refused_depth_changes_nothing() -> None:
    model = staged().freeze(1)
    with pytest.raises(ConfigError):
        model.freeze(3)
    assert parameter_counts(model) == (3 * 54, 2 * 54)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_frozen_stages_stay_in_evaluation_mode(depth: int) -> None:
    model = staged().freeze(depth)
    set_dropout(model, 0.5)
    model.eval()
    model.train()
    modes = [stage.training for stage in model.stages]
    assert modes == [number >= depth for number in range(3)]
    images = torch.rand((4, 6), generator=torch.Generator().manual_seed(0))
    for stage in list(model.stages)[:depth]:
        assert torch.equal(stage(images), stage(images))


def test_a_frozen_model_can_be_thawed() -> None:
    model = staged().train().freeze(2).freeze(0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(stage.training for stage in model.stages)


def test_freezing_leaves_the_mode_of_the_model() -> None:
    assert not staged().eval().freeze(1).training
    assert staged().train().freeze(1).training


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_is_looked_for_without_a_change_of_the_mode(mode: bool) -> None:
    model = StagedModel({"norm": nn.BatchNorm1d(2), "head": nn.Linear(2, 2)}).train(mode)
    assert learns_statistics(model)
    assert model.training == model.stages.norm.training == mode
    assert not learns_statistics(model.freeze(1))


def test_parameters_are_counted() -> None:
    model = staged()
    assert parameter_counts(model) == (3 * 54, 3 * 54)
    assert parameter_counts(model.freeze(1)) == (3 * 54, 2 * 54)


def test_the_output_of_a_stage_is_the_input_of_the_next() -> None:
    model = StagedModel({"times two": nn.Linear(1, 1), "plus five": nn.Linear(1, 1)})
    for layer, weight, bias in zip(model.stages, (2.0, 1.0), (0.0, 5.0), strict=True):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    assert model(torch.tensor([[3.0]])).item() == 11.0
