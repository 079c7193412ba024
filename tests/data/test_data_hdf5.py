"""HDF5 files: what is read, how it is found, and what is refused."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data.catalog import BadImage, Catalog, make_catalog
from hpsearch.data.convert import convert_catalog
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.decode import Target, decode_all
from hpsearch.data.readers import ArrayReader
from hpsearch.data.sources import _hdf5_file, hdf5, open_catalog
from hpsearch.data.sources.hdf5 import Hdf5Reader
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset
from hpsearch.errors import DataError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
LABELS = np.arange(12) % 3
TEXT = h5py.string_dtype()


def write(path: Path, *, options: dict[str, dict[str, Any]] | None = None, **data: Any) -> Path:
    """An HDF5 file of some datasets; `__` in a name stands for `/`."""
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            more = (options or {}).get(name, {})
            file.create_dataset(name.replace("__", "/"), data=values, **more)
    return path


def load(path: Path, **options: str) -> ImageDataset:
    return load_dataset(DataSpec(source=str(path), options=options))


def listed(path: Path, **options: str) -> Catalog:
    return open_catalog(DataSpec(source=str(path), options=options))


def refusal(path: Path, **options: str) -> str:
    """The message with which `path` is refused, when it is listed or when it is read."""
    with pytest.raises(DataError) as caught:
        everything(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def everything(path: Path, **options: str) -> tuple[Any, ...]:
    """All that is in a file; not by way of the store."""
    catalog = listed(path, **options)
    target = Target(catalog.images.shape or ImageShape(6, 5, 3), "crop")
    images = [
        str(image) if isinstance(image, BadImage) else image.tobytes()
        for batch in decode_all(catalog.images, list(catalog.names), target, workers=1)
        for image in batch
    ]
    labels = [catalog.classes[label] for label in catalog.labels.tolist()]
    return images, labels, catalog.classes, list(catalog.names), catalog.groups


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def ours(path: Path) -> Path:
    """A file of ours with everything that there can be."""
    catalog = make_catalog(
        name="all",
        names=[f"é/{number}.png" for number in range(12)],
        label_names=["fé man" if label else "old man" for label in LABELS.tolist()],
        images=ArrayReader(RGB),
        groups=[f"person {number // 2}" for number in range(12)],
        parts=[None, "train", "val", "test"] * 3,
        class_order=["old man", "fé man", "nobody"],
        columns=("age", "sex"),
        class_parts={"old man": ("old", "man"), "fé man": ("fé", "man"), "nobody": ("", "")},
    )
    convert_catalog(catalog, DataSpec(source="all"), path)
    return path


class TestOurs:
    def test_everything_comes_back(self, tmp_path: Path) -> None:
        data = load(ours(tmp_path / "a.h5"))
        np.testing.assert_array_equal(data.images, RGB)
        assert data.classes == ("old man", "fé man", "nobody")
        assert data.labels.tolist() == [0, 1, 1] * 4
        assert data.names is not None
        assert data.groups is not None
        assert data.official is not None
        assert list(data.names) == [f"é/{number}.png" for number in range(12)]
        assert list(data.groups) == [f"person {number // 2}" for number in range(12)]
        assert data.official.tolist() == [-1, 0, 1, 2] * 3
        assert data.columns == ("age", "sex")
        assert data.class_parts == (("old", "man"), ("fé", "man"), ("", ""))
        assert data.notes == ()
        assert data.name == "a"

    def test_any_hdf5_program_can_read_it(self, tmp_path: Path) -> None:
        with h5py.File(ours(tmp_path / "a.h5")) as file:
            contents = {name: (dset.dtype.kind, dset.shape) for name, dset in file.items()}
            assert contents == {
                "images": ("u", (12, 6, 5, 3)),
                "labels": ("i", (12,)),
                "classes": ("S", (3,)),
                "names": ("S", (12,)),
                "groups": ("S", (12,)),
                "splits": ("S", (12,)),
                "columns": ("S", (2,)),
                "class_parts": ("S", (3, 2)),
            }
            assert file.attrs["format"] == b"hpsearch-images"
            assert file.attrs["version"] == 1
            assert file.attrs["fit"] == b"crop"
            assert file.attrs["source"] == b"all"
            assert file.attrs["made_by"].startswith(b"hpsearch ")
            np.testing.assert_array_equal(file["images"], RGB)
            assert file["images"].dtype == np.uint8
            assert file["labels"].dtype == np.int64
            assert file["classes"].asstr()[:].tolist() == ["old man", "fé man", "nobody"]
            assert file["splits"].asstr()[:4].tolist() == ["", "train", "val", "test"]

    def test_its_axes_are_known_however_odd_the_shape(self, tmp_path: Path) -> None:
        images = RANDOM.integers(0, 256, (4, 3, 3, 1), dtype=np.uint8)
        catalog = make_catalog(
            name="odd", names=list("abcd"), label_names=list("xyxy"), images=ArrayReader(images)
        )
        convert_catalog(catalog, DataSpec(source="odd"), tmp_path / "a.h5")
        np.testing.assert_array_equal(load(tmp_path / "a.h5").images, images)

    def test_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        with h5py.File(ours(tmp_path / "a.h5"), "a") as file:
            file.attrs["version"] = 2
        assert "version 2" in refusal(tmp_path / "a.h5")

    def test_every_flipped_bit_is_found(self, tmp_path: Path) -> None:
        path = ours(tmp_path / "a.h5")
        whole, content = path.read_bytes(), everything(path)
        found = 0
        for position in range(0, len(whole), 19):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            path.write_bytes(flipped)
            try:
                assert everything(path) == content, f"byte {position} makes other data"
            except DataError:
                found += 1
        assert found > 0.9 * len(whole) / 19


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (RGB, RGB),
        (GRAY, GRAY[..., np.newaxis]),
        (GRAY[..., np.newaxis], GRAY[..., np.newaxis]),
        (np.moveaxis(RGB, -1, 1), RGB),
        (GRAY[:, np.newaxis], GRAY[..., np.newaxis]),
        (RGB / 255.0, RGB),
        ((RGB / 255.0).astype(np.float16), None),
        ((np.moveaxis(RGB, -1, 1) / 255.0).astype(">f4"), RGB),
    ],
    ids=["NHWC", "NHW", "NHW1", "NCHW", "N1HW", "float64", "float16", "big-endian NCHW float32"],
)
@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip", "shuffle": True}])
def test_images_may_have_any_layout(
    tmp_path: Path, images: np.ndarray, expected: np.ndarray | None, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.h5", options={"images": options}, images=images, labels=LABELS)
    data = load(path)
    if expected is None:
        assert np.abs(data.images.astype(int) - RGB).max() <= 1
    else:
        np.testing.assert_array_equal(data.images, expected)
    assert data.classes == ("0", "1", "2")
    assert any("channel, row" in note for note in data.notes) == (
        images.ndim == 4 and images.shape[1] in (1, 3)
    )


def test_the_layout_can_be_said(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (12, 3, 8, 3), dtype=np.uint8)
    path = write(tmp_path / "a.h5", images=images, labels=LABELS)
    np.testing.assert_array_equal(load(path).images, images)
    np.testing.assert_array_equal(load(path, layout="NCHW").images, np.moveaxis(images, 1, -1))
    assert "layout" in refusal(path, layout="NHCW")


ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS.astype(np.uint8), ("0", "1", "2")),
        (LABELS[:, np.newaxis].astype(">i4"), ("0", "1", "2")),
        (LABELS.reshape(12, 1, 1, 1), ("0", "1", "2")),
        (LABELS.astype(np.float32), ("0", "1", "2")),
        (LABELS + 7, ("7", "8", "9")),
        (LABELS > 0, ("0", "1")),
        (ONE_HOT, ("0", "1", "2")),
        (ONE_HOT > 0, ("0", "1", "2")),
        (np.array(["ä", "b", "c"], dtype=object)[LABELS], ("b", "c", "ä")),
        (np.array([b"aa", b"b", b"c"])[LABELS], ("aa", "b", "c")),
    ],
    ids=[
        "uint8", "column", "N111", "float", "from 7", "bool", "one-hot", "one-hot bool", "texts",
        "bytes",
    ],
)  # fmt: skip
def test_labels_may_be_of_any_kind(
    tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    data = load(write(tmp_path / "a.h5", images=RGB, labels=labels))
    assert data.classes == classes
    plain = labels.argmax(axis=1) if labels.shape == (12, 3) else labels.reshape(-1)
    _, expected = np.unique([str(label) for label in plain.tolist()], return_inverse=True)
    if labels.dtype.kind != "O":
        np.testing.assert_array_equal(data.labels, expected)


@pytest.mark.parametrize(
    "names", [np.array([b"ant", b"b\xc3\xa9e", b"cat", b"dog"]), ["ant", "bée", "cat", "dog"]]
)
def test_classes_can_be_named(tmp_path: Path, names: Any) -> None:
    path = write(tmp_path / "a.h5", images=RGB, labels=LABELS, list_classes=names)
    assert load(path).classes == ("ant", "bée", "cat", "dog")


def encoded(kind: str, path: Path, contents: list[bytes]) -> Path:
    count = len(contents)
    with h5py.File(path, "w") as file:
        if kind == "vlen":
            dataset = file.create_dataset("images", (count,), h5py.vlen_dtype(np.uint8))
            for row, content in enumerate(contents):
                dataset[row] = np.frombuffer(content, dtype=np.uint8)
        else:
            length = max(map(len, contents))
            dtype = {"opaque": f"V{length}", "fixed": f"S{length}"}[kind]
            file["images"] = np.array(contents, dtype=dtype)
        file["labels"] = LABELS[:count]
    return path


@pytest.mark.parametrize("kind", ["vlen", "opaque", "fixed"])
def test_pictures_may_be_kept_as_files(tmp_path: Path, kind: str) -> None:
    path = encoded(kind, tmp_path / "a.h5", [png(image) for image in RGB])
    assert listed(path).images.shape is None
    np.testing.assert_array_equal(load(path).images, RGB)


def test_pictures_that_are_none_are_named(tmp_path: Path) -> None:
    contents = [png(image) for image in RGB]
    contents[3], contents[7] = b"", b"no picture"
    path = encoded("vlen", tmp_path / "a.h5", contents)
    message = refusal_by_store(path)
    assert "2 of 12" in message
    assert "3: the file is empty" in message
    assert "7: is no picture" in message
    data = load_dataset(DataSpec(source=str(path), on_error="skip"))
    np.testing.assert_array_equal(data.images, np.delete(RGB, [3, 7], axis=0))


def refusal_by_store(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path)
    return str(caught.value)


class TestGuesses:
    @pytest.mark.parametrize(
        ("images", "labels"),
        [
            ("images", "labels"), ("X", "y"), ("data", "label"), ("image", "target"),
            ("images", "ans"), ("faces/Images", "faces/Labels"), ("pixels", "whatever"),
            ("anything", "whatever"),
        ],
    )  # fmt: skip
    def test_common_names_and_else_the_only_ones(
        self, tmp_path: Path, images: str, labels: str
    ) -> None:
        data = {images.replace("/", "__"): RGB, labels.replace("/", "__"): LABELS}
        path = write(tmp_path / "a.h5", **data, scale=np.ones(12), mean=np.ones((6, 5)))
        result = load(path)
        np.testing.assert_array_equal(result.images, RGB)
        np.testing.assert_array_equal(result.labels, LABELS)
        assert result.official is None
        assert f"the images are in {images}, the labels in {labels}" in result.notes

    @pytest.mark.parametrize(
        "names",
        [
            ("x_train", "y_train", "x_test", "y_test"),
            ("train_set_x", "train_set_y", "test_set_x", "test_set_y"),
            ("train__images", "train__labels", "test__images", "test__labels"),
            ("images__train", "labels__train", "images__test", "labels__test"),
            ("Training_Data", "Training_Target", "Testing_Data", "Testing_Target"),
        ],
    )
    def test_parts_are_the_official_split(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        values = (RGB[:8], LABELS[:8], RGB[8:], LABELS[8:])
        data = load(write(tmp_path / "a.h5", **dict(zip(names, values, strict=True))))
        np.testing.assert_array_equal(data.images, RGB)
        np.testing.assert_array_equal(data.labels, LABELS)
        assert data.official is not None
        assert data.names is not None
        assert data.official.tolist() == [0] * 8 + [2] * 4
        assert (data.names[0], data.names[8]) == ("train/0", "test/0")

    def test_one_part_alone_is_no_split(self, tmp_path: Path) -> None:
        # As in the files train_catvnoncat.h5 and test_catvnoncat.h5 of a well-known course.
        path = write(
            tmp_path / "train_catvnoncat.h5",
            train_set_x=RGB,
            train_set_y=LABELS % 2,
            list_classes=np.array([b"non-cat", b"cat"]),
        )
        data = load(path)
        assert data.classes == ("non-cat", "cat")
        assert data.official is None
        assert data.notes == (
            "the images are in train_set_x, the labels in train_set_y, classes in list_classes",
        )

    def test_class_numbers_are_names_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", x=RGB, y=LABELS, list_classes=np.arange(4))
        assert load(path).classes == ("0", "1", "2", "3")

    def test_one_hot_category_and_its_names(self, tmp_path: Path) -> None:
        # As in the file food_c101_n10099_r64x64x1.h5 of Kaggle.
        names = np.array([b"apple_pie", b"waffles", b"tiramisu"])
        path = write(tmp_path / "a.h5", images=RGB, category=ONE_HOT > 0, category_names=names)
        data = load(path)
        assert data.classes == ("apple_pie", "waffles", "tiramisu")
        np.testing.assert_array_equal(data.labels, LABELS)

    def test_groups_splits_and_names_beside_the_images(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.h5",
            d__images=RGB,
            d__labels=LABELS,
            d__groups=np.arange(12) // 2,
            d__splits=["Training", "valid", ""] * 4,
            d__names=[f"n{number}" for number in range(12)],
            names=["not", "these"],
        )
        data = load(path)
        assert data.groups == [str(number // 2) for number in range(12)]
        assert data.official is not None
        assert data.official.tolist() == [0, 1, -1] * 4
        assert data.names == [f"n{number}" for number in range(12)]

    def test_options_are_stronger(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.h5",
            images=RGB[::-1].copy(),
            labels=LABELS,
            other__pictures=RGB,
            other__sorts=LABELS[::-1].copy(),
            other__who=[f"p{number}" for number in range(12)],
            words=["a", "b", "c"],
        )
        data = load(
            path,
            images="/other/pictures",
            labels="other/sorts",
            groups="other/who",
            classes="words",
        )
        np.testing.assert_array_equal(data.images, RGB)
        np.testing.assert_array_equal(data.labels, LABELS[::-1])
        assert data.classes == ("a", "b", "c")
        assert data.groups == [f"p{number}" for number in range(12)]
        # The store must not take one for the other: labels and names are the same.
        np.testing.assert_array_equal(load(path).images, RGB[::-1])
        np.testing.assert_array_equal(load(path, images="other/pictures").images, RGB)

    def test_what_is_not_clear_is_asked(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", one=RGB, two=GRAY, y=LABELS)
        message = refusal(path)
        assert "--with images=PATH" in message
        assert "one, two" in message
        assert len(load(path, images="two")) == 12
        path = write(tmp_path / "b.h5", images=RGB, one=LABELS, two=LABELS)
        assert "--with labels=PATH" in refusal(path)
        assert "no dataset 'three'; it has images, one, two" in refusal(path, labels="three")
        assert "no datasets" in refusal(write(tmp_path / "c.h5"))

    def test_a_link_inside_of_the_file_is_followed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", raw__a=RGB, raw__b=GRAY, labels=LABELS)
        with h5py.File(path, "a") as file:
            file["used"] = h5py.SoftLink("/raw/b")
        np.testing.assert_array_equal(load(path, images="used").images[..., 0], GRAY)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"images": RGB, "labels": LABELS[:-1]}, "(11,)"),
        ({"images": RGB, "labels": np.zeros((12, 2, 2), int)}, "(12, 2, 2)"),
        ({"images": RGB, "labels": LABELS + 0.5}, "whole"),
        ({"images": RGB, "labels": LABELS * np.nan}, "whole"),
        ({"images": RGB, "labels": LABELS * 1j}, "complex"),
        ({"images": RGB, "labels": np.zeros((12, 3))}, "one 1"),
        ({"images": RGB, "labels": np.ones((12, 3))}, "one 1"),
        ({"images": RGB, "labels": LABELS, "classes": ["a", "b"]}, "2 classes"),
        ({"images": RGB, "labels": LABELS - 1, "classes": ["a", "b", "c"]}, "-1"),
        ({"images": RGB, "labels": LABELS, "classes": ["a", "b", "a"]}, "repeat"),
        ({"images": RGB, "labels": LABELS, "classes": np.array([b"a", b"\xff", b"c"])}, "UTF-8"),
        ({"images": RGB, "labels": LABELS, "splits": ["train", "exam"] * 6}, "exam"),
        ({"images": RGB.astype(np.int16), "labels": LABELS}, "int16"),
        ({"images": RGB[0], "labels": LABELS}, "(6,)"),
        ({"images": RGB[0, 0], "labels": LABELS}, "(5, 3)"),
        ({"images": RGB[..., :2], "labels": LABELS}, "channels"),
        ({"images": RGB[:0], "labels": LABELS[:0]}, "no images"),
        ({"images": np.uint8(3), "labels": LABELS}, "()"),
        ({"images": h5py.Empty("u1"), "labels": LABELS}, "empty"),
        ({"images": RGB * 1.0, "labels": LABELS}, "255"),
        ({"images": RGB / -255.0, "labels": LABELS}, "-1"),
        ({"images": np.where(RGB > 254, np.nan, 0), "labels": LABELS}, "nan"),
        ({"images__x": RGB, "labels": LABELS}, "images"),
        ({"images": np.zeros(12, [("a", "u1"), ("b", "f4")]), "labels": LABELS}, "images"),
        ({"x_train": RGB, "y_train": LABELS, "x_test": GRAY, "y_test": LABELS}, "one shape"),
        ({"x_train": RGB, "y_train": LABELS, "x_test": RGB, "y_test": ["a"] * 12}, "texts in one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_contents_are_refused(tmp_path: Path, data: dict[str, Any], told: str) -> None:
    path = write(tmp_path / "bad.h5", **data)
    images = {"images": "images"} if "images" in data or "images__x" in data else {}
    assert told in refusal(path, **images)


class TestHostile:
    @pytest.mark.parametrize("content", [b"", b"images", b"\x89HDF\r\n\x1a\n" + bytes(99)])
    def test_no_hdf5(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.h5"
        path.write_bytes(content)
        assert "HDF5" in refusal(path)

    def test_no_file(self, tmp_path: Path) -> None:
        assert "does not exist" in refusal(tmp_path / "a.h5")
        (tmp_path / "b.h5").mkdir()
        assert "folder" in refusal(tmp_path / "b.h5")

    @pytest.mark.parametrize("make", [ours, lambda path: write(path, images=RGB, labels=LABELS)])
    def test_a_truncated_file(self, tmp_path: Path, make: Callable[[Path], Path]) -> None:
        path = make(tmp_path / "a.h5")
        whole = path.read_bytes()
        for length in (*range(0, len(whole), 61), len(whole) - 1):
            path.write_bytes(whole[:length])
            refusal(path)

    @pytest.mark.parametrize("where", ["images", "labels", "group"])
    def test_a_link_to_another_file(self, tmp_path: Path, where: str) -> None:
        write(tmp_path / "other.h5", images=RGB, labels=LABELS, g__images=RGB)
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS, g__x=LABELS)
        with h5py.File(path, "a") as file:
            name = "g" if where == "group" else where
            del file[name]
            file[name] = h5py.ExternalLink("other.h5", name)
        options = {"images": "g/images"} if where == "group" else {}
        message = refusal(path, **options)
        assert "follow" in message
        if where != "group":
            assert "is a link to another file" in refusal(path, **{where: where})

    def test_links_that_lead_nowhere(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", labels=LABELS)
        with h5py.File(path, "a") as file:
            file["images"] = h5py.SoftLink("/nowhere")
            file["loop"] = h5py.SoftLink("/loop")
            file["out"] = h5py.ExternalLink("missing.h5", "/images")
            file["by way"] = h5py.SoftLink("/out")
        assert "images" in refusal(path)
        assert "no dataset 'images'" in refusal(path, images="images")
        assert "leads to itself" in refusal(path, images="loop")
        assert "another file" in refusal(path, images="by way")

    def test_pixels_in_another_file(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(RGB.tobytes())
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("images", RGB.shape, "u1", external=[(secret, 0, RGB.nbytes)])
            file["labels"] = LABELS
        assert "another file" in refusal(tmp_path / "a.h5")

    def test_a_virtual_dataset(self, tmp_path: Path) -> None:
        write(tmp_path / "other.h5", images=RGB)
        layout = h5py.VirtualLayout(RGB.shape, "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "images", RGB.shape)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_virtual_dataset("images", layout)
            file["labels"] = LABELS
        assert "another file" in refusal(tmp_path / "a.h5")

    @pytest.mark.parametrize(
        ("shape", "options"),
        [
            ((12, 2**40, 2**15, 3), {}),
            ((2**50, 6, 5, 3), {}),
            ((2**20, 6, 5, 3), {"chunks": (1, 6, 5, 3)}),
            ((12, 6, 5, 3), {"chunks": (1, 6, 5, 3)}),
            ((12, 6, 5, 3), {"chunks": (1, 6, 5, 3), "compression": "gzip"}),
            ((12, 6, 5, 3), {}),
        ],
        ids=["large images", "many", "many chunks", "no chunks", "no packed chunks", "unwritten"],
    )
    def test_more_declared_than_there_is(
        self, tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]
    ) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("images", shape, "u1", fillvalue=7, **options)
            file["labels"] = LABELS
        assert "damaged" in refusal(tmp_path / "a.h5", labels="labels")

    def test_half_written_chunks(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            images = file.create_dataset("images", RGB.shape, "u1", chunks=(2, 6, 5, 3))
            images[:6] = RGB[:6]
            file["labels"] = LABELS
        assert "3 of the 6 chunks" in refusal(tmp_path / "a.h5")

    @pytest.mark.parametrize("size", [1, 3, 100_000])
    def test_chunks_of_a_size_that_cannot_be(self, tmp_path: Path, size: int) -> None:
        # Less than its checksum has crashes the library; a large one may unpack to anything.
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["labels"] = LABELS
            images = file.create_dataset(
                "images", RGB.shape, "u1", chunks=(6, 6, 5, 3), compression=1, fletcher32=True
            )
            images[:] = RGB
            images.id.write_direct_chunk((6, 0, 0, 0), bytes(size))
        assert "has a chunk of" in refusal(tmp_path / "a.h5")

    def test_absurd_chunks(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            shape, chunks = (12, 6, 5, 3), (2**24, 6, 5, 3)
            file.create_dataset("images", shape, "u1", chunks=chunks, maxshape=(None, 6, 5, 3))
            file["labels"] = LABELS
        assert "chunks of 1,509,949,440 bytes" in refusal(tmp_path / "a.h5")
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file.create_dataset("images", (2**40, 2, 2), "u1", chunks=(2**12, 1, 1))
            file["labels"] = LABELS
        assert "has 1,073,741,824 chunks" in refusal(tmp_path / "b.h5", labels="labels")

    def test_absurd_images(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        monkeypatch.setattr(hdf5, "MAX_PIXELS", 29)
        assert "6x5 pixels, more than 29" in refusal(path)

    def test_a_bomb(self, tmp_path: Path) -> None:
        # Packed twice, a million zeros are some bytes.
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((1, 8192, 8192, 1))
        creation.set_deflate(1)
        creation.set_deflate(1)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            space = h5py.h5s.create_simple((2, 8192, 8192, 1))
            dataset = h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, creation)
            h5py.Dataset(dataset)[:] = np.zeros((2, 8192, 8192, 1), np.uint8)
            file["labels"] = np.arange(2)
        assert "cannot hold" in refusal(tmp_path / "a.h5")

    def test_one_long_text_that_is_meant_often(self, tmp_path: Path) -> None:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((400, 2, 2, 3), np.uint8)
            file["labels"] = np.arange(400) % 2
            names = file.create_dataset("names", (400,), TEXT)
            names[:] = ["n"] * 399 + ["x" * 60_000]
            start = names.id.get_offset()
        content = bytearray(path.read_bytes())
        content[start : start + 400 * 16] = content[start + 399 * 16 : start + 400 * 16] * 400
        path.write_bytes(content)
        assert "absurd" in refusal(path)

    def test_a_heap_on_which_the_library_loops_for_ever(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=["a", "b", "c"] * 4)
        content = bytearray(path.read_bytes())
        entry = content.index(b"GCOL") + 16
        content[entry : entry + 16] = bytes(16)
        path.write_bytes(content)
        code = f"from hpsearch import load_dataset; load_dataset({str(path)!r})"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert "DataError" in result.stderr
        assert "variable length are damaged" in result.stderr

    @pytest.mark.parametrize("kind", ["unknown", "scaleoffset"])
    def test_filters_that_cannot_be_read(self, tmp_path: Path, kind: str) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["labels"] = LABELS
            if kind == "scaleoffset":
                file.create_dataset("images", data=RGB, chunks=(3, 6, 5, 3), scaleoffset=0)
            else:
                creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                creation.set_chunk((3, 6, 5, 3))
                creation.set_filter(40_321, h5py.h5z.FLAG_OPTIONAL)
                space = h5py.h5s.create_simple(RGB.shape)
                dataset = h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, creation)
                h5py.Dataset(dataset)[:] = RGB
        told = {"unknown": "40321", "scaleoffset": "scaleoffset"}[kind]
        assert f"filter {told}" in refusal(tmp_path / "a.h5")

    def test_types_that_are_no_data(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        with h5py.File(path, "a") as file:
            file["type"] = np.dtype("u1")
            file["refs"] = np.array([file["images"].ref] * 12, dtype=h5py.ref_dtype)
            ragged = file.create_dataset("ragged", (12,), h5py.vlen_dtype(np.int32))
            ragged[0] = np.arange(3)
            file.create_group("group")
        for role in ("images", "labels", "names", "classes"):
            for name in ("type", "refs", "ragged", "group"):
                refusal(path, **{role: name})
        assert len(load(path)) == 12

    def test_groups_that_contain_each_other(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", g__pictures=RGB, h__kinds=LABELS)
        with h5py.File(path, "a") as file:
            file["g/up"] = file["/"]
            file["h/other"] = file["g"]
            file["h/images again"] = file["g/pictures"]
        assert len(load(path)) == 12

    def test_more_objects_than_a_file_of_images_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        with h5py.File(path, "a") as file:
            for number in range(60):
                file.create_group(f"group {number}")
        monkeypatch.setattr(_hdf5_file, "_MAX_OBJECTS", 50)
        assert "more than 50 objects" in refusal(path)
        assert len(load(write(tmp_path / "b.h5", images=RGB, labels=LABELS))) == 12

    def test_groups_deep_in_each_other(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", **{"__".join("abcdefghijklm"): RGB, "labels": LABELS})
        assert "deep" in refusal(path)

    def test_names_that_do_not_print(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", **{"one\n\x1b": RGB, "two": GRAY, "labels": LABELS})
        with h5py.File(path, "a") as file:
            h5py.h5g.create(file.id, b"\xff\xfe")
        assert r"one\n\x1b" in refusal(path)

    def test_attributes_are_not_trusted(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        with h5py.File(path, "a") as file:
            file.attrs["format"] = np.array([b"hpsearch-images"] * 3)
        assert "the images are in images, the labels in labels" in load(path).notes

    def test_a_damaged_chunk_stops_reading(self, tmp_path: Path) -> None:
        path = ours(tmp_path / "a.h5")
        with h5py.File(path) as file:
            start = file["images"].id.get_chunk_info(0).byte_offset
        content = bytearray(path.read_bytes())
        content[start + 50] ^= 255
        path.write_bytes(content)
        assert "the file is damaged" in refusal_by_store(path)

    def test_a_lock_does_not_matter(self, tmp_path: Path) -> None:
        fcntl = pytest.importorskip("fcntl")
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert len(load(path)) == 12

    def test_a_file_that_changes_under_our_hands(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        catalog = listed(path)
        write(path, images=GRAY, labels=LABELS)
        with pytest.raises(DataError, match="has changed"):
            list(catalog.images.read(0, 12))


@functools.cache
def good_file(kind: str) -> bytes:
    """The content of a file in which all is well."""
    packed = {"chunks": (5, 6, 4, 3), "compression": "gzip", "fletcher32": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        if kind == "ours":
            ours(path)
        if kind == "plain":
            write(path, images=RGB, labels=LABELS)
        if kind == "packed":
            write(path, options={"x": packed}, x=RGB, y=["a", "b", "c"] * 4)
        if kind == "encoded":
            encoded("vlen", path, [png(image) for image in RGB])
        return path.read_bytes()


@pytest.mark.parametrize("kind", ["ours", "plain", "packed", "encoded"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 0.999_999), st.integers(0, 255)), max_size=4))
def test_damage_is_refused_or_harmless(
    kind: str, tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(good_file(kind))
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    try:
        everything(path)
    except DataError:
        refusal(path)


class TestReader:
    def test_reads_whole_chunks_but_not_much_at_once(self, tmp_path: Path) -> None:
        def batch(shape: tuple[int, ...], chunks: tuple[int, ...] | None) -> int:
            path = tmp_path / "a.h5"
            options = {"images": {"chunks": chunks, "compression": "gzip" if chunks else None}}
            zeros = np.zeros(shape, np.uint8)
            write(path, options=options, images=zeros, labels=np.arange(len(zeros)))
            return listed(path).images.batch

        assert batch((100, 8, 8, 3), (7, 8, 8, 3)) % 7 == 0
        assert batch((4, 2048, 2048, 3), (1, 512, 512, 3)) == 1
        assert batch((100, 256, 256, 3), None) == 2**24 // (256 * 256 * 3)
        # A chunk over all images would be some hundred MB of them.
        assert 1 <= batch((400, 256, 256, 3), (400, 16, 16, 3)) * 256 * 256 * 3 <= 2**26

    def test_any_range_from_any_thread(self, tmp_path: Path) -> None:
        images = RANDOM.integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)
        options = {"x_train": {"chunks": (7, 4, 4, 3), "compression": "gzip"}}
        parts = {"x_train": images[:60], "y_train": np.arange(60)}
        parts |= {"x_test": images[60:], "y_test": np.arange(40)}
        reader = listed(write(tmp_path / "a.h5", options=options, **parts)).images
        assert isinstance(reader, Hdf5Reader)

        def is_right(start: int) -> bool:
            found = list(reader.read(start, start + 13))
            return np.array_equal(np.stack(found), images[start : start + 13])

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(is_right, [*range(0, 87, 3)] * 4))

    def test_the_file_is_closed_once_nobody_reads_any_more(self, tmp_path: Path) -> None:
        path = encoded("vlen", tmp_path / "a.h5", [png(image) for image in RGB])
        reader = listed(path).images
        assert isinstance(reader, Hdf5Reader)
        slow = reader.read(0, 4)
        next(slow)
        assert len(list(reader.read(8, 12))) == 4
        assert len(list(slow)) == 3
        assert reader._file is None
        late = reader.read(4, 8)  # by a thread that was kept waiting
        assert len(list(late)) == 4
        assert reader._file is None
        assert len(list(reader.read(0, 4))) == 4  # once more from the beginning
        assert reader._file is not None

    def test_a_copy_elsewhere_has_the_same_content(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.h5", images=RGB, labels=LABELS)
        copy = tmp_path / "b.h5"
        copy.write_bytes(path.read_bytes())
        one, two = listed(path).images, listed(copy).images
        assert one.content_key() == two.content_key()
        assert one.signature() != two.signature()
        copy.write_bytes(write(tmp_path / "c.h5", images=RGB // 2, labels=LABELS).read_bytes())
        assert listed(copy).images.content_key() != one.content_key()

    @pytest.mark.parametrize("name", ["A.H5", "a.hdf5", "a.he5", "a.hdf"])
    def test_the_suffix_may_be_another(self, tmp_path: Path, name: str) -> None:
        assert len(load(write(tmp_path / name, images=RGB, labels=LABELS))) == 12
