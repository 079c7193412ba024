"""Files of tensors and plain values that carry a hash of their own content.

They are written by `torch.save` from plain types and tensors, and read with
`weights_only=True`: no code in them is ever run. A SHA-256 over the content tells an altered
file (one flipped bit loads silently otherwise).
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole


def write_content(path: Path, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Writes `document` and `tensors` to `path`, whole or not at all.

    Args:
        document: plain JSON types; its "format" says what the file is.
        tensors: of any device; they are written from the CPU.

    Returns:
        The SHA-256 of the content, in hexadecimal.
    """
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    sha256 = _digest(document, state)
    content = {"document": json.dumps(document), "state": state, "sha256": sha256}
    write_whole(path, functools.partial(_save, content=content))
    return sha256


def _save(path: Path, *, content: dict[str, Any]) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:  # what torch makes of a full disk
        if "inline_container" not in str(error):
            raise
        reason = "a file could not be written whole: is the disk full?"
        raise OSError(errno.ENOSPC, reason, str(path)) from None


def read_content(
    path: Path, *, kind: str, file_format: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_content` wrote, onto the CPU.

    Args:
        kind: what the file should be, for errors.
        file_format: what its "format" must be.

    Raises:
        CheckpointError: the file is missing, of another kind, truncated or altered.
    """
    if not path.is_file():
        raise CheckpointError(f"no {kind} at {path}")
    try:
        with warnings.catch_warnings():  # the error below is all that a user needs of damage
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
        document, tensors = json.loads(content["document"]), content["state"]
        stored = content["sha256"]
        if document["format"] != file_format:
            raise CheckpointError(
                f"{path}: has the format {document['format']!r}; this version reads {file_format!r}"
            )
        actual = _digest(document, tensors)
    except CheckpointError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise a dozen kinds on damaged files
        # What torch says of them is long, and advises to run what is in there.
        raise CheckpointError(
            f"{path}: not a whole {kind} of hpsearch: it is damaged, cut short, or something else "
            f"({type(error).__name__})"
        ) from None
    if stored != actual:
        raise CheckpointError(
            f"{path}: the content does not match its SHA-256 (stored {str(stored)[:12]}..., "
            f"actual {actual[:12]}...): the file was altered or damaged"
        )
    return document, tensors


def _digest(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
