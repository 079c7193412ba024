"""Files of weights: their SHA-256, and their tensors, read without ever running code in them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import pickle
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.errors import CheckpointError
from hpsearch.names import listed, printable

SAFETENSORS = ".safetensors"

Stamp = tuple[int, ...]

# A file that was just written can change once more within one step of the clock that dates files.
_SETTLED_NS = 2 * 10**9


def file_stamp(path: Path) -> Stamp | None:
    """What changes whenever the file `path` does; None where there is no such file.

    Raises:
        CheckpointError: it cannot be looked at.
    """
    try:
        if not path.is_file():
            return None
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{printable(str(path))}: {error.strerror or error}") from None
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
    now = 0 if settled else time.perf_counter_ns()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, now


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; computed once as long as the file stays as it is.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    return _sha256(path, file_stamp(path))


@functools.lru_cache(maxsize=128)
def _sha256(path: Path, stamp: Stamp | None) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{printable(str(path))}: {error.strerror or error}") from None


def read_content(path: Path) -> Any:
    """What a file of torch or safetensors holds. Tensors stay in the file until they are used.

    Raises:
        CheckpointError: it is damaged, holds more than plain types and tensors, or is a
            safetensors file and the package safetensors is not installed.
    """
    name = printable(str(path))
    try:
        if path.suffix.lower() == SAFETENSORS:
            return _safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what damage and old formats look like to torch
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except CheckpointError:
        raise
    except pickle.UnpicklingError:
        # torch's own message advises to run whatever is in the file.
        raise CheckpointError(
            f"{name}: not a state dict, or damaged; only tensors are read, never code: save them "
            "with torch.save(model.state_dict(), ...)"
        ) from None
    except Exception as error:  # torch, zipfile and pickle raise a dozen kinds on damaged files
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise CheckpointError(
            f"{name}: damaged, cut short, or no file of weights ({type(error).__name__}"
            f"{': ' if reason else ''}{printable(reason)})"
        ) from None


def _is_zip(path: Path) -> bool:
    """Whether `torch.save` wrote it in its present format, which can be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _safetensors(path: Path) -> Any:
    try:
        reader = importlib.import_module("safetensors.torch")
    except ImportError:
        raise CheckpointError(
            f"{printable(str(path))}: reading it needs the package safetensors: install it, or "
            "save the weights as .pth with torch.save"
        ) from None
    return reader.load_file(os.fspath(path))


def checked_state(path: Path, content: object) -> dict[str, Tensor]:
    """`content` of `path` as a state dict: tensors by name.

    Raises:
        CheckpointError: it is something else.
    """
    name = printable(str(path))
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name}: holds a {type(content).__name__}, not a state dict (tensors by name)"
        )
    wrong = [str(key) for key, item in content.items() if not _is_plain(key, item)]
    if wrong or not content:
        found = f"no plain tensors: {listed(wrong)}" if wrong else "nothing"
        raise CheckpointError(
            f"{name}: holds {found}; a state dict is tensors by name, as "
            "torch.save(model.state_dict(), ...) writes it"
        )
    return dict(content)


def _is_plain(key: object, item: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(item, Tensor)
        and item.device.type == "cpu"
        and item.layout == torch.strided
        and not item.is_quantized
        and not item.is_complex()
    )
