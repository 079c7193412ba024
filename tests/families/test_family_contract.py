"""What every family must keep to; a new file in hpsearch/families/ is tested without a change."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from few import subset
from PIL import Image, ImageDraw

from hpsearch import families
from hpsearch.checks import Option
from hpsearch.config import DropoutConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.data.splits import DevelopmentData, SplitSpec, development_data, make_split
from hpsearch.data.views import DataViews
from hpsearch.errors import ConfigError, InfeasibleError, SpaceError
from hpsearch.families import (
    SEARCH,
    Override,
    TrialLike,
    build_model,
    check_overrides,
    default_params,
    family_names,
    get_family,
    known_config,
    known_good,
    space_of,
    suggest_config,
)
from hpsearch.results.inference import restore_model
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.evaluation import evaluate
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.trainer import EpochResult, check_config, train

CPU = torch.device("cpu")
SHAPES = [ImageShape(8, 8, 1), ImageShape(64, 64, 3), ImageShape(20, 33, 3)]
SAMPLES = 200
# Networks of torchvision are large: fewer of them are built on every shape, and trained.
LARGE = tuple(name for name in family_names() if get_family(name).published is not None)


def suggested(name: str, trial: TrialLike, shape: ImageShape, epochs: int = 3) -> TrainConfig:
    return suggest_config(name, trial, shape, epochs=epochs, seed=1, precision="fp32")


def first_config(name: str, shape: ImageShape, epochs: int = 3) -> TrainConfig:
    return suggested(name, optuna.trial.FixedTrial(default_params(name, shape)[0]), shape, epochs)


def sampled(
    name: str,
    shape: ImageShape,
    n: int,
    epochs: int = 3,
    overrides: dict[str, Override] | None = None,
) -> Iterator[tuple[TrainConfig, dict[str, object]]]:
    """Random points of a family's space: configurations and Optuna's record of the parameters;
    under overrides only those that are feasible.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        trial = study.ask()
        with contextlib.suppress(*([InfeasibleError] if overrides else [])):
            config = suggest_config(
                name, trial, shape, epochs=epochs, seed=1, precision="fp32", overrides=overrides
            )
            yield config, trial.params


def built(config: TrainConfig, shape: ImageShape, n_classes: int) -> StagedModel:
    return build_model(config, input_shape(config.input, shape), n_classes)


def logits_on_meta(config: TrainConfig, shape: ImageShape, n_classes: int) -> tuple[int, ...]:
    given = input_shape(config.input, shape)
    with torch.device("meta"):
        model = build_model(config, given, n_classes)
        assert isinstance(model, StagedModel)
        return tuple(model(torch.zeros(2, given.channels, given.height, given.width)).shape)


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
def thirty_two(digits: ImageDataset) -> DataViews:
    few = subset(digits, np.arange(32))
    return DataViews.of(DevelopmentData(train=few.part(), val=few.part()), CPU)


def trained(config: TrainConfig, views: DataViews) -> tuple[StagedModel, list[EpochResult]]:
    view = views.view(config)
    model = build_model(config, view.preprocessing.shape, 10)
    return model, list(train(model, view, config, device=CPU))


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
        known = {row.name for row in space_of(name, shape, everything=True)}
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
        different: set[tuple[object, ...]] = set()
        for config, params in sampled(name, shape, SAMPLES):
            assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
            architecture = (tuple(config.options.items()), config.input)
            if name not in LARGE or architecture not in different:
                assert logits_on_meta(config, shape, 7) == (2, 7)
            different.add(architecture)
            for key, value in params.items():
                row = space[key]
                within = value in row.choices or row.low <= value <= row.high  # type: ignore[operator]
                assert within, f"{key}={value} is not {row}"
            seen |= set(params)
        # The listed space is the space that is asked for.
        assert seen == set(space)

    def test_every_parameter_can_be_switched_on(self, name: str) -> None:
        """Each on its own, over its range: configurations are built, or said to be infeasible."""
        shape = SHAPES[1]
        lists = {"int": "4/8", "float": "0.5/0.1", "name": "head*"}
        rows = {row.name: row for row in space_of(name, shape, everything=True)}
        fits: dict[str, bool] = {}
        for row in rows.values():
            if row.searched or row.name == "weights":
                continue
            overrides: dict[str, Override] = {
                other: lists[rows[other].item] if rows[other].kind == "list" else values[0]
                for other, values in row.condition.items()
                if not set(values)
                & {rows[other].off, *(rows[other].choices * rows[other].searched)}
            }
            override = lists[row.item] if row.kind == "list" else SEARCH
            if overrides:
                with pytest.raises(SpaceError, match="does not exist under"):
                    check_overrides((name,), shape, {row.name: override})
            overrides[row.name] = override
            check_overrides((name,), shape, overrides)
            asked: set[str] = set()
            feasible = 0
            for config, params in sampled(name, shape, 12, overrides=overrides):
                check_config(config)
                asked |= set(params)
                model = repr((config.options, config.input.to_dict()))
                if model not in fits:
                    fits[model] = False
                    with contextlib.suppress(InfeasibleError):
                        fits[model] = logits_on_meta(config, shape, 5) == (2, 5)
                feasible += fits[model]
            assert row.name in asked
            assert feasible > 0, row.name

    def test_what_is_suggested_can_be_trained(self, name: str, thirty_two: DataViews) -> None:
        samples = 2 if name in LARGE else 12
        for number, (config, _) in enumerate(sampled(name, thirty_two.shape, samples, 1)):
            _, (first,) = trained(config, thirty_two)
            assert np.isfinite(first.train_loss), number

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_few_epochs_are_enough(self, name: str, epochs: int, thirty_two: DataViews) -> None:
        shape = thirty_two.shape
        for default in default_params(name, shape)[: 1 if name in LARGE else None]:
            config = suggested(name, optuna.trial.FixedTrial(default), shape, epochs)
            assert len(trained(config, thirty_two)[1]) == epochs

    def test_at_every_depth_of_freezing_only_the_rest_is_trained(
        self, name: str, thirty_two: DataViews
    ) -> None:
        # Without weight decay, what has no gradient does not move; one step with all images.
        plain = dataclasses.replace(
            first_config(name, thirty_two.shape, 1),
            optimizer=OptimizerConfig(name="sgd", lr=0.1),
            augment={},
            label_smoothing=0.0,
            dropout=DropoutConfig(),
            schedule=ScheduleConfig(name="constant"),
            batch_size=32,
        )
        names = built(plain, thirty_two.shape, 10).stage_names
        assert names[-1] == "head"
        for depth in range(len(names)):
            config = dataclasses.replace(plain, freeze_depth=depth)
            before = built(config, thirty_two.shape, 10).state_dict()
            model, _ = trained(config, thirty_two)
            frozen = tuple(f"stages.{stage}." for stage in names[:depth])
            trains: set[str] = set()
            for key, tensor in model.state_dict().items():
                if key.startswith(frozen):
                    assert torch.equal(tensor, before[key]), (depth, key)
                elif not torch.equal(tensor, before[key]):
                    trains.add(key.split(".")[1])
            with_weights = {key.split(".")[1] for key in before if not key.startswith(frozen)}
            assert trains == with_weights, depth

    def test_a_saved_model_gives_the_same_outputs(
        self, name: str, thirty_two: DataViews, tmp_path: Path
    ) -> None:
        config = first_config(name, thirty_two.shape, 1)
        model, _ = trained(config, thirty_two)
        view = thirty_two.view(config)
        checkpoint = Checkpoint(
            state=model.state_dict(),
            config=config,
            classes=view.classes,
            preprocessing=view.preprocessing,
            metrics={},
            origin={},
        )
        save_checkpoint(tmp_path / "model.pt", checkpoint)
        again = restore_model(load_checkpoint(tmp_path / "model.pt"))
        expected = evaluate(model, view.val, view.preprocessing, "fp32", "channels_last").logits
        again = again.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert torch.equal(
            evaluate(again, view.val, view.preprocessing, "fp32", "channels_last").logits, expected
        )

    def test_the_seed_alone_decides_the_initial_weights(self, name: str) -> None:
        shape = SHAPES[0]
        config = first_config(name, shape)
        other = TrainConfig.from_dict({**config.to_dict(), "seed": 2})
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = built(config, shape, 10).state_dict()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        again = built(config, shape, 10).state_dict()
        differ = built(other, shape, 10).state_dict()
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], differ[key]) for key in first)

    def test_no_option_is_a_surprise(self, name: str) -> None:
        shape = SHAPES[0]
        config = first_config(name, shape)
        with pytest.raises(ConfigError, match="'colour'"):
            get_family(name).build({**config.options, "colour": 1}, shape, 10)

    @pytest.mark.parametrize("bad", ["no such", -1, 2.5, False, (0,)], ids=repr)
    def test_an_option_of_the_wrong_kind_is_refused(self, name: str, bad: Option) -> None:
        shape = SHAPES[0]
        config = first_config(name, shape)
        for option, value in config.options.items():
            if isinstance(value, bool) and isinstance(bad, bool):
                continue
            with pytest.raises(ConfigError, match=option):
                get_family(name).build({**config.options, option: bad}, shape, 10)

    def test_dropout_is_asked_for_where_the_model_has_it(self, name: str) -> None:
        shape = SHAPES[0]
        modules = built(first_config(name, shape), shape, 10).modules()
        asks = "dropout" in {row.name for row in space_of(name, shape)}
        assert asks == any(isinstance(module, ScheduledDropout) for module in modules)

    @pytest.mark.parametrize("shape", [ImageShape(1, 30, 1), ImageShape(2, 2, 3)], ids=str)
    def test_tiny_images_are_built_for_or_refused(self, name: str, shape: ImageShape) -> None:
        try:
            config = first_config(name, shape)
            model = built(config, shape, 3)
        except InfeasibleError as error:
            message = str(error)
        else:
            message = ""
        if message:
            assert "image" in message or "pixels" in message
            return
        model.eval()
        given = input_shape(config.input, shape)
        assert model(torch.zeros(2, given.channels, given.height, given.width)).shape == (2, 3)

    def test_presets_are_built_at_a_size_that_fits(self, name: str) -> None:
        for preset in get_family(name).presets:
            for size in (64, 128, 256, 444):
                shape = ImageShape(size, size, 3)
                params = default_params(name, shape, {"preset": preset})[0]
                config = suggest_config(
                    name,
                    optuna.trial.FixedTrial(params),
                    shape,
                    epochs=1,
                    seed=0,
                    precision="fp32",
                    overrides={"preset": preset},
                )
                try:
                    assert logits_on_meta(config, shape, 6) == (2, 6)
                    break
                except InfeasibleError:
                    continue
            else:
                pytest.fail(f"{preset} fits no size")


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


@pytest.mark.parametrize("name", ["vgg", "", "_space", "_family", "none.py", "../cnn", "__init__"])
def test_an_unknown_family_is_named_beside_the_known_ones(name: str) -> None:
    with pytest.raises(SpaceError) as caught:
        get_family(name)
    assert name in str(caught.value)
    for known in family_names():
        assert known in str(caught.value)
    with pytest.raises(SpaceError):
        build_model(TrainConfig(family=name or "-"), SHAPES[0], 10)


def test_the_initial_weights_leave_the_generators_of_the_gpus_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seed_all(seed: int) -> None:
        raise AssertionError("the GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    config = TrainConfig(family="logistic", seed=3)
    first, again = (build_model(config, SHAPES[0], 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    before = torch.get_rng_state()
    other = build_model(dataclasses.replace(config, seed=4), SHAPES[0], 3).state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_the_families_are_those_of_the_folder() -> None:
    assert {"logistic", "mlp", "cnn"} <= set(family_names())
    assert list(family_names()) == sorted(family_names())


NEW_FAMILY = '''
"""The mean of the image, and a linear layer."""

from torch import nn

from hpsearch.families import Family, ask_start, suggest_training
from hpsearch.training.model import StagedModel


def suggest(s, shape):
    return suggest_training(s, ask_start(s, shape), options={})


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thirty_two: DataViews
) -> None:
    (tmp_path / "mean_colour.py").write_text(NEW_FAMILY)
    (tmp_path / "_helper.py").write_text("")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hpsearch.families.mean_colour", raising=False)
    try:
        assert "mean_colour" in family_names()
        assert "_helper" not in family_names()
        model, history = trained(first_config("mean_colour", thirty_two.shape), thirty_two)
        assert parameter_counts(model)[0] == 20
        assert len(history) == 3
    finally:
        sys.modules.pop("hpsearch.families.mean_colour", None)
        vars(families).pop("mean_colour", None)


class TestAFileOfTheUsersOwn:
    @pytest.fixture
    def own(self, tmp_path: Path) -> str:
        file = tmp_path / "mean_colour.py"
        file.write_text(NEW_FAMILY.replace('"lr"', '"weights": "imagenet", "lr"'), encoding="utf-8")
        return str(file)

    def test_a_default_that_is_meant_for_weights_is_tried_where_there_is_no_other(
        self, own: str
    ) -> None:
        (params,) = default_params(own, SHAPES[0])
        assert params["lr"] == 0.1
        assert known_config(own, SHAPES[0], epochs=1, seed=0, precision="fp32").weights is None

    def test_its_path_is_what_can_be_asked_for_its_space(self, own: str) -> None:
        with pytest.raises(SpaceError, match="did you mean 'batch_size'") as caught:
            check_overrides((own,), SHAPES[0], {"batchsize": 8})
        assert f"'hpsearch space {own}' lists all" in str(caught.value)


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
    held = DataViews.of(development_data(dataset, split), device)
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
        results = list(train(model, held.view(config), config, device=device))
        assert max(result.val_accuracy for result in results) > 0.75, params
