"""Torchvision's models on small, gray and unusual images: stems, least sizes, refusals."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError, InfeasibleError
from hpsearch.families import get_family
from hpsearch.families._stages import fits, least_side, stem_names
from hpsearch.families._stems import change_stem, first_convolution, take_gray
from hpsearch.families._zoo import ZooOptions, build_zoo
from hpsearch.training.model import StagedModel, parameter_counts

# One of each class that takes images of many sizes: the least side with each stem that it has.
LEAST: dict[str, dict[str, int]] = {
    "alexnet": {"standard": 63, "small": 7, "stride1": 7},
    "convnext_tiny": {"standard": 32, "small": 16},
    "densenet121": {"standard": 29, "small": 8, "stride1": 8},
    "efficientnet_b0": {"standard": 1, "small": 1, "stride1": 1},
    "googlenet": {"standard": 15, "small": 4, "stride1": 4},
    "inception_v3": {"standard": 75, "small": 19, "stride1": 19},
    "mnasnet0_5": {"standard": 1, "small": 1, "stride1": 1},
    "mobilenet_v2": {"standard": 1, "small": 1, "stride1": 1},
    "mobilenet_v3_small": {"standard": 1, "small": 1, "stride1": 1},
    "regnet_x_400mf": {"standard": 1, "small": 1, "stride1": 1},
    "resnet18": {"standard": 1, "small": 1, "stride1": 1},
    "shufflenet_v2_x0_5": {"standard": 1, "small": 1, "stride1": 1},
    "squeezenet1_0": {"standard": 21, "small": 4, "stride1": 4},
    "swin_t": {"standard": 4, "small": 2},
    "vgg11": {"standard": 32},
    "vit_b_32": {"standard": 32, "small": 4},
}
CASES = [(name, stem) for name, stems in LEAST.items() for stem in stems]


class Options(ZooOptions):
    family = "torchvision"


def on_meta(name: str, height: int, width: int, channels: int = 3, **options: str) -> StagedModel:
    with torch.device("meta"):
        shape = ImageShape(height, width, channels)
        return build_zoo(name, Options(**options), shape, 7)  # type: ignore[arg-type]


def blank(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


class TestSmallImages:
    @pytest.mark.parametrize("name", LEAST)
    def test_the_stems_of_a_model(self, name: str) -> None:
        assert list(stem_names(name)) == list(LEAST[name])

    @pytest.mark.parametrize(("name", "stem"), CASES)
    def test_the_least_size_fits_and_one_pixel_less_does_not(self, name: str, stem: str) -> None:
        least = LEAST[name][stem]
        assert fits(name, ImageShape(least, least + 3, 3), stem=stem)
        if least > 1:
            assert not fits(name, ImageShape(least + 3, least - 1, 3), stem=stem)

    @pytest.mark.parametrize(
        ("name", "stem"), [case for case in CASES if case[1] == "small" or case[0] == "vgg11"]
    )
    def test_models_for_small_images_give_logits(self, name: str, stem: str) -> None:
        side = max(LEAST[name][stem], 8)
        model = on_meta(name, side, side + 3, channels=1, stem=stem)
        assert model.eval()(blank(2, 1, side, side + 3)).shape == (2, 7)

    @pytest.mark.parametrize("name", ["resnet18", "alexnet", "squeezenet1_0", "vit_b_32", "swin_t"])
    def test_a_small_stem_leaves_a_larger_map(self, name: str) -> None:
        def side(stem: str) -> int:
            first = next(iter(on_meta(name, 96, 96, stem=stem).eval().stages))
            return int(first(blank(1, 3, 96, 96)).shape[1 if name in ("vit_b_32", "swin_t") else 2])

        for stem in set(LEAST[name]) - {"standard"}:
            assert side(stem) >= 2 * side("standard") - 1

    def test_of_resnets_is_that_of_cifar(self) -> None:
        model = on_meta("resnet18", 32, 32, stem="small")
        assert model.eval().stages.stem(blank(1, 3, 32, 32)).shape == (1, 64, 32, 32)
        convolution = model.stages.stem.conv1
        assert (convolution.kernel_size, convolution.stride) == ((3, 3), (1, 1))
        saved = 64 * 3 * (7 * 7 - 3 * 3)
        standard = parameter_counts(on_meta("resnet18", 32, 32))[0]
        assert parameter_counts(model)[0] == standard - saved
        assert "stages.stem.conv1.weight" not in model.published

    @pytest.mark.parametrize("name", LEAST)
    def test_published_weights_fit_where_the_kernel_is_kept(self, name: str) -> None:
        standard = on_meta(name, 96, 96).state_dict()
        for stem in LEAST[name]:
            ours = on_meta(name, 96, 96, stem=stem).state_dict()
            same = all(ours[key].shape == standard[key].shape for key in standard)
            assert (stem in stem_names(name, published=True)) == same, stem

    @pytest.mark.parametrize("name", ["resnet18", "alexnet", "densenet121", "squeezenet1_0"])
    def test_stride1_keeps_the_published_kernel(self, name: str) -> None:
        standard, model = on_meta(name, 96, 96), on_meta(name, 96, 96, stem="stride1")
        assert model.published == standard.published
        ours, theirs = model.state_dict(), standard.state_dict()
        assert all(ours[key].shape == theirs[key].shape for key in theirs)
        _, convolution = first_convolution(model)
        assert convolution.stride == (1, 1)

    @pytest.mark.parametrize(("name", "side"), [("vit_b_32", 4), ("convnext_tiny", 2)])
    def test_patches_become_smaller(self, name: str, side: int) -> None:
        _, convolution = first_convolution(on_meta(name, 40, 48, stem="small"))
        assert convolution.kernel_size == convolution.stride == (side, side)
        if name == "vit_b_32":
            positions = on_meta(name, 40, 48, stem="small").stages.patches.pos_embedding
            assert positions.shape == (1, 1 + 10 * 12, 768)

    @pytest.mark.parametrize("name", ["resnet18", "vit_b_32"])
    def test_initial_weights_keep_the_scale_of_the_maps(self, name: str) -> None:
        torch.manual_seed(0)
        model = zoo.get_model(name, num_classes=2)
        images = torch.randn(4, 3, 64, 64)
        with torch.no_grad():
            before = first_convolution(model)[1](images).std()
            change_stem(model, "small", 4 if name == "vit_b_32" else 3)
            after = first_convolution(model)[1](images).std()
        assert 0.8 < after / before < 1.25


class TestGrayImages:
    @pytest.mark.parametrize("name", ["resnet18", "googlenet", "alexnet"])
    def test_are_taken_as_three_equal_channels(self, name: str) -> None:
        torch.manual_seed(0)
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        model = zoo.get_model(name, num_classes=2, **options).eval()
        images = torch.rand(2, 1, 64, 64)
        with torch.no_grad():
            expected = model(images.expand(2, 3, 64, 64))
            take_gray(model)
            got = model(images)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    def test_their_layers_are_called_as_the_published_ones(self) -> None:
        gray, colour = on_meta("vgg11", 32, 32, 1), on_meta("vgg11", 32, 32, 3)
        assert gray.published == colour.published
        assert gray.state_dict()["stages.block1.0.weight"].shape == (64, 1, 3, 3)
        small = on_meta("resnet18", 32, 32, 1, stem="small")
        assert "stages.stem.conv1.weight" not in small.published


class TestTooSmallImages:
    # Where torchvision gives a least size of a model's images, and not the size of its training.
    @pytest.mark.parametrize(
        "name",
        [n for n in LEAST if n not in ("swin_t", "vit_b_32")],
    )
    def test_the_least_size_is_that_which_torchvision_says(self, name: str) -> None:
        told = zoo.get_model_weights(name).DEFAULT.meta["min_size"]
        assert (LEAST[name]["standard"],) * 2 == told

    @pytest.mark.parametrize(
        ("name", "stem", "least", "layer", "size"),
        [
            ("alexnet", "standard", 63, "conv5.12 (MaxPool2d)", "2x2"),
            ("alexnet", "small", 7, "conv5.12 (MaxPool2d)", "2x2"),
            ("vgg11", "standard", 32, "block5.20 (MaxPool2d)", "1x1"),
            ("inception_v3", "standard", 75, "stage4.Mixed_7a.branch3x3_2.conv (Conv2d)", "2x2"),
            ("convnext_tiny", "small", 16, "stage4.6.1 (Conv2d)", "1x1"),
            ("vit_b_16", "standard", 16, "patches.conv_proj (Conv2d)", "15x15"),
        ],
    )
    def test_one_pixel_less_is_refused_by_the_layer_that_fails(
        self, name: str, stem: str, least: int, layer: str, size: str
    ) -> None:
        model = on_meta(name, least, least, stem=stem).eval()
        assert model(blank(1, 3, least, least)).shape == (1, 7)
        with pytest.raises(InfeasibleError) as caught:
            on_meta(name, least - 1, least - 1, stem=stem)
        assert least_side(name, stem) == least
        message = str(caught.value)
        here = f"{least - 1}x{least - 1}"
        assert message.startswith(f"{name}: images of {here} are too small, because {layer} ")
        assert f"gets a map of {size};" in message
        assert f"use images of at least {least}x{least}" in message
        assert "\n" not in message

    def test_one_short_side_is_enough(self) -> None:
        with pytest.raises(InfeasibleError, match=r"200x40 .* at least 63x63") as caught:
            on_meta("alexnet", 200, 40)
        assert str(caught.value).endswith("or the stem small or stride1")
        with pytest.raises(InfeasibleError, match=r"at least 63x63$"):
            on_meta("alexnet", 6, 6)  # for which no other stem helps
        assert on_meta("alexnet", 200, 63)

    @pytest.mark.parametrize("sides", [(64, 64), (224, 448), (300, 300)])
    def test_maxvit_says_what_it_takes(self, sides: tuple[int, int]) -> None:
        with pytest.raises(
            InfeasibleError, match=r"multiples of 224, .*{}x{}; .*image_size=224".format(*sides)
        ):
            on_meta("maxvit_t", *sides)
        assert on_meta("maxvit_t", 448, 448).eval()(blank(1, 3, 448, 448)).shape == (1, 7)

    @pytest.mark.parametrize(
        ("name", "stem", "known"),
        [
            ("vgg11", "small", "standard"),
            ("maxvit_t", "stride1", "standard"),
            ("swin_t", "stride1", "standard, small"),
        ],
    )
    def test_a_stem_that_a_model_does_not_have_is_refused(
        self, name: str, stem: str, known: str
    ) -> None:
        with pytest.raises(InfeasibleError, match=f"{name} has no stem '{stem}'; it has {known}$"):
            on_meta(name, 224, 224, stem=stem)


FAMILY_OPTIONS = {
    "resnet": {"head": (), "pool": "avg", "stem": "small", "depth": 18},
    "alexnet": {"head": (16,), "pool": "max", "stem": "small"},
    "mobilenet": {"head": (), "pool": "avg", "stem": "small", "version": "v3_small"},
    "torchvision": {"head": (), "pool": "flat", "stem": "small", "model": "shufflenet_v2_x0_5"},
}


@pytest.mark.parametrize("family", FAMILY_OPTIONS)
class TestOptionsOfFamilies:
    def test_they_build_for_small_gray_images(self, family: str) -> None:
        with torch.device("meta"):
            build = get_family(family).build
            model = build(FAMILY_OPTIONS[family], ImageShape(16, 20, 1), 4)
        assert model.eval()(blank(3, 1, 16, 20)).shape == (3, 4)

    @pytest.mark.parametrize("bad", ["no", -1, 2.5, False, (0,), 2**70], ids=repr)
    def test_a_value_of_the_wrong_kind_is_refused_by_its_name(
        self, family: str, bad: object
    ) -> None:
        for option in FAMILY_OPTIONS[family]:
            with pytest.raises(ConfigError, match=re.escape(f"{family}: {option}")) as caught:
                get_family(family).build(
                    {**FAMILY_OPTIONS[family], option: bad},  # type: ignore[dict-item]
                    ImageShape(32, 32, 3),
                    4,
                )
            assert "\n" not in str(caught.value)

    def test_the_published_model_follows_the_options(self, family: str) -> None:
        published = get_family(family).published
        assert published is not None
        name = published(FAMILY_OPTIONS[family])  # type: ignore[arg-type]
        assert (
            name
            == {
                "resnet": "resnet18",
                "alexnet": "alexnet",
                "mobilenet": "mobilenet_v3_small",
                "torchvision": "shufflenet_v2_x0_5",
            }[family]
        )
        with torch.device("meta"):
            model = get_family(family).build(
                {**FAMILY_OPTIONS[family], "stem": "standard"},  # type: ignore[dict-item]
                ImageShape(64, 64, 3),
                4,
            )
            theirs = zoo.get_model(name).state_dict()
        assert set(model.published.values()) <= set(theirs)
        assert len(model.published) >= len(theirs) - 2


def test_a_resnet_of_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth must be one of 18, 34, 50, 101, but is 20"):
        get_family("resnet").build({"depth": 20}, ImageShape(32, 32, 3), 4)


def test_batches_of_one_image_pass_every_stage() -> None:
    model = build_zoo("vit_b_32", Options(stem="small"), ImageShape(8, 12, 1), 3).eval()
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        logits = model(torch.rand(1, 1, 8, 12))
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()
