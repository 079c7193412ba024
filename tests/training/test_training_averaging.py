from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpsearch.training.averaging import WeightAverage


def model_of(frozen: bool = False) -> nn.Sequential:
    """A kernel in channels_last memory, BatchNorm and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4, 2)
        )
    model = model.to(memory_format=torch.channels_last)
    if frozen:
        model[0].requires_grad_(False)
    return model


def train_step(model: nn.Module, seed: int) -> None:
    """Changes the trained parameters and BatchNorm's statistics."""
    images = torch.rand((5, 2, 4, 4), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(images).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.002 * parameter.grad


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model: nn.Module, expected: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.99])
def test_it_is_the_average_of_a_hand_written_loop(decay: float) -> None:
    model = model_of()
    average = WeightAverage(model, decay)
    expected = {name: tensor.double() for name, tensor in state(model).items()}
    for step in range(30):
        train_step(model, step)
        average.update()
        kept = min(decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * tensor
    steps = model[1].num_batches_tracked.item()
    average.install()
    for name, tensor in model.state_dict().items():
        if "num_batches" in name:
            assert tensor.item() == steps == 30  # a count is not averaged
        else:
            torch.testing.assert_close(tensor, expected[name].float(), rtol=1e-5, atol=1e-6)


def test_the_weights_come_back_to_the_bit() -> None:
    model = model_of()
    average = WeightAverage(model, 0.9)
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    train_step(model, 0)
    average.update()
    current = state(model)
    average.install()
    averaged = state(model)
    assert not torch.equal(averaged["0.weight"], current["0.weight"])
    assert not torch.equal(averaged["1.running_mean"], current["1.running_mean"])
    average.install()  # is not done twice
    assert_same_state(model, averaged)
    average.restore()
    assert_same_state(model, current)
    average.restore()
    assert_same_state(model, current)
    # The tensors are the same ones throughout, in the same memory: an optimizer may hold views.
    assert places == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_looking_at_the_average_does_not_change_it() -> None:
    averaged = []
    for looks in (False, True):
        model = model_of()
        average = WeightAverage(model, 0.9)
        for step in range(4):
            train_step(model, step)
            average.update()
            if looks:
                average.install()
                average.restore()
        average.install()
        averaged.append(state(model))
    assert_same_state(model, averaged[0])


def test_frozen_weights_stay_what_they_are() -> None:
    model = model_of(frozen=True)
    before = state(model)
    average = WeightAverage(model, 0.9)
    for step in range(3):
        train_step(model, step)
        average.update()
    average.install()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("0."), name


def test_the_first_steps_forget_the_untrained_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = WeightAverage(model, 0.999)
    nn.init.constant_(model.weight, 1.0)
    for _ in range(10):
        average.update()
    average.install()
    # 0.999 ** 10 of the start would leave 99; the product of (1 + t) / (10 + t) leaves 1e-5.
    assert model.weight.item() == pytest.approx(1.0, abs=0.01)
