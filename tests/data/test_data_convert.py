"""Any source to one HDF5 file: the same data, whole or not at all, in bounded memory."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from hpsearch.data import convert as convert_module
from hpsearch.data import hdf5
from hpsearch.data.catalog import BadImage, Catalog, RawImage, make_catalog
from hpsearch.data.convert import convert, convert_catalog
from hpsearch.data.dataset import ImageShape
from hpsearch.data.progress import Progress
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import UnreadableImagesError, load_dataset
from hpsearch.errors import DataError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def npz(tmp_path: Path) -> str:
    """An archive with everything that there can be in one."""
    path = tmp_path / "source" / "some.npz"
    path.parent.mkdir()
    np.savez(
        path,
        images=RGB,
        labels=LABELS,
        classes=["ant", "bée", "cat", "nobody"],
        groups=[f"person {number // 3}" for number in range(12)],
        splits=["train", "test", "", "val"] * 3,
        names=[f"é {number}" for number in range(12)],
    )
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders of six PNG files each."""
    root = tmp_path / "photos"
    for number, image in enumerate(RGB):
        path = root / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


class Made:
    """Images that are made when they are asked for; remembers how far that went."""

    shape: ImageShape | None = ImageShape(64, 64, 3)
    batch = 8

    def __init__(self) -> None:
        self.asked = 0

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        self.asked = max(self.asked, stop)
        for number in range(start, stop):
            yield np.full((64, 64, 3), number % 251, dtype=np.uint8)

    def signature(self) -> str:
        return "made"

    def content_key(self) -> str:
        return "made"


def made(count: int) -> tuple[Catalog, Made]:
    reader = Made()
    catalog = make_catalog(
        name="made",
        names=[str(number) for number in range(count)],
        label_names=[str(number % 2) for number in range(count)],
        images=reader,
    )
    return catalog, reader


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same(one: DataSpec | str, two: DataSpec | str) -> None:
    """What both name is the same but for the name."""
    left, right = load_dataset(one), load_dataset(two)
    np.testing.assert_array_equal(left.images, right.images)
    np.testing.assert_array_equal(left.labels, right.labels)
    assert left.classes == right.classes
    assert list(left.names or []) == list(right.names or [])
    assert left.groups is None or list(left.groups) == list(right.groups or [])
    assert (left.groups is None) == (right.groups is None)
    assert (left.official is None) == (right.official is None)
    if left.official is not None and right.official is not None:
        np.testing.assert_array_equal(left.official, right.official)
    assert left.columns == right.columns
    assert left.class_parts == right.class_parts
    assert left.fingerprint == right.fingerprint


class TestSame:
    def test_as_an_archive(self, npz: str, tmp_path: Path) -> None:
        out = tmp_path / "a.h5"
        result = convert(DataSpec(source=npz), out)
        assert_same(npz, str(out))
        assert dataclasses.replace(result, seconds=0.0) == convert_module.Converted(
            path=out,
            images=12,
            skipped=(),
            shape=ImageShape(6, 5, 3),
            classes=("ant", "bée", "cat", "nobody"),
            seconds=0.0,
            notes=(),
        )
        assert result.seconds > 0

    def test_as_a_folder(self, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.h5"
        result = convert(DataSpec(source=str(folder)), out)
        assert_same(str(folder), str(out))
        assert "the pictures keep their size of 6x5 pixels" in result.notes

    @pytest.mark.parametrize(
        "how",
        [
            {"size": (4, 9)},
            {"size": (4, 9), "fit": "pad"},
            {"size": (7, 7), "fit": "stretch"},
            {"gray": True},
            {"exclude": ("bée",)},
        ],
        ids=lambda how: "-".join(how),
    )
    def test_however_it_is_brought_to_shape(
        self, npz: str, tmp_path: Path, how: dict[str, Any]
    ) -> None:
        spec = DataSpec(source=npz, **how)
        convert(spec, tmp_path / "a.h5")
        assert_same(spec, str(tmp_path / "a.h5"))
        with h5py.File(tmp_path / "a.h5") as file:
            assert file.attrs["fit"] == spec.fit.encode()

    def test_from_a_file_of_ours(self, npz: str, tmp_path: Path) -> None:
        convert(DataSpec(source=npz), tmp_path / "a.h5")
        spec = DataSpec(source=str(tmp_path / "a.h5"), size=(3, 4), gray=True)
        convert(spec, tmp_path / "b.h5")
        assert_same(DataSpec(source=npz, size=(3, 4), gray=True), str(tmp_path / "b.h5"))

    def test_columns_and_class_parts(self, tmp_path: Path) -> None:
        catalog = dataclasses.replace(
            made(4)[0], columns=("sex", "age"), class_parts=(("man", "old"), ("", "yöung"))
        )
        convert_catalog(catalog, DataSpec(source="made"), tmp_path / "a.h5")
        data = load_dataset(str(tmp_path / "a.h5"))
        assert data.columns == ("sex", "age")
        assert data.class_parts == (("man", "old"), ("", "yöung"))

    def test_over_many_chunks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hdf5, "_CHUNK_BYTES", 5 * 64 * 64 * 3)
        monkeypatch.setattr(hdf5, "_LABELS_A_CHUNK", 3)
        catalog, _ = made(23)
        catalog = dataclasses.replace(catalog, names=["n" * 3000 + str(row) for row in range(23)])
        convert_catalog(catalog, DataSpec(source="made"), tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["images"].chunks == (5, 64, 64, 3)
            assert file["labels"].chunks == (3,)
            assert file["names"].chunks == (20,)
        data = load_dataset(str(tmp_path / "a.h5"))
        assert data.images[:, 63, 63, 2].tolist() == list(range(23))
        assert data.labels.tolist() == [row % 2 for row in range(23)]
        assert data.names == catalog.names

    def test_every_time(self, npz: str, folder: Path, tmp_path: Path) -> None:
        for source in (npz, str(folder)):
            for workers in (1, 4):
                convert(DataSpec(source=source), tmp_path / f"{workers}.h5", workers=workers)
            assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "4.h5").read_bytes()
            (tmp_path / "1.h5").unlink()
            (tmp_path / "4.h5").unlink()


class TestBadImages:
    @pytest.fixture
    def damaged(self, folder: Path) -> Path:
        (folder / "cat" / "4.png").write_bytes(b"no picture")
        (folder / "dog" / "5.png").write_bytes(b"")
        whole = (folder / "dog" / "7.png").read_bytes()
        (folder / "dog" / "7.png").write_bytes(whole[:-40])
        return folder

    def test_all_are_found_before_it_fails(self, damaged: Path, tmp_path: Path) -> None:
        with pytest.raises(UnreadableImagesError, match="3 of 12 images") as caught:
            convert(DataSpec(source=str(damaged)), tmp_path / "a.h5")
        assert [image.name for image in caught.value.images] == [
            "cat/4.png",
            "dog/5.png",
            "dog/7.png",
        ]
        assert "the file is empty" in str(caught.value.images[1])
        assert files(tmp_path) == ["photos"]

    def test_or_are_left_out(self, damaged: Path, tmp_path: Path) -> None:
        spec = DataSpec(source=str(damaged), on_error="skip")
        result = convert(spec, tmp_path / "a.h5")
        assert result.images == 9
        assert [image.name for image in result.skipped] == ["cat/4.png", "dog/5.png", "dog/7.png"]
        assert_same(spec, str(tmp_path / "a.h5"))

    def test_but_not_all_of_them(self, folder: Path, tmp_path: Path) -> None:
        for path in folder.rglob("*.png"):
            path.write_bytes(b"no picture")
        spec = DataSpec(source=str(folder), on_error="skip", size=(4, 4), gray=False)
        with pytest.raises(UnreadableImagesError, match="12 of 12"):
            convert(spec, tmp_path / "a.h5")
        assert files(tmp_path) == ["photos"]


class TestWholeOrNot:
    def test_ctrl_c_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hdf5, "_CHUNK_BYTES", 2**16)
        catalog, reader = made(2000)

        def interrupt(progress: Progress) -> None:
            if progress.done > 300:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            convert_catalog(
                catalog, DataSpec(source="made"), tmp_path / "a.h5", workers=2, watch=interrupt
            )
        assert reader.asked < 1000
        assert files(tmp_path) == []

    def test_a_failure_leaves_the_old_file(self, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.h5"
        convert(DataSpec(source=str(folder)), out)
        before = out.read_bytes()
        (folder / "cat" / "4.png").write_bytes(b"no picture")
        with pytest.raises(UnreadableImagesError):
            convert(DataSpec(source=str(folder)), out, replace=True)
        assert out.read_bytes() == before
        assert files(tmp_path) == ["a.h5", "photos"]

    def test_a_file_is_replaced_when_asked_only(self, npz: str, tmp_path: Path) -> None:
        out = tmp_path / "a.h5"
        out.write_bytes(b"mine")
        with pytest.raises(DataError, match="exists already"):
            convert(DataSpec(source=npz), out)
        assert out.read_bytes() == b"mine"
        convert(DataSpec(source=npz), out, replace=True)
        assert_same(npz, str(out))

    def test_the_source_is_not_overwritten(self, npz: str, tmp_path: Path) -> None:
        out = tmp_path / "a.h5"
        convert(DataSpec(source=npz), out)
        (tmp_path / "link.h5").symlink_to(out)
        before = out.read_bytes()
        for source, target in (
            (out, out),
            (tmp_path / "link.h5", out),
            (out, tmp_path / "link.h5"),
        ):
            with pytest.raises(DataError, match="source itself"):
                convert(DataSpec(source=str(source), size=(2, 2)), target, replace=True)
        assert out.read_bytes() == before

    @pytest.mark.parametrize(
        ("name", "told"),
        [("a.npz", "end in .h5"), ("missing/a.h5", "no folder"), ("folder.h5", "no file")],
    )
    def test_a_place_where_none_can_be(
        self, npz: str, tmp_path: Path, name: str, told: str
    ) -> None:
        (tmp_path / "folder.h5").mkdir()
        with pytest.raises(DataError, match=told) as caught:
            convert(DataSpec(source=npz), tmp_path / name, replace=True)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_full_disk(self, tmp_path: Path, file_limit: Callable[[int], None]) -> None:
        # The HDF5 library itself crashes the process here.
        catalog, spec = made(500)[0], DataSpec(source="made")
        convert_catalog(catalog, spec, tmp_path / "a.h5")
        size = (tmp_path / "a.h5").stat().st_size
        (tmp_path / "a.h5").unlink()
        for limit in (0, 500, 5_000, 100_000, 6_000_000, size - 500, size - 1):
            file_limit(limit)
            with pytest.raises(DataError, match="cannot be written") as caught:
                convert_catalog(catalog, spec, tmp_path / "a.h5")
            assert "\n" not in str(caught.value)
            assert files(tmp_path) == []

    def test_a_disk_that_is_too_small(
        self, npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DataError, match="another folder"):
            convert(DataSpec(source=npz), tmp_path / "a.h5")
        assert files(tmp_path) == ["source"]

    def test_a_folder_without_the_right_to_write(
        self, npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.mkstemp", refuse)
        with pytest.raises(DataError, match=r"a\.h5: cannot be written \(Permission denied\)"):
            convert(DataSpec(source=npz), tmp_path / "a.h5")

    def test_nothing_to_learn_is_refused_first(self, tmp_path: Path) -> None:
        one_class = make_catalog(name="one", names=["a"], label_names=["x"], images=Made())
        with pytest.raises(DataError, match="2 classes"):
            convert_catalog(one_class, DataSpec(source="one"), tmp_path / "a.h5")
        assert files(tmp_path) == []


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limits how large files may become, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_only_a_few_batches_are_in_memory(tmp_path: Path) -> None:
    catalog, reader = made(3000)
    ahead: list[int] = []

    def watch(progress: Progress) -> None:
        ahead.append(reader.asked - progress.done)

    tracemalloc.start()
    try:
        convert_catalog(catalog, DataSpec(source="made"), tmp_path / "a.h5", workers=2, watch=watch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < max(ahead) <= 8 * Made.batch
    assert peak < 3000 * 64 * 64 * 3 / 3
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["images"].shape == (3000, 64, 64, 3)
        assert file["images"][2999, 5, 5, 1] == 2999 % 251


def test_progress_is_told(npz: str, tmp_path: Path) -> None:
    reports: list[Progress] = []
    convert(DataSpec(source=npz), tmp_path / "a.h5", watch=reports.append)
    assert [report.total for report in reports] == [12] * len(reports)
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert (reports[-1].done, reports[-1].bad) == (12, 0)
