"""The weights that training starts from: torchvision's, a file's, or those of an export of ours.

They fill every stage of a model but the last: its head has the user's own classes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hpsearch.checks import Options
from hpsearch.config import InputConfig, WeightsConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import CheckpointError, ConfigError
from hpsearch.families._published import (
    Published,
    check_published,
    fetched,
    is_published,
    published_names,
    published_rows,
    published_weights,
)
from hpsearch.families._statefile import (
    Stamp,
    checked_state,
    file_sha256,
    file_stamp,
    read_content,
)
from hpsearch.families._transfer import matching, without_head
from hpsearch.names import family_label, printable
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.content import is_content
from hpsearch.training.model import StagedModel

MODEL_FILE = "model.pt"
"""The checkpoint in the folder of an export."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """What is known of a source of weights before a model is built.

    Attributes:
        kind: torchvision's, a file with a state dict, or a checkpoint of ours.
        options: of an export: the options of its model, which the new model gets too.
        family: of an export; else empty.
        input: the images that the weights were trained on. A file does not say; they are taken to
            be like those of the published weights of the same network and, where there are none,
            no more than that they have 3 channels is known.
        is_head: an export of a model that is a head alone.
    """

    kind: Literal["published", "file", "export"]
    options: Options | None
    family: str
    input: InputConfig
    is_head: bool = False


def weights_info(source: str, *, family: str, published: str | None) -> WeightsInfo:
    """What is known of `source`, quickly, and without a download.

    Args:
        source: imagenet or another name of torchvision's weights; a file (.pth, .pt or
            .safetensors) that holds a state dict; an export of ours, or its model.pt.
        published: the model of torchvision whose weights fit; None where there are none.

    Raises:
        ConfigError: an unknown name, or an export of another family.
        CheckpointError: there is no such file, or it holds no weights.
    """
    if is_published(source):
        row = _published_row(source, family, published)
        return WeightsInfo(kind="published", options=None, family="", input=row.input)
    path = _path(source, published)
    info = _file_info(path, file_stamp(path), published)
    if info.kind == "export" and family_label(info.family) != family_label(family):
        way_out = f"search {info.family} with them"
        if info.is_head:
            way_out = "of that one, a head alone, nothing can be taken over"
        raise ConfigError(
            f"weights {source!r} are an export of the family {info.family}, but the model is of "
            f"the family {family}; {way_out}"
        )
    return info


def resolve_weights(weights: WeightsConfig, *, family: str, published: str | None) -> WeightsConfig:
    """`weights` as they can be found again: the name that imagenet stands for today or an absolute
    path, and the SHA-256. Published ones are downloaded where they are not there yet.

    Raises:
        ConfigError: an unknown name, or an export of another family.
        CheckpointError: they cannot be had, or have another SHA-256 than `weights` says.
    """
    if is_published(weights.source):
        row = _published_row(weights.source, family, published)
        source, path = row.name, fetched(row)
    else:
        weights_info(weights.source, family=family, published=published)  # refuses what is wrong
        path = _path(weights.source, published)
        source = str(_expanded(weights.source).resolve())
    sha256 = _checked_sha256(path, weights)
    return dataclasses.replace(weights, source=source, sha256=sha256)


def load_weights(
    model: StagedModel,
    weights: WeightsConfig,
    *,
    family: str,
    published: str | None,
    shape: ImageShape,
) -> None:
    """Fills `model` but for its head (see `without_head`), in place; on an error it stays as it
    was.

    Args:
        shape: of the model's input, which a ViT has positions for.

    Raises:
        ConfigError: an unknown name, an export of another family, or a model that is a head alone.
        CheckpointError: the weights cannot be had, are damaged or altered, or do not fit.
    """
    wanted = without_head(model)
    if not wanted:
        raise ConfigError(
            f"weights {weights.source!r}: with these options, a model of the family {family} is a "
            "head alone, which takes no weights over; leave them out"
        )
    if is_published(weights.source):
        path = fetched(_published_row(weights.source, family, published))
        kind = "published"
    else:
        kind = weights_info(weights.source, family=family, published=published).kind
        path = _path(weights.source, published)
    _checked_sha256(path, weights)
    own = {name: name for name in wanted}
    if kind == "export":
        names, state = own, load_checkpoint(path).state
    else:
        names, state = model.published, checked_state(path, read_content(path))
        if kind == "file" and (
            not names or _hits(wanted, own, state) > _hits(wanted, names, state)
        ):
            names = own
        elif published is not None:
            state = _adapted(path, state, published, shape)
    try:
        found = matching(state, names, wanted)
    except CheckpointError as error:
        raise CheckpointError(f"{printable(str(path))}: {error}") from None
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)


def _adapted(
    path: Path, state: Mapping[str, Tensor], published: str, shape: ImageShape
) -> Mapping[str, Tensor]:
    """`state` as today's torchvision and images of `shape` want it."""
    from hpsearch.families._zoo import adapt_published  # which imports torchvision

    try:
        return adapt_published(published, state, shape)
    except (RuntimeError, IndexError) as error:  # tensors of other shapes than any ViT has
        reason = printable(" ".join(str(error).split()))
        raise CheckpointError(
            f"{printable(str(path))}: no weights of {published} ({reason})"
        ) from None


def _hits(
    wanted: Mapping[str, Tensor], names: Mapping[str, str], state: Mapping[str, Tensor]
) -> int:
    """How many of the tensors `wanted` are in `state`, where they are called as in `names`."""
    return sum(names.get(name) in state for name in wanted)


def _published_row(source: str, family: str, published: str | None) -> Published:
    if published is None:
        raise ConfigError(
            f"weights {source!r}: there are no published weights for the family {family}; name a "
            "file or an export"
        )
    return published_weights(source, published)


def _path(source: str, published: str | None) -> Path:
    """The file that `source` means."""
    path = _expanded(source)
    if file_stamp(path) is not None:
        return path
    if path.is_dir():
        if file_stamp(path / MODEL_FILE) is None:
            raise CheckpointError(
                f"weights {source!r}: the folder is no export, it has no {MODEL_FILE}"
            )
        return path / MODEL_FILE
    others = f"; torchvision's are {published_names(published)}" if published else ""
    raise CheckpointError(f"weights {source!r}: there is no such file or folder{others}")


def _expanded(source: str) -> Path:
    # Path.expanduser fails for ~ and a name that is no user's; here that is a file's name.
    return Path(os.path.expanduser(source))  # noqa: PTH111


def _checked_sha256(path: Path, weights: WeightsConfig) -> str:
    actual = file_sha256(path)
    if weights.sha256 and weights.sha256 != actual:
        raise CheckpointError(
            f"{printable(str(path))}: not the weights that were used before: their SHA-256 was "
            f"{weights.sha256}, and that of the file is {actual}"
        )
    return actual


@functools.lru_cache(maxsize=32)
def _file_info(path: Path, stamp: Stamp | None, published: str | None) -> WeightsInfo:
    """Of a file that is there; `stamp` changes when it does."""
    content = read_content(path)
    if is_content(content):
        checkpoint = load_checkpoint(path)
        preprocessing = checkpoint.preprocessing
        return WeightsInfo(
            kind="export",
            options=checkpoint.config.options,
            family=checkpoint.config.family,
            input=InputConfig(
                size=(preprocessing.height, preprocessing.width),
                resize=checkpoint.config.input.resize,
                channels=preprocessing.channels,
                normalise="given",
                mean=preprocessing.mean,
                std=preprocessing.std,
            ),
            is_head=len({name.split(".")[1] for name in checkpoint.state}) == 1,
        )
    state = checked_state(path, content)
    return WeightsInfo(
        kind="file", options=None, family="", input=_file_input(path, state, published)
    )


def _file_input(path: Path, state: Mapping[str, Tensor], published: str | None) -> InputConfig:
    """The images that a state dict wants: like those of the published weights of its network."""
    colour = any(tensor.ndim == 4 and tensor.shape[1] == 3 for tensor in state.values())
    rows = published_rows(published) if published is not None else ()
    if not rows:
        return InputConfig(channels=3 if colour else 0)
    for row in rows:
        if row.file_name == path.name:  # the published file itself, wherever it lies
            check_published(path, row)
            return row.input
    usual = rows[0].input
    if colour:
        return usual
    return dataclasses.replace(
        usual, channels=1, mean=(statistics.mean(usual.mean),), std=(statistics.mean(usual.std),)
    )
