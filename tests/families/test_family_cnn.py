from __future__ import annotations

import itertools
import json
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hpsearch.checks import Options
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.errors import ConfigError, InfeasibleError, SpaceError
from hpsearch.families import check_overrides, default_params, get_family, space_of, suggest_config
from hpsearch.families._convnet import (
    NORMS,
    PADDINGS,
    POOLS,
    VIEWS,
    CnnOptions,
    group_count,
    windows_of,
)
from hpsearch.families._heads import ACTIVATIONS
from hpsearch.families._sizes import Window, least_side
from hpsearch.training.dropout import ScheduledDropout, set_dropout
from hpsearch.training.layers import LayerRow, layer_table, totals
from hpsearch.training.model import StagedModel, parameter_counts

CNN = get_family("cnn")
PRESETS = CNN.presets


def least_size(options: Options) -> int:
    """The least height and width of images that a network with these options can take."""
    return least_side(windows_of(CnnOptions.from_dict(options)))


WIDTHS = st.lists(st.integers(1, 9), max_size=4).map(tuple)
OPTIONS = st.builds(
    CnnOptions,
    blocks=st.integers(1, 4),
    convs=st.integers(1, 3),
    channels=st.integers(1, 9),
    growth=st.integers(1, 3),
    widths=WIDTHS,
    kernel=st.sampled_from([1, 3, 5, 7]),
    padding=st.sampled_from(PADDINGS),
    norm=st.sampled_from(NORMS),
    bias=st.booleans(),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    pool=st.sampled_from(POOLS),
    pool_size=st.sampled_from([2, 3]),
    view=st.sampled_from(VIEWS),
    hidden=st.integers(0, 9),
    fc=WIDTHS,
    fc_activation=st.sampled_from(tuple(ACTIVATIONS)),
    head_dropout=st.sampled_from(["all", "hidden"]),
)


def on_meta(options: Any, shape: ImageShape, n_classes: int = 10) -> StagedModel:
    with torch.device("meta"):
        return CNN.build(options, shape, n_classes)


def table(preset: str, shape: ImageShape, n_classes: int) -> tuple[LayerRow, ...]:
    return layer_table(on_meta(PRESETS[preset], shape, n_classes), shape)


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.children()]


# --- what it was before it could do more


def first_cnn(o: dict[str, int], shape: ImageShape, n_classes: int) -> StagedModel:
    """The network as it was when it had four options: results of old searches depend on it."""
    stages: dict[str, nn.Module] = {}
    inputs, outputs = shape.channels, o["channels"]
    for block in range(1, o["blocks"] + 1):
        layers: list[nn.Module] = []
        for number in range(1, o["convs"] + 1):
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            if number == o["convs"]:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU())
            inputs = outputs
        stages[f"block{block}"] = nn.Sequential(*layers)
        outputs *= 2
    height, width = shape.height >> o["blocks"], shape.width >> o["blocks"]
    head: list[nn.Module] = []
    if max(shape.height, shape.width) > 16:
        head.append(nn.AdaptiveMaxPool2d(1))
        height = width = 1
    features = inputs * height * width
    head += [nn.Flatten(), ScheduledDropout()]
    if o["hidden"]:
        head += [nn.Linear(features, o["hidden"]), nn.ReLU(), ScheduledDropout()]
    head.append(nn.Linear(o["hidden"] or features, n_classes))
    stages["head"] = nn.Sequential(*head)
    return StagedModel(stages)


def trained_a_step(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    set_dropout(model, 0.3)
    torch.manual_seed(4)
    model(images).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **{f"{name}.grad": grad for name, grad in gradients.items()}}


@pytest.mark.parametrize(
    "shape", [ImageShape(8, 8, 1), ImageShape(16, 13, 3), ImageShape(17, 9, 3)], ids=str
)
@given(
    options=st.fixed_dictionaries(
        {
            "blocks": st.integers(1, 3),
            "convs": st.integers(1, 2),
            "channels": st.integers(1, 5),
            "hidden": st.sampled_from([0, 7]),
        }
    )
)
@settings(max_examples=12)
def test_the_first_options_still_mean_the_same_network_to_the_bit(
    shape: ImageShape, options: dict[str, int]
) -> None:
    images = torch.rand((3, shape.channels, shape.height, shape.width))
    results = []
    for build in (first_cnn, CNN.build):
        torch.manual_seed(3)
        model = build(options, shape, 4)
        results.append((str(model), trained_a_step(model, images), torch.get_rng_state()))
    (text, state, random), (text_now, state_now, random_now) = results
    assert text_now == text
    assert list(state_now) == list(state)
    assert all(torch.equal(state_now[name], tensor) for name, tensor in state.items())
    assert torch.equal(random_now, random)


# --- the networks of the reference reports


def test_stl4_is_the_network_of_its_report_layer_by_layer() -> None:
    rows = table("stl4", ImageShape(64, 64, 3), 10)

    def parameters(kind: str) -> list[int]:
        return [row.parameters for row in rows if row.kind == kind]

    assert parameters("Conv2d") == [7_168, 1_180_160, 2_359_808, 4_609_000]
    assert parameters("BatchNorm2d") == [512, 1_024, 1_024, 2_000]
    assert parameters("Linear") == [512_512, 131_328, 2_570]
    sizes = [row.output[1:] for row in rows if row.kind in ("Conv2d", "MaxPool2d")]
    assert sizes == [(side, side) for side in (62, 30, 28, 13, 11, 5, 3, 1)]
    assert totals(rows).parameters == totals(rows).trained == 8_807_106
    assert [row.kind for row in rows if row.stage == "head"] == [
        "Flatten",
        *("Linear", "ReLU", "ScheduledDropout"),
        *("Linear", "ReLU", "ScheduledDropout"),
        "Linear",
    ]


def test_photos6x5_is_the_network_of_its_report() -> None:
    shape = ImageShape(444, 444, 3)
    rows = table("photos6x5", shape, 2)
    convolutions = [row for row in rows if row.kind == "Conv2d"]
    assert [row.output for row in convolutions] == [
        (8, 440, 440),
        (16, 216, 216),
        (32, 104, 104),
        (64, 48, 48),
        (128, 20, 20),
        (256, 6, 6),
    ]
    channels = [3, 8, 16, 32, 64, 128, 256]
    assert [row.parameters for row in convolutions] == [
        25 * i * o + o for i, o in itertools.pairwise(channels)
    ]
    head = on_meta(PRESETS["photos6x5"], shape, 2).stages[-1]
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [2304, 1000, 500, 100]
    assert linear[-1].out_features == 2
    # No activation between them.
    others = set(kinds(head)) - {"Linear"}
    assert others == {"Flatten", "ScheduledDropout"}


@pytest.mark.parametrize(("preset", "groups", "fc"), [("hands6", 2, 3), ("hands15", 5, 4)])
@pytest.mark.parametrize("side", [32, 256])
def test_the_networks_for_hands_have_the_layers_of_their_report_in_order(
    preset: str, groups: int, fc: int, side: int
) -> None:
    shape = ImageShape(side, side, 3)
    model = on_meta(PRESETS[preset], shape, 8)
    *blocks, head = model.stages
    assert len(blocks) == groups
    unit = ["Conv2d", "BatchNorm2d", "ReLU"]
    for block in blocks:
        # The pool before the last ReLU: the same function.
        assert kinds(block) == [*unit, *unit, "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    assert kinds(head) == [
        "Flatten",
        *["Linear", "ReLU", "ScheduledDropout"] * (fc - 1),
        "Linear",
    ]
    rows = layer_table(model, shape)
    for row in rows:
        if row.kind == "Conv2d":  # padding 1
            assert row.output[1] == side >> (int(row.stage.removeprefix("block")) - 1)
    assert rows[-1].output == (8,)


def test_hands6_has_the_widths_that_its_comment_says() -> None:
    rows = table("hands6", ImageShape(32, 32, 3), 8)
    assert [row.output[0] for row in rows if row.kind == "Conv2d"] == [32] * 3 + [64] * 3
    assert [row.output for row in rows if row.kind == "Linear"] == [(256,), (64,), (8,)]
    rows = table("hands15", ImageShape(32, 32, 3), 8)
    assert [row.output[0] for row in rows if row.kind == "Conv2d"] == [
        width for width in (16, 32, 64, 128, 256) for _ in range(3)
    ]
    assert [row.output for row in rows if row.kind == "Linear"] == [(512,), (256,), (64,), (8,)]


@pytest.mark.parametrize(
    ("preset", "least"), [("stl4", 61), ("photos6x5", 316), ("hands6", 4), ("hands15", 32)]
)
def test_a_preset_needs_images_of_a_least_size(preset: str, least: int) -> None:
    assert least_size(PRESETS[preset]) == least
    CNN.build(PRESETS["hands6"], ImageShape(4, 9, 1), 3)
    with pytest.raises(InfeasibleError, match=rf"at least {least}x{least}"):
        on_meta(PRESETS[preset], ImageShape(least + 40, least - 1, 3))


# --- any options


@given(options=OPTIONS, more=st.tuples(st.integers(0, 9), st.integers(0, 9)))
@settings(max_examples=150)
def test_the_least_size_is_the_least_that_can_be_built_and_run(
    options: CnnOptions, more: tuple[int, int]
) -> None:
    least = least_size(options.to_dict())
    shape = ImageShape(least + more[0], least + more[1], 3)
    model = on_meta(options.to_dict(), shape, 7)
    assert model(torch.zeros(2, 3, shape.height, shape.width, device="meta")).shape == (2, 7)
    assert model.stage_names[-1] == "head"
    smaller = ImageShape(least - 1, least + more[1], 3)
    with pytest.raises(InfeasibleError) as caught:
        on_meta(options.to_dict(), smaller)
    message = str(caught.value)
    assert f"{smaller.height}x{smaller.width}" in message
    assert f"at least {least}x{least}" in message


@given(options=OPTIONS)
@settings(max_examples=60)
def test_options_are_stored_as_json_and_read_back(options: CnnOptions) -> None:
    config = TrainConfig(family="cnn", options=options.to_dict())
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert CnnOptions.from_dict(again.options) == options


@given(options=OPTIONS)
@settings(max_examples=60)
def test_dropout_is_where_the_options_say(options: CnnOptions) -> None:
    least = least_size(options.to_dict())
    head = list(on_meta(options.to_dict(), ImageShape(least, least, 1)).stages[-1])
    linear = [place for place, layer in enumerate(head) if isinstance(layer, nn.Linear)]
    assert len(linear) == len(options.fc_widths) + 1
    after = [isinstance(head[place - 1], ScheduledDropout) for place in linear]
    assert after == [options.head_dropout == "all"] + [True] * (len(linear) - 1)
    assert options.has_dropout == any(isinstance(layer, ScheduledDropout) for layer in head)


@given(
    side=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
)
def test_a_window_makes_what_torch_makes_of_a_map(
    side: int, kernel: int, stride: int, padding: int
) -> None:
    window = Window(name="conv", kernel=kernel, stride=stride, padding=padding)
    layer = nn.Conv2d(1, 1, kernel, stride=stride, padding=padding, device="meta")
    try:
        output = layer(torch.empty(1, 1, side, side, device="meta")).shape[-1]
    except RuntimeError:
        output = 0
    assert max(0, window.output(side)) == output
    assert (window.least() <= side) == (output >= 1)
    assert window.output(window.least(5)) >= 5
    assert window.least(5) == 1 or window.output(window.least(5) - 1) < 5


def test_an_image_that_is_too_small_is_refused_with_the_layer_and_what_would_help() -> None:
    options = {"blocks": 4, "convs": 2, "kernel": 5, "padding": "none"}
    # 61 -> 57 -> 53 -> 26 -> 22 -> 18 -> 9 -> 5 -> 1, and a pool of 2 needs 2.
    with pytest.raises(InfeasibleError) as caught:
        on_meta(options, ImageShape(61, 200, 3))
    message = str(caught.value)
    assert message == (
        "cnn with 4 blocks: images of 61x200 are too small, because block3.pool gets a map of "
        "1x36 and needs 2x2; use images of at least 136x136 or at most 2 blocks"
    )
    with pytest.raises(InfeasibleError, match=r"block1\.conv2 gets a map of 3x3 and needs 5x5"):
        on_meta({**options, "blocks": 1}, ImageShape(7, 7, 3))


def test_nothing_is_advised_that_would_not_help() -> None:
    with pytest.raises(InfeasibleError, match=r"at least 4x4$"):
        on_meta({"blocks": 2}, ImageShape(1, 9, 3))
    with pytest.raises(InfeasibleError, match=r"at least 4x4 or at most 1 block$"):
        on_meta({"blocks": 2}, ImageShape(3, 9, 3))


def monotone(name: str) -> bool:
    make = ACTIVATIONS[name]
    values = torch.linspace(-6, 6, 1001)
    return make is None or bool((make()(values).diff() >= 0).all())


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("pool_size", [2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_block_is_pooled_after_its_activation_or_as_if(
    activation: str, pool: str, pool_size: int
) -> None:
    torch.manual_seed(0)
    options = {
        "blocks": 1,
        "convs": 1,
        "channels": 8,
        "activation": activation,
        "pool": pool,
        "pool_size": pool_size,
    }
    shape = ImageShape(20, 15, 3)
    block = CNN.build(options, shape, 2).stages[0]
    inner = list(block)[:2]
    make = ACTIVATIONS[activation]
    layers = [make()] if make is not None else []
    layers.append({"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[pool](pool_size, stride=2))
    images = torch.randn(4, 3, 20, 15)
    expected = nn.Sequential(*inner, *layers)(images)
    torch.testing.assert_close(block(images), expected)
    if make is not None:
        # For a maximum of what rises, the cheaper order.
        pooled_first = "Pool" in kinds(block)[2]
        assert pooled_first == (pool == "max" and monotone(activation))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (7, 1), (8, 2), (16, 4), (48, 12), (64, 16), (128, 32), (256, 32), (1000, 25)],
)
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert group_count(channels) == groups


@given(channels=st.integers(1, 3000))
def test_groups_are_few_and_not_small(channels: int) -> None:
    groups = group_count(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 4


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
@pytest.mark.parametrize("bias", [True, False])
def test_each_convolution_has_its_norm(norm: str, kind: type[nn.Module], bias: bool) -> None:
    model = on_meta({"norm": norm, "bias": bias, "convs": 3}, ImageShape(8, 8, 3))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in model.modules() if isinstance(m, kind)]) == len(convolutions) == 6
    assert all((layer.bias is not None) == bias for layer in convolutions)


@pytest.mark.parametrize("bias", [True, False])
def test_without_norm_a_convolution_has_a_bias(bias: bool) -> None:
    model = on_meta({"norm": "none", "bias": bias}, ImageShape(8, 8, 3))
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"blocks": 3, "channels": 5}, [5, 10, 20]),
        ({"blocks": 3, "channels": 5, "growth": 1}, [5, 5, 5]),
        ({"blocks": 2, "channels": 5, "growth": 3}, [5, 15]),
        ({"blocks": 2, "channels": 5, "growth": 3, "widths": [7, 4, 9]}, [7, 4, 9]),
    ],
)
def test_channels_grow_or_are_as_listed(options: dict[str, Any], channels: list[int]) -> None:
    rows = layer_table(on_meta({**options, "convs": 2}, ImageShape(9, 9, 1)), ImageShape(9, 9, 1))
    by_layer = [row.output[0] for row in rows if row.kind == "Conv2d"]
    assert by_layer == [width for width in channels for _ in range(2)]


@pytest.mark.parametrize(
    ("side", "view", "features", "kind"),
    [
        (16, "auto", 8 * 4 * 4, None),
        (17, "auto", 8, nn.AdaptiveMaxPool2d),
        (17, "flat", 8 * 4 * 4, None),
        (16, "max", 8, nn.AdaptiveMaxPool2d),
        (16, "avg", 8, nn.AdaptiveAvgPool2d),
    ],
)
def test_the_head_sees_what_the_view_says(
    side: int, view: str, features: int, kind: type[nn.Module] | None
) -> None:
    shape = ImageShape(side, side, 1)
    head = CNN.build({"channels": 4, "view": view, "fc": (6, 5)}, shape, 3).stages[-1]
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [features, 6, 5]
    pools = [layer for layer in head if isinstance(layer, nn.Module) and "Pool" in str(layer)]
    assert [type(layer) for layer in pools] == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kernel", 4),
        ("kernel", 0),
        ("pool_size", 4),
        ("pool_size", 1),
        ("growth", 0),
        ("norm", "layer"),
        ("padding", "valid"),
        ("padding", 1),
        ("pool", "min"),
        ("view", "mean"),
        ("activation", "softplus"),
        ("fc_activation", ""),
        ("head_dropout", "none"),
        ("bias", 1),
        ("widths", [8, 0]),
        ("widths", [8.5]),
        ("widths", 8),
        ("fc", [True]),
        ("fc", "512/256"),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option) as caught:
        on_meta({option: value}, ImageShape(64, 64, 3))
    assert not isinstance(caught.value, InfeasibleError)


# --- the space


def asked(overrides: dict[str, Any], shape: ImageShape) -> list[str]:
    return [row.name for row in space_of("cnn", shape, overrides)]


def configured(overrides: dict[str, Any], shape: ImageShape) -> TrainConfig:
    trial = optuna.trial.FixedTrial(default_params("cnn", shape, overrides)[0])
    return suggest_config(
        "cnn", trial, shape, epochs=1, seed=0, precision="fp32", overrides=overrides
    )


@pytest.mark.parametrize("shape", [ImageShape(8, 8, 1), ImageShape(64, 64, 3)], ids=str)
def test_by_default_four_of_the_options_are_searched(shape: ImageShape) -> None:
    names = asked({}, shape)
    assert names[:5] == ["blocks", "convs", "channels", "hidden", "optimizer"]
    assert not set(names[5:]) & set(CnnOptions().to_dict())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_decides_the_whole_architecture(preset: str) -> None:
    shape = ImageShape(444, 444, 3)
    assert not {"blocks", "convs", "channels", "hidden"} & set(asked({"preset": preset}, shape))
    config = configured({"preset": preset}, shape)
    assert dict(config.options) == dict(PRESETS[preset])
    assert config.options == TrainConfig.from_dict(config.to_dict()).options


@pytest.mark.parametrize(
    ("overrides", "expected", "gone"),
    [
        ({"widths": "4/8/6"}, {"widths": (4, 8, 6)}, ("blocks", "channels")),
        ({"fc": "64/16"}, {"fc": (64, 16)}, ("hidden",)),
        ({"kernel": 5, "padding": "none"}, {"kernel": 5, "padding": "none"}, ()),
        ({"norm": "none"}, {"norm": "none"}, ()),
        ({"bias": "yes"}, {"bias": True}, ()),
        ({"pool": "avg", "pool_size": 3}, {"pool": "avg", "pool_size": 3}, ()),
        ({"view": "avg", "growth": 1}, {"view": "avg", "growth": 1}, ()),
        ({"activation": "gelu"}, {"activation": "gelu"}, ()),
        ({"fc": "9", "fc_activation": "none"}, {"fc": (9,), "fc_activation": "none"}, ("hidden",)),
        ({"blocks": 5, "channels": 10}, {"blocks": 5, "channels": 10}, ()),
    ],
    ids=str,  # of tuples: the order of sets differs between the processes of a test run
)
def test_what_is_off_can_be_set(
    overrides: dict[str, Any], expected: dict[str, Any], gone: tuple[str, ...]
) -> None:
    shape = ImageShape(64, 64, 3)
    options = configured(overrides, shape).options
    usual = CnnOptions.from_dict({k: v for k, v in options.items() if k in CnnOptions().to_dict()})
    assert {name: options[name] for name in expected} == expected
    untouched = CnnOptions().to_dict().keys() - expected.keys()
    searched = {"blocks", "convs", "channels", "hidden"}
    for name in untouched - searched:
        assert getattr(usual, name) == getattr(CnnOptions(), name), name
    assert not set(gone) & set(asked(overrides, shape))


def test_what_is_off_can_be_searched() -> None:
    shape = ImageShape(64, 64, 3)
    overrides = {"kernel": (3, 7), "norm": "search", "view": "search"}
    rows = {row.name: row for row in space_of("cnn", shape, overrides)}
    assert rows["kernel"].choices == (3, 7)
    assert rows["norm"].choices == NORMS
    assert rows["view"].choices == VIEWS


def test_where_the_image_size_varies_the_depth_does_not_depend_on_it() -> None:
    data = ImageShape(8, 8, 3)
    for sizes in (32, (4, 32), "search"):
        rows = {row.name: row for row in space_of("cnn", data, {"image_size": sizes})}
        assert (rows["blocks"].low, rows["blocks"].high) == (1, 4)
    config = configured({"image_size": (4, 32), "blocks": 3}, data)
    with pytest.raises(InfeasibleError, match="at least 8x8 or at most 2 blocks"):
        CNN.build(config.options, ImageShape(4, 4, 3), 10)
    with pytest.raises(SpaceError, match=r"blocks must be within 1 to 2"):
        configured({"image_size": 4, "blocks": 3}, data)
    check_overrides(("cnn",), data, {"image_size": 32, "blocks": 5})
    config = configured({"image_size": 32, "blocks": 5}, data)
    assert len(CNN.build(config.options, input_shape(config.input, data), 10).stages) == 6


def test_dropout_is_not_searched_where_there_is_no_place_for_it() -> None:
    shape = ImageShape(64, 64, 3)
    assert "dropout" not in asked({"head_dropout": "hidden", "hidden": 0}, shape)
    assert "dropout" in asked({"head_dropout": "hidden", "hidden": 128}, shape)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"hidden": 0, "fc_activation": "search"}, "fc_activation"),
        ({"norm": "none", "bias": "search"}, "bias"),
    ],
)
def test_an_option_exists_only_where_it_applies(overrides: dict[str, Any], name: str) -> None:
    shape = ImageShape(64, 64, 3)
    assert name not in asked(overrides, shape)
    assert name in asked({name: "search"}, shape)


@pytest.mark.parametrize(("overrides", "deepest"), [({"blocks": 3}, 3), ({"widths": "4/8/6"}, 3)])
def test_all_stages_but_the_head_can_be_frozen(overrides: dict[str, Any], deepest: int) -> None:
    config = configured({**overrides, "freeze_depth": 9}, ImageShape(64, 64, 3))
    assert config.freeze_depth == deepest


def test_images_too_small_for_a_block_are_infeasible() -> None:
    with pytest.raises(InfeasibleError, match=r"at least 2x2.*1x30.*logistic or mlp"):
        space_of("cnn", ImageShape(1, 30, 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_learns(preset: str) -> None:
    """One step at its least size, in small: widths divided, layers in order."""
    options = CnnOptions.from_dict(PRESETS[preset])
    small = {
        **options.to_dict(),
        "widths": tuple(4 for _ in options.block_channels),
        "fc": tuple(5 for _ in options.fc),
    }
    side = least_size(small)
    model = CNN.build(small, ImageShape(side, side, 3), 3)
    torch.manual_seed(0)
    loss = nn.functional.cross_entropy(
        model(torch.randn(4, 3, side, side)), torch.tensor([0, 1, 2, 0])
    )
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (
        parameter_counts(model)[0]
        == totals(layer_table(model, ImageShape(side, side, 3))).parameters
    )
