"""What a data set object of torchvision holds: pictures, labels and class names, nothing decoded.

torchvision gives images one by one, decoded; where they are and what they show is in attributes
that each class names in its own way. A function here reads those of one way.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.dataset import UInt8Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """A data set, or an official part of one.

    Attributes:
        images: uint8 (n, height, width, channels), or the n paths of picture files, or an HDF5
            file with such an array as "x".
        labels: (n,) an index into `classes` for each image.
        classes: their names; None where torchvision knows none.
        groups: (n,) what must not be on two sides of a split.
    """

    images: UInt8Array | Sequence[str] | Path
    labels: Sequence[int]
    classes: Sequence[str] | None
    groups: Sequence[str] | None = None


Lister = Callable[[Any], Listing]


def arrays(labels: str = "targets", axes: str = "NHW") -> Lister:
    """Images in memory as `.data`, NHW, NHWC or NCHW, and labels as `labels`."""

    def read(dataset: Any) -> Listing:
        images = np.asarray(dataset.data)
        if axes == "NHW":
            images = images[..., np.newaxis]
        if axes == "NCHW":
            images = np.moveaxis(images, 1, -1)
        numbers = np.asarray(getattr(dataset, labels)).reshape(-1).tolist()
        return Listing(images=images, labels=numbers, classes=_classes(dataset))

    return read


def files(paths: str = "_image_files", labels: str = "_labels") -> Lister:
    """Lists of paths and of labels."""

    def read(dataset: Any) -> Listing:
        return Listing(
            images=[os.fspath(path) for path in getattr(dataset, paths)],
            labels=getattr(dataset, labels),
            classes=_classes(dataset),
        )

    return read


def samples(name: str = "_samples") -> Lister:
    """A list of pairs: path and label."""

    def read(dataset: Any) -> Listing:
        pairs = getattr(dataset, name)
        return Listing(
            images=[os.fspath(path) for path, _ in pairs],
            labels=[label for _, label in pairs],
            classes=_classes(dataset),
        )

    return read


def _classes(dataset: Any) -> Sequence[str] | None:
    classes = getattr(dataset, "classes", None)
    if classes is None:
        return None
    # ImageNet and Imagenette have several words for a class.
    return [name if isinstance(name, str) else ", ".join(name) for name in classes]


def emnist(dataset: Any) -> Listing:
    """EMNIST: upright, which its files are not, and without the class "N/A" that nothing is in."""
    listing = arrays()(dataset)
    images = np.swapaxes(np.asarray(listing.images), 1, 2)
    classes = listing.classes or ()
    unused = int(classes[0] == "N/A")
    return Listing(
        images=images,
        labels=[label - unused for label in listing.labels],
        classes=classes[unused:],
    )


def qmnist(dataset: Any) -> Listing:
    """QMNIST: of its columns the class and who wrote it."""
    columns = np.asarray(dataset.targets)
    return Listing(
        images=np.asarray(dataset.data)[..., np.newaxis],
        labels=columns[:, 0].tolist(),
        classes=None,
        groups=[f"writer {writer}" for writer in columns[:, 2].tolist()],
    )


def fer2013(dataset: Any) -> Listing:
    """FER2013: a list of tensors and labels."""
    pairs = dataset._samples
    return Listing(
        images=np.stack([np.asarray(image) for image, _ in pairs])[..., np.newaxis],
        labels=[label for _, label in pairs],
        classes=None,
    )


def pcam(dataset: Any) -> Listing:
    """PatchCamelyon: HDF5 files, of which the labels are read and the images are left there."""
    import h5py

    images, targets = (dataset._FILES[dataset._split][kind][0] for kind in ("images", "targets"))
    with h5py.File(dataset._base_folder / targets) as file:
        labels = file["y"][:].reshape(-1).tolist()
    return Listing(images=dataset._base_folder / images, labels=labels, classes=None)


def caltech101(dataset: Any) -> Listing:
    """Caltech 101: file names are made of class and number."""
    return _caltech(dataset, "101_ObjectCategories", "image_{number:04d}.jpg")


def caltech256(dataset: Any) -> Listing:
    """Caltech 256: file names are made of class and number."""
    return _caltech(dataset, "256_ObjectCategories", "{label:03d}_{number:04d}.jpg")


def _caltech(dataset: Any, folder: str, name: str) -> Listing:
    root = Path(dataset.root) / folder
    return Listing(
        images=[
            str(root / dataset.categories[label] / name.format(label=label + 1, number=number))
            for label, number in zip(dataset.y, dataset.index, strict=True)
        ],
        labels=dataset.y,
        classes=dataset.categories,
    )


def pets(dataset: Any) -> Listing:
    """Oxford-IIIT Pet: the breed is in the file name, such as great_pyrenees_12.jpg."""
    paths = [os.fspath(path) for path in dataset._images]
    breeds = [Path(path).stem.rsplit("_", 1)[0].replace("_", " ") for path in paths]
    return _named(paths, [breed.title() for breed in breeds])


def omniglot(dataset: Any) -> Listing:
    """Omniglot: a folder for each character of each alphabet; sorted, which torchvision's are
    not.
    """
    root = Path(dataset.target_folder)
    found = sorted(
        (dataset._characters[character], name) for name, character in dataset._flat_character_images
    )
    names = [character.replace(os.sep, "/") for character, _ in found]
    return _named([str(root / character / name) for character, name in found], names)


def sun397(dataset: Any) -> Listing:
    """SUN397: sorted, which torchvision's files are not."""
    pairs = sorted(zip(map(os.fspath, dataset._image_files), dataset._labels, strict=True))
    return Listing(
        images=[path for path, _ in pairs],
        labels=[label for _, label in pairs],
        classes=dataset.classes,
    )


def places365(dataset: Any) -> Listing:
    """Places365: class names begin with the folder of their first letter, such as /a/."""
    names = sorted(dataset.class_to_idx, key=dataset.class_to_idx.__getitem__)
    return Listing(
        images=[path for path, _ in dataset.imgs],
        labels=dataset.targets,
        classes=[name[3:] for name in names],
    )


def gtsrb(dataset: Any) -> Listing:
    """GTSRB: training images are the frames of short films of one sign each, which belong
    together: 00014/00012_00029.ppm is a frame of film 12 of class 14.
    """
    paths = [os.fspath(path) for path, _ in dataset._samples]
    if dataset._split == "train":
        folders = [Path(path).parent.name for path in paths]
        films = [Path(path).stem.split("_")[0] for path in paths]
        groups = [f"{folder}/{film}" for folder, film in zip(folders, films, strict=True)]
        labels = [int(folder) for folder in folders]
    else:
        groups = [Path(path).name for path in paths]
        labels = [label for _, label in dataset._samples]
    return Listing(images=paths, labels=labels, classes=None, groups=groups)


def _named(paths: Sequence[str], names: Sequence[str]) -> Listing:
    classes = sorted(set(names))
    index = {name: number for number, name in enumerate(classes)}
    return Listing(images=paths, labels=[index[name] for name in names], classes=classes)
