"""The made data have the real formats, can be read, and are nothing for a linear model."""

from __future__ import annotations

import collections
import csv
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from _reference_caltech import CALTECH_COUNTS
from _reference_hands import Hand, Pose, draw_hand
from make_reference_data import SETS, main, make
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision import datasets

from hpsearch import DataSpec, HpsearchError, ImageDataset, load_dataset
from hpsearch.data.splits import SplitSpec, make_split

SCALES: Mapping[str, float] = {
    "hands": 0.1,
    "caltech101": 0.1,
    "photos": 0.4,
    "sign_language": 0.5,
    "stl10": 0.1,
}
SPECS: Mapping[str, Callable[[Path], DataSpec]] = {
    "hands": lambda made: DataSpec(
        source=str(made / "HandInfo.csv"),
        options={"images": str(made / "Hands"), "label": "gender,aspectOfHand", "group": "id"},
        size=(32, 32),
    ),
    "caltech101": lambda made: DataSpec(
        source=str(made / "101_ObjectCategories"), exclude=("BACKGROUND_Google",), size=(32, 32)
    ),
    "photos": lambda made: DataSpec(source=str(made / "train"), size=(32, 32)),
    "sign_language": lambda made: DataSpec(source=str(made), size=(32, 32)),
    "stl10": lambda made: DataSpec(source=str(made / "stl10.h5"), size=(32, 32)),
}
CLASSES: Mapping[str, list[str]] = {
    "hands": [
        f"{gender} {side} {hand}"
        for gender in ("female", "male")
        for side in ("dorsal", "palmar")
        for hand in ("left", "right")
    ],
    "caltech101": sorted(CALTECH_COUNTS),
    "photos": ["cat", "dog"],
    "sign_language": list("ABCDEFGHI"),
    "stl10": [
        *("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a data set when it is first asked for."""
    folder = tmp_path_factory.mktemp("made")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            make(name, folder / name, scale=SCALES[name])
        return folder / name

    return get


@pytest.fixture(scope="module")
def read(made: Callable[[str], Path]) -> Callable[[str], ImageDataset]:
    """Reads a data set as a study does, but small."""
    known: dict[str, ImageDataset] = {}

    def get(name: str) -> ImageDataset:
        if name not in known:
            known[name] = load_dataset(SPECS[name](made(name)))
        return known[name]

    return get


@pytest.mark.parametrize("name", SETS)
def test_hpsearch_reads_the_classes_and_can_split_them(
    read: Callable[[str], ImageDataset], name: str
) -> None:
    data = read(name)
    assert sorted(data.classes) == CLASSES[name]
    split = make_split(data, SplitSpec())
    for rows in (split.train, split.val, split.test):
        assert set(data.labels[rows]) == set(range(len(data.classes)))


@pytest.mark.parametrize("name", SETS)
def test_a_linear_model_gets_less_than_60_percent(
    read: Callable[[str], ImageDataset], name: str
) -> None:
    data = read(name)
    pixels = data.images.reshape(len(data), -1).astype(np.float32)
    held_out = np.random.default_rng(0).permutation(len(data)) % 3 == 0
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, tol=0.01))
    model.fit(pixels[~held_out], data.labels[~held_out])
    assert model.score(pixels[held_out], data.labels[held_out]) < 0.6


def test_hands_are_as_the_real_ones(made: Callable[[str], Path]) -> None:
    folder = made("hands")
    with (folder / "HandInfo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities"
    )
    files = sorted((folder / "Hands").iterdir())
    assert [path.name for path in files] == [row["imageName"] for row in rows]
    assert len(files) == 60
    assert files[0].name == "Hand_0000002.jpg"
    for path in files:
        with Image.open(path) as photo:
            assert (photo.format, photo.size, photo.mode) == ("JPEG", (1600, 1200), "RGB")


def test_a_person_has_one_gender_and_all_aspects(made: Callable[[str], Path]) -> None:
    people = collections.defaultdict(list)
    with (made("hands") / "HandInfo.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            people[row["id"]].append((row["gender"], row["aspectOfHand"]))
    assert len({len(photos) for photos in people.values()}) > 1
    for photos in people.values():
        assert len({gender for gender, _ in photos}) == 1
        assert len({aspect for _, aspect in photos}) == 4


@pytest.mark.parametrize("is_palmar", [False, True])
@pytest.mark.parametrize("is_left", [False, True])
def test_the_thumb_is_where_it_belongs(is_palmar: bool, is_left: bool) -> None:
    image = Image.new("RGB", (200, 200), "white")
    hand = Hand(skin=(0, 0, 0), is_palmar=is_palmar, is_left=is_left)
    draw_hand(image, hand, Pose(x=100, y=110, size=40, turn=0), np.random.default_rng(0))
    beside_the_palm = np.asarray(image.convert("L"))[85:125] < 255
    left, right = beside_the_palm[:, :60].sum(), beside_the_palm[:, 140:].sum()
    # The right hand's thumb is left as seen from the back.
    assert (left > right) == (is_left == is_palmar)
    assert min(left, right) == 0


def test_caltech101_is_as_the_real_one(made: Callable[[str], Path]) -> None:
    folder = made("caltech101")
    classes = sorted(path.name for path in (folder / "101_ObjectCategories").iterdir())
    assert len(classes) == 102
    assert "BACKGROUND_Google" in classes
    counts = {
        name: len(list((folder / "101_ObjectCategories" / name).iterdir())) for name in classes
    }
    assert counts["airplanes"] == max(counts.values()) == 16
    assert min(counts.values()) == 5
    sizes, modes = set(), set()
    for path in folder.glob("101_ObjectCategories/*/image_000[12].jpg"):
        with Image.open(path) as image:
            sizes.add(image.size)
            modes.add(image.mode)
    assert len(sizes) > 100
    assert np.asarray(sorted(sizes)).min() >= 180
    assert np.asarray(sorted(sizes)).max() <= 320
    assert modes == {"RGB", "L"}


def test_torchvision_reads_caltech101(made: Callable[[str], Path]) -> None:
    folder = made("caltech101")
    data = load_dataset(
        DataSpec(source="caltech101", options={"root": str(folder.parent)}, size=(8, 8))
    )
    assert sorted(data.classes) == CLASSES["caltech101"]
    assert len(data) == len(list(folder.glob("101_ObjectCategories/[!B]*/*.jpg")))


def test_photos_are_of_many_sizes(made: Callable[[str], Path]) -> None:
    folder = made("photos") / "train"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{number}.jpg" for name in ("cat", "dog") for number in range(160)
    }
    sizes = set()
    for path in folder.iterdir():
        with Image.open(path) as photo:
            sizes.add(photo.size)
    assert len(sizes) > 300
    assert max(max(size) for size in sizes) <= 500


def test_letters_are_in_folders(made: Callable[[str], Path]) -> None:
    files = list(made("sign_language").glob("*/*.jpg"))
    assert collections.Counter(path.parent.name for path in files) == dict.fromkeys("ABCDEFGHI", 20)
    for path in files:
        with Image.open(path) as photo:
            assert (photo.size, photo.mode) == ((224, 224), "RGB")


def test_torchvision_reads_stl10(
    made: Callable[[str], Path],
    read: Callable[[str], ImageDataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = made("stl10")
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda *_: True)
    train = datasets.STL10(str(folder))
    test = datasets.STL10(str(folder), split="test")
    assert (len(train), len(test)) == (100, 160)
    assert collections.Counter(train.labels.tolist()) == dict.fromkeys(range(10), 10)
    assert train.classes == CLASSES["stl10"]
    assert len(datasets.STL10(str(folder), folds=9)) == 20
    # The same pictures, upright, in the same order and parts as in the HDF5 file.
    whole = load_dataset(str(folder / "stl10.h5"))
    assert np.array_equal(whole.images[100], np.asarray(test[0][0]))
    assert whole.labels.tolist() == [*train.labels.tolist(), *test.labels.tolist()]
    assert make_split(read("stl10"), SplitSpec()).counts["test"] == 160


def test_the_seed_makes_the_same_files(tmp_path: Path) -> None:
    def digests(folder: str, seed: int) -> dict[str, str]:
        make("sign_language", tmp_path / folder, scale=0.01, seed=seed)
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in tmp_path.glob(f"{folder}/*/*.jpg")
        }

    first = digests("first", 3)
    assert digests("second", 3) == first
    assert not set(digests("third", 4).values()) & set(first.values())


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = ["make_reference_data.py", "photos", "--out", str(tmp_path), "--images", "20"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    message = f"{tmp_path} is there already, and not empty: name a new folder with --out\n"
    assert capsys.readouterr().err == message
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "mine.txt").unlink()
    main()
    assert len(list(tmp_path.glob("train/*.jpg"))) == 20
    assert "photos" in (tmp_path / "MADE_DATA.txt").read_text()


def test_no_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["make_reference_data.py", "photos", "--out", str(tmp_path), "--images", "0"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "scale", "seed", "told"),
    [("faces", 1, 0, "'faces'"), ("photos", 0, 0, "scale"), ("photos", 1, -1, "seed")],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, name: str, scale: float, seed: int, told: str
) -> None:
    with pytest.raises(HpsearchError, match=told):
        make(name, tmp_path / "new", scale=scale, seed=seed)
    assert not (tmp_path / "new").exists()
