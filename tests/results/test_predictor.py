"""Predictions with an export: right, in order, of images of any kind."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import COLOURS, colour_checkpoint, plain, write_export
from PIL import Image

from hpsearch import StudySpec, export, search
from hpsearch.data.catalog import BadImage
from hpsearch.data.spec import DataSpec
from hpsearch.errors import CheckpointError, ConfigError, DataError
from hpsearch.results.predictor import Predictor, load
from hpsearch.results.tables import bare
from hpsearch.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a model that tells colours apart."""
    return write_export(tmp_path_factory.mktemp("exports") / "colours", colour_checkpoint())


@pytest.fixture(scope="module")
def colours(folder: Path) -> Predictor:
    return load(folder, device="cpu")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """To be broken."""
    return Path(shutil.copytree(folder, tmp_path / "export"))


def labels(predictor: Predictor, images: Any) -> list[str]:
    return [prediction.label for prediction in predictor.predict(images)]


def test_the_files_of_the_test_images_get_the_predictions_of_the_export(tmp_path: Path) -> None:
    """Photographs in several formats and sizes, decoded one by one instead of by the store."""
    random = np.random.default_rng(0)
    pets = tmp_path / "pets"
    for number in range(90):
        kind, suffix = ("cat", "dog", "=fish")[number % 3], ("png", "jpg", "webp")[number % 2]
        pixels = random.integers(0, 240, (60 + number % 5, 80, 3))
        pixels[..., number % 3] += 12  # not all will be right, nor certain
        path = pets / kind / f"{number:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    spec = StudySpec(
        artifacts="none",
        data=DataSpec(source=str(pets), size=(12, 18), fit="pad"),
        families=("logistic",),
        trials=1,
        epochs=2,
        overrides={"image_size": 10},
    )
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    out = export(best, tmp_path / "out", device="cpu").folder
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [{key: bare(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 18
    assert len({row["confidence"] for row in rows}) > 3
    predictor = load(out, device="cpu")
    files = [pets / row["image"] for row in rows]
    predictions = predictor.predict(files)
    assert [p.label for p in predictions] == [row["predicted"] for row in rows]
    expected = [[float(row[f"p {name}"]) for name in predictor.classes] for row in rows]
    np.testing.assert_allclose(predictor.probabilities(files), expected, atol=1e-6)


def test_each_kind_of_image_is_taken(colours: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    Image.fromarray(plain("green", 9, 7)).save(path)
    with Image.open(path) as opened:
        mixed = [plain("red"), str(path), opened, path, plain("blue", 30, 20)]
        assert labels(colours, mixed) == ["red", "green", "green", "green", "blue"]
        assert opened.size == (7, 9)  # it is as it was, and still open
        opened.load()
    for one in (path, str(path), Image.open(path), plain("green"), plain("green", 11, 40)):
        assert labels(colours, one) == ["green"]
    assert labels(colours, np.stack([plain(name, 6, 5) for name in COLOURS])) == list(COLOURS)
    assert labels(colours, (plain(name) for name in reversed(COLOURS))) == list(COLOURS)[::-1]
    assert labels(colours, []) == []
    assert colours.probabilities([]).shape == (0, 3)


def test_gray_and_transparent_images_are_seen_as_in_training(colours: Predictor) -> None:
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4)
    coloured = np.repeat(gray[..., np.newaxis], 3, axis=2)
    expected = colours.probabilities(coloured)
    for same in (gray, gray[..., np.newaxis], Image.fromarray(gray)):
        np.testing.assert_array_equal(colours.probabilities(same), expected)
    clear = np.dstack([plain("red"), np.zeros((4, 4), dtype=np.uint8)])  # white shows through
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(colours.probabilities(clear), colours.probabilities(white))


def test_a_model_of_gray_images_takes_colours(tmp_path: Path) -> None:
    digits = StudySpec(families=("logistic",), trials=1, epochs=1)
    best = search(digits, runs=tmp_path / "runs", device="cpu").best
    predictor = load(export(best, tmp_path / "out", device="cpu").folder, device="cpu")
    gray = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    expected = predictor.probabilities(gray)
    np.testing.assert_array_equal(predictor.probabilities(np.dstack([gray] * 3)), expected)
    assert predictor.probabilities(plain("red")).shape == (1, 10)


def test_the_most_probable_classes_come_in_order(colours: Predictor) -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[...] = (100, 20, 60)
    (best,), (all_,) = colours.predict(image), colours.predict(image, top_k=10)
    assert best.top == ((best.label, best.probability),) == all_.top[:1]
    assert [name for name, _ in all_.top] == ["red", "blue", "green"]
    logits = 8 * np.array([100, 60, 20]) / 255
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([p for _, p in all_.top], expected, rtol=1e-5)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="top_k must be a whole number from 1 on"):
            colours.predict(image, top_k=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size must be"):
        colours.stream(image, batch_size=0)  # at once, not when the first image is asked for


@pytest.mark.parametrize("size", [1, 3, 16, 100, None])
def test_batches_change_nothing(colours: Predictor, size: int | None, tmp_path: Path) -> None:
    """Bad ones among the others, so that rows could be shifted."""
    (tmp_path / "bad.png").write_bytes(b"nothing")
    names = [COLOURS[number * number % 3] for number in range(37)]
    pictures: list[Any] = [plain(name, 5, 6) for name in names]
    for place in (36, 20, 3, 2, 0):
        pictures.insert(place, tmp_path / "bad.png")
        names.insert(place, "bad")
    found = list(colours.stream(pictures, batch_size=size))
    assert ["bad" if isinstance(f, BadImage) else f.label for f in found] == names


def test_what_is_no_image_is_named(colours: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    for path, reason in (
        (tmp_path / "empty.png", "the file is empty"),
        (tmp_path / "none.png", "No such file"),
        (tmp_path, r"is a folder: give its pictures, such as sorted"),
    ):
        with pytest.raises(DataError, match=f"{path.name}.*{reason}"):
            colours.predict([plain("red"), path])
        with pytest.raises(DataError, match=reason):
            colours.probabilities(path)
    image = plain("red")
    for wrong in (
        image.astype(np.int64),
        image / 255.0,
        image[0, 0],
        np.zeros((2, 5, 5), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        torch.from_numpy(image),
        None,
        3,
    ):
        with pytest.raises(DataError, match=r"image [01] is .*uint8 \(height, width, channels\)"):
            colours.predict([image, wrong])  # type: ignore[list-item]


def test_folders_that_are_no_export_are_refused(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no export at"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="there is no export at"):
        load(copied / "model.pt")
    with pytest.raises(CheckpointError, match=r"no whole export: there is no model\.pt"):
        load(tmp_path)
    (copied / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json.*export it again"):
        load(copied)
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        load(copied, device="tpu")


def _edited(**changes: Any) -> Any:
    return lambda text: json.dumps({**json.loads(text), **changes})


IMAGES = {"height": 4, "width": 4, "channels": 3, "fit": "crop"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:20], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: "\udcff", "is damaged"),
        (_edited(format="hpsearch-export-9"), "has the format 'hpsearch-export-9'"),
        (_edited(images={}), "is damaged"),
        (_edited(images={**IMAGES, "height": 0}), "is damaged"),
        (_edited(images={**IMAGES, "height": "4"}), "is damaged"),
        (_edited(images={**IMAGES, "fit": "squeeze"}), "is damaged"),
        (_edited(images={**IMAGES, "channels": 4}), "is damaged"),
        (_edited(classes=["red", "blue", "green"]), "is another model's"),
    ],
)
def test_a_damaged_configuration_is_refused(copied: Path, edit: Any, message: str) -> None:
    path = copied / "config.json"
    path.write_bytes(edit(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}") as caught:
        load(copied)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused(copied: Path) -> None:
    path = copied / "model.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load(copied)
    path.write_bytes(whole)
    content = torch.load(path, weights_only=True)
    next(iter(content["state"].values())).view(-1)[0] += 1.0
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(copied)


def test_nothing_in_a_checkpoint_is_unpickled(copied: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    for write in (
        torch.save,
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ):
        write({"document": "{}", "state": Trap(), "sha256": ""}, copied / "model.pt")
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            load(copied)
    assert not (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_the_network_are_refused(copied: Path) -> None:
    """Whole and with the right hash, but made by another network than the family builds."""
    checkpoint = load_checkpoint(copied / "model.pt")
    state = {f"{name}x": tensor for name, tensor in checkpoint.state.items()}
    save_checkpoint(copied / "model.pt", type(checkpoint)(**{**vars(checkpoint), "state": state}))
    with pytest.raises(CheckpointError, match="does not fit the network") as caught:
        load(copied)
    assert "\n" not in str(caught.value)


def test_the_checkpoint_of_another_export_is_refused(tmp_path: Path) -> None:
    one = write_export(tmp_path / "one", colour_checkpoint())
    other = dataclasses.replace(colour_checkpoint(), origin={"search": "x", "trial": "logistic-1"})
    two = write_export(tmp_path / "two", other)
    shutil.copyfile(two / "model.pt", one / "model.pt")
    with pytest.raises(CheckpointError, match="another model's: export it again"):
        load(one)
