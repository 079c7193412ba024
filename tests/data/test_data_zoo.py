"""Every data set of torchvision, written in its own format, as torchvision reads it."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import http.server
import inspect
import json
import pickle
import shutil
import struct
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import utils

from hpsearch.data import store
from hpsearch.data.catalog import Catalog
from hpsearch.data.dataset import PARTS, ImageDataset
from hpsearch.data.sources import SOURCES, locate, open_catalog, source_of
from hpsearch.data.sources.zoo import ZOO
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import UnreadableImagesError, load_dataset
from hpsearch.errors import DataError

ROWS = {row.name: row for row in ZOO}

Pictures = dict[str, tuple[str | None, str, np.ndarray]]
"""By name in the source: official part, class, pixels."""


class Writer:
    """Writes data sets below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.random = np.random.default_rng(0)
        self.wrote: Pictures = {}

    def pixels(self, count: int, *shape: int) -> np.ndarray:
        return self.random.integers(0, 256, (count, *shape), dtype=np.uint8)

    def path(self, path: str) -> Path:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def expect(
        self, part: str | None, name: str, images: np.ndarray, classes: Sequence[str]
    ) -> None:
        """Images of an array, under the names that they shall have."""
        for number, (image, text) in enumerate(zip(images, classes, strict=True)):
            pixels = image if image.ndim == 3 else image[..., np.newaxis]
            self.wrote[f"{name}/{number}"] = (part, text, pixels)

    def picture(self, path: str, part: str | None, text: str, mode: str = "RGB") -> None:
        """A picture file of 20x24 pixels."""
        full = self.path(path)
        image = Image.fromarray(self.pixels(20, 24, 3)).convert(mode)
        image.save(full)
        with Image.open(full) as saved:
            pixels = np.asarray(saved.convert("L" if mode in "1L" else "RGB"))
        self.wrote[path] = (part, text, pixels if pixels.ndim == 3 else pixels[..., np.newaxis])

    def text(self, path: str, *lines: str) -> None:
        self.path(path).write_text("".join(f"{line}\n" for line in lines))

    def idx(self, path: str, values: np.ndarray) -> None:
        """The format of MNIST: big-endian, a header of kind and sizes."""
        kind = {"uint8": 8, "int32": 12}[values.dtype.name]
        header = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
        content = header + values.astype(values.dtype.newbyteorder(">")).tobytes()
        self.path(path).write_bytes(content)


def cifar(writer: Writer, folder: str, files: dict[str, str], labels: str, names: str) -> None:
    classes = {"cifar-10-batches-py": CIFAR10_CLASSES, "cifar-100-python": CIFAR100_CLASSES}[folder]
    done: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    texts: dict[str, list[str]] = {"train": [], "test": []}
    for number, (file, part) in enumerate(files.items()):
        images = writer.pixels(4, 32, 32, 3)
        numbers = [(number + offset) % len(classes) for offset in range(4)]
        entry = {"data": images.transpose(0, 3, 1, 2).reshape(4, -1), labels: numbers}
        writer.path(f"{folder}/{file}").write_bytes(pickle.dumps(entry))
        done[part].append(images)
        texts[part] += [classes[number] for number in numbers]
    meta = "batches.meta" if "10-" in folder else "meta"
    writer.path(f"{folder}/{meta}").write_bytes(pickle.dumps({names: classes}))
    for part in done:
        writer.expect(part, part, np.concatenate(done[part]), texts[part])


CIFAR10_CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
CIFAR100_CLASSES = [f"class {number:02}" for number in range(100)]


def cifar10(writer: Writer) -> None:
    files = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    cifar(writer, "cifar-10-batches-py", files, "labels", "label_names")


def cifar100(writer: Writer) -> None:
    files = {"train": "train", "test": "test"}
    cifar(writer, "cifar-100-python", files, "fine_labels", "fine_label_names")


def stl10(writer: Writer) -> None:
    classes = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    for part in ("train", "test"):
        images = writer.pixels(5, 96, 96, 3)
        numbers = np.array([1, 2, 10, 9, 1], dtype=np.uint8)
        # Channels first, then columns, then rows.
        images.transpose(0, 3, 2, 1).tofile(writer.path(f"stl10_binary/{part}_X.bin"))
        numbers.tofile(writer.path(f"stl10_binary/{part}_y.bin"))
        writer.expect(part, part, images, [classes[number - 1] for number in numbers])


def svhn(writer: Writer) -> None:
    for part in ("train", "test"):
        images = writer.pixels(4, 32, 32, 3)
        labels = np.array([[1], [10], [9], [1]], dtype=np.uint8)
        content = {"X": images.transpose(1, 2, 3, 0), "y": labels}
        savemat(writer.path(f"{part}_32x32.mat"), content)
        writer.expect(part, part, images, ["1", "0", "9", "1"])


def mnist(writer: Writer, folder: str = "MNIST", classes: Sequence[str] = "0123456789") -> None:
    for part, file in (("train", "train"), ("test", "t10k")):
        images, labels = writer.pixels(3, 28, 28), np.array([9, 0, 4], dtype=np.uint8)
        writer.idx(f"{folder}/raw/{file}-images-idx3-ubyte", images)
        writer.idx(f"{folder}/raw/{file}-labels-idx1-ubyte", labels)
        writer.expect(part, part, images, [classes[label] for label in labels])


CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip


def fashionmnist(writer: Writer) -> None:
    mnist(writer, "FashionMNIST", CLOTHES)


def kmnist(writer: Writer) -> None:
    mnist(writer, "KMNIST", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"])


def qmnist(writer: Writer) -> None:
    for part in ("train", "test"):
        images = writer.pixels(3, 28, 28)
        columns = np.array([[7, 0, 131, 1, 2, 3, 0, 0]] * 3, dtype=np.int32)
        columns[2, :3] = 5, 4, 2000
        writer.idx(f"QMNIST/raw/qmnist-{part}-images-idx3-ubyte", images)
        writer.idx(f"QMNIST/raw/qmnist-{part}-labels-idx2-int", columns)
        writer.expect(part, part, images, ["7", "7", "5"])


def emnist(writer: Writer, split: str = "balanced", first: int = 0, classes: str = "012") -> None:
    for part in ("train", "test"):
        images = writer.pixels(3, 28, 28)
        labels = np.arange(first, first + 3, dtype=np.uint8)
        writer.idx(f"EMNIST/raw/emnist-{split}-{part}-images-idx3-ubyte", images.transpose(0, 2, 1))
        writer.idx(f"EMNIST/raw/emnist-{split}-{part}-labels-idx1-ubyte", labels)
        writer.expect(part, part, images, list(classes))


def usps(writer: Writer) -> None:
    for part, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        images = writer.pixels(3, 16, 16) // 128 * 255
        lines = [
            f"{label} " + " ".join(f"{n}:{v / 255 * 2 - 1:g}" for n, v in enumerate(image.flat, 1))
            for label, image in zip((10, 1, 5), images, strict=True)
        ]
        writer.path(file).write_bytes(bz2.compress("\n".join(lines).encode()))
        writer.expect(part, part, images, ["9", "0", "4"])


def semeion(writer: Writer) -> None:
    images = writer.pixels(3, 16, 16) // 128
    rows = np.concatenate([images.reshape(3, -1), np.eye(10)[[8, 0, 8]]], axis=1)
    np.savetxt(writer.path("semeion.data"), rows, fmt="%.4f")
    writer.expect(None, "semeion", images * 255, ["8", "0", "8"])


def omniglot(writer: Writer) -> None:
    for part, alphabet in (("background", "Greek"), ("evaluation", "Angelic")):
        for character in ("character02", "character01"):
            folder = f"omniglot-py/images_{part}/{alphabet}/{character}"
            for number in (2, 1):
                path = f"{folder}/0001_{number:02}.png"
                writer.picture(path, None, f"{alphabet}/{character}", mode="1")
        writer.path(f"omniglot-py/images_{part}.zip").write_bytes(b"of which these are")


def fer2013(writer: Writer) -> None:
    lines = ["emotion,pixels,Usage"]
    for part, usages in (("train", ["Training"] * 2), ("test", ["PublicTest", "PrivateTest"])):
        images = writer.pixels(2, 48, 48)
        for label, image, usage in zip((0, 6), images, usages, strict=True):
            lines.append(f"{label},{' '.join(map(str, image.flat))},{usage}")
        writer.expect(part, part, images, ["angry", "neutral"])
    writer.text("fer2013/fer2013.csv", *lines)


def pcam(writer: Writer) -> None:
    for part, file in (("train", "train"), ("val", "valid"), ("test", "test")):
        images, labels = writer.pixels(3, 96, 96, 3), np.array([0, 1, 1], dtype=np.uint8)
        for kind, values in (("x", images), ("y", labels.reshape(3, 1, 1, 1))):
            path = writer.path(f"pcam/camelyonpatch_level_2_split_{file}_{kind}.h5")
            with h5py.File(path, "w") as archive:
                archive[kind] = values
        writer.expect(part, part, images, ["normal", "tumor", "tumor"])


def caltech101(writer: Writer) -> None:
    folder = "caltech101/101_ObjectCategories"
    for name in ("airplanes", "Faces"):
        for number in (1, 2):
            writer.picture(f"{folder}/{name}/image_{number:04}.jpg", None, name)
    writer.picture(f"{folder}/BACKGROUND_Google/image_0001.jpg", None, "no class")
    del writer.wrote[f"{folder}/BACKGROUND_Google/image_0001.jpg"]
    savemat(
        writer.path("caltech101/Annotations/Faces_2/annotation_0001.mat"), {"obj_contour": [[1.0]]}
    )


def caltech256(writer: Writer) -> None:
    folder = "caltech256/256_ObjectCategories"
    for label, name in ((1, "001.ak47"), (2, "002.american-flag")):
        for number in (1, 2):
            writer.picture(f"{folder}/{name}/{label:03}_{number:04}.jpg", None, name)
    writer.text(f"{folder}/002.american-flag/RENAME2", "which torchvision leaves out")


def flowers102(writer: Writer) -> None:
    ids = {"train": ("trnid", [1, 4]), "val": ("valid", [2, 6]), "test": ("tstid", [5, 3])}
    labels = [1, 102, 1, 77, 77, 1]
    names = {1: "pink primrose", 102: "blackberry lily", 77: "passion flower"}
    for part, (_, numbers) in ids.items():
        for number in numbers:
            path = f"flowers-102/jpg/image_{number:05}.jpg"
            writer.picture(path, part, names[labels[number - 1]])
    savemat(writer.path("flowers-102/imagelabels.mat"), {"labels": np.array([labels])})
    savemat(writer.path("flowers-102/setid.mat"), {name: np.array([n]) for name, n in ids.values()})


def oxfordiiitpet(writer: Writer) -> None:
    for part, file in (("train", "trainval"), ("test", "test")):
        lines = []
        for breed, text, label in (
            ("Abyssinian", "Abyssinian", 1),
            ("american_bulldog", "American Bulldog", 2),
            ("Bengal", "Bengal", 3),
        ):
            name = f"{breed}_{len(file)}"
            writer.picture(f"oxford-iiit-pet/images/{name}.jpg", part, text)
            lines.append(f"{name} {label} 1 {label}")
        writer.text(f"oxford-iiit-pet/annotations/{file}.txt", *lines)


def eurosat(writer: Writer) -> None:
    for name in ("AnnualCrop", "Forest"):
        for number in (1, 2):
            writer.picture(f"eurosat/2750/{name}/{name}_{number}.jpg", None, name)


def food101(writer: Writer) -> None:
    for part in ("train", "test"):
        names = {text: [f"{text}/{number}{len(part)}" for number in range(2)] for text in FOODS}
        writer.text(f"food-101/meta/{part}.json", json.dumps(names))
        for text, paths in names.items():
            for path in paths:
                writer.picture(f"food-101/images/{path}.jpg", part, text)


FOODS = ("apple_pie", "waffles")


def dtd(writer: Writer) -> None:
    for number, part in enumerate(("train", "val", "test")):
        lines = [f"{text}/{text}_{number:04}.jpg" for text in ("banded", "zigzagged")]
        writer.text(f"dtd/dtd/labels/{part}1.txt", *lines)
        for line in lines:
            writer.picture(f"dtd/dtd/images/{line}", part, line.split("/")[0])


def fgvcaircraft(writer: Writer, level: str = "variant", file: str = "variants") -> None:
    folder = "fgvc-aircraft-2013b/data"
    classes = ("707-320", "Cessna 172")
    writer.text(f"{folder}/{file}.txt", *classes)
    for number, part in enumerate(("train", "val", "test")):
        lines = [f"{number}{row} {text}" for row, text in enumerate(classes)]
        writer.text(f"{folder}/images_{level}_{part}.txt", *lines)
        for line in lines:
            name, text = line.split(" ", 1)
            writer.picture(f"{folder}/images/{name}.jpg", part, text)


def gtsrb(writer: Writer) -> None:
    for label, text in ((0, "speed limit 20"), (14, "stop")):
        for film in (0, 1):
            for frame in (0, 1):
                path = f"gtsrb/GTSRB/Training/{label:05}/{film:05}_{frame:05}.ppm"
                writer.picture(path, "train", text)
    writer.text(
        "gtsrb/GT-final_test.csv",
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId",
        "00000.ppm;24;20;1;1;9;9;14",
        "00001.ppm;24;20;1;1;9;9;0",
    )
    writer.picture("gtsrb/GTSRB/Final_Test/Images/00000.ppm", "test", "stop")
    writer.picture("gtsrb/GTSRB/Final_Test/Images/00001.ppm", "test", "speed limit 20")


def country211(writer: Writer) -> None:
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for name in ("AD", "ZW"):
            writer.picture(f"country211/{folder}/{name}/{part}.jpg", part, name)


def renderedsst2(writer: Writer) -> None:
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for name in ("negative", "positive"):
            writer.picture(f"rendered-sst2/{folder}/{name}/0.png", part, name)


def stanfordcars(writer: Writer) -> None:
    classes = ["AM General Hummer SUV 2000", "smart fortwo Convertible 2012"]
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for part, file in (
        ("train", "devkit/cars_train_annos"),
        ("test", "cars_test_annos_withlabels"),
    ):
        annotations = [(1, 2, "00001.jpg"), (1, 1, "00002.jpg")]
        table = np.array([annotations], dtype=kind)
        savemat(writer.path(f"stanford_cars/{file}.mat"), {"annotations": table})
        for _, label, name in annotations:
            writer.picture(f"stanford_cars/cars_{part}/{name}", part, classes[label - 1])
    names = np.array([classes], dtype=object)
    savemat(writer.path("stanford_cars/devkit/cars_meta.mat"), {"class_names": names})


def sun397(writer: Writer) -> None:
    writer.text("SUN397/ClassName.txt", "/a/abbey", "/c/church/indoor")
    for name, text in (("c/church/indoor", "church/indoor"), ("a/abbey", "abbey")):
        for letter in "zab":
            writer.picture(f"SUN397/{name}/sun_{letter}.jpg", None, text)


def imagenette(writer: Writer, size: str = "320") -> None:
    for part, folder in (("train", "train"), ("test", "val")):
        for name, text in (
            ("n01440764", "tench, Tinca tinca"),
            ("n03445777", "golf ball"),
        ):
            writer.picture(f"imagenette2-{size}/{folder}/{name}/{name}_1.JPEG", part, text)


def imagenet(writer: Writer) -> None:
    synonyms = {
        "n02012849": ("crane",),
        "n02123045": ("tabby", "tabby cat"),
        "n03126707": ("crane",),
    }
    torch.save((synonyms, []), writer.path("meta.bin"))
    for part, folder in (("train", "train"), ("test", "val")):
        for name, text in zip(
            synonyms, ("crane (0)", "tabby, tabby cat", "crane (2)"), strict=True
        ):
            writer.picture(f"{folder}/{name}/{name}_1.JPEG", part, text)


def places365(writer: Writer) -> None:
    writer.text("categories_places365.txt", "/a/airfield 0", "/b/bow_window/indoor 1")
    writer.text(
        "places365_train_standard.txt", "/a/airfield/1.jpg 0", "/b/bow_window/indoor/1.jpg 1"
    )
    writer.text("places365_val.txt", "Places365_val_1.jpg 1", "Places365_val_2.jpg 0")
    writer.picture("data_256_standard/a/airfield/1.jpg", "train", "airfield")
    writer.picture("data_256_standard/b/bow_window/indoor/1.jpg", "train", "bow_window/indoor")
    writer.picture("val_256/Places365_val_1.jpg", "test", "bow_window/indoor")
    writer.picture("val_256/Places365_val_2.jpg", "test", "airfield")


WRITERS: dict[str, Callable[[Writer], None]] = {
    function.__name__: function
    for function in (
        cifar10, cifar100, stl10, svhn, mnist, fashionmnist, kmnist, qmnist, emnist, usps, semeion,
        omniglot, fer2013, pcam, caltech101, caltech256, flowers102, oxfordiiitpet, eurosat,
        food101, dtd, fgvcaircraft, gtsrb, country211, renderedsst2, stanfordcars, sun397,
        imagenette, imagenet, places365,
    )
}  # fmt: skip


class Published:
    """Stands for the checksums that torchvision knows: those of the files as they were written."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def publish(self, root: Path) -> None:
        for path in root.rglob("*"):
            if path.is_file():
                self.known[str(path)] = utils.calculate_md5(path)

    def check(self, path: Any, md5: str, **_: Any) -> bool:
        return utils.calculate_md5(path) == self.known.get(str(path))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    checksums = Published()
    monkeypatch.setattr(utils, "check_md5", checksums.check)
    return checksums


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def written(tmp_path: Path, published: Published) -> Callable[..., Pictures]:
    """Writes a data set to `tmp_path`."""

    def write(name: str, *arguments: Any) -> Pictures:
        writer = Writer(tmp_path)
        WRITERS[name](writer, *arguments)
        published.publish(tmp_path)
        return writer.wrote

    return write


def spec_of(name: str, root: Path, **options: Any) -> DataSpec:
    return DataSpec(source=name, options={"root": str(root), **options})


def load(name: str, root: Path, **options: Any) -> ImageDataset:
    return load_dataset(spec_of(name, root, **options))


def refusal(name: str, root: Path, **options: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises(DataError) as caught:
        load(name, root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def outcome(name: str, root: Path) -> tuple[tuple[str, ...], str]:
    """The notes with which it is read, or the message with which it is refused."""
    try:
        return load(name, root).notes, ""
    except DataError as error:
        return (), str(error)


# Pictures, which other tests damage, and archives of which only the checksum is asked.
UNREAD = {".jpg", ".JPEG", ".png", ".ppm", ".zip"}


def pictures_of(dataset: ImageDataset) -> Pictures:
    assert dataset.names is not None
    official = dataset.official
    return {
        name: (
            None if official is None else PARTS[official[row]],
            dataset.classes[dataset.labels[row]],
            dataset.images[row],
        )
        for row, name in enumerate(dataset.names)
    }


def assert_same(found: Pictures, expected: Pictures) -> None:
    assert {name: item[:2] for name, item in found.items()} == {
        name: item[:2] for name, item in expected.items()
    }
    for name, (_, _, pixels) in expected.items():
        np.testing.assert_array_equal(found[name][2], pixels, err_msg=name)


def accepted(function: Any) -> tuple[set[str], bool]:
    """The arguments of a constructor, and whether it hands others on."""
    parameters = inspect.signature(function).parameters.values()
    return (
        {item.name for item in parameters},
        any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters),
    )


@pytest.mark.parametrize("name", ROWS)
class TestEveryRow:
    def test_torchvision_has_the_class_with_these_arguments(self, name: str) -> None:
        row = ROWS[name]
        cls = getattr(datasets, row.cls)
        given = {key for _, arguments in row.parts for key in arguments}
        given |= {option.name for option in row.options} | {"root"}
        given |= {"download"} if row.downloads else set()
        unknown = given
        for base in cls.__mro__:
            names, hands_on = accepted(base.__init__)
            unknown = unknown - names
            if not hands_on:
                break
        assert unknown == set()

    def test_is_read_as_it_was_written(
        self, name: str, tmp_path: Path, written: Callable[..., Pictures]
    ) -> None:
        expected = written(name)
        data = load(name.upper(), tmp_path)
        assert data.name == name
        assert_same(pictures_of(data), expected)

    def test_without_its_files_says_which_and_where(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        row = ROWS[name]
        with pytest.raises(DataError) as caught:
            open_catalog(DataSpec(source=name))
        message = str(caught.value)
        assert "\n" not in message
        assert str(tmp_path / "data") in message
        first = row.needs[0].format(**{option.name: option.default for option in row.options})
        assert first in message
        assert row.origin in message
        assert ("--download" in message) == row.downloads
        assert list(tmp_path.iterdir()) == []

    def test_cannot_be_downloaded_without_a_network(self, name: str, tmp_path: Path) -> None:
        message = refusal(name, tmp_path, download=True)
        assert str(tmp_path) in message
        assert ROWS[name].origin in message
        if name != "pcam":  # which asks for another package first
            assert ("no network: Temporary failure" in message) == ROWS[name].downloads

    def test_a_download_of_what_is_there_needs_no_network(
        self, name: str, tmp_path: Path, written: Callable[..., Pictures]
    ) -> None:
        expected = written(name)
        assert_same(pictures_of(load(name, tmp_path, download=True)), expected)

    def test_damaged_files_are_an_error_of_one_line(
        self, name: str, tmp_path: Path, written: Callable[..., Pictures], published: Published
    ) -> None:
        written(name)
        for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
            if path.suffix in UNREAD or path.name == "RENAME2" or "Annotations" in path.parts:
                continue
            whole = path.read_bytes()
            for damaged in (b"", whole[: len(whole) // 2 + 1], b"\xff\x00" * 400):
                path.write_bytes(damaged)
                # As if it had been published like that: the checksum does not help.
                published.publish(tmp_path)
                notes, message = outcome(name, tmp_path)
                assert "\n" not in message
                if not message:  # half of a list is a shorter list, which is noted
                    assert path.suffix in {".txt", ".csv", ".json", ".data", ".bz2"}
                    assert any(note.endswith("were published") for note in notes)
            path.write_bytes(whole)
        published.publish(tmp_path)
        assert outcome(name, tmp_path)[1] == ""

    def test_is_found_by_name_whatever_lies_here(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).mkdir()
        spec = DataSpec(source=name)
        assert source_of(spec).usage == name
        assert locate(spec).source == name
        with pytest.raises(DataError, match=f"write --data ./{name}"):
            open_catalog(spec)

    def test_says_what_it_is_in_one_line(self, name: str) -> None:
        source = next(source for source in SOURCES if source.usage == name)
        assert "\n" not in source.help
        assert f"{ROWS[name].images:,}" in source.help
        assert [option.name for option in source.options][:2] == ["root", "download"]


def test_every_row_has_a_writer_here() -> None:
    assert set(WRITERS) == set(ROWS)
    assert len(ROWS) == len(ZOO)


def test_the_default_root_is_found_from_any_folder(
    tmp_path: Path, written: Callable[..., Pictures], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written("usps")
    (tmp_path / "data").mkdir()
    for file in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / file).rename(tmp_path / "data" / file)
    monkeypatch.chdir(tmp_path)
    located = locate(DataSpec(source="usps"))
    assert located.options == {"root": str(tmp_path / "data")}
    assert locate(located) == located
    monkeypatch.chdir(tmp_path / "data")
    assert_same(pictures_of(load_dataset(located)), expected)
    with pytest.raises(DataError, match="data/data"):
        load_dataset(DataSpec(source="usps"))


def test_a_root_given_relatively_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    located = locate(DataSpec(source="mnist", options={"root": "sets"}))
    assert located.options == {"root": str(tmp_path / "sets")}
    assert f"not in {tmp_path / 'sets'}:" in refusal("mnist", Path("sets"))


@pytest.mark.parametrize("name", ["cifar10", "stl10", "svhn", "mnist", "pcam", "flowers102"])
def test_goes_through_the_store_with_the_same_pixels(
    tmp_path: Path,
    written: Callable[..., Pictures],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(store, "SMALL_BYTES", 0)
    expected = written(name)
    first = load(name, tmp_path)
    assert first.folder is not None
    assert_same(pictures_of(first), expected)
    again = load(name, tmp_path)
    assert again.folder == first.folder
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/test_batch"),
        ("flowers102", "flowers-102/jpg/image_00001.jpg"),
        ("pcam", "pcam/camelyonpatch_level_2_split_valid_x.h5"),
        ("mnist", "MNIST/raw/t10k-images-idx3-ubyte"),
    ],
)
def test_a_copy_is_the_same_data_and_a_changed_one_is_not(
    tmp_path: Path, published: Published, name: str, file: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    WRITERS[name](Writer(here))
    shutil.copytree(here, there)
    published.publish(tmp_path)

    def reader(root: Path) -> Any:
        return open_catalog(spec_of(name, root)).images

    before = reader(there)
    signature, content = before.signature(), before.content_key()
    assert reader(there).signature() == signature
    assert reader(here).content_key() == content
    changed = bytearray((there / file).read_bytes())
    changed[-40] ^= 1  # a pixel, or what it is made from
    (there / file).write_bytes(changed)
    published.publish(tmp_path)
    assert reader(there).signature() != signature
    assert reader(there).content_key() != content
    assert reader(here).content_key() == content


def test_a_file_that_is_not_as_published_is_told(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("cifar10")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut")
    message = refusal("cifar10", tmp_path)
    assert message == (
        f"cifar10: its files in {tmp_path} are damaged or incomplete (not as published): remove "
        "cifar-10-batches-py/ and fetch them again (from cifar-10-python.tar.gz, "
        "https://www.cs.toronto.edu/~kriz/cifar.html or with --download)"
    )


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [
        ("mnist", "MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte"),
        ("caltech101", "caltech101/101_ObjectCategories", "101_ObjectCategories/"),
        ("pcam", "pcam/camelyonpatch_level_2_split_test_y.h5", "test_y.h5"),
        ("gtsrb", "gtsrb/GT-final_test.csv", "GT-final_test.csv"),
    ],
)
def test_one_missing_file_is_named_alone(
    tmp_path: Path, written: Callable[..., Pictures], name: str, file: str, told: str
) -> None:
    written(name)
    path = tmp_path / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = refusal(name, tmp_path)
    assert f"its files are not in {tmp_path}: put " in message
    assert told in message.split("put ")[1].split(" there")[0]
    assert message.split("put ")[1].split(" there")[0].count(",") == 0


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("flowers102", "flowers-102/jpg/image_00003.jpg"),
        ("omniglot", "omniglot-py/images_evaluation/Angelic/character01/0001_02.png"),
        ("gtsrb", "gtsrb/GTSRB/Training/00014/00001_00001.ppm"),
    ],
)
def test_a_picture_that_cannot_be_decoded_is_named(
    tmp_path: Path, written: Callable[..., Pictures], name: str, file: str
) -> None:
    written(name)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImagesError) as caught:
        load(name, tmp_path)
    assert [image.name for image in caught.value.images] == [file]


def test_a_picture_that_is_not_there_is_named(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("food101")
    (tmp_path / "food-101/images/waffles/14.jpg").unlink()
    with pytest.raises(UnreadableImagesError, match=r"food-101/images/waffles/14\.jpg: No such"):
        load("food101", tmp_path)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path, published: Published) -> None:
    writer = Writer(tmp_path)
    stl10(writer)
    np.array([1, 2, 0, 9, 1], dtype=np.uint8).tofile(tmp_path / "stl10_binary/test_y.bin")
    published.publish(tmp_path)
    assert "labels from 0 to 255, but 10 classes" in refusal("stl10", tmp_path)


def test_other_numbers_of_images_and_labels_are_refused(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("mnist")
    Writer(tmp_path).idx("MNIST/raw/train-labels-idx1-ubyte", np.zeros(2, dtype=np.uint8))
    assert "(3 images, 2 labels)" in refusal("mnist", tmp_path)
    written("pcam")
    with h5py.File(tmp_path / "pcam/camelyonpatch_level_2_split_test_y.h5", "w") as archive:
        archive["y"] = np.zeros((2, 1, 1, 1), dtype=np.uint8)
    assert "has 3 images, but there are 2 labels" in refusal("pcam", tmp_path)


def test_a_list_that_leads_elsewhere_is_refused(tmp_path: Path, published: Published) -> None:
    writer = Writer(tmp_path / "root")
    gtsrb(writer)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    for path in ("../../../../../secret.png", str(tmp_path / "secret.png")):
        writer.text("gtsrb/GT-final_test.csv", "Filename;ClassId", f"{path};1")
        assert "leads out of it" in refusal("gtsrb", tmp_path / "root")


def catalog_of(name: str, root: Path) -> Catalog:
    return open_catalog(spec_of(name, root))


def test_the_frames_of_a_film_are_a_group(tmp_path: Path, written: Callable[..., Pictures]) -> None:
    written("gtsrb")
    catalog = catalog_of("gtsrb", tmp_path)
    assert catalog.groups is not None
    by_group: dict[str, set[str]] = {}
    for name, group in zip(catalog.names, catalog.groups, strict=True):
        by_group.setdefault(group, set()).add(name.removeprefix("gtsrb/GTSRB/"))
    assert by_group["00014/00001"] == {
        "Training/00014/00001_00000.ppm", "Training/00014/00001_00001.ppm",
    }  # fmt: skip
    assert len(by_group) == 4 + 2


@pytest.mark.parametrize("name", ["omniglot", "sun397"])
def test_files_that_torchvision_finds_in_any_order_are_sorted(
    tmp_path: Path, written: Callable[..., Pictures], name: str
) -> None:
    expected = written(name)
    assert list(catalog_of(name, tmp_path).names) == sorted(expected)


def test_some_images_of_several_files_are_read(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    expected = list(written("pcam").values())
    reader = catalog_of("pcam", tmp_path).images
    for start, stop in ((0, 9), (2, 7), (3, 6), (8, 9), (4, 5)):
        found = list(reader.read(start, stop))
        wanted = [pixels for _, _, pixels in expected[start:stop]]
        np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


def test_a_file_of_images_that_can_no_longer_be_read_stops_reading(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("pcam")
    reader = catalog_of("pcam", tmp_path).images
    (tmp_path / "pcam/camelyonpatch_level_2_split_valid_x.h5").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"split_valid_x\.h5: cannot be read .*: fetch it again"):
        list(reader.read(2, 5))


def test_a_lock_on_a_file_of_images_does_not_matter(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    fcntl = pytest.importorskip("fcntl")
    written("pcam")
    with (tmp_path / "pcam/camelyonpatch_level_2_split_valid_x.h5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert len(list(catalog_of("pcam", tmp_path).images.read(0, 9))) == 9


def test_a_writer_of_qmnist_is_a_group(tmp_path: Path, written: Callable[..., Pictures]) -> None:
    written("qmnist")
    assert catalog_of("qmnist", tmp_path).groups == ["writer 131", "writer 131", "writer 2000"] * 2


def test_classes_keep_the_order_of_torchvision(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("cifar10")
    assert catalog_of("cifar10", tmp_path).classes == tuple(CIFAR10_CLASSES)
    written("flowers102")
    assert len(catalog_of("flowers102", tmp_path).classes) == 102
    written("oxfordiiitpet")
    breeds = ("Abyssinian", "American Bulldog", "Bengal")
    assert catalog_of("oxfordiiitpet", tmp_path).classes == breeds


def test_the_letters_of_emnist_begin_with_a(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    expected = written("emnist", "letters", 1, "abc")
    data = load("emnist", tmp_path, split="letters")
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert_same(pictures_of(data), expected)
    assert data.notes == ()
    message = refusal("emnist", tmp_path, split="byclass")
    assert "EMNIST/raw/emnist-byclass-train-images-idx3-ubyte" in message
    assert "'capitals'" in refusal("emnist", tmp_path, split="capitals")


def test_imagenette_has_two_sizes(tmp_path: Path, written: Callable[..., Pictures]) -> None:
    expected = written("imagenette", "160")
    assert_same(pictures_of(load("imagenette", tmp_path, size="160px")), expected)
    assert "imagenette2-320/" in refusal("imagenette", tmp_path)


def test_aircraft_can_be_told_apart_by_maker(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    expected = written("fgvcaircraft", "manufacturer", "manufacturers")
    options = {"annotation_level": "manufacturer"}
    assert_same(pictures_of(load("fgvcaircraft", tmp_path, **options)), expected)


@pytest.mark.parametrize("kind", ["file", "long", "nothing"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / {"long": "x" * 5000}.get(kind, kind)
    if kind == "file":
        root.touch()
    assert f"its files are not in {root}: put usps.bz2" in refusal("usps", root)
    assert "cannot be downloaded (" in refusal("usps", root, download=True)


def test_an_option_that_it_has_not_is_refused(tmp_path: Path) -> None:
    assert "it has root, download" in refusal("cifar10", tmp_path, split="train")
    assert "'perhaps'" in refusal("cifar10", tmp_path, download="perhaps")


def test_a_number_of_images_that_was_not_published_is_noted(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("eurosat")
    note = f"4 images are in {tmp_path}, but 27,000 were published"
    assert note in load("eurosat", tmp_path).notes
    complete = dataclasses.replace(ROWS["eurosat"], images=4).source()
    spec = spec_of("eurosat", tmp_path)
    assert complete.catalog(spec, complete.read_options(spec)).notes == ()


def test_a_val_part_that_serves_as_test_part_is_noted(
    tmp_path: Path, written: Callable[..., Pictures]
) -> None:
    written("imagenette")
    assert "its val part is taken as the test part" in load("imagenette", tmp_path).notes[0]


class TestDownload:
    def test_unpacks_an_archive_that_is_there_already(
        self,
        tmp_path: Path,
        written: Callable[..., Pictures],
        published: Published,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        expected = written("cifar10")
        folder = tmp_path / "cifar-10-batches-py"
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, arcname=folder.name)
        published.publish(tmp_path)
        shutil.rmtree(folder)
        assert "--download" in refusal("cifar10", tmp_path)
        assert_same(pictures_of(load("cifar10", tmp_path, download=True)), expected)
        assert capfd.readouterr().out == ""

    def test_unpacks_gzip_files_that_are_there_already(
        self, tmp_path: Path, written: Callable[..., Pictures], published: Published
    ) -> None:
        expected = written("mnist")
        for path in (tmp_path / "MNIST/raw").iterdir():
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        published.publish(tmp_path)
        assert_same(pictures_of(load("mnist", tmp_path, download="yes")), expected)

    def test_mends_what_is_damaged(
        self, tmp_path: Path, written: Callable[..., Pictures], published: Published
    ) -> None:
        expected = written("svhn")
        (tmp_path / "train_32x32.mat").write_bytes(b"cut")
        message = refusal("svhn", tmp_path, download=True)
        assert "damaged or incomplete (no network: Temporary failure" in message
        written("svhn")
        assert_same(pictures_of(load("svhn", tmp_path, download=True)), expected)

    def test_says_what_the_server_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(request: Any) -> None:
            raise urllib.error.HTTPError("http://x", 404, "Not Found", {}, None)  # type: ignore[arg-type]

        monkeypatch.setattr(urllib.request, "urlopen", gone)
        message = refusal("stl10", tmp_path, download=True)
        assert message.startswith("stl10: cannot be downloaded (HTTP Error 404: Not Found): put ")

    def test_names_the_package_that_is_missing(self, tmp_path: Path) -> None:
        assert "gdown" in refusal("pcam", tmp_path, download=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_a_download_fetches_what_is_missing_and_prints_nothing(
    tmp_path: Path,
    published: Published,
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.undo()  # the network is needed, as far as this machine
    monkeypatch.setattr(utils, "check_md5", lambda *_, **__: True)
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
    address, folder = server
    writer = Writer(folder)
    usps(writer)
    fetched = {
        part: [f"{address}/{file}", file, md5]
        for part, (_, file, md5) in datasets.USPS.split_list.items()
    }
    monkeypatch.setattr(datasets.USPS, "split_list", fetched)
    assert_same(pictures_of(load("usps", tmp_path / "new", download=True)), writer.wrote)
    assert (tmp_path / "new" / "usps.t.bz2").is_file()
    assert capfd.readouterr().out == ""
