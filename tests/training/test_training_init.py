from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hpsearch.errors import ConfigError
from hpsearch.training.init import INITS, InitInfo, init_info, initialise
from hpsearch.training.model import StagedModel

DRAWN = [row for row in INITS if row.name != "default"]
# In units of the standard deviation's own error; the numbers are the same in every run.
SIGMAS = 5.0
CONV, LINEAR, ATTENTION = "stages.conv.0", "stages.mix.1", "stages.attend.self_attention"


class Positions(nn.Module):
    """Position embeddings, a token and a scale as torchvision's networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.full((1, 5, 16), 0.5))
        self.token = nn.Parameter(torch.full((1, 1, 16), 0.25))
        self.scale = nn.Parameter(torch.full((16,), 1e-6))
        self.table = nn.Embedding(7, 16)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(48, 4)
        self.apart = nn.MultiheadAttention(48, 4, kdim=24, vdim=12)


def network() -> StagedModel:
    """A layer of every kind; the last of the head has wide fans, so that its spread is sharp."""
    return StagedModel(
        {
            "conv": nn.Sequential(
                nn.Conv2d(16, 64, 5), nn.BatchNorm2d(64), nn.GroupNorm(4, 64), nn.ReLU()
            ),
            "grouped": nn.Conv2d(64, 128, 3, groups=4, bias=False),
            "depthwise": nn.Conv2d(512, 512, 3, groups=512),
            "mix": nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 192)),
            "attend": Attention(),
            "positions": Positions(),
            "head": nn.Sequential(nn.Flatten(), nn.Linear(256, 500), nn.Linear(500, 40)),
        }
    )


def seeded(name: str, seed: int = 0) -> StagedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
        state = model.state_dict()
        for bias in BIASES:  # some are 0 when they are new
            state[bias].fill_(0.5)
        initialise(model, name)
    return model


# By hand: inputs an output sees, and outputs that see an input. Of groups, only their own count.
FANS = {
    f"{CONV}.weight": (16 * 25, 64 * 25),
    "stages.grouped.weight": (16 * 9, 32 * 9),
    "stages.depthwise.weight": (9, 9),
    f"{LINEAR}.weight": (64, 192),
    f"{ATTENTION}.in_proj_weight": (48, 48),
    f"{ATTENTION}.out_proj.weight": (48, 48),
    "stages.attend.apart.q_proj_weight": (48, 48),
    "stages.attend.apart.k_proj_weight": (24, 48),
    "stages.attend.apart.v_proj_weight": (12, 48),
    "stages.head.1.weight": (256, 500),
    "stages.head.2.weight": (500, 40),
}
BIASES = {
    f"{CONV}.bias",
    "stages.depthwise.bias",
    f"{LINEAR}.bias",
    *(
        f"stages.attend.{name}.{bias}"
        for name in ("self_attention", "apart")
        for bias in ("in_proj_bias", "out_proj.bias")
    ),
    "stages.head.1.bias",
    "stages.head.2.bias",
}
WEIGHTS = {*FANS, "stages.attend.apart.out_proj.weight"}


def expected_variance(name: str, weight: str) -> float:
    fan_in, fan_out = FANS[weight]
    if name == "xavier":  # Glorot and Bengio 2010, eq. 12
        return 2 / (fan_in + fan_out)
    convolution = weight.startswith(("stages.conv", "stages.grouped", "stages.depthwise"))
    return 2 / (fan_out if convolution else fan_in)  # He et al. 2015, eq. 14 and 10


@pytest.mark.parametrize("row", DRAWN, ids=lambda row: row.name)
class TestEveryInit:
    @pytest.mark.parametrize("weight", FANS)
    def test_weights_have_the_variance_of_the_formula(self, row: InitInfo, weight: str) -> None:
        drawn = seeded(row.name).state_dict()[weight]
        variance = expected_variance(row.name, weight)
        error = SIGMAS * math.sqrt(2 / drawn.numel())
        assert drawn.double().var().item() == pytest.approx(variance, rel=error)
        assert abs(drawn.double().mean().item()) < SIGMAS * math.sqrt(variance / drawn.numel())

    def test_weights_are_normal(self, row: InitInfo) -> None:
        drawn = seeded(row.name).state_dict()[f"{CONV}.weight"].double().flatten()
        kurtosis = ((drawn / drawn.std()) ** 4).mean().item()  # 3 of a normal one, 1.8 of a uniform
        assert kurtosis == pytest.approx(3, abs=SIGMAS * math.sqrt(24 / drawn.numel()))

    def test_biases_are_zero(self, row: InitInfo) -> None:
        state = seeded(row.name).state_dict()
        assert all(not state[name].any() for name in BIASES)

    def test_nothing_else_is_touched(self, row: InitInfo) -> None:
        before, after = seeded("default").state_dict(), seeded(row.name).state_dict()
        touched = {name for name in before if not torch.equal(before[name], after[name])}
        assert touched == WEIGHTS | BIASES

    def test_the_seed_of_torch_decides(self, row: InitInfo) -> None:
        first, again, other = (seeded(row.name, seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert all(not torch.equal(first[name], other[name]) for name in WEIGHTS)

    def test_parameters_stay_the_same_objects_and_trainable(self, row: InitInfo) -> None:
        model = network()
        before = dict(model.named_parameters())
        initialise(model, row.name)
        for name, parameter in model.named_parameters():
            assert parameter is before[name]
            assert parameter.requires_grad
            assert parameter.grad_fn is None

    def test_it_works_where_tensors_have_no_values(self, row: InitInfo) -> None:
        with torch.device("meta"):
            model = network()
        initialise(model, row.name)
        assert all(parameter.is_meta for parameter in model.parameters())


def test_the_default_changes_nothing_and_draws_nothing() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    initialise(model, "default")
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def signal(name: str, layers: list[nn.Module], images: Tensor) -> float:
    """How much of a signal is left behind `layers`: the mean of squares, of what it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = nn.Sequential(*layers)
        initialise(model, name)
        passed: Tensor = model(images)
    return (passed.square().mean() / images.square().mean()).item()


def test_kaiming_keeps_the_signal_through_relu() -> None:
    images = torch.randn((64, 256), generator=torch.Generator().manual_seed(0))
    deep = [layer for _ in range(20) for layer in (nn.ReLU(), nn.Linear(256, 256))]
    assert 0.2 < signal("kaiming", deep, images) < 5
    assert signal("xavier", deep, images) < 1e-4


def test_xavier_keeps_the_signal_through_linear_layers() -> None:
    images = torch.randn((64, 256), generator=torch.Generator().manual_seed(0))
    deep = [nn.Linear(256, 256) for _ in range(20)]
    assert 0.2 < signal("xavier", list(deep), images) < 5


@pytest.mark.parametrize("row", INITS, ids=lambda row: row.name)
def test_each_row_is_found_by_its_name_and_has_help(row: InitInfo) -> None:
    assert init_info(row.name) is row
    assert row.help


def test_the_usual_is_first() -> None:
    assert INITS[0].name == "default"


@pytest.mark.parametrize("name", ["", "Xavier", "orthogonal"])
def test_an_unknown_name_is_refused(name: str) -> None:
    model = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match="unknown init") as caught:
        initialise(model, name)
    assert repr(name) in str(caught.value)
    assert all(row.name in str(caught.value) for row in INITS)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
