"""A checkpoint's model does elsewhere what it did in its training, however images were prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from few import subset
from PIL import Image

from hpsearch import StudySpec, export, search
from hpsearch.config import InputConfig, TrainConfig
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import SplitSpec, development_data, make_split
from hpsearch.data.store import load_dataset
from hpsearch.data.views import DataViews
from hpsearch.families import build_model
from hpsearch.results.inference import restore_model, run_model
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hpsearch.training.evaluation import evaluate

CPU = torch.device("cpu")


def pictures(folder: Path) -> ImageDataset:
    random = np.random.default_rng(0)
    for number in range(30):
        path = folder / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (18, 14, 3), dtype=np.uint8)).save(path)
    return load_dataset(DataSpec(source=str(folder), size=(18, 14)))


@pytest.mark.parametrize("source", ["digits", "pictures"])
@pytest.mark.parametrize(
    "prepared",
    [
        InputConfig(),
        InputConfig(size=(9, 7)),
        InputConfig(size=(6, 5), resize=(12, 10), normalise="half"),
        InputConfig(size=(6, 5), resize=(12, 10), channels=3, normalise="imagenet"),
        InputConfig(channels=3, normalise="given", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
    ],
    ids=lambda prepared: f"{prepared.size}-{prepared.resize}-{prepared.channels}",
)
def test_a_restored_model_gives_the_outputs_of_its_training(
    digits: ImageDataset, tmp_path: Path, source: str, prepared: InputConfig
) -> None:
    data = subset(digits, np.arange(200)) if source == "digits" else pictures(tmp_path / "pets")
    parts = development_data(data, make_split(data, SplitSpec()))
    config = TrainConfig(family="logistic", input=prepared)
    view = DataViews.of(parts, CPU).view(config)
    model = build_model(config, view.preprocessing.shape, len(view.classes))
    in_training = evaluate(model, view.val, view.preprocessing, "fp32", "channels_last")
    save_checkpoint(
        tmp_path / "model.pt",
        Checkpoint(
            state=model.state_dict(),
            config=config,
            classes=view.classes,
            preprocessing=view.preprocessing,
            metrics={},
            origin={},
        ),
    )
    checkpoint = load_checkpoint(tmp_path / "model.pt")
    assert checkpoint.preprocessing == view.preprocessing
    outputs = run_model(restore_model(checkpoint), checkpoint, parts.val, CPU)
    assert torch.equal(outputs.logits, in_training.logits)
    assert outputs.accuracy == in_training.accuracy


def test_a_search_in_another_size_is_exported_as_it_was_scored(tmp_path: Path) -> None:
    """The export checks the validation accuracy, so it must see the images as the search did."""
    overrides = {"image_size": 12, "normalise": "half", "train_images": 300}
    spec = StudySpec(families=("mlp",), trials=1, epochs=2, overrides=overrides, artifacts="none")
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    result = export(best, tmp_path / "out", device="cpu")
    written = result.metrics["preprocessing"]
    assert (written["height"], written["width"], written["mean"]) == (12, 12, [0.5])
    assert result.metrics["test"]["images"] == 360
    assert result.test_accuracy > 0.3
