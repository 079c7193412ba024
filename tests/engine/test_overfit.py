"""Learning a handful of images by heart, or saying why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpsearch import StudySpec, search
from hpsearch.config import (
    DropoutConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.engine.overfit import check_study, few_images, plain
from hpsearch.engine.place import Place
from hpsearch.engine.setup import prepare_data
from hpsearch.errors import SearchError

CPU = torch.device("cpu")


def checked(spec: StudySpec, tmp_path: Path):  # type: ignore[no-untyped-def]
    return list(check_study(spec, runs=tmp_path / "runs", device="cpu"))


@pytest.mark.parametrize("family", ["logistic", "mlp", "cnn"])
def test_what_is_tried_first_can_learn(family: str, tmp_path: Path) -> None:
    (result,) = checked(StudySpec(families=(family,)), tmp_path)
    assert result.passed
    assert result.accuracy == 1.0
    assert result.images == 20
    assert result.name == family
    assert result.findings == ()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"lr": 1e-9}, "hardly fell.*1e-09 of adamw may be too low"),
        ({"lr": 900.0, "optimizer": "sgd", "batch_norm": "no"}, "not finite|jumps"),
    ],
)
def test_a_bad_setting_is_found_and_explained(
    overrides: dict[str, object], said: str, tmp_path: Path
) -> None:
    import re

    spec = StudySpec(families=("mlp",), overrides=overrides)  # type: ignore[arg-type]
    (result,) = checked(spec, tmp_path)
    assert not result.passed
    assert result.accuracy < 1.0
    assert re.search(said, " ".join(result.findings)), result.findings


def test_the_same_image_under_two_labels_is_seen(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(image).save(tmp_path / "data" / name / f"{number}.png")
    spec = StudySpec(data=str(tmp_path / "data"), families=("logistic",))
    (result,) = checked(spec, tmp_path)
    assert not result.passed
    assert any("4 pairs" in finding and "same" in finding for finding in result.findings)


def test_nothing_stands_in_the_way_of_learning_by_heart() -> None:
    config = TrainConfig(
        family="mlp",
        optimizer=OptimizerConfig(lr=0.02, weight_decay=0.5, options={"beta1": 0.8}),
        schedule=ScheduleConfig(name="step", warmup=0.2),
        dropout=DropoutConfig(rate=0.5),
        augment={"rotate": 20.0},
        loss=LossConfig(name="focal"),
        repeat=4,
        train_images=50,
        balance="sampling",
        label_smoothing=0.1,
        ema=0.99,
        batch_size=7,
        epochs=3,
        freeze_depth=1,
        seed=9,
    )
    expected = TrainConfig(
        family="mlp",
        optimizer=OptimizerConfig(lr=0.02, options={"beta1": 0.8}),
        schedule=ScheduleConfig(name="constant"),
        loss=LossConfig(name="focal"),
        batch_size=7,
        epochs=100,
        freeze_depth=1,
        seed=9,
    )
    assert plain(config, epochs=100) == expected


def test_the_few_are_two_training_images_of_each_class(tmp_path: Path) -> None:
    views = prepare_data(StudySpec(), None, Place(tmp_path)).views(CPU)
    view = views.view(TrainConfig(family="mlp"))
    few = few_images(view)
    assert few.train.labels.bincount().tolist() == [2] * 10
    assert torch.equal(few.val.rows, few.train.rows)
    assert set(few.train.rows.tolist()) <= set(view.train.rows.tolist())


def test_a_trial_of_a_search_is_checked(tmp_path: Path) -> None:
    spec = StudySpec(families=("mlp",), trials=2, epochs=1, artifacts="none")
    search(spec, runs=tmp_path / "runs", device="cpu")
    (result,) = check_study(spec, runs=tmp_path / "runs", trial="mlp-1", device="cpu")
    assert result.name == "mlp-1"
    assert result.passed
    with pytest.raises(SearchError, match="'mlp-7'"):
        list(check_study(spec, runs=tmp_path / "runs", trial="mlp-7", device="cpu"))
    elsewhere = dataclasses.replace(spec, data="glyphs", name="digits")
    with pytest.raises(SearchError, match="other data than these"):
        list(check_study(elsewhere, runs=tmp_path / "runs", trial="mlp-1", device="cpu"))
    other = dataclasses.replace(spec, name="other")
    with pytest.raises(SearchError, match="'other'"):
        list(check_study(other, runs=tmp_path / "runs", trial="mlp-0", device="cpu"))
