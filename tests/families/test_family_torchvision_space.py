"""The spaces of the families of torchvision's models."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import torch

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.errors import InfeasibleError, SpaceError
from hpsearch.families import (
    Override,
    build_model,
    default_params,
    get_family,
    space_of,
    suggest_config,
    weights_of,
)
from hpsearch.families import resnet as resnet_module

FAMILIES = ("alexnet", "mobilenet", "resnet", "torchvision")
SMALL, PHOTO, GRAY_PHOTO = ImageShape(32, 40, 3), ImageShape(90, 120, 3), ImageShape(90, 120, 1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def suggested(name: str, shape: ImageShape, **overrides: Override) -> TrainConfig:
    params = default_params(name, shape, overrides)[0]
    trial = optuna.trial.FixedTrial(params)
    return suggest_config(
        name, trial, shape, epochs=3, seed=0, precision="fp32", overrides=overrides
    )


def asked(name: str, shape: ImageShape, **overrides: Override) -> dict[str, Any]:
    return {row.name: row for row in space_of(name, shape, overrides)}


@pytest.mark.parametrize("name", FAMILIES)
class TestWeights:
    def test_are_published_ones_for_photographs_and_none_for_small_images(self, name: str) -> None:
        assert suggested(name, SMALL).weights is None
        weights = suggested(name, PHOTO).weights
        assert weights is not None
        assert weights.source == "imagenet"
        assert suggested(name, PHOTO, weights="none").weights is None
        assert suggested(name, SMALL, weights="imagenet").weights == weights

    def test_the_input_is_what_they_were_trained_on(self, name: str) -> None:
        config = suggested(name, GRAY_PHOTO)
        shape = input_shape(config.input, GRAY_PHOTO)
        assert shape == ImageShape(224, 224, 3)
        with torch.device("meta"):
            model = build_model(config, shape, 4)
        assert len(model.published) == len(model.state_dict()) - 2

    def test_their_known_good_learning_rates_are_lower(self, name: str) -> None:
        small, photo = default_params(name, SMALL), default_params(name, PHOTO)
        assert len(small) == len(photo) == 2
        for scratch, tuned in zip(small, photo, strict=True):
            assert scratch["optimizer"] == tuned["optimizer"]
            assert tuned["lr"] < scratch["lr"]  # type: ignore[operator]

    def test_gray_images_are_not_flipped_by_default(self, name: str) -> None:
        assert [params["hflip"] for params in default_params(name, PHOTO)] == [0.5, 0.5]
        assert [params["hflip"] for params in default_params(name, GRAY_PHOTO)] == [0.0, 0.0]

    def test_a_photograph_is_augmented_as_one_and_any_of_it_can_be_switched_off(
        self, name: str
    ) -> None:
        assert {"hflip", "rotate", "resized_crop", "jitter"} <= set(asked(name, PHOTO))
        rows = asked(name, PHOTO, hflip=0)
        assert rows["hflip"].low == rows["hflip"].high == 0
        assert suggested(name, PHOTO, hflip=0).augment["hflip"] == 0


class TestStem:
    @pytest.mark.parametrize(
        ("name", "shape", "overrides", "stem"),
        [
            ("resnet", SMALL, {}, "small"),
            ("resnet", PHOTO, {}, "standard"),
            ("resnet", PHOTO, {"weights": "none"}, "standard"),
            ("resnet", PHOTO, {"weights": "none", "image_size": 32}, "small"),
            ("resnet", PHOTO, {"image_size": 32}, "stride1"),
            ("resnet", PHOTO, {"image_size": 64}, "standard"),
            ("resnet", SMALL, {"weights": "imagenet"}, "standard"),
            ("resnet", SMALL, {"weights": "imagenet", "stem": "stride1"}, "stride1"),
            ("resnet", PHOTO, {"weights": "none", "stem": "small"}, "small"),
            ("alexnet", ImageShape(60, 60, 3), {"weights": "none"}, "small"),
            ("alexnet", PHOTO, {"image_size": 60}, "stride1"),
            ("alexnet", ImageShape(63, 63, 3), {"weights": "none"}, "standard"),
            ("torchvision", SMALL, {"model": "vgg11"}, "standard"),
            ("torchvision", SMALL, {"model": "convnext_tiny"}, "small"),
            ("torchvision", PHOTO, {"model": "convnext_tiny", "image_size": 32}, "standard"),
        ],
    )
    def test_follows_the_images_and_the_weights(
        self, name: str, shape: ImageShape, overrides: dict[str, Any], stem: str
    ) -> None:
        config = suggested(name, shape, **overrides)
        assert config.options["stem"] == stem
        with torch.device("meta"):
            assert build_model(config, input_shape(config.input, shape), 4)

    @pytest.mark.parametrize(
        ("name", "model", "others"),
        [
            ("alexnet", {}, "standard or stride1"),
            ("resnet", {}, "standard or stride1"),
            ("torchvision", {"model": "convnext_tiny"}, "standard"),
        ],
    )
    def test_the_small_one_does_not_go_with_published_weights(
        self, name: str, model: dict[str, Any], others: str
    ) -> None:
        with pytest.raises(InfeasibleError, match=f"stem.* use {others}, or set weights=none"):
            suggested(name, PHOTO, stem="small", **model)
        assert suggested(name, PHOTO, stem="small", weights="none", **model)

    @pytest.mark.parametrize("name", ["mobilenet", "torchvision"])
    def test_but_it_does_where_it_has_the_published_kernel(self, name: str) -> None:
        config = suggested(name, PHOTO, stem="small")
        assert config.options["stem"] == "small"
        assert config.weights is not None


class TestOptions:
    def test_of_resnet(self) -> None:
        assert asked("resnet", PHOTO)["depth"].choices == (18, 34)
        config = suggested("resnet", PHOTO, depth=50, head=[500, 64], pool="flat")
        assert config.options == {
            "depth": 50,
            "head": (500, 64),
            "pool": "flat",
            "stem": "standard",
        }
        published = get_family("resnet").published
        assert published is not None
        assert published(config.options) == "resnet50"

    def test_a_depth_that_no_resnet_has(self) -> None:
        with pytest.raises(SpaceError, match="depth must be one of 18, 34, 50, 101, but got 20"):
            suggested("resnet", PHOTO, depth=20)

    def test_any_model_of_torchvision_can_be_named(self) -> None:
        config = suggested("torchvision", PHOTO, model="regnet_x_400mf")
        assert config.options["model"] == "regnet_x_400mf"
        both = asked("torchvision", PHOTO, model=("vit_b_16", "resnet18"))
        assert set(both["model"].choices) == {"vit_b_16", "resnet18"}
        with pytest.raises(SpaceError, match="resnet19"):
            suggested("torchvision", PHOTO, model="resnet19")

    def test_by_default_only_models_that_take_the_images(self) -> None:
        every = ("efficientnet_b0", "regnet_y_800mf", "convnext_tiny")
        assert asked("torchvision", PHOTO)["model"].choices == every
        assert asked("torchvision", ImageShape(8, 8, 1))["model"].choices == every[:2]
        larger = asked("torchvision", ImageShape(8, 8, 1), image_size=(8, 16))
        assert larger["model"].choices == every
        # The choices are the same whatever the weights are.
        both = asked("torchvision", ImageShape(20, 20, 3), weights=("none", "imagenet"))
        assert both["model"].choices == every

    @pytest.mark.parametrize(
        ("name", "overrides", "most"),
        [
            ("resnet", {}, 5),
            ("alexnet", {}, 7),
            ("mobilenet", {}, 6),  # V3 has a stage more than V2
            ("mobilenet", {"version": "v2"}, 5),
            ("torchvision", {}, 5),
            ("torchvision", {"model": ("vgg11", "shufflenet_v2_x0_5")}, 7),
        ],
    )
    def test_as_many_stages_can_be_frozen_as_any_of_the_models_has(
        self, name: str, overrides: dict[str, Any], most: int
    ) -> None:
        row = asked(name, PHOTO, **overrides)["freeze_depth"]
        assert (row.low, row.high) == (0, most)

    @pytest.mark.parametrize(("model", "frozen"), [("shufflenet_v2_x0_5", 4), ("vgg11", 7)])
    def test_a_model_of_fewer_stages_keeps_its_head(self, model: str, frozen: int) -> None:
        overrides: dict[str, Override] = {
            "model": ("shufflenet_v2_x0_5", "vgg11"),
            "freeze_depth": 7,
        }
        params = {**default_params("torchvision", PHOTO, overrides)[0], "model": model}
        config = suggest_config(
            "torchvision",
            optuna.trial.FixedTrial(params),
            PHOTO,
            epochs=3,
            seed=0,
            precision="fp32",
            overrides=overrides,
        )
        assert (config.options["model"], config.freeze_depth) == (model, frozen)

    @pytest.mark.parametrize(
        ("name", "overrides", "told"),
        [
            ("alexnet", {"weights": "none"}, "alexnet.*at least 7x7"),
            ("torchvision", {"model": "vgg11"}, "vgg11.*at least 32x32"),
            ("torchvision", {"model": "maxvit_t"}, "multiples of 224"),
        ],
    )
    def test_what_cannot_be_built_is_found_before_a_trial(
        self, name: str, overrides: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(InfeasibleError, match=told):
            asked(name, ImageShape(4, 6, 3), **overrides)

    @pytest.mark.parametrize(
        ("name", "overrides", "told"),
        [
            ("alexnet", {"pool": "flat"}, "alexnet.*avg or max, not 'flat'"),
            (
                "mobilenet",
                {"pool": "flat", "version": "v3_large"},
                "mobilenet_v3_large.*not 'flat'",
            ),
            ("torchvision", {"model": "vgg11", "stem": "stride1"}, "vgg11 has no stem 'stride1'"),
            ("torchvision", {"model": "vgg11", "image_size": 31}, "vgg11.*31x31.*32x32"),
        ],
    )
    def test_with_weights_too(self, name: str, overrides: dict[str, Any], told: str) -> None:
        with pytest.raises(InfeasibleError, match=told):
            asked(name, PHOTO, **overrides)

    @pytest.mark.parametrize(
        ("name", "overrides", "first"),
        [
            (
                "torchvision",
                {"weights": "none", "model": ("maxvit_t", "resnet18")},
                {"model": "resnet18"},
            ),
            (
                "resnet",
                {"weights": ("imagenet", "none"), "stem": ("small", "stride1")},
                {"weights": "imagenet", "stem": "stride1"},
            ),
        ],
    )
    def test_what_fits_is_searched_where_other_choices_do_not(
        self, name: str, overrides: dict[str, Any], first: dict[str, Any]
    ) -> None:
        shape = ImageShape(96, 96, 3)
        rows = asked(name, shape, **overrides)
        for key in first:
            assert set(rows[key].choices) == set(overrides[key])
        for params in default_params(name, shape, overrides):
            assert suggest_config(
                name,
                optuna.trial.FixedTrial(params),
                shape,
                epochs=1,
                seed=0,
                precision="fp32",
                overrides=overrides,
            )
        assert first.items() <= default_params(name, shape, overrides)[0].items()

    def test_weights_that_nothing_fits_are_none_to_start_from(self) -> None:
        overrides: dict[str, Override] = {"weights": ("imagenet", "none"), "stem": "small"}
        assert weights_of("resnet", PHOTO, overrides) == ()
        assert weights_of("mobilenet", PHOTO, {**overrides, "version": "v2"}) == (
            ("imagenet", "mobilenet_v2"),
        )

    @pytest.mark.parametrize("options", [{"depth": 34, "head": (7,)}, {"stem": "small"}])
    def test_those_of_an_export_are_taken_as_they_are(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = resnet_module.ask_start

        def from_export(*args: Any, **kwargs: Any) -> Any:
            return dataclasses.replace(real(*args, **kwargs), options=options)

        monkeypatch.setattr(resnet_module, "ask_start", from_export)
        config = suggested("resnet", PHOTO)
        assert {key: config.options[key] for key in options} == options
        assert not {"depth", "head", "stem", "pool"} & set(asked("resnet", PHOTO))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [ImageShape(9, 8, 1), PHOTO], ids=str)
def test_every_point_of_a_searched_architecture_builds_or_is_infeasible(
    name: str, shape: ImageShape
) -> None:
    overrides: dict[str, Override] = {
        "pool": "search",
        "stem": "search",
        "image_size": (16, 64),
        "weights": ("none", "imagenet"),
        "head": ([8], [16, 8]),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    built = 0
    for _ in range(10):
        with contextlib.suppress(InfeasibleError):
            config = suggest_config(
                name, study.ask(), shape, epochs=1, seed=0, precision="fp32", overrides=overrides
            )
            with torch.device("meta"):
                build_model(config, input_shape(config.input, shape), 3)
            built += 1
    assert built >= 3
