from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpsearch.config import OptimizerConfig
from hpsearch.errors import ConfigError
from hpsearch.training.model import StagedModel
from hpsearch.training.optimizers import (
    OPTIMIZERS,
    OptimizerInfo,
    build_optimizer,
    optimizer_info,
)

OPTIONS = [(row, name) for row in OPTIMIZERS for name in row.options]


def small_model() -> StagedModel:
    """A convolution, normalisation and a classifier, of random but fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 4, 3))
    for parameter in (block[1].weight, block[1].bias):
        nn.init.constant_(parameter, 0.5)
    return StagedModel({"block": block, "head": head})


def step(model: nn.Module, config: OptimizerConfig) -> dict[str, bool]:
    """Takes one step on random images, and tells which parameters it changed."""
    images = torch.rand((8, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    before = copies(model)
    optimizer = build_optimizer(model, config)
    nn.functional.cross_entropy(model(images), torch.arange(8) % 3).backward()
    optimizer.step()
    return changes(model, before)


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changes(model: nn.Module, before: dict[str, Tensor]) -> dict[str, bool]:
    return {name: not torch.equal(p, before[name]) for name, p in model.named_parameters()}


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
class TestEveryOptimizer:
    def test_has_help_and_a_rising_range_of_learning_rates(self, row: OptimizerInfo) -> None:
        assert optimizer_info(row.name) is row
        assert row.help
        assert 0 < row.lr[0] < row.lr[1]

    @pytest.mark.parametrize("end", [0, 1])
    def test_a_step_changes_every_parameter(self, row: OptimizerInfo, end: int) -> None:
        changed = step(small_model(), OptimizerConfig(name=row.name, lr=row.lr[end]))
        assert all(changed.values()), changed

    def test_the_learning_rate_arrives(self, row: OptimizerInfo) -> None:
        optimizer = build_optimizer(small_model(), OptimizerConfig(name=row.name, lr=0.0123))
        assert {group["lr"] for group in optimizer.param_groups} == {0.0123}

    def test_weight_decay_is_for_weights_alone(self, row: OptimizerInfo) -> None:
        model = small_model()
        before = copies(model)
        config = OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1)
        optimizer = build_optimizer(model, config)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        # With gradients of 0, what moves is decayed: the kernel and the matrix, towards 0.
        moved = changes(model, before)
        assert {name for name, change in moved.items() if change} == {
            "stages.block.0.weight",
            "stages.head.1.weight",
        }
        for name, parameter in model.named_parameters():
            assert parameter.norm() <= before[name].norm()

    def test_without_weight_decay_and_gradient_nothing_moves(self, row: OptimizerInfo) -> None:
        model = small_model()
        before = copies(model)
        optimizer = build_optimizer(model, OptimizerConfig(name=row.name, lr=row.lr[1]))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert not any(changes(model, before).values())

    def test_frozen_parameters_are_left_out(self, row: OptimizerInfo) -> None:
        model = small_model().freeze(1)
        changed = step(model, OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1))
        assert {name for name, change in changed.items() if change} == {
            "stages.head.1.weight",
            "stages.head.1.bias",
        }

    def test_an_unknown_option_is_named_beside_the_known_ones(self, row: OptimizerInfo) -> None:
        config = OptimizerConfig(name=row.name, options={"inertia": 0.5})
        with pytest.raises(ConfigError, match="'inertia'") as caught:
            build_optimizer(small_model(), config)
        assert row.name in str(caught.value)
        for name in row.options:
            assert name in str(caught.value)


@pytest.mark.parametrize(("row", "name"), OPTIONS, ids=lambda value: getattr(value, "name", value))
class TestEveryOption:
    def test_its_range_holds_its_default(self, row: OptimizerInfo, name: str) -> None:
        option = row.options[name]
        assert option.low <= option.default <= option.high

    @pytest.mark.parametrize("end", ["low", "high", "default"])
    def test_it_arrives(self, row: OptimizerInfo, name: str, end: str) -> None:
        value = getattr(row.options[name], end)
        options = {} if end == "default" else {name: value}
        model = small_model()
        config = OptimizerConfig(name=row.name, options=options)
        assert {group[name] for group in build_optimizer(model, config).param_groups} == {value}
        assert all(step(model, config).values())

    def test_a_bad_value_is_refused(self, row: OptimizerInfo, name: str) -> None:
        option = row.options[name]
        bad: list[Any] = [option.low - 1e-6, option.high + 1e-6, -1.0, 2, "0.9", (0.5,)]
        for value in bad:
            config = OptimizerConfig(name=row.name, options={name: value})
            with pytest.raises(ConfigError, match=name) as caught:
                build_optimizer(small_model(), config)
            assert repr(value) in str(caught.value)


def test_sgd_takes_a_step_of_the_gradient() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    config = OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.01, options={"momentum": 0.0})
    optimizer = build_optimizer(model, config)
    (model(torch.ones(1, 1)) * 2).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(3.0 - 0.1 * (2 + 0.01 * 3.0))


def test_sgd_has_nesterov_momentum() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    config = OptimizerConfig(name="sgd", lr=1.0, options={"momentum": 0.5})
    optimizer = build_optimizer(model, config)
    positions = []
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        positions.append(model.weight.item())
    # Gradient 1; buffer 1, then 1.5; Nesterov steps 1 + 0.5 * buffer.
    assert positions == pytest.approx([-1.5, -1.5 - 1.75])


def test_adamw_decays_apart_from_the_gradient() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    config = OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.item() == pytest.approx(3.0 * (1 - 0.1 * 0.5))


def test_an_unknown_optimizer_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'lion'") as caught:
        build_optimizer(small_model(), OptimizerConfig(name="lion"))
    for row in OPTIMIZERS:
        assert row.name in str(caught.value)


def test_names_do_not_repeat() -> None:
    assert len({row.name for row in OPTIMIZERS}) == len(OPTIMIZERS)
