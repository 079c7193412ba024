from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data import decode
from hpsearch.data.catalog import BadImage, RawImage
from hpsearch.data.dataset import ImageDataset, ImageShape, digests_of, moments_of
from hpsearch.data.decode import Target, open_image, to_array
from hpsearch.data.progress import Progress
from hpsearch.data.readers import FileReader
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec, Fit, parse_size
from hpsearch.data.store import (
    UnreadableImagesError,
    cache_folder,
    load_catalog,
    load_dataset,
    resized,
)
from hpsearch.data.target import probe
from hpsearch.errors import ConfigError, DataError


def noise_picture(path: Path, seed: int, size: tuple[int, int], **options: Any) -> None:
    """A colour picture of (height, width) random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def make_pets(root: Path, count: int = 12) -> Path:
    """Pictures of several sizes in two class folders."""
    for number in range(count):
        noise_picture(
            root / ("cat", "dog")[number % 2] / f"{number:03}.png", number, (20 + number, 30)
        )
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_pets(tmp_path / "pets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of each test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HPSEARCH_CACHE", str(folder))
    return folder


def spec_of(root: Path, **fields: Any) -> DataSpec:
    return DataSpec(source=str(root), **{"size": (16, 16), **fields})


def entries(cache: Path) -> list[str]:
    """What lies among the entries, half-made ones included."""
    folder = cache / "entries"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class Counting:
    """A reader that counts what it is asked for."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.shape, self.batch = reader.shape, reader.batch
        self.read_images, self.hashed = 0, 0

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        self.read_images += stop - start
        yield from self._reader.read(start, stop)

    def signature(self) -> str:
        return str(self._reader.signature())

    def content_key(self) -> str:
        self.hashed += 1
        return str(self._reader.content_key())


def counted(spec: DataSpec) -> tuple[ImageDataset, Counting]:
    """A data set, and what its reader was asked for."""
    catalog = open_catalog(spec)
    reader = Counting(catalog.images)
    return load_catalog(dataclasses.replace(catalog, images=reader), spec), reader


def refusal(spec: DataSpec) -> str:
    """The message with which loading is refused: one printable line."""
    with pytest.raises(DataError) as caught:
        load_dataset(spec)
    message = str(caught.value)
    assert message.isprintable()
    return message


# ---- what is stored


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_the_pixels_are_those_of_a_plain_loop(pets: Path, fit: Fit) -> None:
    data = load_dataset(spec_of(pets, size=(16, 24), fit=fit))
    expected = []
    for path in sorted(pets.rglob("*.png")):
        image = Image.open(path).convert("RGB")
        box = None
        if fit == "crop":
            side = min(image.width / 24, image.height / 16)
            left, top = (image.width - 24 * side) / 2, (image.height - 16 * side) / 2
            box = (left, top, left + 24 * side, top + 16 * side)
        expected.append(np.asarray(image.resize((24, 16), Image.Resampling.BILINEAR, box)))
    assert isinstance(data.images, np.memmap)
    np.testing.assert_array_equal(data.images, expected)
    assert data.labels.tolist() == [0] * 6 + [1] * 6
    assert data.classes == ("cat", "dog")
    assert list(data.names or ()) == [
        path.relative_to(pets).as_posix() for path in sorted(pets.rglob("*.png"))
    ]


def test_stored_sums_and_hashes_are_those_of_the_pixels(pets: Path) -> None:
    data = load_dataset(spec_of(pets))
    np.testing.assert_array_equal(data.digests, digests_of(np.array(data.images)))
    np.testing.assert_array_equal(data.moments, moments_of(np.array(data.images)))
    in_memory = dataclasses.replace(data, images=np.array(data.images), folder=None)
    assert data.fingerprint == in_memory.fingerprint


def test_everything_that_a_source_knows_is_kept(tmp_path: Path) -> None:
    rows = ["file,sex,side,person,split"]
    for number in range(12):
        noise_picture(tmp_path / f"{number}.png", number, (9, 9))
        rows.append(
            f"{number}.png,{'mf'[number % 2]},{'lr'[number // 2 % 2]},p{number // 3},"
            f"{('train', 'val', 'test', '')[number % 4]}"
        )
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "3.png").write_bytes(b"broken")
    spec = DataSpec(source=str(tmp_path), options={"label": "sex,side"}, on_error="skip")
    catalog = open_catalog(spec)
    rest = [row for row in range(12) if row != 3]
    for _ in range(2):
        data = load_dataset(spec)
        assert catalog.groups is not None
        assert catalog.official is not None
        assert data.official is not None
        assert list(data.names or ()) == [catalog.names[row] for row in rest]
        assert list(data.groups or ()) == [catalog.groups[row] for row in rest]
        assert data.official.tolist() == catalog.official[rest].tolist()
        assert data.official.dtype == np.int8
        assert data.labels.tolist() == catalog.labels[rest].tolist()
        assert data.labels.dtype == np.int64
        assert data.classes == catalog.classes
        assert data.columns == ("sex", "side")
        assert data.class_parts == (("f", "l"), ("f", "r"), ("m", "l"), ("m", "r"))
        assert set(catalog.notes) < set(data.notes)
        assert [image.name for image in data.skipped] == ["3.png"]


def test_the_second_time_nothing_is_decoded_or_hashed(pets: Path, cache: Path) -> None:
    spec = spec_of(pets, size=None)
    first, reader = counted(spec)
    assert reader.read_images == 2 * len(first)  # sizes, pixels
    assert reader.hashed == 1
    again, reader = counted(spec)
    assert reader.read_images == 0
    assert reader.hashed == 0
    assert again.folder == first.folder == cache / "entries" / entries(cache)[0]
    assert again.notes == first.notes
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.images, first.images)


def test_a_copy_elsewhere_is_the_same_entry(pets: Path, tmp_path: Path, cache: Path) -> None:
    first = load_dataset(spec_of(pets, gray=False, fit="pad"))
    shutil.copytree(pets, tmp_path / "elsewhere" / "other name")
    second, reader = counted(spec_of(tmp_path / "elsewhere" / "other name", gray=False, fit="pad"))
    assert second.folder == first.folder
    assert reader.read_images == 0
    assert reader.hashed == 1
    assert second.name == "other name"
    assert second.fingerprint == first.fingerprint
    assert len(entries(cache)) == 1


def test_files_that_are_touched_are_the_same_entry(pets: Path, cache: Path) -> None:
    first = load_dataset(spec_of(pets, gray=False, fit="pad"))
    for path in pets.rglob("*.png"):
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    second, reader = counted(spec_of(pets, gray=False, fit="pad"))
    assert second.folder == first.folder
    assert reader.read_images == 0
    assert len(entries(cache)) == 1


def changed(path: Path) -> None:
    """Another content of the same size, at another time."""
    content = bytearray(path.read_bytes())
    noise_picture(path, 999, (21, 30))
    assert path.read_bytes() != content
    os.utime(path, ns=(2_000_000_000, 2_000_000_000))


@pytest.mark.parametrize("change", ["content", "label", "name", "missing", "added"])
def test_what_changes_is_another_entry(pets: Path, cache: Path, change: str) -> None:
    first = load_dataset(spec_of(pets))
    path = pets / "dog" / "001.png"
    if change == "content":
        changed(path)
    if change == "label":
        path.rename(pets / "cat" / "001.png")
    if change == "name":
        path.rename(pets / "dog" / "001 again.png")
    if change == "missing":
        path.unlink()
    if change == "added":
        shutil.copy(path, pets / "dog" / "copy.png")
    second = load_dataset(spec_of(pets))
    assert second.folder != first.folder
    assert len(entries(cache)) == 2
    assert (second.fingerprint != first.fingerprint) == (change != "name")
    # The old entry is what it was.
    assert (
        first.fingerprint == dataclasses.replace(first, images=np.array(first.images)).fingerprint
    )


@pytest.mark.parametrize("column", ["label", "person", "split"])
def test_another_cell_of_a_table_is_another_entry(tmp_path: Path, cache: Path, column: str) -> None:
    cells = {"label": ["a", "b"], "person": ["ann", "bob"], "split": ["train", "test"]}
    rows = [[f"{n}.png", *(values[n // 2 % 2] for values in cells.values())] for n in range(8)]
    for row in rows:
        noise_picture(tmp_path / row[0], len(row), (9, 9))
    folders = []
    for _ in range(2):
        text = "\n".join(",".join(row) for row in [["file", *cells], *rows])
        (tmp_path / "a.csv").write_text(text)
        for _ in range(2):
            data = load_dataset(spec_of(tmp_path))
            folders.append(data.folder)
            assert data.official is not None
            assert [data.classes[label] for label in data.labels] == [row[1] for row in rows]
            assert list(data.groups or ()) == [row[2] for row in rows]
            assert data.official.tolist() == [{"train": 0, "test": 2}[row[3]] for row in rows]
        place = ["file", *cells].index(column)
        rows[0][place] = rows[2][place]
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"size": (16, 17)},
        {"size": (17, 16)},
        {"fit": "pad"},
        {"fit": "stretch"},
        {"gray": True},
        {"exclude": ("owl",)},
    ],
    ids=str,
)
def test_another_way_to_bring_them_to_shape_is_another_entry(
    pets: Path, cache: Path, fields: dict[str, Any]
) -> None:
    noise_picture(pets / "owl" / "1.png", 1, (30, 20))
    first, second = load_dataset(spec_of(pets)), load_dataset(spec_of(pets, **fields))
    assert first.folder != second.folder
    assert first.fingerprint != second.fingerprint
    assert len(entries(cache)) == 2
    assert load_dataset(spec_of(pets)).folder == first.folder
    if "size" in fields:
        assert second.images.shape[1:3] == fields["size"]
    if "gray" in fields:
        assert second.shape.channels == 1


def test_no_color_is_the_same_entry_as_said_so(pets: Path, cache: Path) -> None:
    first = load_dataset(spec_of(pets))
    assert first.shape == ImageShape(16, 16, 3)
    np.testing.assert_array_equal(load_dataset(spec_of(pets, gray=False)).images, first.images)


def test_writing_into_the_images_does_not_change_the_store(pets: Path) -> None:
    data = load_dataset(spec_of(pets))
    assert data.folder is not None
    path = data.folder / "images.u8"
    before = path.read_bytes()
    assert len(before) == 12 * 16 * 16 * 3
    data.images[:] = 7
    assert isinstance(data.images, np.memmap)
    data.images.flush()
    del data
    assert path.read_bytes() == before
    assert load_dataset(spec_of(pets)).images.tobytes() == before


def test_an_entry_is_made_of_whole_files_only(pets: Path, cache: Path) -> None:
    load_dataset(spec_of(pets))
    (name,) = entries(cache)
    assert sorted(path.name for path in (cache / "entries" / name).iterdir()) == [
        *("digests.npy", "entry.json", "images.u8", "labels.npy", "moments.npy"),
    ]
    json.loads((cache / "entries" / name / "entry.json").read_bytes().decode("ascii"))


def test_small_arrays_need_no_store(cache: Path) -> None:
    assert load_dataset("digits").folder is None
    assert not cache.exists()
    large = load_dataset(DataSpec(size=(12, 10)))
    assert large.folder is not None
    assert large.images.shape == (1797, 12, 10, 1)
    colour = load_dataset(DataSpec(gray=False))
    assert colour.images.shape == (1797, 8, 8, 3)
    np.testing.assert_array_equal(
        colour.images, np.repeat(load_dataset("digits").images, 3, axis=3)
    )


KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("RGB", "PNG", {}),
    "gray": ("L", "PNG", {}),
    "bits": ("1", "PNG", {}),
    "alpha": ("RGBA", "PNG", {}),
    "palette": ("P", "GIF", {}),
    "jpeg": ("RGB", "JPEG", {"quality": 80}),
    "cmyk": ("CMYK", "JPEG", {}),
    "webp": ("RGBA", "WEBP", {"lossless": True}),
    "tiff": ("I;16", "TIFF", {}),
}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*KINDS, "broken"]),
            st.integers(1, 60),
            st.integers(1, 60),
            st.integers(0, 2),
        ),
        min_size=2,
        max_size=40,
    ),
    st.sampled_from(["crop", "pad", "stretch"]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, (7, 9)]),
)
def test_any_pictures_are_stored_as_they_decode_alone(
    pictures: list[tuple[str, int, int, int]], fit: Fit, gray: bool | None, size: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder) / "data"
        patch.setenv("HPSEARCH_CACHE", str(Path(folder) / "cache"))
        for name in ("a", "b", "c"):
            noise_picture(root / name / "always.png", 5, (9, 8))
        good = {f"{name}/always.png" for name in ("a", "b", "c")}
        for number, (kind, high, wide, label) in enumerate(pictures):
            path = root / "abc"[label] / f"{number}.img.png"
            if kind == "broken":
                path.write_bytes(b"\x89PNG\r\n\x1a\n")
                continue
            good.add(path.relative_to(root).as_posix())
            mode, form, options = KINDS[kind]
            pixels = np.random.default_rng(number).integers(0, 256, (high, wide, 4), np.uint8)
            image = Image.fromarray(pixels, "RGBA")
            if mode == "I;16":
                image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
            elif mode != "RGBA":
                image = image.convert("RGB").convert(mode)
            image.save(path, form, **options)
        spec = DataSpec(source=str(root), fit=fit, gray=gray, size=size, on_error="skip")
        data = load_dataset(spec)
        assert data.names is not None
        assert set(data.names) == good
        assert {image.name for image in data.skipped} == {
            path.relative_to(root).as_posix() for path in root.rglob("*.png")
        } - good
        for name, image, label in zip(data.names, data.images, data.labels, strict=True):
            with open_image(root / name) as raw:
                np.testing.assert_array_equal(image, to_array(raw, Target(data.shape, fit)))
            assert name.split("/")[0] == data.classes[label]


# ---- sizes and colours


@pytest.mark.parametrize(
    ("sizes", "expected", "told"),
    [
        ([(20, 30)], (20, 30), "keep their size of 20x30"),
        ([(128, 5)], (128, 5), "keep their size"),
        ([(129, 129)], (64, 64), "129x129"),
        ([(20, 30), (30, 20)], (64, 64), "2 different sizes"),
    ],
)
def test_a_size_is_guessed_and_said(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: tuple[int, int], told: str
) -> None:
    for number in range(6):
        noise_picture(
            tmp_path / "pets" / "ab"[number % 2] / f"{number}.png",
            number,
            sizes[number % len(sizes)],
        )
    data = load_dataset(tmp_path / "pets")
    assert data.images.shape[1:3] == expected
    assert sum(told in note for note in data.notes) == 1


@pytest.mark.parametrize(
    ("sizes", "fields", "lost"),
    [
        ([(30, 40)], {"size": (8, 8)}, "the middle square: a typical one loses 25%"),
        ([(30, 40)], {"size": (8, 8), "gray": True}, "the middle square: a typical one loses 25%"),
        ([(30, 40), (30, 40), (30, 30)], {}, "the middle square: a typical one loses 25%"),
        ([(40, 40)], {"size": (10, 20)}, "the proportions of 10x20: a typical one loses 50%"),
        ([(30, 32)], {"size": (8, 8)}, None),
        ([(30, 40), (30, 30), (30, 30)], {}, None),
        ([(30, 40)], {"size": (8, 8), "fit": "pad"}, None),
        ([(30, 40)], {}, None),
    ],
)
def test_what_cropping_takes_of_a_typical_picture_is_said(
    tmp_path: Path, sizes: list[tuple[int, int]], fields: dict[str, Any], lost: str | None
) -> None:
    for number in range(6):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.png"
        noise_picture(path, number, sizes[number % len(sizes)])
    notes = load_dataset(DataSpec(str(tmp_path / "pets"), **fields)).notes
    told = [note for note in notes if "--fit pad" in note]
    assert [note.split("cut to ")[1].split(" (")[0] for note in told] == ([lost] if lost else [])


def test_turned_pictures_count_as_they_are_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_picture(tmp_path / "pets" / "a" / "1.jpg", 1, (20, 30))
    noise_picture(tmp_path / "pets" / "b" / "2.jpg", 2, (30, 20), exif=exif)
    catalog = open_catalog(DataSpec(source=str(tmp_path / "pets")))
    assert probe(catalog) == ({(20, 30): 2}, False)
    assert load_dataset(tmp_path / "pets").shape == ImageShape(20, 30, 3)


def test_gray_is_guessed_where_all_pictures_are_gray(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for number, mode in enumerate(("L", "1", "LA", "L")):
        noise_picture(root / "ab"[number % 2] / f"{number}.png", number, (9, 8))
        path = root / "ab"[number % 2] / f"{number}.png"
        Image.open(path).convert("L").convert(mode).save(path)
    data = load_dataset(root)
    assert data.shape == ImageShape(9, 8, 1)
    assert any("gray" in note for note in data.notes)
    assert load_dataset(DataSpec(source=str(root), gray=False)).shape.channels == 3
    noise_picture(root / "a" / "colour.png", 7, (9, 8))
    assert load_dataset(root).shape.channels == 3


def test_pictures_that_cannot_be_opened_do_not_count(pets: Path) -> None:
    (pets / "cat" / "bad.png").write_bytes(b"bad")
    sizes, gray = probe(open_catalog(DataSpec(source=str(pets))))
    assert sum(sizes.values()) == 12
    assert not gray
    for path in pets.rglob("*.png"):
        path.write_bytes(b"bad")
    assert "13 of 13 images cannot be read" in refusal(DataSpec(source=str(pets)))


# ---- bad images


def spoil(pets: Path) -> list[str]:
    """Five bad pictures, by name in order."""
    whole = (pets / "cat" / "000.png").read_bytes()
    bad = {
        "cat/000.png": b"",
        "cat/004.png": whole[: len(whole) // 2],
        "dog/001.png": b"hello",
        "dog/003.png": whole[:30],
        "dog/011.png": b"\xff\xd8\xff",
    }
    for name, content in bad.items():
        (pets / name).write_bytes(content)
    return sorted(bad)


def test_all_bad_images_are_listed_and_nothing_is_kept(pets: Path, cache: Path) -> None:
    bad = spoil(pets)
    with pytest.raises(UnreadableImagesError) as caught:
        load_dataset(spec_of(pets))
    assert [image.name for image in caught.value.images] == bad
    assert all(image.reason for image in caught.value.images)
    message = str(caught.value)
    assert message.startswith("pets: 5 of 12 images cannot be read: cat/000.png: the file is empty")
    assert "and 2 more" in message
    assert message.isprintable()
    assert entries(cache) == []


def test_bad_images_are_left_out_when_asked(pets: Path, cache: Path) -> None:
    whole = load_dataset(spec_of(pets))
    assert whole.skipped == ()
    bad = spoil(pets)
    for _ in range(2):  # decoded, then from the store
        data = load_dataset(spec_of(pets, on_error="skip"))
        assert [image.name for image in data.skipped] == bad
        assert list(data.names or ()) == [name for name in whole.names or () if name not in bad]
        rows = [(whole.names or ()).index(name) for name in data.names or ()]
        np.testing.assert_array_equal(data.images, whole.images[rows])
        assert data.labels.tolist() == whole.labels[rows].tolist()
        np.testing.assert_array_equal(data.digests, whole.digests[rows])
        assert any("5 images that cannot be read are left out" in note for note in data.notes)
    # The entry of who left them out is not taken for a whole one.
    with pytest.raises(UnreadableImagesError) as caught:
        load_dataset(spec_of(pets))
    assert [image.name for image in caught.value.images] == bad


def test_nothing_but_bad_images_is_refused_whatever_is_asked(pets: Path, cache: Path) -> None:
    for path in pets.rglob("*.png"):
        path.write_bytes(b"bad")
    assert "12 of 12" in refusal(spec_of(pets, on_error="skip"))
    assert entries(cache) == []


def test_mended_images_are_read_again(pets: Path) -> None:
    path = pets / "cat" / "000.png"
    whole = path.read_bytes()
    path.write_bytes(b"bad")
    with pytest.raises(UnreadableImagesError):
        load_dataset(spec_of(pets))
    path.write_bytes(whole)
    assert len(load_dataset(spec_of(pets))) == 12


# ---- who else is there


def load_at_once(root: str, ready: Any, results: Any) -> None:
    """Loads when all are ready, and tells what it did."""
    said: list[str] = []
    ready.wait(120)
    data = load_dataset(DataSpec(source=root, size=(32, 32)), watch=lambda at: said.append(at.what))
    total = int(np.asarray(data.images, np.int64).sum())
    results.put((os.getpid(), data.fingerprint, str(data.folder), total, "decoding" in said))


def test_processes_that_start_at_once_make_one_entry(tmp_path: Path, cache: Path) -> None:
    root = make_pets(tmp_path / "many", 200)
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=load_at_once, args=(str(root), ready, results)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=180) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    pids, fingerprints, folders, totals, decoded = zip(*told, strict=True)
    assert len(set(pids)) == 4
    assert len(set(fingerprints)) == 1
    assert len(set(totals)) == 1
    assert set(folders) == {str(cache / "entries" / name) for name in entries(cache)}
    assert sum(decoded) == 1


def test_threads_that_start_at_once_make_one_entry(pets: Path, cache: Path) -> None:
    ready, said = threading.Barrier(6), []

    def work(number: int) -> tuple[str, int]:
        ready.wait()
        data = load_dataset(spec_of(pets), watch=lambda at: said.append((number, at.what)))
        small = resized(data, (5, 6), watch=lambda at: said.append((number, at.what)))
        return data.fingerprint, int(np.asarray(small.images, np.int64).sum())

    with ThreadPoolExecutor(6) as pool:
        results = set(pool.map(work, range(6)))
    assert len(results) == 1
    assert len(entries(cache)) == 1
    assert len({number for number, what in said if what == "decoding"}) == 1
    assert len({number for number, what in said if "copies" in what}) == 1


def is_free(cache: Path) -> bool:
    """Whether all locks can be had at once."""
    for path in (cache / "locks").iterdir():
        with filelock.FileLock(path).acquire(timeout=0):
            pass
    return True


def test_locks_are_given_back(pets: Path, cache: Path) -> None:
    data = load_dataset(spec_of(pets))
    assert is_free(cache)
    resized(data, (4, 4))
    assert is_free(cache)
    (pets / "cat" / "bad.png").write_bytes(b"bad")
    with pytest.raises(UnreadableImagesError) as caught:
        load_dataset(spec_of(pets))
    assert is_free(cache)
    assert caught.value.images


DIE_HALFWAY = """
import sys, time
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset, resized

def watch(at):
    if at.what.startswith(sys.argv[2]) and at.done:
        print("halfway", flush=True)
        time.sleep(600)

data = load_dataset(DataSpec(source=sys.argv[1], size=(32, 32)), watch=watch)
resized(data, (8, 8), watch=watch)
"""


@pytest.mark.parametrize("stage", ["decoding", "making"])
def test_a_killed_process_harms_nobody(tmp_path: Path, cache: Path, stage: str) -> None:
    root = make_pets(tmp_path / "many", 100)
    process = subprocess.Popen(
        [sys.executable, "-c", DIE_HALFWAY, str(root), stage], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "halfway\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    left = entries(cache)
    assert len(left) == 1
    assert left[0].startswith(".") == (stage == "decoding")
    said: list[str] = []
    spec = DataSpec(source=str(root), size=(32, 32))
    data = load_dataset(spec, watch=lambda at: said.append(at.what))
    assert len(data) == 100
    assert not any("waiting" in what for what in said)
    assert len(entries(cache)) == 1
    assert not entries(cache)[0].startswith(".")
    small = resized(data, (8, 8))
    assert data.folder is not None
    assert not [path for path in data.folder.iterdir() if path.name.startswith(".")]
    np.testing.assert_array_equal(small.moments, moments_of(np.array(small.images)))
    np.testing.assert_array_equal(
        small.images, resized(dataclasses.replace(data, folder=None), (8, 8)).images
    )


@pytest.mark.parametrize("stage", ["looking", "decoding", "the end"])
def test_an_interrupt_leaves_nothing_half_made(tmp_path: Path, cache: Path, stage: str) -> None:
    root = make_pets(tmp_path / "many", 100)

    def watch(at: Progress) -> None:
        if at.what.startswith(stage) or (stage == "the end" and at.done == at.total):
            raise KeyboardInterrupt

    spec = DataSpec(source=str(root), size=(32, 32))
    with pytest.raises(KeyboardInterrupt):
        load_dataset(spec, watch=watch)
    assert entries(cache) == []
    assert not [path for path in cache.rglob("*") if path.name.endswith(".u8")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert stage == "looking" or is_free(cache)
    assert len(load_dataset(spec)) == 100


def test_an_interrupt_leaves_no_half_made_copy(pets: Path, cache: Path) -> None:
    data = load_dataset(spec_of(pets))
    before = sorted(cache.rglob("*"))

    def watch(at: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resized(data, (8, 8), watch=watch)
    assert sorted(path for path in cache.rglob("*") if path.suffix != ".lock") == [
        path for path in before if path.suffix != ".lock"
    ]
    assert resized(data, (8, 8)).images.shape == (12, 8, 8, 3)


def test_progress_is_told(tmp_path: Path) -> None:
    root = make_pets(tmp_path / "many", 200)
    (root / "cat" / "000.png").write_bytes(b"bad")
    said: list[Progress] = []
    load_dataset(spec_of(root, on_error="skip"), watch=said.append)
    decoding = [at for at in said if at.what == "decoding"]
    assert len(decoding) >= 3
    done = [at.done for at in decoding]
    assert done == sorted(done)
    assert done[-1] == 200
    assert all(at.total == 200 and at.bad in (0, 1) for at in decoding)
    assert decoding[-1].bad == 1
    said.clear()
    load_dataset(spec_of(root, on_error="skip"), watch=said.append)
    assert said == []


# ---- a store that is damaged or in the way


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "entry.json").read_text())
        change(document)
        (folder / "entry.json").write_text(json.dumps(document))

    return edit


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, length)


def saved(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, array)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "pixels cut": cut("images.u8", 100),
    "pixels empty": cut("images.u8", 0),
    "pixels too many": cut("images.u8", 12 * 16 * 16 * 3 + 1),
    "pixels gone": lambda folder: (folder / "images.u8").unlink(),
    "entry cut": cut("entry.json", 40),
    "entry empty": cut("entry.json", 0),
    "entry gone": lambda folder: (folder / "entry.json").unlink(),
    "entry of another kind": lambda folder: (folder / "entry.json").write_text("[1, 2]"),
    "entry of bytes": lambda folder: (folder / "entry.json").write_bytes(b"\xff\0\n"),
    **{
        f"entry without {name}": edited(lambda document, name=name: document.pop(name))  # type: ignore[misc]
        for name in (
            *("shape", "classes", "names", "groups", "official", "columns", "class_parts"),
            "skipped",
        )
    },
    "too few names": edited(lambda document: document["names"].pop()),
    "no classes": edited(lambda document: document.update(classes=[])),
    "odd shape": edited(lambda document: document.update(shape=[16, 16, 2])),
    "short shape": edited(lambda document: document.update(shape=[16, 16])),
    "labels cut": cut("labels.npy", 60),
    "labels empty": cut("labels.npy", 0),
    "labels of another class": saved("labels.npy", np.full(12, 2)),
    "labels of another type": saved("labels.npy", np.zeros(12, np.int32)),
    "too few labels": saved("labels.npy", np.zeros(11, np.int64)),
    "labels as a pickle": saved("labels.npy", np.array([{}] * 12, dtype=object)),
    "digests cut": cut("digests.npy", 140),
    "digests empty": cut("digests.npy", 0),
    "too few digests": saved("digests.npy", np.zeros((11, 16), np.uint8)),
    "moments empty": cut("moments.npy", 0),
    "moments of other channels": saved("moments.npy", np.zeros((12, 1, 2), np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_refused_with_its_folder(pets: Path, damage: str) -> None:
    first = load_dataset(spec_of(pets))
    assert first.folder is not None
    pixels = np.array(first.images)
    DAMAGE[damage](first.folder)
    message = refusal(spec_of(pets))
    assert str(first.folder) in message
    assert "delete that folder" in message
    shutil.rmtree(first.folder)
    np.testing.assert_array_equal(load_dataset(spec_of(pets)).images, pixels)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"entry": "x", "shape": [1]}'])
def test_a_damaged_memory_of_a_source_is_made_again(
    pets: Path, cache: Path, content: bytes
) -> None:
    first = load_dataset(spec_of(pets))
    (memo,) = (cache / "sources").iterdir()
    whole = memo.read_bytes()
    memo.write_bytes(content)
    again, reader = counted(spec_of(pets))
    assert again.folder == first.folder
    assert reader.hashed == 1
    assert memo.read_bytes() == whole


@pytest.mark.parametrize("place", [".", "entries", "locks"])
def test_a_file_in_the_way_of_the_store_is_named(pets: Path, cache: Path, place: str) -> None:
    if place != ".":
        cache.mkdir()
    (cache / place).write_text("in the way") if place != "." else cache.write_text("in the way")
    message = refusal(spec_of(pets))
    assert str(cache) in message
    assert "HPSEARCH_CACHE" in message


def test_a_file_in_the_way_of_an_entry_is_named(pets: Path, cache: Path) -> None:
    first = load_dataset(spec_of(pets))
    assert first.folder is not None
    shutil.rmtree(first.folder)
    first.folder.write_text("in the way")
    assert str(cache) in refusal(spec_of(pets))


def test_no_space_is_said_before_anything_is_decoded(
    pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(spec_of(pets))
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = refusal(spec_of(pets, size=(1000, 1000)))
    assert "has 0.0 MB left" in message
    assert str(cache) in message
    with pytest.raises(DataError, match=" MB left"):
        resized(data, (100, 100))
    assert len(entries(cache)) == 1


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HPSEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/hpsearch")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_folder() == Path("/home/ann/.cache/hpsearch")


def test_data_without_two_classes_is_refused_before_it_is_decoded(pets: Path, cache: Path) -> None:
    for path in pets.rglob("*.png"):
        path.write_bytes(b"bad")
    assert "at least 2 classes" in refusal(spec_of(pets, exclude=("dog",)))
    catalog = open_catalog(spec_of(pets))
    for classes in (("cat",), ("cat", "cat")):
        with pytest.raises(DataError, match=r"classes|repeat"):
            load_catalog(dataclasses.replace(catalog, classes=classes), spec_of(pets))
    empty = dataclasses.replace(
        catalog, names=[], labels=catalog.labels[:0], images=FileReader(pets, [])
    )
    with pytest.raises(DataError, match="no images"):
        load_catalog(empty, spec_of(pets))
    assert not cache.exists()


# ---- other sizes


def test_copies_are_close_to_what_pillow_makes(pets: Path) -> None:
    data = load_dataset(spec_of(pets, size=(40, 40)))
    copy = resized(data, (12, 20))
    assert copy.images.shape == (12, 12, 20, 3)
    for image, small in zip(data.images, copy.images, strict=True):
        expected = Image.fromarray(image).resize((20, 12), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(expected, int) - small).max() <= 2
    np.testing.assert_array_equal(copy.moments, moments_of(np.array(copy.images)))


def test_copies_keep_everything_but_the_pixels(pets: Path) -> None:
    data = load_dataset(spec_of(pets))
    copy = resized(data, (8, 9))
    assert copy.classes == data.classes
    assert copy.names == data.names
    assert copy.notes == data.notes
    np.testing.assert_array_equal(copy.labels, data.labels)
    np.testing.assert_array_equal(copy.digests, digests_of(np.array(copy.images)))
    assert copy.fingerprint != data.fingerprint
    assert resized(data, (16, 16)) is data


def test_a_copy_is_made_once_and_shared(pets: Path, cache: Path) -> None:
    said: list[str] = []
    first = resized(load_dataset(spec_of(pets)), (8, 8), watch=lambda at: said.append(at.what))
    assert said
    said.clear()
    again = resized(load_dataset(spec_of(pets)), (8, 8), watch=lambda at: said.append(at.what))
    assert not said
    np.testing.assert_array_equal(again.images, first.images)
    assert len(list(cache.rglob("*8x8*.u8"))) == 1
    again.images[:] = 3
    assert (resized(load_dataset(spec_of(pets)), (8, 8)).images != 3).any()


def test_each_size_is_a_copy_of_its_own(pets: Path) -> None:
    data = load_dataset(spec_of(pets))
    sizes = ((8, 12), (12, 8), (8, 8))
    for size, copy in [(size, resized(data, size)) for size in sizes]:
        target = Target(ImageShape(*size, 3), "stretch")
        expected = [to_array(image, target) for image in np.array(data.images)]
        np.testing.assert_array_equal(copy.images, expected)


def test_a_copy_of_a_copy_is_not_taken_for_one_of_the_images(pets: Path) -> None:
    data = load_dataset(spec_of(pets))
    tiny = resized(data, (2, 2))
    large, again = resized(tiny, (20, 20)), resized(tiny, (16, 16))
    assert again.images.tobytes() != data.images.tobytes()
    direct = resized(data, (20, 20))
    assert large.images.tobytes() != direct.images.tobytes()
    in_memory = resized(dataclasses.replace(data, folder=None), (20, 20))
    np.testing.assert_array_equal(direct.images, in_memory.images)


def test_data_in_memory_is_copied_in_memory(cache: Path) -> None:
    data = load_dataset("digits")
    copy = resized(data, (5, 4))
    assert copy.images.shape == (1797, 5, 4, 1)
    # Nobody may ask for them, and of many images they take long.
    assert not {"digests", "moments", "fingerprint"} & (vars(data).keys() | vars(copy).keys())
    np.testing.assert_array_equal(copy.moments, moments_of(copy.images))
    expected = Image.fromarray(data.images[9, ..., 0]).resize((4, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(copy.images[9, ..., 0], np.asarray(expected))
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["pixels", "sums cut", "sums gone", "sums of others"])
def test_a_damaged_copy_is_refused_with_its_folder(pets: Path, damage: str) -> None:
    data = load_dataset(spec_of(pets))
    resized(data, (8, 8))
    assert data.folder is not None
    (pixels,) = data.folder.glob("8x8*.u8")
    (sums,) = data.folder.glob("8x8*.npy")
    if damage == "pixels":
        os.truncate(pixels, 100)
    if damage == "sums cut":
        os.truncate(sums, 0)
    if damage == "sums gone":
        sums.unlink()
    if damage == "sums of others":
        np.save(sums, np.zeros((3, 3, 2), np.int64))
    with pytest.raises(DataError) as caught:
        resized(load_dataset(spec_of(pets)), (8, 8))
    assert str(data.folder) in str(caught.value)
    assert str(caught.value).isprintable()


# ---- the specification


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256", (256, 256)),
        ("480x640", (480, 640)),
        (" 1X16384 ", (1, 16_384)),
        ("32×48", (32, 48)),
    ],
)
def test_a_size_is_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size
    assert DataSpec(size=size).size == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0x5",
        "5x0",
        "-5",
        "16385",
        "1x16385",
        "5x",
        "x5",
        "5x5x3",
        "5.5",
        "1e3",
        "9" * 30,
        "5\n6",
    ],
)
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="size must be"):
        parse_size(text)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"source": ""}, "source"),
        ({"source": None}, "source"),
        ({"source": "a\0b"}, "source"),
        ({"source": "folder/" + "a" * 5000}, "source is too long"),
        ({"source": "é" * 128 + ".csv"}, "source is too long"),
        ({"source": "folder/" * 1000}, "source is too long"),
        ({"size": (0, 5)}, "size"),
        ({"size": (5,)}, "size"),
        ({"size": (5, 5, 3)}, "size"),
        ({"size": (True, 5)}, "size"),
        ({"size": True}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": "64"}, "size"),
        ({"fit": "zoom"}, "zoom"),
        ({"on_error": "ignore"}, "ignore"),
        ({"gray": 1}, "gray"),
        ({"exclude": "cat"}, "exclude"),
        ({"exclude": (1,)}, "exclude"),
        ({"exclude": 5}, "exclude"),
        ({"options": [1]}, "options"),
        ({"options": None}, "options"),
    ],
    ids=str,
)
def test_a_specification_that_cannot_be_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        DataSpec(**fields)
    assert str(caught.value).isprintable()


def test_a_specification_is_read_as_it_was_written() -> None:
    spec = DataSpec(
        source="a folder",
        size=(32, 48),
        fit="pad",
        gray=True,
        exclude=("x", "y"),
        on_error="skip",
        options={"label": ("a", "b"), "n": 3},
    )
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert DataSpec.of(spec) is spec
    assert DataSpec.of(Path("a folder")) == DataSpec.of("a folder") == DataSpec(source="a folder")
    assert DataSpec(source=Path("b")).source == "b"  # type: ignore[arg-type]
    assert DataSpec(size=5).size == (5, 5)  # type: ignore[arg-type]
    with pytest.raises((DataError, ConfigError)):
        DataSpec.from_dict({"source": "x", "colour": 1})


def test_the_memo_only_saves_time(pets: Path, cache: Path) -> None:
    """A cache that others made can be read although nothing can be added to its memos."""
    cache.mkdir()
    (cache / "sources").write_text("in the way")
    assert len(load_dataset(spec_of(pets))) == len(load_dataset(spec_of(pets)))
    assert len(list((cache / "entries").iterdir())) == 1


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_a_failure_that_may_pass_stops_the_reading_and_is_not_remembered(
    pets: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """On a disk or network that stumbles, an image is not left out for good."""
    spec = dataclasses.replace(DataSpec.of(spec_of(pets)), on_error="skip")
    with monkeypatch.context() as patch:
        calls = iter([None, failure])
        real = decode._plain_mode

        def stumble(image: Image.Image, channels: int) -> Image.Image:
            if (error := next(calls, None)) is not None:
                raise error
            return real(image, channels)

        patch.setattr(decode, "_plain_mode", stumble)
        with pytest.raises(DataError, match="cannot be read now") as caught:
            load_dataset(spec)
    assert "\n" not in str(caught.value)
    assert load_dataset(spec).skipped == ()


def test_a_file_that_was_edited_under_its_old_time_is_read_again(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    first = load_dataset(tmp_path / "pictures")
    edited, before = tmp_path / "pictures" / "a" / "0.bmp", path.stat()
    size = edited.stat()
    Image.new("RGB", (9, 9), (200, 0, 0)).save(edited)
    os.utime(edited, ns=(size.st_atime_ns, size.st_mtime_ns))
    assert before.st_size == edited.stat().st_size
    assert first.images[0, 0, 0, 0] == 0
    assert load_dataset(tmp_path / "pictures").images[0, 0, 0, 0] == 200


def test_files_that_change_while_they_are_read_are_not_stored(pets: Path, cache: Path) -> None:
    picture = next(path for path in sorted(pets.rglob("*")) if path.is_file())

    def change(progress: Progress) -> None:
        if progress.what == "decoding":
            picture.write_bytes(picture.read_bytes() + b"more")

    with pytest.raises(DataError, match="changed while they were read"):
        load_dataset(spec_of(pets), watch=change)
    assert not list((cache / "entries").iterdir())
    assert len(load_dataset(spec_of(pets)))
