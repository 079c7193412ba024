from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.families import default_params, get_family, space_of, suggest_config
from hpsearch.families._heads import ACTIVATIONS
from hpsearch.families.mlp import MlpOptions
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.layers import layer_table, totals
from hpsearch.training.model import StagedModel

MLP = get_family("mlp")
STL = ImageShape(64, 64, 3)
SIGNS = ImageShape(224, 224, 3)
OPTIONS = st.builds(
    MlpOptions,
    layers=st.integers(1, 4),
    width=st.integers(1, 9),
    widths=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    batch_norm=st.booleans(),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    input_dropout=st.booleans(),
)


def on_meta(options: Any, shape: ImageShape, n_classes: int = 10) -> StagedModel:
    with torch.device("meta"):
        return MLP.build(options, shape, n_classes)


def first_mlp(o: dict[str, Any], shape: ImageShape, n_classes: int) -> StagedModel:
    """The network as it was when it had three options: results of old searches depend on it."""
    stages: dict[str, nn.Module] = {}
    features = shape.height * shape.width * shape.channels
    for number in range(1, o["layers"] + 1):
        layers: list[nn.Module] = [nn.Flatten()] if number == 1 else []
        layers.append(nn.Linear(features, o["width"], bias=not o["batch_norm"]))
        if o["batch_norm"]:
            layers.append(nn.BatchNorm1d(o["width"]))
        layers += [nn.ReLU(), ScheduledDropout()]
        stages[f"hidden{number}"] = nn.Sequential(*layers)
        features = o["width"]
    stages["head"] = nn.Linear(features, n_classes)
    return StagedModel(stages)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_options_still_mean_the_same_network_to_the_bit(
    layers: int, batch_norm: bool
) -> None:
    options = {"layers": layers, "width": 6, "batch_norm": batch_norm}
    models = []
    for build in (first_mlp, MLP.build):
        torch.manual_seed(3)
        models.append(build(options, ImageShape(4, 5, 3), 7))
    before, now = models
    assert str(now) == str(before)
    assert list(now.state_dict()) == list(before.state_dict())
    for name, tensor in before.state_dict().items():
        assert torch.equal(now.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("preset", "shape", "widths"),
    [
        ("stl-fc3", STL, [512, 256, 128]),
        ("stl-fc5", STL, [512, 512, 256, 256, 128]),
        ("stl-fc7", STL, [1024, 1024, 512, 512, 256, 256, 128]),
        ("signs", SIGNS, [500, 50]),
        ("signs2", SIGNS, [5000, 500]),
    ],
)
def test_the_presets_are_the_networks_of_the_reports(
    preset: str, shape: ImageShape, widths: list[int]
) -> None:
    rows = layer_table(on_meta(MLP.presets[preset], shape, 9), shape)
    sizes = [shape.height * shape.width * 3, *widths, 9]
    linear = [row for row in rows if row.kind == "Linear"]
    assert [row.parameters for row in linear] == [
        sizes[number] * size + size for number, size in enumerate(sizes[1:])
    ]
    assert totals(rows).parameters == sum(row.parameters for row in linear)
    (activation,) = {row.kind for row in rows} - {"Flatten", "Linear", "ScheduledDropout"}
    assert activation == ("Tanh" if preset.startswith("signs") else "ReLU")


@pytest.mark.parametrize("preset", ["signs", "signs2"])
def test_dropout_by_depth_begins_at_the_pixels_of_the_signs(preset: str) -> None:
    first, *_ = on_meta(MLP.presets[preset], SIGNS).stages
    names = [type(layer).__name__ for layer in first]
    assert names == ["Flatten", "ScheduledDropout", "Linear", "Tanh", "ScheduledDropout"]


def test_every_preset_is_tested_above() -> None:
    assert set(MLP.presets) == {"stl-fc3", "stl-fc5", "stl-fc7", "signs", "signs2"}


@given(options=OPTIONS)
@settings(max_examples=60)
def test_any_options_build_what_they_say(options: MlpOptions) -> None:
    model = on_meta(options.to_dict(), ImageShape(3, 5, 2), 7)
    assert model(torch.zeros(2, 2, 3, 5, device="meta")).shape == (2, 7)
    widths = options.widths or (options.width,) * options.layers
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*widths, 7]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert [layer.num_features for layer in norms] == (list(widths) if options.batch_norm else [])
    make = ACTIVATIONS[options.activation]
    activations = [layer for layer in model.modules() if make and isinstance(layer, type(make()))]
    assert len(activations) == (0 if make is None else len(widths))
    places = [layer for layer in model.modules() if isinstance(layer, ScheduledDropout)]
    assert len(places) == len(widths) + options.input_dropout
    assert model.stage_names == (*(f"hidden{n + 1}" for n in range(len(widths))), "head")


@given(options=OPTIONS)
@settings(max_examples=30)
def test_options_are_stored_as_json_and_read_back(options: MlpOptions) -> None:
    config = TrainConfig(family="mlp", options=options.to_dict())
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert MlpOptions.from_dict(again.options) == options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("activation", "softplus"),
        ("activation", None),
        ("widths", [8, 0]),
        ("widths", 8),
        ("input_dropout", 1),
        ("batch_norm", "yes"),
        ("layers", 0),
        ("width", 0),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        on_meta({option: value}, STL)


def configured(overrides: dict[str, Any]) -> TrainConfig:
    trial = optuna.trial.FixedTrial(default_params("mlp", STL, overrides)[0])
    return suggest_config(
        "mlp", trial, STL, epochs=1, seed=0, precision="fp32", overrides=overrides
    )


def test_by_default_three_of_the_options_are_searched() -> None:
    names = [row.name for row in space_of("mlp", STL)]
    assert names[:4] == ["layers", "width", "batch_norm", "optimizer"]
    assert not set(names[4:]) & set(MlpOptions().to_dict())


@pytest.mark.parametrize("preset", MLP.presets)
def test_a_preset_decides_the_whole_architecture(preset: str) -> None:
    names = {row.name for row in space_of("mlp", STL, {"preset": preset})}
    assert not names & set(MlpOptions().to_dict())
    assert dict(configured({"preset": preset}).options) == dict(MLP.presets[preset])


def test_what_is_off_can_be_set() -> None:
    overrides = {"widths": "512/256/128", "activation": "tanh", "input_dropout": "yes"}
    names = {row.name for row in space_of("mlp", STL, overrides)}
    assert not {"layers", "width"} & names
    options = MlpOptions.from_dict(configured(overrides).options)
    assert options.widths == (512, 256, 128)
    assert (options.activation, options.input_dropout) == ("tanh", True)


@pytest.mark.parametrize("overrides", [{"layers": 3}, {"widths": "4/8/6"}])
def test_all_stages_but_the_head_can_be_frozen(overrides: dict[str, Any]) -> None:
    assert configured({**overrides, "freeze_depth": 9}).freeze_depth == 3
