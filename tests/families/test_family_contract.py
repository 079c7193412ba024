"""What every family must keep to; a new file in hpsearch/families/ is tested without a change."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from PIL import Image, ImageDraw

from hpsearch import families
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.resident import ResidentData
from hpsearch.data.splits import DevelopmentData, SplitSpec, development_data, make_split
from hpsearch.errors import ConfigError, HpsearchError, SpaceError
from hpsearch.families import (
    TrialLike,
    build_model,
    default_params,
    family_names,
    get_family,
    known_good,
    space_of,
    suggest_config,
)
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.trainer import train

CPU = torch.device("cpu")
SHAPES = [ImageShape(8, 8, 1), ImageShape(64, 64, 3), ImageShape(20, 33, 3)]
SAMPLES = 200


def suggested(name: str, trial: TrialLike, shape: ImageShape, epochs: int = 3) -> TrainConfig:
    return suggest_config(name, trial, shape, epochs=epochs, seed=1, precision="fp32")


def sampled(
    name: str, shape: ImageShape, n: int, epochs: int = 3
) -> Iterator[tuple[TrainConfig, dict[str, object]]]:
    """Random points of a family's space: configurations and Optuna's record of the parameters."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        trial = study.ask()
        config = suggested(name, trial, shape, epochs)
        yield config, trial.params


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


@pytest.fixture(scope="module")
def thirty_two(digits: ImageDataset) -> ResidentData:
    few = digits.subset(np.arange(32))
    return ResidentData.of(DevelopmentData(train=few.part(), val=few.part()), CPU)


@pytest.mark.parametrize("name", family_names())
class TestEveryFamily:
    def test_says_what_it_is_in_one_line(self, name: str) -> None:
        summary = get_family(name).summary
        assert summary
        assert "\n" not in summary

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_each_default_is_complete_and_inside_of_the_space(
        self, name: str, shape: ImageShape
    ) -> None:
        defaults = known_good(name, shape)
        assert defaults
        for default in defaults:
            with no_warnings():  # Optuna warns of a value outside of its range
                config = suggested(name, optuna.trial.FixedTrial(default), shape)
            assert config.family == name

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_a_default_names_nothing_that_the_space_does_not_know(
        self, name: str, shape: ImageShape
    ) -> None:
        known = {row.name for row in space_of(name, shape)}
        for default in get_family(name).defaults:
            assert set(default) <= known

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_the_defaults_for_a_search_are_exact_and_differ(
        self, name: str, shape: ImageShape
    ) -> None:
        params = default_params(name, shape)
        assert params
        assert all(row not in params[:number] for number, row in enumerate(params))
        for row in params:
            trial = optuna.trial.FixedTrial(row)
            with no_warnings():
                suggested(name, trial, shape)
            assert trial.params == row  # no parameter too many, none too few

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_every_point_of_the_space_can_be_built_and_stored(
        self, name: str, shape: ImageShape
    ) -> None:
        space = {row.name: row for row in space_of(name, shape)}
        seen: set[str] = set()
        for config, params in sampled(name, shape, SAMPLES):
            assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
            with torch.device("meta"):
                model = build_model(config, shape, 7)
                logits = model(torch.zeros(2, shape.channels, shape.height, shape.width))
            assert isinstance(model, StagedModel)
            assert logits.shape == (2, 7)
            for key, value in params.items():
                row = space[key]
                within = value in row.choices or row.low <= value <= row.high  # type: ignore[operator]
                assert within, f"{key}={value} is not {row}"
            seen |= set(params)
        # The listed space is the space that is asked for.
        assert seen == set(space)

    def test_what_is_suggested_can_be_trained(self, name: str, thirty_two: ResidentData) -> None:
        shape = thirty_two.preprocessing.shape
        for number, (config, _) in enumerate(sampled(name, shape, 12)):
            model = build_model(config, shape, 10)
            with contextlib.closing(train(model, thirty_two, config, device=CPU)) as epochs:
                first = next(epochs)
            assert np.isfinite(first.train_loss), number

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_few_epochs_are_enough(self, name: str, epochs: int, thirty_two: ResidentData) -> None:
        shape = thirty_two.preprocessing.shape
        for default in default_params(name, shape):
            config = suggested(name, optuna.trial.FixedTrial(default), shape, epochs)
            model = build_model(config, shape, 10)
            assert len(list(train(model, thirty_two, config, device=CPU))) == epochs

    def test_the_seed_alone_decides_the_initial_weights(self, name: str) -> None:
        shape = SHAPES[0]
        config = suggested(name, optuna.trial.FixedTrial(default_params(name, shape)[0]), shape)
        other = TrainConfig.from_dict({**config.to_dict(), "seed": 2})
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = build_model(config, shape, 10).state_dict()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        again = build_model(config, shape, 10).state_dict()
        differ = build_model(other, shape, 10).state_dict()
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], differ[key]) for key in first)

    def test_no_option_is_a_surprise(self, name: str) -> None:
        shape = SHAPES[0]
        config = suggested(name, optuna.trial.FixedTrial(default_params(name, shape)[0]), shape)
        with pytest.raises(ConfigError, match="'colour'"):
            get_family(name).build({**config.options, "colour": 1}, shape, 10)

    @pytest.mark.parametrize("bad", ["no", -1, 2.5, False], ids=repr)
    def test_an_option_of_the_wrong_kind_is_refused(self, name: str, bad: object) -> None:
        shape = SHAPES[0]
        config = suggested(name, optuna.trial.FixedTrial(default_params(name, shape)[0]), shape)
        for option, value in config.options.items():
            if isinstance(value, bool) and isinstance(bad, bool):
                continue
            with pytest.raises(ConfigError, match=option):
                get_family(name).build({**config.options, option: bad}, shape, 10)

    def test_dropout_is_asked_for_where_the_model_has_it(self, name: str) -> None:
        shape = SHAPES[0]
        config = suggested(name, optuna.trial.FixedTrial(default_params(name, shape)[0]), shape)
        modules = build_model(config, shape, 10).modules()
        asks = "dropout" in {row.name for row in space_of(name, shape)}
        assert asks == any(isinstance(module, ScheduledDropout) for module in modules)

    @pytest.mark.parametrize("shape", [ImageShape(1, 30, 1), ImageShape(2, 2, 3)], ids=str)
    def test_tiny_images_are_built_for_or_refused(self, name: str, shape: ImageShape) -> None:
        try:
            (params, *_) = default_params(name, shape)
            config = suggested(name, optuna.trial.FixedTrial(params), shape)
            model = build_model(config, shape, 3)
        except HpsearchError:
            return
        model.eval()
        assert model(torch.zeros(2, shape.channels, shape.height, shape.width)).shape == (2, 3)


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, 2**64, 10**30])
def test_a_seed_is_used_or_refused(seed: int) -> None:
    try:
        config = TrainConfig(family="logistic", seed=seed)
    except ConfigError as error:
        message = str(error)
    else:
        assert parameter_counts(build_model(config, SHAPES[0], 10))[0] == 650
        return
    assert f"{seed}" in message


def test_logistic_regression_has_a_weight_a_pixel_and_class() -> None:
    config = TrainConfig(family="logistic")
    assert parameter_counts(build_model(config, ImageShape(64, 64, 3), 10)) == (122_890, 122_890)
    assert parameter_counts(build_model(config, ImageShape(20, 33, 1), 7))[0] == 20 * 33 * 7 + 7


def test_the_mlp_is_as_deep_and_wide_as_asked() -> None:
    options = {"layers": 3, "width": 10, "batch_norm": False}
    config = TrainConfig(family="mlp", options=options)
    model = build_model(config, ImageShape(4, 5, 3), 7)
    sizes = 60 * 10 + 10, 2 * (10 * 10 + 10), 10 * 7 + 7
    assert parameter_counts(model)[0] == sum(sizes)
    assert [name for name, _ in model.stages.named_children()] == [
        "hidden1",
        "hidden2",
        "hidden3",
        "head",
    ]
    normalised = TrainConfig(family="mlp", options={**options, "batch_norm": True})
    # Scale and shift of each unit instead of its bias.
    assert parameter_counts(build_model(normalised, ImageShape(4, 5, 3), 7))[0] == sum(sizes) + 30


@pytest.mark.parametrize(
    ("height", "width", "maps", "features"),
    [
        (10, 16, [(4, 5, 8), (8, 2, 4), (16, 1, 2)], 16 * 1 * 2),  # the head sees the whole map
        (20, 33, [(4, 10, 16), (8, 5, 8), (16, 2, 4)], 16),  # and here its maximum by channel
    ],
)
def test_the_cnn_halves_the_image_and_doubles_the_channels(
    height: int, width: int, maps: list[tuple[int, ...]], features: int
) -> None:
    options = {"blocks": 3, "convs": 2, "channels": 4, "hidden": 6}
    shape = ImageShape(height, width, 3)
    model = build_model(TrainConfig(family="cnn", options=options), shape, 5)
    outputs = torch.zeros(1, 3, height, width)
    shapes = []
    for stage in list(model.eval().stages)[:-1]:
        outputs = stage(outputs)
        shapes.append(tuple(outputs.shape[1:]))
    assert shapes == maps
    convolutions = sum(
        9 * i * o + 2 * o for i, o in ((3, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
    )
    head = features * 6 + 6 + 6 * 5 + 5
    assert parameter_counts(model)[0] == convolutions + head


@pytest.mark.parametrize(
    ("shape", "most"),
    [(ImageShape(8, 8, 1), 3), (ImageShape(33, 7, 3), 2), (ImageShape(9, 9, 1), 3)],
)
def test_the_cnn_is_no_deeper_than_the_image_allows(shape: ImageShape, most: int) -> None:
    blocks = next(row for row in space_of("cnn", shape) if row.name == "blocks")
    assert (blocks.low, blocks.high) == (1, most)
    build_model(TrainConfig(family="cnn", options={"blocks": most}), shape, 3)
    too_deep = TrainConfig(family="cnn", options={"blocks": most + 1})
    with pytest.raises(ConfigError, match=f"{most + 1} blocks.*at most {most}") as caught:
        build_model(too_deep, shape, 3)
    assert f"{shape.height}x{shape.width}" in str(caught.value)


@pytest.mark.parametrize("name", ["vgg", "", "_space", "_family", "cnn.py", "../cnn", "__init__"])
def test_an_unknown_family_is_named_beside_the_known_ones(name: str) -> None:
    with pytest.raises(SpaceError) as caught:
        get_family(name)
    assert repr(name) in str(caught.value)
    for known in family_names():
        assert known in str(caught.value)
    with pytest.raises(SpaceError):
        build_model(TrainConfig(family=name or "-"), SHAPES[0], 10)


def test_the_families_are_those_of_the_folder() -> None:
    assert {"logistic", "mlp", "cnn"} <= set(family_names())
    assert list(family_names()) == sorted(family_names())


NEW_FAMILY = '''
"""The mean of the image, and a linear layer."""

from torch import nn

from hpsearch.families._family import Family, suggest_training
from hpsearch.training.model import StagedModel


def suggest(s, shape):
    return suggest_training(s, options={})


def build(options, shape, n_classes):
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape.channels, n_classes)
    )
    return StagedModel({"head": head})


FAMILY = Family(
    summary="the mean colour",
    suggest=suggest,
    build=build,
    defaults=(
        {
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batch_size": 16,
            "schedule": "cosine",
            "warmup": 0.0,
        },
    ),
)
'''


def test_a_file_in_the_folder_is_a_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thirty_two: ResidentData
) -> None:
    (tmp_path / "mean_colour.py").write_text(NEW_FAMILY)
    (tmp_path / "_helper.py").write_text("")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hpsearch.families.mean_colour", raising=False)
    try:
        assert "mean_colour" in family_names()
        assert "_helper" not in family_names()
        shape = thirty_two.preprocessing.shape
        (params,) = default_params("mean_colour", shape)
        config = suggested("mean_colour", optuna.trial.FixedTrial(params), shape)
        model = build_model(config, shape, 10)
        assert parameter_counts(model)[0] == 20
        assert len(list(train(model, thirty_two, config, device=CPU))) == 3
    finally:
        sys.modules.pop("hpsearch.families.mean_colour", None)
        vars(families).pop("mean_colour", None)


def test_the_cnn_finds_a_thing_wherever_it_is() -> None:
    """Discs, squares and triangles of any colour, size and place at 32x32, 90 of each to learn
    from: its known-good settings must be good beyond tiny images too."""
    rng = np.random.default_rng(0)
    images = []
    for label in (0, 1, 2) * 150:
        background, colour = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2))
        picture = Image.new("RGB", (32, 32), background)
        r = rng.uniform(5, 11)
        x, y = rng.uniform(r, 32 - r, 2)
        draw = ImageDraw.Draw(picture)
        if label == 0:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        elif label == 1:
            draw.rectangle([x - r, y - r, x + r, y + r], fill=colour)
        else:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        noisy = np.asarray(picture) + rng.normal(0, 20, (32, 32, 3))
        images.append(noisy.clip(0, 255).astype(np.uint8))
    dataset = ImageDataset(
        "shapes", np.stack(images), np.tile([0, 1, 2], 150), ("disc", "square", "triangle")
    )
    split = make_split(dataset, SplitSpec())
    device = torch.device("cpu")
    data = ResidentData.of(development_data(dataset, split), device)
    for params in default_params("cnn", dataset.shape):
        config = suggest_config(
            "cnn",
            optuna.trial.FixedTrial(params),
            dataset.shape,
            epochs=30,
            seed=0,
            precision="fp32",
        )
        model = build_model(config, dataset.shape, 3)
        results = list(train(model, data, config, device=device))
        assert max(result.val_accuracy for result in results) > 0.75, params
