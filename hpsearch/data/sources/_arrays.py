"""What arrays of images and labels may look like, and how they become ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hpsearch.data.dataset import PARTS, ImageShape, UInt8Array
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

_PART_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def part_of(name: str) -> str | None:
    """The part of an official split that a folder or a cell names: "Training" is "train"."""
    return _PART_OF.get(name.strip().lower())


def parts_of(names: Sequence[str], where: str) -> list[str | None]:
    """The part that each text names; an empty text names none.

    Raises:
        DataError: another text.
    """
    unknown = sorted({name for name in names if name and part_of(name) is None})
    if unknown:
        raise DataError(
            f"{where}: the official split has {listed(unknown)!r}; it may have "
            f"{', '.join(PARTS)} and nothing"
        )
    return [part_of(name) for name in names]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array holds its images.

    Attributes:
        axes: "NHWC", "NCHW" or "NHW".
        is_float: fractions from 0 to 1 instead of uint8.
        shape: of one image.
    """

    axes: str
    is_float: bool
    shape: ImageShape

    def read(self, values: np.ndarray, where: str) -> UInt8Array:
        """uint8 (n, height, width, channels) from a part of the array.

        Raises:
            DataError: fractions that are not from 0 to 1.
        """
        if self.is_float:
            low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
            if not (low >= 0.0 and high <= 1.0):  # NaN fails too
                raise DataError(
                    f"{where}: float images must have values from 0 to 1, but these go from "
                    f"{low:g} to {high:g}; save them as uint8"
                )
            values = np.rint(values.astype(np.float32) * 255.0).astype(np.uint8)
        if self.axes == "NHW":
            values = values[..., np.newaxis]
        if self.axes == "NCHW":
            values = np.moveaxis(values, 1, -1)
        return np.ascontiguousarray(values)


def find_layout(
    shape: tuple[int, ...], dtype: np.dtype, where: str, axes: str | None = None
) -> Layout:
    """How an array of this shape and dtype holds images.

    Args:
        axes: "NHWC" or "NCHW" where the user said so.

    Raises:
        DataError: it cannot hold images.
    """
    is_float = np.issubdtype(dtype, np.floating)
    if dtype != np.uint8 and not is_float:
        raise DataError(
            f"{where}: images must be uint8, or floats from 0 to 1, but are {dtype} of shape "
            f"{shape}"
        )
    if len(shape) not in (3, 4):
        raise DataError(
            f"{where}: images must be (N, height, width), (N, height, width, channels) or "
            f"(N, channels, height, width), but have shape {shape}"
        )
    if 0 in shape:
        raise DataError(f"{where}: no images (shape {shape})")
    if len(shape) == 3:
        return Layout("NHW", is_float, ImageShape(shape[1], shape[2], 1))
    if axes is None:
        axes = "NCHW" if shape[1] in (1, 3) and shape[3] not in (1, 3) else "NHWC"
    channels = shape[1] if axes == "NCHW" else shape[3]
    if channels not in (1, 3):
        raise DataError(
            f"{where}: images must have 1 or 3 channels, but have shape {shape} ({axes})"
        )
    height, width = shape[2:] if axes == "NCHW" else shape[1:3]
    return Layout(axes, is_float, ImageShape(height, width, channels))


def class_names_of(
    labels: np.ndarray, classes: np.ndarray | None, count: int, where: str
) -> tuple[list[str], list[str] | None]:
    """The class of each image as text, and all classes in their order where they are named.

    Args:
        labels: as `one_column` takes them, or texts, (N,).
        classes: all names, in their order; labels that are numbers count them from 0.
        count: how many images there are.

    Raises:
        DataError: labels of another kind, or beyond the names.
    """
    labels = one_column(labels, where)
    if labels.shape != (count,):
        raise DataError(
            f"{where}: labels must have shape ({count},), one for each image, but have "
            f"{labels.shape}"
        )
    if np.issubdtype(labels.dtype, np.floating) and bool(np.all(labels == np.floor(labels))):
        if not np.all(np.abs(labels) < 2**53):
            raise DataError(f"{where}: labels must be whole numbers, but some are infinite")
        labels = labels.astype(np.int64)
    is_number = np.issubdtype(labels.dtype, np.integer)
    if not is_number and labels.dtype.kind not in "USOT":
        raise DataError(f"{where}: labels must be whole numbers or texts, but are {labels.dtype}")
    texts = [str(label) if is_number else text_of(label, where) for label in labels.tolist()]
    if classes is None:
        return texts, None
    if classes.ndim != 1:
        raise DataError(f"{where}: classes must be a list of names, but has shape {classes.shape}")
    names = [text_of(name, where) for name in classes.tolist()]
    if len(set(names)) != len(names):
        raise DataError(f"{where}: class names repeat: {listed(names, 20)}")
    if not is_number:
        unknown = sorted(set(texts) - set(names))
        if unknown:
            raise DataError(
                f"{where}: the label {printable(unknown[0])!r} is none of the classes "
                f"{listed(names, 20)}; add it to them, or name another list with --with classes="
            )
        return texts, names
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(names):
        hint = "; count them from 0" if low == 1 and high == len(names) else ""
        raise DataError(
            f"{where}: labels run from {low} to {high}, but there are {len(names)} classes (0 to "
            f"{len(names) - 1}){hint}"
        )
    return [names[label] for label in labels.tolist()], names


def one_column(labels: np.ndarray, where: str) -> np.ndarray:
    """(n,): labels from (n,), (n, 1), or rows with one 1 in the column of the class; bools become
    0 and 1.

    Raises:
        DataError: rows of something else.
    """
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        is_one = labels == 1
        if not np.all(is_one | (labels == 0)) or not np.all(is_one.sum(axis=1) == 1):
            raise DataError(
                f"{where}: labels of {labels.shape[1]} columns must be rows with one 1 and else 0"
            )
        numbers: np.ndarray = is_one.argmax(axis=1)
        return numbers
    if labels.ndim > 1 and labels.size == len(labels):
        labels = labels.reshape(-1)
    return labels.astype(np.int64) if labels.dtype == np.bool_ else labels


def text_of(value: object, where: str) -> str:
    """A text from an array's element.

    Raises:
        DataError: it is no text.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str | np.str_ | np.integer | int):
        return str(value)
    raise DataError(f"{where}: {value!r:.60} is no text")
