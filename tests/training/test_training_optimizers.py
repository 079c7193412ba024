from __future__ import annotations

import io
from collections.abc import Callable, Iterable
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
    base_lr,
    build_optimizer,
    optimizer_info,
)

BATCH = 8
WEIGHTS = {"stages.block.0.weight", "stages.mid.1.weight", "stages.head.weight"}


def small_model() -> StagedModel:
    """A convolution, normalisation, a hidden layer and a classifier, of random, fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        mid = nn.Sequential(nn.Flatten(), nn.Linear(4 * 4, 6), nn.Tanh())
        head = nn.Linear(6, 3)
    for parameter in (block[1].weight, block[1].bias):
        nn.init.constant_(parameter, 0.5)
    model = StagedModel({"block": block, "mid": mid, "head": head})
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def single(weight: float) -> StagedModel:
    """One weight."""
    model = StagedModel({"head": nn.Linear(1, 1, bias=False)})
    nn.init.constant_(model.stages.head.weight, weight)
    return model


def built(model: StagedModel, config: OptimizerConfig, batch: int = BATCH) -> torch.optim.Optimizer:
    return build_optimizer(model, config, batch_size=batch)


def loss_of(model: nn.Module, seed: int = 0) -> Tensor:
    """On random images, of which the class is the position of the brightest pixel of three."""
    images = torch.rand((BATCH, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(model(images), images[:, 0, 0, :3].argmax(dim=1))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: Iterable[int]) -> None:
    for seed in seeds:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, seed).backward()
        optimizer.step()


def step(model: StagedModel, config: OptimizerConfig) -> dict[str, bool]:
    """Takes one step, and tells which parameters it changed."""
    before = copies(model)
    steps(model, built(model, config), [0])
    return changes(model, before)


def step_without_gradient(model: StagedModel, config: OptimizerConfig) -> dict[str, bool]:
    before = copies(model)
    optimizer = built(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.norm() <= before[name].norm()
    return changes(model, before)


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changes(model: nn.Module, before: dict[str, Tensor]) -> dict[str, bool]:
    return {name: not torch.equal(p, before[name]) for name, p in model.named_parameters()}


def changed_names(changed: dict[str, bool]) -> set[str]:
    return {name for name, change in changed.items() if change}


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
class TestEveryOptimizer:
    def test_has_a_rising_range_of_learning_rates(self, row: OptimizerInfo) -> None:
        assert optimizer_info(row.name) is row
        assert 0 < row.lr[0] < row.lr[1]

    @pytest.mark.parametrize("end", [0, 1])
    def test_a_step_changes_every_parameter(self, row: OptimizerInfo, end: int) -> None:
        changed = step(small_model(), OptimizerConfig(name=row.name, lr=row.lr[end]))
        assert all(changed.values()), changed

    def test_it_lowers_the_loss(self, row: OptimizerInfo) -> None:
        model = small_model()
        optimizer = built(model, OptimizerConfig(name=row.name, lr=(row.lr[0] * row.lr[1]) ** 0.5))
        before = loss_of(model).item()
        steps(model, optimizer, [0])
        after_one = loss_of(model).item()
        steps(model, optimizer, [0] * 30)
        assert loss_of(model).item() < after_one < before

    def test_each_trained_parameter_is_in_one_group(self, row: OptimizerInfo) -> None:
        for changes in ({}, {"stage_decay": 0.5}, {"decay_all": True}):
            model = small_model()
            model.stages.mid[1].bias.requires_grad_(False)
            optimizer = built(model, OptimizerConfig(name=row.name, **changes))  # type: ignore[arg-type]
            held = [id(p) for group in optimizer.param_groups for p in group["params"]]
            assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)

    def test_the_learning_rate_arrives(self, row: OptimizerInfo) -> None:
        optimizer = built(small_model(), OptimizerConfig(name=row.name, lr=0.0123))
        assert {group["lr"] for group in optimizer.param_groups} == {0.0123}
        assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0}

    def test_the_learning_rate_of_the_moment_counts(self, row: OptimizerInfo) -> None:
        # Set in the groups before a step, as the trainer does: 0 stands still, half is half.
        moves = []
        for lr in (0.01, 0.005, 0.0):
            model = small_model()
            before = copies(model)
            optimizer = built(model, OptimizerConfig(name=row.name, lr=3.0))
            for group in optimizer.param_groups:
                group["lr"] = lr
            steps(model, optimizer, [0])
            moves.append({n: p.detach() - before[n] for n, p in model.named_parameters()})
        whole, half, none = moves
        for name in whole:
            torch.testing.assert_close(half[name], whole[name] / 2, rtol=1e-3, atol=1e-6)
            assert not none[name].any()

    def test_weight_decay_is_for_weights_alone(self, row: OptimizerInfo) -> None:
        # With gradients of 0, what moves is decayed: the kernel and the matrices, towards 0.
        config = OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1)
        assert changed_names(step_without_gradient(small_model(), config)) == WEIGHTS

    def test_weight_decay_can_be_for_all(self, row: OptimizerInfo) -> None:
        config = OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1, decay_all=True)
        assert all(step_without_gradient(small_model(), config).values())

    def test_without_weight_decay_and_gradient_nothing_moves(self, row: OptimizerInfo) -> None:
        config = OptimizerConfig(name=row.name, lr=row.lr[1], decay_all=True)
        assert not changed_names(step_without_gradient(small_model(), config))

    def test_weight_decay_can_change_between_steps(self, row: OptimizerInfo) -> None:
        model = small_model()
        before = copies(model)
        optimizer = built(model, OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1))
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert not changed_names(changes(model, before))

    def test_a_parameter_without_a_gradient_stays(self, row: OptimizerInfo) -> None:
        model = small_model()
        before = copies(model)
        optimizer = built(model, OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1))
        loss_of(model).backward()
        model.stages.mid[1].weight.grad = None
        optimizer.step()
        assert changed_names(changes(model, before)) == set(before) - {"stages.mid.1.weight"}

    def test_frozen_parameters_are_left_out(self, row: OptimizerInfo) -> None:
        for changes in ({}, {"stage_decay": 0.5}):
            config = OptimizerConfig(name=row.name, lr=row.lr[1], weight_decay=0.1, **changes)
            changed = changed_names(step(small_model().freeze(2), config))
            assert changed == {"stages.head.weight", "stages.head.bias"}

    def test_stages_have_learning_rates_of_their_own(self, row: OptimizerInfo) -> None:
        model = small_model()
        optimizer = built(model, OptimizerConfig(name=row.name, lr=0.02, stage_decay=0.1))
        stages = {id(p): name for name, s in model.stages.named_children() for p in s.parameters()}
        scales = {"block": 0.1**2, "mid": 0.1, "head": 1.0}
        for group in optimizer.param_groups:
            (scale,) = {scales[stages[id(p)]] for p in group["params"]}
            assert group["lr_scale"] == pytest.approx(scale)
            assert group["lr"] == pytest.approx(0.02 * scale)

    def test_it_goes_on_from_its_state(self, row: OptimizerInfo) -> None:
        config = OptimizerConfig(name=row.name, lr=0.01, weight_decay=0.01, stage_decay=0.5)
        model = small_model()
        optimizer = built(model, config)
        steps(model, optimizer, range(3))
        file = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict()], file)
        steps(model, optimizer, range(3, 6))
        file.seek(0)
        weights, state = torch.load(file, weights_only=True)
        taken_up = small_model()
        taken_up.load_state_dict(weights)
        again = built(taken_up, OptimizerConfig(name=row.name, lr=0.5, stage_decay=0.5))
        again.load_state_dict(state)
        steps(taken_up, again, range(3, 6))
        assert not changed_names(changes(taken_up, copies(model)))


class WithScale(StagedModel):
    """Has a parameter that is in no stage."""

    def __init__(self) -> None:
        super().__init__({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
        self.scale = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("stage_decay", [1.0, 0.5])
def test_what_is_in_no_stage_is_trained_as_the_last_one(stage_decay: float) -> None:
    model = WithScale()
    optimizer = built(model, OptimizerConfig(name="sgd", stage_decay=stage_decay))
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert set(scales) == {id(parameter) for parameter in model.parameters()}
    assert scales[id(model.scale)] == 1.0


def adam(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    return lambda groups: optimizer(groups, lr=0.01, fused=True, betas=(0.85, 0.98), eps=1e-6)  # type: ignore[call-arg]


BETAS = {"beta1": 0.85, "beta2": 0.98, "eps": 1e-6}


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("adamw", {}, lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True)),
        ("adamw", BETAS, adam(torch.optim.AdamW)),
        ("adam", {}, lambda groups: torch.optim.Adam(groups, lr=0.01, fused=True)),
        ("adam", BETAS, adam(torch.optim.Adam)),
        (
            "sgd",
            {},
            lambda groups: torch.optim.SGD(
                groups, lr=0.01, fused=True, momentum=0.9, nesterov=True
            ),
        ),
        ("sgd", {"momentum": 0.0}, lambda groups: torch.optim.SGD(groups, lr=0.01, fused=True)),
        (
            "sgd",
            {"momentum": 0.8, "nesterov": False},
            lambda groups: torch.optim.SGD(groups, lr=0.01, fused=True, momentum=0.8),
        ),
        ("rmsprop", {}, lambda groups: torch.optim.RMSprop(groups, lr=0.01)),
        (
            "rmsprop",
            {"momentum": 0.7, "alpha": 0.9, "eps": 1e-5},
            lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.7, alpha=0.9, eps=1e-5),
        ),
    ],
)
def test_it_is_torchs_own(
    name: str, options: dict[str, Any], reference: Callable[..., torch.optim.Optimizer]
) -> None:
    ours, theirs = small_model(), small_model()
    optimizer = built(ours, OptimizerConfig(name=name, lr=0.01, weight_decay=0.1, options=options))
    parameters = list(theirs.parameters())
    decayed = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    torchs = reference([decayed, others])
    steps(ours, optimizer, range(4))
    steps(theirs, torchs, range(4))
    assert not changed_names(changes(ours, copies(theirs)))


@pytest.mark.parametrize("row", [r for r in OPTIMIZERS if r.options], ids=lambda row: row.name)
def test_every_option_changes_the_training(row: OptimizerInfo) -> None:
    plain = small_model()
    steps(plain, built(plain, OptimizerConfig(name=row.name, lr=0.01)), range(3))
    for name, option in row.options.items():
        model = small_model()
        value = not option.default if option.kind == "flag" else option.high
        config = OptimizerConfig(name=row.name, lr=0.01, options={name: value})
        steps(model, built(model, config), range(3))
        assert changed_names(changes(model, copies(plain))), name


def test_sgd_takes_a_step_of_the_gradient() -> None:
    model = single(3.0)
    config = OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.01, options={"momentum": 0.0})
    optimizer = built(model, config)
    (model(torch.ones(1, 1)) * 2).sum().backward()
    optimizer.step()
    assert model.stages.head.weight.item() == pytest.approx(3.0 - 0.1 * (2 + 0.01 * 3.0))


def test_sgd_has_nesterov_momentum() -> None:
    model = single(0.0)
    optimizer = built(model, OptimizerConfig(name="sgd", lr=1.0, options={"momentum": 0.5}))
    positions = []
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        positions.append(model.stages.head.weight.item())
    # Gradient 1; buffer 1, then 1.5; Nesterov steps 1 + 0.5 * buffer.
    assert positions == pytest.approx([-1.5, -1.5 - 1.75])


def test_adamw_decays_apart_from_the_gradient() -> None:
    model = single(3.0)
    optimizer = built(model, OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5))
    model.stages.head.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert model.stages.head.weight.item() == pytest.approx(3.0 * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    ("lr_per", "batch", "expected"), [(0, 64, 0.1), (256, 64, 0.025), (256, 512, 0.2), (8, 8, 0.1)]
)
def test_a_learning_rate_for_so_many_images(lr_per: int, batch: int, expected: float) -> None:
    config = OptimizerConfig(name="sgd", lr=0.1, lr_per=lr_per)
    assert base_lr(config, batch) == pytest.approx(expected)
    groups = built(small_model(), config, batch).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([expected] * len(groups))


def test_an_unknown_optimizer_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'lion'") as caught:
        built(small_model(), OptimizerConfig(name="lion"))
    for row in OPTIMIZERS:
        assert row.name in str(caught.value)
