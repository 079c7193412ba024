"""Checkpoints: one file that holds all that is needed to use a trained model, and its own hash.

The file is written by `torch.save` from plain types and tensors, and read with
`weights_only=True`: no code in it is ever run. A SHA-256 over its content tells an altered
file (one flipped bit loads silently otherwise).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.config import TrainConfig
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole

FORMAT = "hpsearch-checkpoint-1"


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    libraries = {name: metadata.version(name) for name in ("hpsearch", "torch", "numpy")}
    return {"python": platform.python_version(), **libraries}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model at one epoch, with all that is needed to use it or to train it again.

    Attributes:
        state: the model's `state_dict`.
        classes: names of the classes, in the order of the logits.
        metrics: of the epoch (an `EpochResult`'s numbers).
        origin: where it comes from: search, trial, fingerprints of data and split.
        versions: of Python and the libraries that trained it.
    """

    state: Mapping[str, Tensor]
    config: TrainConfig
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    origin: Mapping[str, str | int]
    versions: Mapping[str, str] = dataclasses.field(default_factory=library_versions)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Writes `checkpoint` to `path`, whole or not at all, and returns its SHA-256 of content."""
    document = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "classes": list(checkpoint.classes),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "metrics": dict(checkpoint.metrics),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }
    state = {name: tensor.detach().cpu() for name, tensor in checkpoint.state.items()}
    sha256 = _digest(document, state)
    content = {"document": json.dumps(document), "state": state, "sha256": sha256}
    write_whole(path, lambda temporary: torch.save(content, temporary))
    return sha256


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, not a checkpoint of hpsearch, truncated or altered.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        document, state = json.loads(content["document"]), content["state"]
        stored = content["sha256"]
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: has the format {document['format']!r}; this version reads {FORMAT!r}"
            )
        actual = _digest(document, state)
    except CheckpointError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise a dozen kinds on damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: not a whole checkpoint of hpsearch ({type(error).__name__}: {reason[:200]})"
        ) from None
    if stored != actual:
        raise CheckpointError(
            f"{path}: the content does not match its SHA-256 (stored {str(stored)[:12]}..., "
            f"actual {actual[:12]}...): the file was altered or damaged"
        )
    return Checkpoint(
        state=state,
        config=TrainConfig.from_dict(document["config"]),
        classes=tuple(document["classes"]),
        preprocessing=Preprocessing.from_dict(document["preprocessing"]),
        metrics=document["metrics"],
        origin=document["origin"],
        versions=document["versions"],
    )


def _digest(document: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
