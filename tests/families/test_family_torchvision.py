"""Torchvision's models as stages: the same function, every published name, our head."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.families import _architectures, _stages
from hpsearch.families._heads import ACTIVATIONS, make_head
from hpsearch.families._zoo import (
    ZooOptions,
    adapt_published,
    build_zoo,
    model_names,
    stage_names,
)
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel, parameter_counts

PHOTO = ImageShape(224, 224, 3)


class Options(ZooOptions):
    family = "torchvision"


def on_meta(name: str, shape: ImageShape, n_classes: int = 7, **options: object) -> StagedModel:
    with torch.device("meta"):
        return build_zoo(name, Options(**options), shape, n_classes)  # type: ignore[arg-type]


def original_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return _architectures.architecture_of(name).make(name, PHOTO)


def blank(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


def last_layer(state: Mapping[str, object]) -> str:
    """The path of the layer whose tensors come last."""
    return list(state)[-1].rpartition(".")[0]


@pytest.mark.parametrize("name", model_names())
def test_every_model_is_staged_and_keeps_its_published_names(name: str) -> None:
    model = on_meta(name, PHOTO)
    stages = model.stage_names
    assert stages == stage_names(name)
    assert len(stages) >= 4
    assert stages[-1] == "head"
    # The published names of all tensors, and of no other, but those of the two last layers.
    theirs, ours = original_on_meta(name).state_dict(), model.state_dict()
    classifier = "classifier.1" if "squeezenet" in name else last_layer(theirs)
    kept = {key for key in theirs if not key.startswith(f"{classifier}.")}
    assert len(kept) >= len(theirs) - 2
    assert set(model.published.values()) == kept
    assert len(model.published) == len(kept)
    new = {key for key in ours if key not in model.published}
    assert new == {f"{last_layer(ours)}.weight", f"{last_layer(ours)}.bias"}
    width = theirs[f"{classifier}.weight"].shape[1]
    assert ours[f"{last_layer(ours)}.weight"].shape == (7, width)
    assert all(ours[key].shape == theirs[their].shape for key, their in model.published.items())
    # Every stage but the head has something to be frozen.
    assert all(any(True for _ in stage.parameters()) for stage in model.stages)
    # All dropout is scheduled; what torchvision has switched off stays so.
    left = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert any(isinstance(m, ScheduledDropout) for m in left)
    assert all(isinstance(m, ScheduledDropout) or m.p == 0 for m in left)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet18", "stem layer1 layer2 layer3 layer4 head"),
        ("alexnet", "conv1 conv2 conv3 conv4 conv5 fc1 fc2 head"),
        ("vgg11", "block1 block2 block3 block4 block5 fc1 fc2 head"),
        ("mobilenet_v2", "stem stage1 stage2 stage3 stage4 head"),
        ("mobilenet_v3_small", "stem stage1 stage2 stage3 stage4 fc1 head"),
        ("convnext_tiny", "stem stage1 stage2 stage3 stage4 head"),
        ("googlenet", "stem stage1 stage2 stage3 stage4 head"),
        ("vit_b_16", "patches blocks1 blocks2 blocks3 blocks4 head"),
    ],
)
def test_the_names_of_stages(name: str, stages: str) -> None:
    assert stage_names(name) == tuple(stages.split())


def test_a_stage_ends_where_the_map_becomes_smaller() -> None:
    published = on_meta("resnet18", PHOTO).published
    assert published["stages.stem.conv1.weight"] == "conv1.weight"
    assert published["stages.layer1.0.conv1.weight"] == "layer1.0.conv1.weight"
    sides = []
    for name in ("resnet18", "googlenet", "mobilenet_v2", "regnet_y_400mf"):
        maps = blank(1, 3, 224, 224)
        for stage in list(on_meta(name, PHOTO).eval().stages)[:-1]:
            maps = stage(maps)
            sides.append(maps.shape[2])
    # A stem that ends in a pool makes the map four times smaller, others twice.
    pooled, plain = [56, 56, 28, 14, 7], [112, 56, 28, 14, 7]
    assert sides == [*pooled, 56, 28, 14, 7, 7, *plain, *plain]


def test_a_vit_has_a_quarter_of_its_blocks_in_each_stage() -> None:
    for name, blocks in (("vit_b_16", 3), ("vit_h_14", 8)):
        parts = [len(list(stage)) for stage in list(on_meta(name, PHOTO).stages)[1:-1]]
        assert parts == [blocks, blocks, blocks, blocks + 1]  # and the norm


@pytest.mark.parametrize("name", model_names()[::4])
def test_models_give_logits(name: str) -> None:
    assert on_meta(name, PHOTO).eval()(blank(2, 3, 224, 224)).shape == (2, 7)


SMALLEST = {  # of each class, at a size that is quick
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vit_b_32": 64,
}


def test_every_class_of_models_is_compared_with_the_original() -> None:
    rows = [_architectures.architecture_of(name) for name in SMALLEST]
    assert all(row in rows for row in _architectures.ARCHITECTURES.values())


def original(name: str, side: int, n_classes: int = 5) -> nn.Module:
    """Torchvision's own, every number in it different."""
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    if name.startswith("vit"):
        options = {"image_size": side}
    model = zoo.get_model(name, weights=None, num_classes=n_classes, **options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and (tensor == tensor.flatten()[0]).all():
                tensor += torch.rand(tensor.shape) / 4
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # its statistics become those of the next batch
        if norms:
            model(torch.randn(2, 3, side, side))
    return model.eval()


def with_weights_of(model: StagedModel, theirs: Mapping[str, Tensor]) -> StagedModel:
    """`model`, filled by published names alone, and its last layer with theirs."""
    ours = model.state_dict()
    mine, last = last_layer(ours), last_layer(theirs)
    state = {key: theirs[their] for key, their in model.published.items()}
    for kind in ("weight", "bias"):
        shape = ours[f"{mine}.{kind}"].shape
        state[f"{mine}.{kind}"] = theirs.get(f"{last}.{kind}", torch.zeros(shape)).view(shape)
    model.load_state_dict(state, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", SMALLEST)
def test_the_stages_do_what_the_original_does(name: str) -> None:
    torch.manual_seed(0)
    side = SMALLEST[name]
    theirs = original(name, side)
    if "squeezenet" in name:
        theirs.classifier[2] = nn.Identity()  # our head has no ReLU on the logits
    # On meta, so that nothing but the published names can make the outputs equal.
    with torch.device("cpu" if name in ("googlenet", "inception_v3") else "meta"):
        ours = build_zoo(name, Options(), ImageShape(side, side, 3), 5)
    with_weights_of(ours, theirs.state_dict())
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, logits = theirs(images), ours(images)
    # Against how much the image changes: without training, that is little in some models.
    change = float((expected[0] - expected[1]).abs().max())
    assert change > 1e-5
    assert float((logits - expected).abs().max()) < 1e-3 * change


class TestHead:
    # ResNet18 without its last layer has 11,176,512 parameters.
    @pytest.mark.parametrize(
        ("head", "parameters"),
        [
            ((), 512 * 8 + 8),
            ((500, 64), 512 * 500 + 500 + 500 * 64 + 64 + 64 * 8 + 8),
        ],
    )
    def test_of_resnet18(self, head: tuple[int, ...], parameters: int) -> None:
        model = on_meta("resnet18", PHOTO, 8, head=head)
        assert parameter_counts(model)[0] == 11_176_512 + parameters
        assert parameter_counts(model.freeze(5))[1] == parameters

    def test_flat_sees_the_whole_map(self) -> None:
        model = on_meta("resnet101", PHOTO, 2, pool="flat")
        assert parameter_counts(model)[0] == 42_500_160 + 2048 * 7 * 7 * 2 + 2
        assert model.eval()(blank(1, 3, 224, 224)).shape == (1, 2)

    def test_the_pools(self) -> None:
        seen = {}
        for pool in ("avg", "max", "flat"):
            torch.manual_seed(0)
            model = build_zoo("resnet18", Options(pool=pool), ImageShape(64, 96, 3), 5).eval()
            torch.manual_seed(1)
            maps: list[Tensor] = []
            model.stages.head[0].register_forward_hook(
                lambda _module, given, got, maps=maps: maps.extend((given[0], got))
            )
            with torch.no_grad():
                model(torch.rand(2, 3, 64, 96))
            seen[pool] = maps
        whole = seen["flat"][0]
        assert torch.equal(seen["flat"][1], whole)
        assert whole.shape[2:] == (2, 3)
        torch.testing.assert_close(seen["avg"][1], whole.mean((2, 3), keepdim=True))
        assert torch.equal(seen["max"][1], whole.amax((2, 3), keepdim=True))

    @pytest.mark.parametrize(("name", "channels"), [("convnext_tiny", 768), ("swin_t", 768)])
    def test_the_flat_map_of_other_models(self, name: str, channels: int) -> None:
        with torch.device("meta"):
            model = build_zoo(name, Options(pool="flat"), ImageShape(64, 96, 3), 5)
        assert model.stages.head[-1].in_features == channels * 2 * 3
        assert model.eval()(blank(2, 3, 64, 96)).shape == (2, 5)

    @pytest.mark.parametrize(
        ("name", "pool", "told"),
        [
            ("alexnet", "flat", "avg or max"),
            ("maxvit_t", "flat", "avg or max"),
            ("vit_b_16", "max", "must be avg"),
        ],
    )
    def test_a_pool_that_makes_no_sense_is_refused(self, name: str, pool: str, told: str) -> None:
        with pytest.raises(ConfigError, match=f"{name} .*{told}, not '{pool}'"):
            on_meta(name, PHOTO, pool=pool)

    def test_dropout_is_before_each_linear_layer_of_it_and_where_it_was(self) -> None:
        def dropouts(name: str, **options: object) -> int:
            modules = on_meta(name, PHOTO, **options).modules()
            return sum(isinstance(m, ScheduledDropout) for m in modules)

        assert dropouts("resnet18") == 1
        assert dropouts("resnet18", head=(500, 64)) == 3
        assert dropouts("alexnet") == 3
        assert dropouts("vgg11") == 2
        assert dropouts("mobilenet_v3_small", head=(16,)) == 2

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_activations(self, activation: str) -> None:
        torch.manual_seed(0)
        layers = make_head(6, (5, 4), 3, activation=activation)
        layers = [layer for layer in layers if not isinstance(layer, ScheduledDropout)]
        first, last = layers[0], layers[-1]
        assert sum(isinstance(layer, nn.Linear) for layer in layers) == 3
        assert len(layers) == (3 if activation == "none" else 5)
        inputs = torch.randn(7, 6)
        linear = first(inputs)
        functions = {"silu": nn.functional.silu, "none": lambda x: x, "tanh": torch.tanh}
        function = functions.get(activation) or getattr(nn.functional, activation)
        if activation != "none":
            torch.testing.assert_close(layers[1](linear), function(linear))
        assert nn.Sequential(*layers)(inputs).shape == (7, 3)
        assert isinstance(last, nn.Linear)

    def test_the_order_of_its_layers(self) -> None:
        kinds = [type(layer) for layer in make_head(6, (5,), 3)]
        assert kinds == [ScheduledDropout, nn.Linear, nn.ReLU, ScheduledDropout, nn.Linear]

    @pytest.mark.parametrize("hidden", [(0,), (2.5,), ("wide",), 5, (True,)], ids=repr)
    def test_widths_that_are_none_are_refused(self, hidden: object) -> None:
        with pytest.raises(ConfigError, match="head"):
            make_head(6, hidden, 3)  # type: ignore[arg-type]

    def test_an_unknown_activation_is_named_beside_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"relu, leaky_relu.* is 'swish'"):
            make_head(6, (5,), 3, activation="swish")


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vit_b_32"])
def test_gradients_are_behind_the_frozen_stages_only(name: str) -> None:
    model = on_meta(name, PHOTO)
    names = model.stage_names
    for depth in range(len(names)):
        model.zero_grad(set_to_none=True)
        model.freeze(depth).train()(blank(2, 3, 224, 224)).sum().backward()
        trained = [
            stage_name
            for stage_name, stage in zip(names, model.stages, strict=True)
            if all(parameter.grad is not None for parameter in stage.parameters())
        ]
        touched = [
            stage_name
            for stage_name, stage in zip(names, model.stages, strict=True)
            if any(parameter.grad is not None for parameter in stage.parameters())
        ]
        assert trained == touched == list(names[depth:])


def test_frozen_stages_stay_as_they_were_while_the_others_learn() -> None:
    torch.manual_seed(0)
    model = build_zoo("mobilenet_v3_small", Options(), ImageShape(32, 32, 3), 3)
    for depth in (2, 5):
        model.freeze(depth).train()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        model.zero_grad(set_to_none=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        nn.functional.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.arange(4) % 3).backward()
        optimizer.step()
        for key, tensor in model.state_dict().items():
            stage = model.stage_names.index(key.split(".")[1])
            assert torch.equal(tensor, before[key]) == (stage < depth), key


class TestInitialWeights:
    def test_come_from_the_seed_alone(self) -> None:
        def build() -> dict[str, Tensor]:
            torch.manual_seed(3)
            return build_zoo("mobilenet_v2", Options(), ImageShape(20, 20, 1), 4).state_dict()

        for cached in (_stages._plan, _stages._outcome, _stages.least_side):
            cached.cache_clear()
        cold = build()
        warm = build()
        assert all(torch.equal(cold[key], warm[key]) for key in cold)

    def test_models_on_meta_draw_no_random_numbers(self) -> None:
        state = torch.get_rng_state()
        for name in ("regnet_x_400mf", "swin_t", "inception_v3"):
            on_meta(name, PHOTO)
        assert torch.equal(torch.get_rng_state(), state)

    def test_on_meta_there_are_none(self) -> None:
        for name in ("regnet_y_400mf", "resnet18", "inception_v3"):
            tensors = [*on_meta(name, PHOTO).parameters(), *on_meta(name, PHOTO).buffers()]
            assert all(tensor.is_meta for tensor in tensors)
        built = build_zoo("regnet_y_400mf", Options(), ImageShape(8, 8, 3), 4)
        assert not any(parameter.is_meta for parameter in built.parameters())


class TestAdaptPublished:
    @pytest.mark.parametrize("side", [64, 96, 224, 320])
    def test_positions_of_a_square_are_as_torchvision_makes_them(self, side: int) -> None:
        torch.manual_seed(0)
        state = {
            "conv_proj.weight": torch.zeros(8, 3, 16, 16),
            "encoder.pos_embedding": torch.randn(1, 1 + 14 * 14, 8),
            "class_token": torch.randn(1, 1, 8),
        }
        adapted = adapt_published("vit_b_16", state, ImageShape(side, side, 3))
        expected = interpolate_embeddings(side, 16, dict(state))  # type: ignore[arg-type]
        assert set(adapted) == set(expected)
        for key, tensor in expected.items():
            torch.testing.assert_close(adapted[key], tensor)

    def test_positions_of_other_images_fit_the_model(self) -> None:
        state = original_on_meta("vit_b_32").state_dict()
        shape = ImageShape(64, 100, 3)
        model = on_meta("vit_b_32", shape, 2)
        with_weights_of(model, adapt_published("vit_b_32", state, shape))
        assert model.state_dict()["stages.patches.pos_embedding"].shape == (1, 1 + 2 * 3, 768)
        assert model(blank(1, 3, 64, 100)).shape == (1, 2)

    def test_positions_are_stretched_along_each_side(self) -> None:
        rows = torch.arange(4.0).view(4, 1).expand(4, 4)  # the same in each column
        positions = torch.stack([rows, rows.T], dim=-1).reshape(1, 16, 2)
        state = {
            "conv_proj.weight": torch.zeros(2, 3, 8, 8),
            "encoder.pos_embedding": torch.cat([torch.full((1, 1, 2), 9.0), positions], dim=1),
        }
        adapted = adapt_published("vit_b_32", state, ImageShape(16, 64, 3))
        token, grid = adapted["encoder.pos_embedding"].split([1, 16], dim=1)
        assert token.tolist() == [[[9.0, 9.0]]]
        down, across = grid.view(2, 8, 2).unbind(dim=-1)
        torch.testing.assert_close(down, torch.tensor([[0.0], [3.0]]).expand(2, 8))
        assert (across[0].diff() > 0).all()
        assert torch.equal(across[0], across[1])

    @pytest.mark.parametrize(
        ("name", "today", "older"),
        [
            ("densenet121", "denselayer2.norm1.weight", "denselayer2.norm.1.weight"),
            ("densenet121", "denselayer12.conv2.weight", "denselayer12.conv.2.weight"),
            ("vit_b_16", "layer_0.mlp.0.weight", "layer_0.mlp.linear_1.weight"),
            ("vit_b_16", "layer_11.mlp.3.bias", "layer_11.mlp.linear_2.bias"),
        ],
    )
    def test_older_names_become_those_of_today(self, name: str, today: str, older: str) -> None:
        state = original_on_meta(name).state_dict()
        old = {key.replace(today, older): tensor for key, tensor in state.items()}
        assert old.keys() != state.keys()
        assert adapt_published(name, old, PHOTO).keys() == state.keys()

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "swin_v2_t", "densenet121"])
    def test_what_fits_already_stays_as_it_is(self, name: str) -> None:
        state = original_on_meta(name).state_dict()
        adapted = adapt_published(name, state, ImageShape(96, 64, 3))
        assert list(adapted) == list(state)
        assert all(adapted[key] is tensor for key, tensor in state.items())


class TestUnknownModels:
    @pytest.mark.parametrize("name", ["resnet19", "", "raft_large", "fcn_resnet50"])
    def test_a_name_that_torchvision_does_not_have(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"alexnet.*wide_resnet50_2, but is {name!r}"):
            stage_names(name)

    def test_a_class_that_is_too_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = {c: row for c, row in _architectures.ARCHITECTURES.items() if c is not zoo.ResNet}
        monkeypatch.setattr(_architectures, "ARCHITECTURES", rows)
        _architectures.architecture_of.cache_clear()
        with pytest.raises(ConfigError, match=r"'resnet152' .*is a ResNet.* AlexNet, ConvNeXt"):
            build_zoo("resnet152", Options(stem="stride1"), PHOTO, 3)
        assert stage_names("alexnet")
