"""Files of tensors and plain values that carry a hash of their own content.

They are written by `torch.save` from plain types and tensors, and read with
`weights_only=True`: no code in them is ever run. A SHA-256 over the content tells an altered
file (one flipped bit loads silently otherwise).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole
from hpsearch.training.memory import is_out_of_memory


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


def is_content(content: object) -> bool:
    """Whether a file that was read is one that `write_content` wrote; it may be damaged."""
    return isinstance(content, Mapping) and {"document", "state", "sha256"} <= set(content)


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
        kind: what errors call the file, such as "checkpoint".
        file_format: what its "format" must be.

    Raises:
        CheckpointError: the file is missing, of another kind, truncated or altered.
        OSError: it cannot be read just now, be it for lack of memory: it may be whole.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError
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
    except FileNotFoundError:  # or another process removed it just now
        raise CheckpointError(f"no {kind} at {path}") from None
    except CheckpointError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise a dozen kinds on damaged files
        if is_out_of_memory(error):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None
        # Of a damaged file, torch wants to read at a place where there is none: EINVAL.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
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


@contextlib.contextmanager
def known_content(path: Path, kind: str) -> Iterator[None]:
    """For a block that makes a `kind` of what `read_content` gave: where that is of another version
    of hpsearch, it raises a `CheckpointError`.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: this version of hpsearch does not know such a {kind} "
            f"({type(error).__name__}: {error}); it cannot be used"
        ) from None


def _digest(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
