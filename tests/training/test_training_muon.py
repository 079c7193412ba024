from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpsearch.config import OptimizerConfig
from hpsearch.training.model import StagedModel
from hpsearch.training.muon import MuonWithAdamW, hidden_matrices
from hpsearch.training.optimizers import build_optimizer


class Attentive(nn.Module):
    """What models of several kinds have beside linear layers and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.by_channel = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.place = nn.Parameter(torch.zeros(1, 4, 4))
        self.names = nn.Embedding(4, 4)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.by_channel(self.patches(images)).flatten(2).transpose(1, 2)
        tokens = tokens + self.place + self.names.weight
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.norm(mixed).mean(dim=1)


def attentive() -> StagedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3))
        return StagedModel({"body": Attentive(), "head": head})


def convolutional() -> StagedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = {
            "one": nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()),
            "thin": nn.Conv2d(6, 5, (1, 3)),
            "point": nn.Sequential(nn.Conv2d(5, 4, 1), nn.Flatten()),
            "head": nn.Linear(4 * 5 * 3, 3),
        }
    return StagedModel(stages)


def names_of(model: nn.Module, tensors: list[Tensor]) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(tensor)].removeprefix("stages.") for tensor in tensors}


def test_matrices_of_hidden_layers_are_found_and_nothing_else() -> None:
    model = attentive()
    assert names_of(model, hidden_matrices(model)) == {
        "body.patches.weight",
        "body.attention.in_proj_weight",
        "body.attention.out_proj.weight",
        "head.0.weight",
    }


def test_a_classifier_alone_is_left_to_adamw() -> None:
    model = StagedModel({"head": nn.Sequential(nn.Flatten(), nn.Linear(4, 3))})
    assert hidden_matrices(model) == []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images, labels = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    results = []
    for name in ("muon", "adamw"):
        model.load_state_dict({n: torch.zeros_like(t) for n, t in model.state_dict().items()})
        config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.1)
        optimizer = build_optimizer(model, config, batch_size=6)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        model.zero_grad()
        results.append(model.stages.head[1].weight.detach().clone())
    assert torch.equal(*results)


def images_for(model: StagedModel) -> Tensor:
    shape = (7, 2, 5, 5) if "thin" in model.stage_names else (7, 1, 4, 4)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def trained(model: StagedModel, optimizer: Any, n: int = 4) -> dict[str, Tensor]:
    images = images_for(model)
    if next(model.parameters()).is_contiguous(memory_format=torch.channels_last):
        images = images.contiguous(memory_format=torch.channels_last)
    for number in range(n):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), (torch.arange(7) + number) % 3).backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class ByHand:
    """Muon and AdamW side by side on a contiguous model; kernels are given as flat copies."""

    def __init__(self, model: StagedModel, lr: float, weight_decay: float) -> None:
        hidden = hidden_matrices(model)
        self.parameters = hidden
        self.flat = [nn.Parameter(p.detach().flatten(1).clone()) for p in hidden]
        self.model = model
        others = [p for p in model.parameters() if all(p is not q for q in hidden)]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=lr, fused=True)
        self.muon = torch.optim.Muon(
            self.flat,
            lr=lr,
            weight_decay=weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )

    def zero_grad(self) -> None:
        self.model.zero_grad()

    def step(self) -> None:
        for parameter, flat in zip(self.parameters, self.flat, strict=True):
            assert parameter.grad is not None
            flat.grad = parameter.grad.flatten(1)
        self.muon.step()
        self.adamw.step()
        with torch.no_grad():
            for parameter, flat in zip(self.parameters, self.flat, strict=True):
                parameter.copy_(flat.view_as(parameter))


@pytest.mark.parametrize("make", [attentive, convolutional])
def test_it_is_torchs_muon_on_matrices_and_torchs_adamw_on_the_rest(make: Any) -> None:
    ours, by_hand = make(), make()
    config = OptimizerConfig(name="muon", lr=0.02, weight_decay=0.1)
    found = trained(ours, build_optimizer(ours, config, batch_size=7))
    expected = trained(by_hand, ByHand(by_hand, 0.02, 0.1))
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_no_gradient_is_kept_after_a_step() -> None:
    model = convolutional()
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"), batch_size=7)
    trained(model, optimizer, n=1)
    assert isinstance(optimizer, MuonWithAdamW)
    assert optimizer._matrices
    assert all(matrix.grad is None for _, matrix in optimizer._matrices)


def test_kernels_in_channels_last_memory_move_as_contiguous_ones_do() -> None:
    plain, turned = convolutional(), convolutional()
    turned = turned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernel = turned.stages.one[0].weight
    assert not kernel.is_contiguous()
    start = {name: p.detach().clone() for name, p in plain.named_parameters()}
    config = OptimizerConfig(name="muon", lr=0.02)
    contiguous, channels_last = (
        trained(model, build_optimizer(model, config, batch_size=7), n=1)
        for model in (plain, turned)
    )
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    for name in start:
        # Muon's own arithmetic has 8 bits: a step is the same to a few hundredths.
        move = contiguous[name] - start[name]
        difference = (channels_last[name] - contiguous[name]).abs().max()
        assert move.abs().max() > 0.005
        assert difference < 0.05 * move.abs().max(), name


def test_a_step_of_a_matrix_is_as_large_as_one_of_adamw() -> None:
    # What makes one learning rate suit both: 0.2 of it, as AdamW's steps usually are.
    model = convolutional()
    before = model.stages.one[0].weight.detach().clone()
    trained(model, build_optimizer(model, OptimizerConfig(name="muon", lr=0.1), batch_size=7), n=1)
    move = model.stages.one[0].weight.detach() - before
    # 6 x 18: an orthogonal matrix of 6 rows has 6 ones as its squared norm.
    expected = 0.1 * 0.2 * 18**0.5 * (6 / (6 * 18)) ** 0.5
    assert move.square().mean().sqrt().item() == pytest.approx(expected, rel=0.3)


def test_all_matrices_may_be_frozen_and_all_else() -> None:
    for frozen in ("weight", "bias"):
        model = convolutional()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.endswith(frozen))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        config = OptimizerConfig(name="muon", lr=0.1)
        after = trained(model, build_optimizer(model, config, batch_size=7), n=1)
        for name in before:
            assert torch.equal(before[name], after[name]) == name.endswith(frozen), name


def test_it_takes_no_closure() -> None:
    model = convolutional()
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"), batch_size=7)
    assert isinstance(optimizer, MuonWithAdamW)
    with pytest.raises(NotImplementedError):
        optimizer.step(lambda: 0.0)
