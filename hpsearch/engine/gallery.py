"""What the dashboard shows of a search's trials beside their numbers: each trial's history and
pictures, and with each study those of its best trial.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.data.dataset import ImagePart
from hpsearch.engine.account import Account
from hpsearch.engine.artifacts import ArtifactFiles, artifact_id, attribute, metadata
from hpsearch.engine.database import locked
from hpsearch.engine.lease_table import LeaseLostError
from hpsearch.engine.pictures import CURVES, PICTURES, Subject, draw
from hpsearch.engine.place import BATCHES, CHECKPOINT, HISTORY, VALIDATION, Place, trial_folder
from hpsearch.engine.records import best_first
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import CheckpointError
from hpsearch.names import family_label
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_batches, read_history
from hpsearch.training.validation import Validation, read_validation

SHARE = 0.02
"""Of the time that a worker trains, which all this may take."""

PICTURED_SECONDS = 60.0
"""Trials that train for so long have pictures of their own; three cost about half a second."""

_FIRST_COST = 1.0
"""Seconds that the pictures of a trial are taken to cost before some were drawn."""

_SHOWN = "hpsearch:shown"
"""The system attribute of a study that has the number of the trial whose pictures it carries."""

_GONE = "null"
"""What the dashboard writes in place of the metadata of an artifact that was deleted."""

_log = logging.getLogger(__name__)


class Gallery:
    """What one worker attaches to its trials and to their studies.

    Nothing that goes wrong with it, such as a full disk, is a reason for a trial to fail. Several
    workers may attach to a study at the same time.

    Args:
        part: the validation images.
        clock: gives seconds.
    """

    def __init__(
        self,
        spec: StudySpec,
        place: Place,
        part: ImagePart,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._spec = spec
        self._place = place
        self._part = part
        self._files = ArtifactFiles(place.artifacts)
        self._drew = False  # pictures of the last trial, which its study can have as well
        self.account = Account(share=SHARE, cost=_FIRST_COST, clock=clock)

    def attach(
        self,
        trial: optuna.Trial,
        name: str,
        history: Sequence[EpochResult],
        folder: Path,
        validation: Validation | None,
    ) -> str:
        """Gives a trial that is all but told its history as a table and, where it trained for long,
        its pictures.

        Args:
            name: of the trial, such as cnn-7.
            folder: where the file of its history lies.
            validation: of its best epoch, if it is known.

        Returns:
            What went wrong, in words, or nothing.

        Raises:
            LeaseLostError: the trial is another worker's by now.
        """
        self._drew = False
        if self._spec.artifacts == "none":
            return ""
        is_long = sum(result.seconds for result in history) >= PICTURED_SECONDS
        try:
            with self.account.paid():
                artifact = artifact_id(_owner(trial.study, trial.number), HISTORY)
                self._files.take(artifact, folder / HISTORY)
                _mark_trial(trial, artifact, HISTORY)
                if self._spec.artifacts == "all" and is_long and self.account.allows:
                    batches = [
                        (result.epoch, *pair)
                        for result in history
                        for pair in enumerate(result.batch_losses)
                    ]
                    subject = self._subject(name, history, batches, validation)
                    for picture, png in self._drawn(subject):
                        artifact = artifact_id(_owner(trial.study, trial.number), picture)
                        self._files.put(artifact, png)
                        _mark_trial(trial, artifact, picture)
                    self._drew = True
        except (LeaseLostError, OptunaError, SQLAlchemyError):
            raise  # they are not about the files
        except Exception as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            _log.warning("the files of trial %s for the dashboard: %s", name, reason)
            return f"not all of its files for the dashboard could be written ({reason})"
        return ""

    def follow(self, study: optuna.Study, family: str) -> None:
        """After a trial, gives its study the pictures and the checkpoint of its best trial, where
        they are another one's and can be paid for.
        """
        if self._spec.artifacts != "none" and (self._drew or self.account.allows):
            with self._guarded():
                self._update(study, family, certain=False)

    def finish(self, studies: Mapping[str, optuna.Study]) -> None:
        """When a worker ends: as `follow` for all studies, by their families; that of the best
        trial of all gets its pictures whatever they cost.
        """
        if self._spec.artifacts == "none":
            return
        with self._guarded():
            best = {family: self._best(study) for family, study in studies.items()}
            ranked = best_first(filter(None, best.values()), self._spec.objectives)
            for place, trial in enumerate(ranked):
                family = next(family for family, found in best.items() if found is trial)
                self._update(studies[family], family, certain=place == 0)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Within, time is spent, and what goes wrong is no reason for a worker to end."""
        try:
            with self.account.paid():
                yield
        except Exception as error:
            _log.warning("the pictures of search %s: %s", self._spec.name, error)

    def _best(self, study: optuna.Study) -> FrozenTrial | None:
        ranked = best_first(study.get_trials(deepcopy=False), self._spec.objectives)
        return next(iter(ranked), None)

    def _update(self, study: optuna.Study, family: str, *, certain: bool) -> None:
        """Gives the study the files of its best trial, as far as there are any: a trial of an
        earlier version has no predictions of the validation images.
        """
        if not self._is_stale(study, self._best(study)):
            return
        with locked(self._place, f"artifacts-{self._spec.name}"):
            best = self._best(study)  # another worker may have been faster
            if best is None or not self._is_stale(study, best):
                return
            folder = trial_folder(self._place.runs, self._spec.name, family, best.number)
            pictures = self._attached(study, best)
            if pictures is None:
                if not (certain or self.account.allows):
                    return
                name = f"{family_label(family)}-{best.number}"
                pictures = self._drawn(self._stored(name, best, folder))
            artifacts = {
                name: artifact_id(study.study_name, name) for name in (*PICTURES, CHECKPOINT)
            }
            for picture, png in pictures:
                self._files.put(artifacts[picture], png)
            known = {picture for picture, _ in pictures}
            if (folder / CHECKPOINT).is_file():
                self._files.take(artifacts[CHECKPOINT], folder / CHECKPOINT)
                known.add(CHECKPOINT)
            for name, artifact in artifacts.items():
                if name not in known:  # it would be that of the trial before
                    self._files.remove(artifact)
                _mark_study(study, artifact, f"best_{name}", known=name in known)
            study._storage.set_study_system_attr(study._study_id, _SHOWN, best.number)

    def _is_stale(self, study: optuna.Study, best: FrozenTrial | None) -> bool:
        """Whether the study's pictures are of another trial than its best one, or gone."""
        if best is None:
            return False
        shown = study._storage.get_study_system_attrs(study._study_id).get(_SHOWN)
        there = self._files.has(artifact_id(study.study_name, CURVES))
        return shown != best.number or not there

    def _attached(self, study: optuna.Study, trial: FrozenTrial) -> list[tuple[str, bytes]] | None:
        """The pictures that the trial itself carries; None where it lacks one."""
        found = []
        for picture in PICTURES:
            artifact = artifact_id(_owner(study, trial.number), picture)
            if attribute(artifact) not in trial.system_attrs:
                return None
            try:
                with self._files.open_reader(artifact) as file:
                    found.append((picture, file.read()))
            except ArtifactNotFound:
                return None
        return found

    def _stored(self, name: str, trial: FrozenTrial, folder: Path) -> Subject:
        """A trial as its files have it."""
        epoch = trial.user_attrs.get("best_epoch")
        try:
            found = read_validation(folder / VALIDATION)
        except CheckpointError:
            found = None
        return self._subject(
            name,
            read_history(folder / HISTORY),
            read_batches(folder / BATCHES) if (folder / BATCHES).is_file() else (),
            found if found is not None and found.epoch == epoch else None,
        )

    def _subject(
        self,
        name: str,
        history: Sequence[EpochResult],
        batches: Sequence[tuple[int, int, float]],
        validation: Validation | None,
    ) -> Subject:
        return Subject(
            title=f"{self._spec.name}, {name}",
            history=history,
            batches=batches,
            validation=validation,
            objective=self._spec.objectives[0],
        )

    def _drawn(self, subject: Subject) -> list[tuple[str, bytes]]:
        with self.account.measured():
            return list(draw(subject, self._part))


def _owner(study: optuna.Study, number: int) -> str:
    return f"{study.study_name} {number}"


def _mark_trial(trial: optuna.Trial, artifact: str, name: str) -> None:
    trial.storage.set_trial_system_attr(trial._trial_id, *metadata(artifact, name))


def _mark_study(study: optuna.Study, artifact: str, name: str, *, known: bool) -> None:
    key, value = metadata(artifact, name)
    before = study._storage.get_study_system_attrs(study._study_id).get(key, _GONE)
    now = value if known else _GONE
    if before != now:
        study._storage.set_study_system_attr(study._study_id, key, now)
