from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.sources import SOURCES, DataSource, locate
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset
from hpsearch.errors import DataError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (12, 6, 5), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def refusal(spec: str | Path) -> str:
    """The message with which `spec` is refused."""
    with pytest.raises(DataError) as caught:
        load_dataset(str(spec))
    message = str(caught.value)
    assert "\n" not in message
    assert str(spec) in message
    return message


def picture(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> None:
    """A small colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def specimens(tmp_path: Path) -> dict[str, str]:
    """For each kind of source, by its usage, something that it can load."""
    for number in range(12):
        picture(tmp_path / "folders" / "ab"[number % 2] / f"{number}.png", number)
        picture(tmp_path / "names" / f"{'ab'[number % 2]}.{number}.png", number)
        picture(tmp_path / "table" / "images" / f"{number}.png", number)
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(12))
    (tmp_path / "table" / "labels.csv").write_text("file,label\n" + rows)
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["images"], file["labels"] = RGB, LABELS
    return {
        "digits": "digits",
        "glyphs": "glyphs",
        "FOLDER": str(tmp_path / "folders"),
        "FILE.csv": str(tmp_path / "table"),
        "FOLDER of cat.0.jpg": str(tmp_path / "names"),
        "FILE.npz": str(npz(tmp_path / "some.npz", images=GRAY, labels=LABELS)),
        "FILE.h5": str(tmp_path / "some.h5"),
    }


# The data sets of torchvision have tests of their own.
OWN = [row for row in SOURCES if "root" not in {option.name for option in row.options}]


@pytest.mark.parametrize("source", SOURCES, ids=lambda row: row.usage)
class TestEveryRow:
    def test_says_how_it_is_used_in_one_line(self, source: DataSource) -> None:
        assert source.usage
        assert source.help
        assert "\n" not in source.usage + source.help

    def test_its_options_have_names_and_help(self, source: DataSource) -> None:
        names = [option.name for option in source.options]
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)
        assert all(option.help and "\n" not in option.help for option in source.options)

    def test_an_option_that_it_does_not_have_is_refused(self, source: DataSource) -> None:
        spec = DataSpec(source="somewhere", options={"nonsense": "1"})
        with pytest.raises(DataError, match="no option 'nonsense'") as caught:
            source.read_options(spec)
        assert all(option.name in str(caught.value) for option in source.options)

    def test_is_offered_to_who_asks_for_something_unknown(self, source: DataSource) -> None:
        message = refusal("something else")
        assert source.usage in message or "hpsearch data list" in message


@pytest.mark.parametrize("source", OWN, ids=lambda row: row.usage)
def test_a_specimen_is_loaded_and_no_other_row_claims_it(
    source: DataSource, specimens: dict[str, str]
) -> None:
    spec = DataSpec(source=specimens[source.usage])
    assert [row.usage for row in SOURCES if row.accepts(spec)] == [source.usage]
    assert load_dataset(spec).fingerprint == load_dataset(spec).fingerprint
    assert load_dataset(spec).name


def test_a_located_file_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    npz(tmp_path / "data" / "a.npz", images=GRAY, labels=LABELS)
    monkeypatch.chdir(tmp_path)
    located = locate(DataSpec(source="data/a.npz"))
    monkeypatch.chdir(tmp_path / "data")
    assert len(load_dataset(located)) == 12
    assert locate(located) == located


@pytest.mark.parametrize("kind", ["nothing", "folder", "file"])
def test_a_located_name_is_the_name_whatever_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "folder":
        (tmp_path / "digits").mkdir()
    if kind == "file":
        (tmp_path / "digits").touch()
    assert locate(DataSpec()).source == "digits"


@pytest.mark.parametrize("spec", ["", "digit", "Digits", "npz"])
def test_an_unknown_source_is_refused(spec: str) -> None:
    assert repr(spec) in refusal(spec)


def test_the_digits_are_all_there(digits: ImageDataset) -> None:
    assert len(digits) == 1797
    assert str(digits.shape) == "8x8x1"
    assert digits.classes == tuple("0123456789")
    assert digits.images.min() == 0
    assert digits.images.max() == 255
    assert len(np.unique(digits.images)) == 17
    # The counts of the published test set.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits.labels).tolist() == counts


@pytest.mark.parametrize("images", [GRAY, GRAY[..., np.newaxis], RGB], ids=["NHW", "NHW1", "RGB"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_an_npz_is_read_as_it_is(tmp_path: Path, images: np.ndarray, dtype: type) -> None:
    path = npz(tmp_path / "shapes.npz", images=images, labels=LABELS.astype(dtype))
    data = load_dataset(str(path))
    assert data.name == "shapes"
    np.testing.assert_array_equal(data.images.reshape(images.shape), images)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int64
    assert data.classes == ("0", "1", "2")


def test_an_npz_can_name_its_classes(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=RGB, labels=LABELS, classes=["ant", "bée", "cat", "dog"])
    assert load_dataset(str(path)).classes == ("ant", "bée", "cat", "dog")


@pytest.mark.parametrize(
    "labels", [["dog", "ant", "bee"] * 4, [7, 1, 3] * 4, [2.0, 0.0, 1.0] * 4], ids=str
)
def test_classes_are_the_labels_that_occur(tmp_path: Path, labels: list[Any]) -> None:
    data = load_dataset(npz(tmp_path / "a.npz", images=RGB, labels=labels))
    assert data.classes == (
        ("ant", "bee", "dog")
        if "ant" in labels
        else tuple(str(int(label)) for label in sorted(set(labels)))
    )
    assert [data.classes[label] for label in data.labels] == [
        label if isinstance(label, str) else str(int(label)) for label in labels
    ]


def test_labels_that_are_texts_keep_the_order_of_named_classes(tmp_path: Path) -> None:
    labels, classes = ["dog", "ant", "dog"] * 4, ["dog", "cat", "ant"]
    data = load_dataset(npz(tmp_path / "a.npz", images=RGB, labels=labels, classes=classes))
    assert data.classes == ("dog", "cat", "ant")
    assert data.labels.tolist() == [0, 2, 0] * 4
    told = refusal(npz(tmp_path / "b.npz", images=RGB, labels=labels, classes=["dog", "cat"]))
    assert "the label 'ant' is none of the classes dog, cat" in told


@pytest.mark.parametrize(
    "labels", [LABELS > 0, LABELS[:, np.newaxis] > 0, np.eye(2)[(LABELS > 0) * 1]], ids=str
)
def test_labels_of_an_npz_may_be_bools_or_one_hot(tmp_path: Path, labels: np.ndarray) -> None:
    data = load_dataset(npz(tmp_path / "a.npz", images=RGB, labels=labels))
    assert data.classes == ("0", "1")
    assert data.labels.tolist() == (LABELS > 0).tolist()


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.csv", "a.txt", "pets"])
def test_what_may_not_be_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert "may not be read" in refusal(tmp_path / "locked" / name)


@pytest.mark.parametrize("images", [RGB / 255.0, np.moveaxis(RGB, 3, 1)], ids=["float", "NCHW"])
def test_an_npz_of_another_layout_gives_the_same_images(tmp_path: Path, images: np.ndarray) -> None:
    data = load_dataset(npz(tmp_path / "a.npz", images=images, labels=LABELS))
    np.testing.assert_array_equal(data.images, RGB)


def test_an_npz_can_have_groups_names_and_an_official_split(tmp_path: Path) -> None:
    people = [f"person {n // 4}" for n in range(12)]
    splits = ["train"] * 6 + ["valid"] * 3 + [""] + ["Test"] * 2
    names = [f"{n}.jpg" for n in range(12)]
    path = npz(
        tmp_path / "a.npz", images=RGB, labels=LABELS, groups=people, splits=splits, names=names
    )
    data = load_dataset(path)
    assert list(data.groups or ()) == people
    assert list(data.names or ()) == names
    assert data.official is not None
    assert data.official.tolist() == [0] * 6 + [1] * 3 + [-1] + [2] * 2


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", images=RGB, labels=LABELS).rename(tmp_path / "A.NPZ")
    assert len(load_dataset(str(tmp_path / "A.NPZ"))) == 12


def test_the_arrays_of_an_npz_can_be_named(tmp_path: Path) -> None:
    channels_first = np.moveaxis(RGB, -1, 1)
    path = npz(tmp_path / "a.npz", x=channels_first, y=LABELS, who=["ann", "bob"] * 6)
    message = refusal(path)
    assert "has no array 'images', only x, y, who; " in message
    assert "--with images=ARRAY" in message
    options = {"images": "x", "labels": "y", "groups": "who", "layout": "NCHW"}
    data = load_dataset(DataSpec(str(path), options=options))
    assert np.array_equal(data.images, RGB)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.groups == ["ann", "bob"] * 6
    with pytest.raises(
        DataError, match="has no array 'z', only x, y, who; say which holds the splits"
    ):
        load_dataset(DataSpec(str(path), options={**options, "splits": "z"}))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"labels": LABELS}, "images"),
        ({"images": GRAY}, "labels"),
        ({}, "images"),
        ({"images": GRAY / 1.0, "labels": LABELS}, "0 to 1"),
        ({"images": GRAY / 255.0 * np.nan, "labels": LABELS}, "nan"),
        ({"images": GRAY.astype(np.int64), "labels": LABELS}, "int64"),
        ({"images": GRAY[0], "labels": LABELS}, "(6, 5)"),
        ({"images": RGB[..., :2], "labels": LABELS}, "channels"),
        ({"images": GRAY, "labels": LABELS[:-1]}, "(11,)"),
        ({"images": GRAY, "labels": LABELS + 0.5}, "float64"),
        ({"images": GRAY, "labels": LABELS + np.inf}, "infinite"),
        ({"images": GRAY, "labels": np.stack([LABELS, LABELS], 1)}, "one 1"),
        ({"images": GRAY, "labels": LABELS - 1, "classes": ["a", "b", "c"]}, "-1"),
        ({"images": GRAY, "labels": LABELS + 1, "classes": ["a", "b", "c"]}, "count them from 0"),
        ({"images": GRAY, "labels": np.int64(1)}, "()"),
        ({"images": GRAY, "labels": LABELS, "classes": ["ant", "bee"]}, "2 classes"),
        ({"images": GRAY, "labels": LABELS, "classes": ["ant", "bee", "ant"]}, "ant"),
        ({"images": GRAY, "labels": LABELS, "classes": "ant"}, "classes"),
        ({"images": GRAY[:0], "labels": LABELS[:0]}, "no images"),
        ({"images": GRAY, "labels": LABELS, "groups": ["ann"]}, "groups"),
        ({"images": GRAY, "labels": LABELS, "splits": ["exam"] * 12}, "exam"),
    ],
    ids=[
        "no images", "no labels", "nothing", "float images", "NaN", "wide images", "one image",
        "two channels", "too few labels", "half labels", "infinite labels", "two columns",
        "negative label", "labels from 1", "one label", "too few classes", "repeated class",
        "one class name", "empty", "groups", "splits",
    ],
)  # fmt: skip
def test_an_npz_of_the_wrong_arrays_is_refused(
    tmp_path: Path, arrays: dict[str, Any], told: str
) -> None:
    path = tmp_path / "bad.npz"
    npz(path, **arrays)
    with pytest.raises(DataError) as caught:
        load_dataset(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert "bad" in message
    assert told in message


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["images", "labels", "classes"])
def test_a_pickle_in_an_npz_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)] * 12, dtype=object)
    arrays = {"images": GRAY, "labels": LABELS, "classes": ["a", "b", "c"], name: trap}
    refusal(npz(tmp_path / "trap.npz", **arrays))
    assert not sprung.exists()


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.npz")
    (tmp_path / "folder.npz").mkdir()
    refusal(tmp_path / "folder.npz")
    (tmp_path / "empty.npz").touch()
    refusal(tmp_path / "empty.npz")
    (tmp_path / "text.npz").write_text("images, labels")
    refusal(tmp_path / "text.npz")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, GRAY)  # one array, as .npy, under the wrong name
    refusal(tmp_path / "array.npz")


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    whole = npz(tmp_path / "whole.npz", images=GRAY, labels=LABELS).read_bytes()
    path = tmp_path / "cut.npz"
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(path)


def test_a_flipped_bit_in_an_npz_is_found(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", images=GRAY // 16, labels=LABELS)
    whole = (tmp_path / "whole.npz").read_bytes()
    fingerprint = load_dataset(str(tmp_path / "whole.npz")).fingerprint
    path = tmp_path / "flipped.npz"
    found, escaped = 0, []
    for bit in np.random.default_rng(0).choice(8 * len(whole), 600, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            if load_dataset(str(path)).fingerprint != fingerprint:
                escaped.append(f"bit {bit}: read as other data")
        except DataError:
            found += 1
        except Exception as error:
            escaped.append(f"bit {bit}: {type(error).__name__}: {error}")
    assert not escaped
    assert found > 300
