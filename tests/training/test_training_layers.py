from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.families import build_model
from hpsearch.training.layers import LayerRow, layer_table, totals
from hpsearch.training.model import StagedModel, parameter_counts

SHAPE = ImageShape(12, 9, 3)


def only(rows: tuple[LayerRow, ...], kind: str) -> LayerRow:
    (row,) = [row for row in rows if row.kind == kind]
    return row


def test_logistic_regression_is_one_layer() -> None:
    shape = ImageShape(64, 64, 3)
    rows = layer_table(build_model(TrainConfig(family="logistic"), shape, 10), shape)
    assert rows == (
        LayerRow(
            stage="head",
            name="0",
            kind="Flatten",
            output=(12_288,),
            parameters=0,
            trained=0,
            macs=0,
        ),
        LayerRow(
            stage="head",
            name="1",
            kind="Linear",
            output=(10,),
            parameters=122_890,
            trained=122_890,
            macs=122_880,
        ),
    )


@pytest.mark.parametrize(
    ("layer", "output", "macs"),
    [
        # Places x kernel x inputs of a group x outputs.
        (nn.Conv2d(3, 8, 3), (8, 10, 7), 10 * 7 * 9 * 3 * 8),
        (nn.Conv2d(3, 8, (5, 1), stride=2, bias=False), (8, 4, 5), 4 * 5 * 5 * 3 * 8),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), (6, 12, 9), 12 * 9 * 9 * 1 * 6),
        (nn.Linear(9, 4), (3, 12, 4), 3 * 12 * 9 * 4),
        (nn.BatchNorm2d(3), (3, 12, 9), 0),
        (nn.MaxPool2d(3, stride=2), (3, 5, 4), 0),
        (nn.GELU(), (3, 12, 9), 0),
    ],
    ids=str,
)
def test_work_is_counted_in_multiplications(
    layer: nn.Module, output: tuple[int, ...], macs: int
) -> None:
    (row,) = layer_table(StagedModel({"one": layer}), SHAPE)
    assert (row.stage, row.name, row.kind) == ("one", "", type(layer).__name__)
    assert (row.output, row.macs) == (output, macs)
    assert row.parameters == sum(p.numel() for p in layer.parameters())


# The giga operations and parameters that torchvision publishes with its weights, at 224x224. (Its
# count for GoogLeNet is without the two classifiers that serve training alone, and ours with.)
PUBLISHED = {
    "alexnet": (0.714, 61_100_840),
    "resnet18": (1.814, 11_689_512),
    "mobilenet_v3_small": (0.057, 2_542_856),
    "convnext_tiny": (4.456, 28_589_128),
    "vit_b_16": (17.564, 86_567_656),
    "swin_t": (4.491, 28_288_354),
    "googlenet": (1.498, 13_004_888),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sums_are_those_that_torchvision_publishes(name: str) -> None:
    with torch.device("meta"):
        extra = {"init_weights": False} if name == "googlenet" else {}
        model = StagedModel({"all": torchvision.models.get_model(name, **extra)})
    sums = totals(layer_table(model, ImageShape(224, 224, 3)))
    giga_macs, parameters = PUBLISHED[name]
    assert sums.parameters == parameters
    assert (sums.parameters, sums.trained) == parameter_counts(model)
    assert round(sums.macs / 1e9, 3) == giga_macs


@pytest.mark.parametrize("family", ["cnn", "mlp", "logistic"])
def test_the_work_is_half_of_the_operations_of_a_real_pass(family: str) -> None:
    model = build_model(TrainConfig(family=family), SHAPE, 5).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 12, 9))
    assert 2 * totals(layer_table(model, SHAPE)).macs == counter.get_total_flops() > 0


def test_attention_has_the_parameters_and_the_work_of_its_linear_layers() -> None:
    with torch.device("meta"):
        model = StagedModel({"all": torchvision.models.vit_b_16()})
    rows = layer_table(model, ImageShape(224, 224, 3))
    attention = [row for row in rows if row.kind == "MultiheadAttention"]
    assert len(attention) == 12
    tokens, width = 197, 768
    for row in attention:
        assert row.output == (tokens, width)
        assert row.parameters == 4 * (width * width + width)
        # Query, key, value and output; then each token with each, and the sum of the values.
        assert row.macs == 4 * tokens * width * width + 2 * tokens * tokens * width
    token = only(rows, "VisionTransformer")
    assert (token.name, token.parameters, token.macs) == ("", width, 0)
    assert rows[0] == token
    assert only(rows, "Encoder").parameters == tokens * width  # the places' embedding


class Twice(nn.Module):
    """A layer that is used twice, one that never is, a scale of its own, and a pair as output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 9, bias=False)
        self.unused = nn.Linear(5, 5, bias=False)
        self.scale = nn.Parameter(torch.ones(9))

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return self.layer(self.layer(images)[:, :, :4]) * self.scale, None


class First(nn.Module):
    def forward(self, pair: tuple[Tensor, None]) -> Tensor:
        return pair[0]


def test_a_layer_that_is_used_twice_has_its_parameters_once() -> None:
    model = StagedModel({"twice": Twice(), "first": First()})
    rows = layer_table(model, SHAPE)
    assert [(row.stage, row.name, row.output, row.parameters, row.macs) for row in rows] == [
        ("twice", "", (3, 4, 9), 9 + 25, 0),
        ("twice", "layer", (3, 12, 9), 81, 3 * 12 * 81),
        ("twice", "layer", (3, 4, 9), 0, 3 * 4 * 81),
        ("first", "", (3, 4, 9), 0, 0),
    ]


class Products(nn.Module):
    """Each row with each, outside of any layer; and a layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images @ images.mT @ images)


def test_work_outside_of_any_layer_has_a_row() -> None:
    rows = layer_table(StagedModel({"one": Products()}), SHAPE)
    assert [(row.name, row.kind, row.parameters, row.macs) for row in rows] == [
        ("", "Products", 0, 3 * 2 * 12 * 12 * 9),
        ("layer", "Linear", 18, 3 * 12 * 9 * 2),
    ]


def test_a_weight_that_two_layers_share_is_counted_once() -> None:
    one, two = nn.Linear(9, 9, bias=False), nn.Linear(9, 9, bias=False)
    two.weight = one.weight
    model = StagedModel({"one": one, "two": two})
    assert totals(layer_table(model, SHAPE)).parameters == parameter_counts(model)[0] == 81


class Skipping(StagedModel):
    """Calls only the last of its stages."""

    def forward(self, images: Tensor) -> Tensor:
        return self.stages[-1](images)


def test_a_model_that_does_not_call_a_stage_is_refused() -> None:
    model = Skipping({"one": nn.Linear(9, 9), "two": nn.Linear(9, 9)})
    with pytest.raises(ConfigError, match=r"never calls what has the parameter 'one\.weight'"):
        layer_table(model, SHAPE)


def staged() -> StagedModel:
    return StagedModel(
        {
            "body": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        }
    )


def test_frozen_parameters_are_told_from_trained_ones() -> None:
    model = staged().freeze(1)
    rows = layer_table(model, SHAPE)
    assert [(row.stage, row.parameters, row.trained) for row in rows if row.parameters] == [
        ("body", 112, 0),
        ("body", 8, 0),
        ("head", 10, 10),
    ]
    sums = totals(rows)
    assert (sums.parameters, sums.trained, sums.frozen) == (130, 10, 120)
    assert totals(row for row in rows if row.stage == "body").frozen == 120


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_not_touched(mode: bool) -> None:
    model = staged().freeze(1).train(mode)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    table = layer_table(model, SHAPE)
    assert [module.training for module in model.modules()] == modes
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name])
    assert layer_table(model, SHAPE) == table


def test_an_image_costs_no_memory_however_large_it_is() -> None:
    with torch.device("meta"):
        wide = StagedModel({"all": nn.Sequential(nn.Flatten(), nn.Linear(3 * 10**10, 100))})
    (_, row) = layer_table(wide, ImageShape(100_000, 100_000, 3))
    assert row.macs == 3 * 10**12
