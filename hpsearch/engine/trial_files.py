"""What a running trial keeps on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import contextlib
import glob
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hpsearch.config import TrainConfig
from hpsearch.engine.place import CHECKPOINT, VALIDATION
from hpsearch.errors import CheckpointError
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import objective_info
from hpsearch.training.state import StateFiles, TrainingState
from hpsearch.training.validation import Validation, read_validation, write_validation

_SHARE = 50
"""A state is worth its while when the trial took this many times what the last one cost."""

_FIRST_COST = 0.05
"""Seconds that a state is taken to cost before one was saved."""

_HALF_WRITTEN = ".*"  # see hpsearch/files.py

_ATTEMPT = ".attempt-"


class TrialFiles:
    """Training states of a running trial, and of its best epoch the checkpoint and what it made of
    the validation images.

    Each state belongs to a checkpoint: that of the best epoch so far. Both of the two states that
    are kept find theirs at any moment, whenever the process is killed: the newest one in
    checkpoint.pt, the one before in checkpoint-N.pt where the best epoch was another one, N, then.

    While it runs, they lie in a folder of its owner's own, cnn-7.attempt-2 for the second one: who
    takes the trial over renames it, so that the owner before, should it come back, writes nowhere.

    Args:
        folder: of the trial when it is finished.
        attempt: how many owners it has had.
        every: epochs between two states; 0: as few as cost at most 2 % of the time.
        clock: gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        attempt: int,
        every: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._final = folder
        self._folder = folder.with_name(f"{folder.name}{_ATTEMPT}{attempt}")
        self._every = every
        self._clock = clock
        self._states = StateFiles(self._folder)
        self._best: tuple[Checkpoint, Validation] | None = None  # not written yet
        self._written: int | None = None  # the epoch of checkpoint.pt
        self._saved_at = clock()
        self._cost = _FIRST_COST

    @property
    def folder(self) -> Path:
        """Where they lie while the trial runs."""
        return self._folder

    def begin(self) -> None:
        """Makes the folder of a new trial; what lies there is of a search long gone.

        As with `take_over`, the trial must be known to be one's own at this moment.
        """
        for path in (self._final, *_attempts(self._final)):
            shutil.rmtree(path, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def take_over(self) -> None:
        """Takes the files from the trial's owner before."""
        # One that got as far as `publish` had nothing more to write.
        found = [self._final] if self._final.is_dir() else _attempts(self._final)
        if found and found[0] != self._folder:
            found[0].rename(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in _attempts(self._final):
            if path != self._folder:
                shutil.rmtree(path, ignore_errors=True)

    def publish(self) -> None:
        """Puts the files where those of a finished trial lie.

        Raises:
            OSError: another owner has taken them, or has published its own.
        """
        if any(self._folder.iterdir()):
            self._folder.rename(self._final)  # fails where an adopter's lie already
        else:
            self._folder.rmdir()

    def empty(self) -> None:
        """Makes the folder an empty one, and forgets what was to be written there."""
        self._best, self._written = None, None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

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
                if self.validation(best) is None:  # of a later epoch, or damaged
                    (self._folder / VALIDATION).unlink(missing_ok=True)
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

    def keep(self, checkpoint: Checkpoint, validation: Validation) -> None:
        """Takes what there is of a new best epoch, which is written with the next state."""
        self._best = checkpoint, validation

    def save_if_due(self, epochs: int, state: Callable[[], TrainingState]) -> None:
        """Saves the training's state after `epochs` epochs, if it is time to."""
        if self._every:
            due = epochs % self._every == 0
        else:
            due = self._clock() - self._saved_at >= _SHARE * self._cost
        if due:
            self.save(state)

    def save(self, state: Callable[[], TrainingState]) -> None:
        """Saves the training's state, with the checkpoint of its best epoch."""
        now = self._clock()
        before = self._written
        self.write_best()
        self._states.save(state())
        for path in self._folder.glob("checkpoint-*.pt"):
            if path != self._earlier(before):
                path.unlink(missing_ok=True)
        self._saved_at = self._clock()
        self._cost = self._saved_at - now

    def write_best(self) -> None:
        """Writes what there is of the best epoch, if it is not there yet."""
        if self._best is None:
            return
        checkpoint, validation = self._best
        path = self._folder / CHECKPOINT
        if self._written is not None:
            path.replace(self._earlier(self._written))
        save_checkpoint(path, checkpoint)
        write_validation(self._folder / VALIDATION, validation)
        self._written, self._best = int(checkpoint.metrics["epoch"]), None

    def validation(self, epoch: int) -> Validation | None:
        """What the weights of the best epoch made of the validation images, if that is `epoch`, and
        it is known.
        """
        if self._best is not None:
            found = self._best[1]
        else:
            try:
                found = read_validation(self._folder / VALIDATION)
            except CheckpointError:
                return None
        return found if found.epoch == epoch else None

    def history(self) -> tuple[EpochResult, ...]:
        """The epochs behind the newest whole state."""
        return next((state.history for state in self._states.whole()), ())

    def _earlier(self, epoch: int | None) -> Path:
        return self._folder / f"checkpoint-{epoch}.pt"


def clear(folder: Path) -> None:
    """Removes of a finished trial all that only a running one needs, and what was half written when
    it was killed.
    """
    for path in _attempts(folder):
        shutil.rmtree(path, ignore_errors=True)
    StateFiles(folder).clear()
    for pattern in ("checkpoint-*.pt", _HALF_WRITTEN):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _attempts(folder: Path) -> list[Path]:
    """The folders of the owners that a trial has had, the newest first."""
    found = {
        int(number): path
        for path in folder.parent.glob(f"{glob.escape(folder.name)}{_ATTEMPT}*")
        if (number := path.name.rpartition("-")[2]).isdigit()
    }
    return [path for _, path in sorted(found.items(), reverse=True)]
