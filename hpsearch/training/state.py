"""Training states: all that a training needs to go on as if it had never stopped.

Their files are like those of checkpoints (see `hpsearch.training.content`), so that a damaged
one is found; the one before is kept for that case.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.config import TrainConfig
from hpsearch.errors import CheckpointError
from hpsearch.training.content import known_content, read_content, write_content
from hpsearch.training.epoch import EpochResult

FORMAT = "hpsearch-training-state-1"
_KIND = "training state"

_log = logging.getLogger(__name__)
_NAME = re.compile(r"state-(\d+)\.pt")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """A training between two epochs.

    There are no states of random generators in it: the randomness of an epoch comes from the
    configuration's seed and the epoch's number.

    Attributes:
        config: what is trained.
        history: the epochs that are over.
        model: the model's `state_dict`, with the weights that are being trained, not their average.
        optimizer: the optimizer's `state_dict`.
        average: the state of the averaged weights, or None where there are none.
    """

    config: TrainConfig
    history: tuple[EpochResult, ...]
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    average: Mapping[str, Any] | None = None


def save_state(path: Path, state: TrainingState) -> None:
    """Writes `state` to `path`, whole or not at all.

    Raises:
        TypeError: the state of the optimizer or of the average holds something other than tensors,
            numbers, texts, None, and lists, tuples and dicts of these.
    """
    tensors: dict[str, Tensor] = {}
    content = {
        "model": dict(state.model),
        "optimizer": dict(state.optimizer),
        "average": None if state.average is None else dict(state.average),
        # As a tensor: there can be a hundred thousand of them.
        "losses": torch.tensor(
            [loss for result in state.history for loss in result.batch_losses], dtype=torch.float64
        ),
    }
    document = {
        "format": FORMAT,
        "config": state.config.to_dict(),
        "history": [_row(result) for result in state.history],
        "content": _pack(content, tensors),
    }
    write_content(path, document, tensors)


def load_state(path: Path) -> TrainingState:
    """Reads a training state onto the CPU.

    Raises:
        CheckpointError: the file is missing, not a training state that this version of hpsearch
            knows, truncated or altered.
        OSError: it cannot be read just now.
    """
    document, tensors = read_content(path, kind=_KIND, file_format=FORMAT)
    with known_content(path, _KIND):
        content = _unpack(document["content"], tensors)
        losses = iter(content["losses"].tolist())
        return TrainingState(
            config=TrainConfig.from_dict(document["config"]),
            history=tuple(_result(row, losses) for row in document["history"]),
            model=content["model"],
            optimizer=content["optimizer"],
            average=content["average"],
        )


def _row(result: EpochResult) -> dict[str, Any]:
    """The epoch in plain JSON types; of its losses only the count."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {**values, "batch_losses": len(result.batch_losses)}


def _result(row: Mapping[str, Any], losses: Iterator[float]) -> EpochResult:
    """The inverse of `_row`; takes the epoch's losses from `losses`."""
    return EpochResult(**{**row, "batch_losses": tuple(islice(losses, row["batch_losses"]))})


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` in plain JSON types that `_unpack` gives back, equal; its tensors go to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):  # keys that are numbers would become texts in JSON
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a training state cannot hold a value of the type {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "tuple":
        return tuple(_unpack(item, tensors) for item in inner)
    return {key: _unpack(item, tensors) for key, item in inner}


class StateFiles:
    """The training states of one training in a folder, the newest two.

    They are called state-N.pt, of a training that has N epochs behind it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, state: TrainingState) -> None:
        """Writes `state`, and then removes all others but the newest before it."""
        epochs = len(state.history)
        save_state(self._folder / f"state-{epochs}.pt", state)
        files = self._files()
        earlier = [number for number in files if number < epochs]
        for number, path in files.items():
            # Later ones were passed over because of damage when the training was taken up.
            if number > epochs or number in earlier[1:]:
                path.unlink(missing_ok=True)

    def whole(self) -> Iterator[TrainingState]:
        """The states whose files are whole, the newest first.

        Raises:
            OSError: one cannot be read just now; it may be whole.
        """
        for path in self._files().values():
            try:
                state = load_state(path)
            except CheckpointError as error:
                _log.warning("%s; it is passed over", error)
            else:
                yield state

    def clear(self) -> None:
        """Removes all of them."""
        for path in self._files().values():
            path.unlink(missing_ok=True)  # two processes may tidy up at once

    def _files(self) -> dict[int, Path]:
        """By number of epochs, the newest first."""
        found = {
            int(match[1]): path
            for path in self._folder.glob("state-*.pt")
            if (match := _NAME.fullmatch(path.name))
        }
        return dict(sorted(found.items(), reverse=True))
