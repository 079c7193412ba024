"""torchvision's published weights: their names, the images they want, and their files.

torchvision checks a file only while it downloads it; here its hash is checked at every load.
"""

from __future__ import annotations

import dataclasses
import os
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch.hub

from hpsearch.config import InputConfig
from hpsearch.errors import CheckpointError, ConfigError
from hpsearch.families._statefile import file_sha256, file_stamp
from hpsearch.names import printable

IMAGENET = "imagenet"
"""Names those of a model's weights that torchvision thinks best."""


def is_published(source: str) -> bool:
    """Whether `source` is a name such as imagenet or IMAGENET1K_V1, and not a path."""
    return re.fullmatch(r"imagenet(1k_\w+)?", source, re.IGNORECASE | re.ASCII) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Published weights of one model.

    Attributes:
        name: torchvision's, such as IMAGENET1K_V1.
        model: torchvision's name of it, such as resnet18.
        url: of the file, whose name holds the first digits of its SHA-256.
        input: the images that they were trained on.
    """

    name: str
    model: str
    url: str
    input: InputConfig

    @property
    def path(self) -> Path:
        """Where torchvision keeps the file."""
        return Path(torch.hub.get_dir(), "checkpoints", self.file_name)

    @property
    def file_name(self) -> str:
        """Such as resnet18-f37072fd.pth."""
        return os.path.basename(urlparse(self.url).path)  # noqa: PTH119  # of a URL

    @property
    def sha256(self) -> str:
        """The first digits of the file's SHA-256."""
        found = re.search(r"-([0-9a-f]{8,64})\.[^.]*$", self.file_name)
        if found is None:
            raise CheckpointError(
                f"{self.name} of {self.model}: {self.url} does not tell its SHA-256, so it cannot "
                "be checked; save its state dict to a file, and name that"
            )
        return found[1]


def published_rows(model: str) -> tuple[Published, ...]:
    """All weights of a model of torchvision; the best ones first."""
    # torchvision takes longer to import than all else; most runs do without.
    from torchvision.models import get_model_weights

    members = get_model_weights(model)
    best = members.__members__.get("DEFAULT")
    return tuple(
        Published(name=member.name, model=model, url=member.url, input=_input(member))
        for member in sorted(members, key=lambda member: member is not best)
        # Weights without categories are of a part of the network, the rest of it is NaN.
        if member.meta["categories"]
    )


def published_weights(source: str, model: str) -> Published:
    """Those weights of a model of torchvision that `source` names, in capitals or not.

    Raises:
        ConfigError: there are none of this name.
    """
    rows = published_rows(model)
    for row in rows:
        if source.lower() in (IMAGENET, row.name.lower()):
            return row
    raise ConfigError(
        f"unknown weights {source!r}; torchvision's of {model}: {published_names(model)}"
    )


def published_names(model: str) -> str:
    """What `published_weights` knows, to be read."""
    return ", ".join([IMAGENET, *(row.name for row in published_rows(model))])


def _input(member: Any) -> InputConfig:
    wanted = member.transforms()
    size, resize = ((side, side) for (side,) in (wanted.crop_size, wanted.resize_size))
    return InputConfig(
        size=size,
        resize=() if resize == size else resize,
        channels=3,
        normalise="given",
        mean=tuple(wanted.mean),
        std=tuple(wanted.std),
    )


def fetched(weights: Published) -> Path:
    """The file of `weights`, downloaded where it is not there yet; its hash is right.

    Raises:
        CheckpointError: it cannot be downloaded, or the file is another one.
    """
    path = weights.path
    if file_stamp(path) is None:
        _download(weights)
    check_published(path, weights)
    return path


def check_published(path: Path, weights: Published) -> None:
    """Raises `CheckpointError` unless the file `path` has the hash of `weights`."""
    actual = file_sha256(path)
    if not actual.startswith(weights.sha256):
        raise CheckpointError(
            f"{printable(str(path))}: damaged or altered: its SHA-256 is {actual}, but that of "
            f"{weights.name} of {weights.model} begins with {weights.sha256}; delete the file"
        )


def _download(weights: Published) -> None:
    """Whole and checked, or not at all: torch writes to another file, which it then renames."""
    path = weights.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What get_state_dict of torchvision calls, which prints as well, and reads the file.
        torch.hub.download_url_to_file(
            weights.url, str(path), hash_prefix=weights.sha256, progress=False
        )
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: a wrong hash
        text = " ".join(str(error).split()) or type(error).__name__
        reason = printable(text.removeprefix("<urlopen error ").removesuffix(">"))
        raise CheckpointError(
            f"{weights.file_name} cannot be downloaded ({reason}): put the file into "
            f"{printable(str(path.parent))} yourself, from {weights.url}, or train from scratch "
            "with --set weights=none"
        ) from None
