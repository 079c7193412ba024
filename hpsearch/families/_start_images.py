"""Which images of some data the weights that a training starts from had seen: a score on those says
little about new ones.

Where the weights are an export, it has hashes of its images (`hpsearch.data.known_images`). Of
published weights and of files with a state dict alone nothing is known, and nothing is said.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpsearch.config import WeightsConfig
from hpsearch.data.dataset import NO_PART, PART_WORDS, PARTS, ImageDataset, ImageShape, Int8Array
from hpsearch.data.decode import Target
from hpsearch.data.known_images import (
    CHOSEN,
    TRAINED,
    KnownImages,
    StartImages,
    read_known_images,
)
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split
from hpsearch.data.store import load_dataset
from hpsearch.errors import CheckpointError, DataError
from hpsearch.families._published import is_published
from hpsearch.families._statefile import file_sha256, file_stamp, read_content
from hpsearch.families._weights import MODEL_FILE
from hpsearch.names import printable
from hpsearch.training.content import is_content

_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StartOverlap:
    """How much of some data the weights that a training starts from had seen.

    Attributes:
        weights: what they are called, without their folder.
        images: what they had seen.
        uses: int8 (N,): for each image of the data `TRAINED`, `CHOSEN` or `NO_PART`.
        unknown: why more of them may have been seen, in words.
    """

    weights: str
    images: StartImages
    uses: Int8Array
    unknown: tuple[str, ...]

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """(N,): the images that the weights were trained on, or chosen by."""
        seen: npt.NDArray[np.bool_] = self.uses != NO_PART
        return seen

    @property
    def doubts(self) -> tuple[str, ...]:
        """What cannot be told, in sentences."""
        return tuple(
            f"whether the weights {self.weights} had seen more of these images cannot be told: "
            f"{why}"
            for why in self.unknown
        )


def start_overlap(weights: WeightsConfig, dataset: ImageDataset, data: DataSpec) -> StartOverlap:
    """Which images of `dataset` the weights had seen, or those that they started from themselves.

    Args:
        weights: as `resolve_weights` gives them.
        data: what `dataset` was read from.
    """
    return overlap_of(_start_images(weights), weights_name(weights), dataset, data)


def overlap_of(
    images: StartImages, weights: str, dataset: ImageDataset, data: DataSpec
) -> StartOverlap:
    """Which images of `dataset` are among those that weights had seen; they are read again in the
    size that the data of the weights had, and are the same where all pixels are.

    Args:
        weights: what they are called.
        data: what `dataset` was read from.
    """
    uses, unknown = np.full(len(dataset), NO_PART, dtype=np.int8), images.unknown

    def read(target: Target) -> ImageDataset:
        if target == Target(dataset.shape, data.fit):
            return dataset
        shape = target.shape
        size, gray = (shape.height, shape.width), shape.channels == 1
        again = load_dataset(dataclasses.replace(data, size=size, fit=target.fit, gray=gray))
        if not np.array_equal(again.labels, dataset.labels):
            raise DataError("there are other images now")
        return again

    try:
        uses = images.uses_of(len(dataset), read)
    except DataError as error:
        unknown = (*unknown, f"the data cannot be read as {weights} had its own: {error}")
    return StartOverlap(weights=weights, images=images, uses=uses, unknown=unknown)


def start_of(known: KnownImages, weights: WeightsConfig | None) -> StartImages:
    """What the weights had seen that a model started from.

    Args:
        known: what its export has.
        weights: those that it started from.
    """
    if weights is None or known.start.hashes or known.start.unknown:
        return known.start
    return _start_images(weights)  # its export is of a version that did not keep it


def start_warnings(
    weights: Iterable[WeightsConfig], dataset: ImageDataset, split: Split, data: DataSpec
) -> tuple[str, ...]:
    """What a search should be told before it starts from these weights, in sentences: that they
    had seen images that its models are to be tested or validated on.

    Args:
        weights: as `resolve_weights` gives them.
        data: what `dataset` was read from.
    """
    parts = split.membership(len(dataset))
    # Weights that were chosen by the same validation images are as the search itself is.
    harm = {"test": (TRAINED, CHOSEN), "val": (TRAINED,)}
    found = []
    for overlap in (start_overlap(row, dataset, data) for row in dict.fromkeys(weights)):
        seen = []
        for name, uses in harm.items():
            of_part = overlap.uses[parts == PARTS.index(name)]
            count = int(np.isin(of_part, uses).sum())
            if count:
                seen.append(f"{count:,} of the {len(of_part):,} {PART_WORDS[name]} images")
        if seen:
            found.append(
                f"the weights {overlap.weights} had seen {' and '.join(seen)}: scores on these say "
                "nothing about new images; use the split that the weights were made with "
                "(--split-seed), or other data"
            )
        found += overlap.doubts
    return tuple(found)


def weights_name(weights: WeightsConfig) -> str:
    """What weights are called, without the folder that they lie in."""
    path = Path(weights.source)
    return printable(path.parent.name if path.name == MODEL_FILE else path.name)


def _start_images(weights: WeightsConfig) -> StartImages:
    """What the weights had seen."""
    if is_published(weights.source):
        return StartImages()
    name, path = weights_name(weights), Path(weights.source)
    path = path / MODEL_FILE if path.is_dir() else path
    try:
        if file_stamp(path) is None:
            return _unknown(f"{name} is not there any more")
        if weights.sha256 and file_sha256(path) != weights.sha256:
            return _unknown(f"{name} holds another model now")
        if not is_content(read_content(path)):
            return StartImages()
        return _of_export(path.parent, name)
    except CheckpointError as error:
        return _unknown(str(error))


def _of_export(folder: Path, name: str) -> StartImages:
    known = read_known_images(folder)
    if known is None:
        return _unknown(f"{name} has no hashes of its images (exports of earlier versions lack it)")
    try:
        document = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        images, before = document["images"], document["config"].get("weights")
        weights = None if before is None else WeightsConfig.from_dict(before)
        shape = ImageShape(images["height"], images["width"], images["channels"])
        target = Target(shape, images["fit"])
        retrained = document["origin"].get("retrained")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _unknown(f"{name} has no {_CONFIG} that can be read")
    known = dataclasses.replace(known, start=start_of(known, weights))
    trained_on = ("train", "val") if retrained == "train+val" else ("train",)
    return known.as_start(target, trained_on=trained_on)


def _unknown(why: str) -> StartImages:
    return StartImages(unknown=(why,))
