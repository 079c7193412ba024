from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.sources import SOURCES, DataSource, load_dataset, locate
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


@pytest.fixture
def specimens(tmp_path: Path) -> dict[str, str]:
    """For each row of the table, by its usage, something that it can load."""
    return {
        "digits": "digits",
        "FILE.npz": str(npz(tmp_path / "some.npz", images=GRAY, labels=LABELS)),
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda row: row.usage)
class TestEverySource:
    def test_says_how_it_is_used_in_one_line(self, source: DataSource) -> None:
        assert source.usage
        assert source.help
        assert "\n" not in source.usage + source.help

    def test_loads_its_specimen_and_no_other_row_claims_it(
        self, source: DataSource, specimens: dict[str, str]
    ) -> None:
        spec = specimens[source.usage]
        assert [row.usage for row in SOURCES if row.accepts(spec)] == [source.usage]
        assert load_dataset(spec).fingerprint == load_dataset(spec).fingerprint
        assert load_dataset(spec).name

    def test_is_offered_to_who_asks_for_something_unknown(self, source: DataSource) -> None:
        message = refusal("mnist")
        assert source.usage in message
        assert source.help in message


def test_a_located_file_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    npz(tmp_path / "data" / "a.npz", images=GRAY, labels=LABELS)
    monkeypatch.chdir(tmp_path)
    located = locate("data/a.npz")
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
    assert locate("digits") == "digits"


@pytest.mark.parametrize("spec", ["", "digit", "Digits", "images.h5", "npz"])
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


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", images=RGB, labels=LABELS).rename(tmp_path / "A.NPZ")
    assert len(load_dataset(str(tmp_path / "A.NPZ"))) == 12


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"labels": LABELS}, "images"),
        ({"images": GRAY}, "labels"),
        ({}, "images"),
        ({"images": GRAY / 255.0, "labels": LABELS}, "float64"),
        ({"images": GRAY.astype(np.int64), "labels": LABELS}, "int64"),
        ({"images": GRAY[0], "labels": LABELS}, "(6, 5)"),
        ({"images": RGB[..., :2], "labels": LABELS}, "channels"),
        ({"images": GRAY, "labels": LABELS[:-1]}, "(11,)"),
        ({"images": GRAY, "labels": LABELS.astype(float)}, "float64"),
        ({"images": GRAY, "labels": LABELS > 0}, "bool"),
        ({"images": GRAY, "labels": LABELS - 1}, "-1"),
        ({"images": GRAY, "labels": np.int64(1)}, "()"),
        ({"images": GRAY, "labels": LABELS, "classes": ["ant", "bee"]}, "2 classes"),
        ({"images": GRAY, "labels": LABELS, "classes": ["ant", "bee", "ant"]}, "ant"),
        ({"images": GRAY, "labels": LABELS, "classes": "ant"}, "classes"),
        ({"images": GRAY[:0], "labels": LABELS[:0]}, "no images"),
        # Labels that are no labels, but identifiers: there is no memory for so many classes.
        ({"images": GRAY, "labels": LABELS + 2**62}, "labels"),
    ],
    ids=[
        "no images", "no labels", "nothing", "float images", "wide images", "one image",
        "two channels", "too few labels", "float labels", "bool labels", "negative label",
        "one label", "too few classes", "repeated class", "one class name", "empty",
        "huge labels",
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
