"""An export on other labelled data."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from handmade import COLOURS, colour_checkpoint, plain, write_export
from PIL import Image

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset
from hpsearch.errors import CheckpointError, DataError, SearchError
from hpsearch.results.evaluate import evaluate, with_classes
from hpsearch.results.predictions import read_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("exports") / "colours", colour_checkpoint())


def pictures(folder: Path, **shown: list[str]) -> Path:
    """A folder for each class with pictures of these colours, wide ones."""
    for name, colours in shown.items():
        (folder / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            image = Image.fromarray(plain(colour, 10, 20))
            image.save(folder / name / f"{number}.png")
    return folder


def test_classes_are_matched_by_name(folder: Path, tmp_path: Path) -> None:
    """The data's order is blue, green, red; the model's is red, green, blue. By hand: all greens
    and blues are right, and of four reds one looks blue.
    """
    data = pictures(
        tmp_path / "data", red=["red"] * 3 + ["blue"], green=["green"] * 2, blue=["blue"]
    )
    result = evaluate(folder, str(data), tmp_path / "out", device="cpu")
    assert result.warnings == ()
    assert result.scores.matrix.tolist() == [[3, 0, 1], [0, 2, 0], [0, 0, 1]]
    assert result.scores.metrics["accuracy"] == 6 / 7
    assert repr(result).startswith("Evaluated(accuracy=0.8571, images=7, folder='/")
    assert result.scores.metrics["classes"]["red"]["recall"] == 3 / 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "metrics.json",
        "mistakes.png",
        "predictions.csv",
    ]
    document = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert document == result.document
    assert document["evaluation"]["errors"] == 1
    with (tmp_path / "out" / "confusion_matrix.csv").open(encoding="utf-8", newline="") as file:
        heads, *rows = csv.reader(file)
    assert heads[1:] == [f"predicted {name}" for name in COLOURS]
    assert rows[0] == ["true red", "3", "0", "1"]
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    wrong = [
        row
        for row in zip(predictions.names, predictions.true, predictions.predicted, strict=True)
        if row[1] != row[2]
    ]
    assert wrong == [("red/3.png", "red", "blue")]


def test_data_need_not_have_all_classes(folder: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", red=["red", "green"], blue=["blue", "blue"])
    metrics = evaluate(folder, str(data), device="cpu").scores.metrics
    assert metrics["accuracy"] == 3 / 4
    assert metrics["balanced_accuracy"] == 3 / 4  # of the two classes that occur
    assert metrics["classes"]["green"]["support"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_images_are_brought_to_the_shape_of_the_model_s_data(folder: Path, tmp_path: Path) -> None:
    """The middle of these is green, what is cut away is red; with borders they would be mixed."""
    for name in ("green", "blue"):
        (tmp_path / "data" / name).mkdir(parents=True)
        wide = np.concatenate([plain("red", 8, 8), plain(name, 8, 8), plain("red", 8, 8)], axis=1)
        Image.fromarray(wide).save(tmp_path / "data" / name / "0.png")
    spec = DataSpec(source=str(tmp_path / "data"), size=(30, 30), fit="stretch", gray=True)
    assert evaluate(folder, spec, device="cpu").scores.metrics["accuracy"] == 1.0
    padded = write_export(tmp_path / "padded", colour_checkpoint(), fit="stretch")
    assert evaluate(padded, spec, device="cpu").scores.metrics["accuracy"] == 0.0


def test_a_class_that_the_model_does_not_know_is_named(folder: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", red=["red"], purple=["red"], blue=["blue"])
    with pytest.raises(DataError, match="not know the class purple; it knows red, green, blue"):
        evaluate(folder, str(data), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    spec = DataSpec(source=str(data), exclude=("purple",))
    assert evaluate(folder, spec, device="cpu").scores.metrics["accuracy"] == 1.0


def test_the_search_s_own_data_is_warned_of(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", red=["red"] * 2, blue=["blue"])
    fingerprint = load_dataset(DataSpec(source=str(data), size=(4, 4))).fingerprint
    checkpoint = colour_checkpoint()
    origin = {**checkpoint.origin, "data_fingerprint": fingerprint}
    checkpoint = dataclasses.replace(checkpoint, origin=origin)
    own = write_export(tmp_path / "own", checkpoint)
    (warning,) = evaluate(own, str(data), device="cpu").warnings
    assert "most of these images were trained on" in warning


def test_an_evaluation_replaces_nothing_but_another_one(folder: Path, tmp_path: Path) -> None:
    data = str(pictures(tmp_path / "data", red=["red"], blue=["blue"]))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    for taken in (tmp_path / "precious", folder):
        before = sorted(path.name for path in taken.iterdir())
        with pytest.raises(SearchError, match=r"exists already.*no evaluation of ours"):
            evaluate(folder, data, taken, replace=True, device="cpu")
        assert sorted(path.name for path in taken.iterdir()) == before
    evaluate(folder, data, tmp_path / "out", device="cpu")
    with pytest.raises(SearchError, match="--force"):
        evaluate(folder, data, tmp_path / "out", device="cpu")
    evaluate(folder, data, tmp_path / "out", replace=True, device="cpu")
    with pytest.raises(CheckpointError, match="there is no export"):
        evaluate(tmp_path / "none", data, device="cpu")


def test_columns_are_kept_where_every_class_has_its_parts(noise: object) -> None:
    dataset = ImageDataset(
        "hands",
        np.zeros((4, 2, 2, 1), dtype=np.uint8),
        np.array([0, 1, 1, 2]),
        ("m back", "f palm", "f back"),
        columns=("sex", "side"),
        class_parts=(("m", "back"), ("f", "palm"), ("f", "back")),
    )
    turned = with_classes(dataset, ("f back", "f palm", "m back"))
    assert turned.class_parts == (("f", "back"), ("f", "palm"), ("m", "back"))
    assert turned.labels.tolist() == [2, 1, 1, 0]
    more = with_classes(dataset, ("m back", "f palm", "f back", "m palm"))
    assert (more.columns, more.class_parts) == ((), ())
    assert more.labels.tolist() == [0, 1, 1, 2]
