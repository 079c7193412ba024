"""An export put to use: images in, classes and probabilities out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from hpsearch.config import TrainConfig
from hpsearch.data.catalog import BadImage, RawImage
from hpsearch.data.dataset import CHUNK_BYTES, FloatArray, ImageDataset, ImageShape, UInt8Array
from hpsearch.data.decode import Target, decode_all, open_image, unavailable
from hpsearch.data.readers import is_regular_file
from hpsearch.data.spec import MAX_SIDE, Fit
from hpsearch.errors import CheckpointError, ConfigError, DataError, HpsearchError
from hpsearch.results.folder import CONFIG, FORMAT, MODEL
from hpsearch.results.inference import restore_model, run_model
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint
from hpsearch.training.device import resolve_device
from hpsearch.training.model import StagedModel, place

Picture = str | os.PathLike[str] | Image.Image | UInt8Array
"""A file, a picture of Pillow's, or uint8 (height, width) or (height, width, channels) with 1, 3 or
4 channels."""

MOST_AT_ONCE = 256
"""So many images are decoded and given to the model at once, or fewer where they are large."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model takes an image for.

    Attributes:
        label: the most probable class.
        probability: that the model gives it.
        top: the most probable classes with their probabilities, the first one first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A model that is ready for images of any kind (see `load`).

    Attributes:
        folder: the export that it was read from.
        target: what every image is brought to before the checkpoint's preprocessing, as the data
            was.
        device: where it runs.
    """

    folder: Path
    checkpoint: Checkpoint = dataclasses.field(repr=False)
    target: Target
    device: torch.device
    model: StagedModel = dataclasses.field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.checkpoint.classes

    def predict(
        self, images: Picture | Iterable[Picture], *, top_k: int = 1
    ) -> tuple[Prediction, ...]:
        """What the model takes each image for, in their order.

        Args:
            images: one or several; an array may be uint8 (n, height, width, channels), too.
            top_k: how many classes `top` has; all where there are fewer.

        Raises:
            DataError: an image that cannot be read, or is of no known kind.
            ConfigError: `top_k` is no number from 1 on.
        """
        results = []
        for found in self.stream(images, top_k=top_k):
            if isinstance(found, BadImage):
                raise DataError(str(found))
            results.append(found)
        return tuple(results)

    def probabilities(self, images: Picture | Iterable[Picture]) -> FloatArray:
        """float64 (n, classes), of images as in `predict`.

        Raises:
            DataError: as in `predict`.
        """
        rows = []
        with closing(self._rows(_listed(images), None)) as batches:
            for batch in batches:
                for found in batch:
                    if isinstance(found, BadImage):
                        raise DataError(str(found))
                    rows.append(found)
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.classes))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        *,
        top_k: int = 1,
        batch_size: int | None = None,
    ) -> Generator[Prediction | BadImage]:
        """As `predict`, one after the other; in place of an image that cannot be read, what is
        wrong with it. Others are decoded on several threads while the model works, some batches
        at a time. Close it (`contextlib.closing`) to stop early.

        Args:
            batch_size: how many images the model gets at once.

        Raises:
            DataError: at once: an image is of no known kind.
            ConfigError: at once: `top_k` or `batch_size` is no number from 1 on.
        """
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number from 1 on, but is {value!r}")
        return self._predictions(_listed(images), top_k, batch_size)

    def _predictions(
        self, pictures: Sequence[Picture], top_k: int, batch_size: int | None
    ) -> Generator[Prediction | BadImage]:
        with closing(self._rows(pictures, batch_size)) as batches:
            for batch in batches:
                for found in batch:
                    yield found if isinstance(found, BadImage) else self._prediction(found, top_k)

    def _prediction(self, probabilities: FloatArray, top_k: int) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((self.classes[index], float(probabilities[index])) for index in best)
        return Prediction(label=top[0][0], probability=top[0][1], top=top)

    def _rows(
        self, pictures: Sequence[Picture], batch_size: int | None
    ) -> Generator[list[FloatArray | BadImage]]:
        """The probabilities of each picture, float64 (classes,), or what is wrong with it."""
        fitting = CHUNK_BYTES // self.target.shape.nbytes
        size = batch_size or max(1, min(MOST_AT_ONCE, fitting))
        names = [_name(picture, number) for number, picture in enumerate(pictures)]
        waiting: list[UInt8Array | BadImage] = []
        with closing(decode_all(_Pictures(pictures, names), names, self.target)) as batches:
            for batch in batches:
                waiting += batch
                while len(waiting) >= size:
                    yield self._classified(waiting[:size])
                    del waiting[:size]
        if waiting:
            yield self._classified(waiting)

    def _classified(self, images: list[UInt8Array | BadImage]) -> list[FloatArray | BadImage]:
        good = [image for image in images if not isinstance(image, BadImage)]
        rows = iter(self._run(np.stack(good)) if good else ())
        return [image if isinstance(image, BadImage) else next(rows) for image in images]

    def _run(self, images: UInt8Array) -> FloatArray:
        labels = np.zeros(len(images), dtype=np.int64)
        part = ImageDataset("images", images, labels, self.classes).part()
        logits = run_model(self.model, self.checkpoint, part, self.device).logits
        probabilities: FloatArray = logits.double().softmax(dim=1).numpy()
        return probabilities


def load(export: str | os.PathLike[str], *, device: str = "auto") -> Predictor:
    """Reads an export, to predict with it. Nothing in it is run as code but the model's family.

    Args:
        export: the folder.
        device: auto, cpu, cuda or cuda:N, whatever it was trained on.

    Raises:
        CheckpointError: the folder is no export, or of an earlier version, or a file in it is
            missing, truncated or altered.
        ConfigError: no such device here.
        SpaceError: the model's family is not here.
    """
    folder = Path(export)
    where = resolve_device(device)
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no export at {folder}: name a folder that 'hpsearch export' wrote"
        )
    if not (folder / MODEL).is_file():
        raise CheckpointError(
            f"{folder} is no whole export: there is no {MODEL} in it; name a folder that 'hpsearch "
            "export' wrote"
        )
    checkpoint = load_checkpoint(folder / MODEL)
    target = _target(folder / CONFIG, checkpoint)
    try:
        model = restore_model(checkpoint)
    except HpsearchError:
        raise
    except Exception as error:  # of the family's code, which may be the user's, or of torch
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"{folder / MODEL} does not fit the network that the family "
            f"{checkpoint.config.family} builds now "
            f"({type(error).__name__}: {lines[0][:200] if lines else ''})"
        ) from None
    model = place(model, where, checkpoint.config.memory_format)
    return Predictor(folder=folder, checkpoint=checkpoint, target=target, device=where, model=model)


def _target(path: Path, checkpoint: Checkpoint) -> Target:
    """What images are brought to, from the file `config.json` of a checkpoint."""
    again = "export it again (hpsearch export --force)"
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has no {path.name}, which exports of earlier versions lack: {again}"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document["format"]
        if found == FORMAT:
            target = _read_target(document["images"])
            same = (
                tuple(document["classes"]) == checkpoint.classes
                and document["origin"] == dict(checkpoint.origin)
                and TrainConfig.from_dict(document["config"]) == checkpoint.config
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}): {again}"
        ) from None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: has the format {found!r}; this version reads {FORMAT!r}: {again}"
        )
    channels = checkpoint.preprocessing.channels
    if not same or target.shape.channels not in (1, channels):
        raise CheckpointError(
            f"{path} is not the {path.name} of {MODEL} beside it, which is another model's: {again}"
        )
    return target


def _read_target(images: Any) -> Target:
    sides = [images[name] for name in ("height", "width", "channels")]
    fit = images["fit"]
    if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"images of {sides}")
    if sides[2] not in (1, 3) or fit not in get_args(Fit):
        raise ValueError(f"images with {sides[2]} channels and fit {fit!r}")
    return Target(ImageShape(*sides), fit)


class _Pictures:
    """Pictures of any kind (see `hpsearch.data.catalog.ImageReader`)."""

    shape: ImageShape | None = None
    batch = 16

    def __init__(self, pictures: Sequence[Picture], names: Sequence[str]) -> None:
        self._pictures = pictures
        self._names = names

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """Opens files; of pictures of Pillow's the reader gets copies, which it may change."""
        for picture, name in zip(self._pictures[start:stop], self._names[start:stop], strict=True):
            try:
                yield _opened(picture)
            except DataError as error:
                yield BadImage(name, str(error))
            except OSError as error:
                raise unavailable(name, error) from error

    def signature(self) -> str:
        """Nothing is kept of them."""
        return ""

    def content_key(self) -> str:
        """Nothing is kept of them."""
        return ""


def _opened(picture: Picture) -> RawImage:
    if isinstance(picture, np.ndarray):
        return picture[..., np.newaxis] if picture.ndim == 2 else picture
    if isinstance(picture, Image.Image):
        try:
            return picture.copy()
        except (OSError, ValueError, SyntaxError) as error:  # it was opened, but not decoded yet
            raise DataError(f"is damaged ({error})") from None
    path = Path(picture)
    if path.is_dir():
        raise DataError(
            "is a folder: give its pictures, such as sorted(Path(folder).glob('*.jpg'))"
        )
    if path.exists() and not is_regular_file(path):
        raise DataError("is no file")
    return open_image(path)


def _listed(images: Picture | Iterable[Picture]) -> Sequence[Picture]:
    """The pictures one by one, each of a known kind."""
    if isinstance(images, np.ndarray):
        pictures: list[Any] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | os.PathLike | Image.Image):
        pictures = [images]
    elif isinstance(images, Iterable):
        pictures = list(images)
    else:
        pictures = [images]
    for number, picture in enumerate(pictures):
        if not isinstance(picture, str | os.PathLike | Image.Image):
            _check_array(picture, number)
    return pictures


def _check_array(picture: object, number: int) -> None:
    wanted = "give a path, a picture of Pillow's, or an array of uint8 (height, width, channels)"
    if not isinstance(picture, np.ndarray):
        raise DataError(f"image {number} is a {type(picture).__name__}: {wanted}")
    fits = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3, 4))
    if picture.dtype != np.uint8 or not fits or picture.size == 0:
        raise DataError(
            f"image {number} is an array of {picture.dtype} {picture.shape}: {wanted} with 1, 3 or "
            "4 channels"
        )


def _name(picture: Picture, number: int) -> str:
    if isinstance(picture, np.ndarray | Image.Image):
        return f"image {number}"
    return os.fspath(picture)
