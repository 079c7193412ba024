"""What a running trial keeps on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hpsearch.config import TrainConfig
from hpsearch.engine.records import CHECKPOINT
from hpsearch.errors import CheckpointError
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hpsearch.training.objectives import objective_info
from hpsearch.training.state import StateFiles, TrainingState

_SHARE = 50
"""A state is worth its while when the trial took this many times what the last one cost."""

_FIRST_COST = 0.05
"""Seconds that a state is taken to cost before one was saved."""

_HALF_WRITTEN = ".*"  # see hpsearch/files.py


class TrialFiles:
    """Training states of a running trial, and the checkpoint of its best epoch.

    Each state belongs to a checkpoint: that of the best epoch so far. Both of the two states that
    are kept find theirs at any moment, whenever the process is killed: the newest one in
    checkpoint.pt, the one before in checkpoint-N.pt where the best epoch was another one, N, then.

    Args:
        folder: the trial's.
        every: epochs between two states; 0: as few as cost at most 2 % of the time.
        clock: gives seconds.
    """

    def __init__(
        self, folder: Path, *, every: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._folder = folder
        self._every = every
        self._clock = clock
        self._states = StateFiles(folder)
        self._best: Checkpoint | None = None  # not written yet
        self._written: int | None = None  # the epoch of checkpoint.pt
        self._saved_at = clock()
        self._cost = _FIRST_COST

    def empty(self) -> None:
        """Makes the folder an empty one, and forgets what was to be written there."""
        self._best, self._written = None, None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def clear(self) -> None:
        """Removes all that only a running trial needs, and what was half written when it was
        killed.
        """
        self._states.clear()
        for pattern in ("checkpoint-*.pt", _HALF_WRITTEN):
            for path in self._folder.glob(pattern):
                path.unlink()

    def take_up(self, config: TrainConfig) -> TrainingState | None:
        """The newest whole state of a training of `config`, with its checkpoint in place; where
        there is none, None, and the folder is empty.
        """
        for state in self._states.whole():
            best = max(state.history, key=objective_info(config.objective).key).epoch
            checkpoint = self._checkpoint_of(best) if state.config == config else None
            if checkpoint is not None:
                checkpoint.replace(self._folder / CHECKPOINT)
                self._written = best
                return state
        self.empty()
        return None

    def _checkpoint_of(self, epoch: int) -> Path | None:
        """The file of the weights of that epoch, if there is a whole one."""
        for path in (self._folder / CHECKPOINT, self._earlier(epoch)):
            with contextlib.suppress(CheckpointError):
                if load_checkpoint(path).metrics["epoch"] == epoch:
                    return path
        return None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Takes the checkpoint of a new best epoch, which is written with the next state."""
        self._best = checkpoint

    def save_if_due(self, epochs: int, state: Callable[[], TrainingState]) -> None:
        """Saves the training's state after `epochs` epochs, if it is time to."""
        now = self._clock()
        if self._every:
            due = epochs % self._every == 0
        else:
            due = now - self._saved_at >= _SHARE * self._cost
        if not due:
            return
        before = self._written
        self.write_best()
        self._states.save(state())
        for path in self._folder.glob("checkpoint-*.pt"):
            if path != self._earlier(before):
                path.unlink()
        self._saved_at = self._clock()
        self._cost = self._saved_at - now

    def write_best(self) -> None:
        """Writes the checkpoint of the best epoch, if it is not there yet."""
        if self._best is None:
            return
        path = self._folder / CHECKPOINT
        if self._written is not None:
            path.replace(self._earlier(self._written))
        save_checkpoint(path, self._best)
        self._written, self._best = int(self._best.metrics["epoch"]), None

    def _earlier(self, epoch: int | None) -> Path:
        return self._folder / f"checkpoint-{epoch}.pt"
