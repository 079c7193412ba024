"""What a search writes for the dashboard as it goes on: notes and plots."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from optuna.storages._rdb.models import TrialModel
from optuna.trial import TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session

from hpsearch.engine.board import noted_trials, write_board
from hpsearch.engine.database import locked, open_storage
from hpsearch.engine.notes import study_note, trial_note
from hpsearch.engine.place import study_name
from hpsearch.engine.pruners import why_pruned
from hpsearch.engine.pruning_words import PrunedTrial
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.search_reader import trial_record
from hpsearch.engine.setup import epochs_of
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.states import ASIDE, FINISHED
from hpsearch.engine.study_plots import study_plots
from hpsearch.families import Parameter
from hpsearch.names import family_label

SHARE = 50
"""After a round of writing, it waits so many times what the round took: so it costs at most 2 %."""

LAST_SECONDS = 5.0
"""For so long the end of a search waits for the last round."""

BROKEN_OFF_SECONDS = 2.0
"""The same, where the search was broken off."""

_LEAST_PAUSE = 1.0
_PAUSE_AFTER_FAILURE = 10.0
_MOST_NOTES = 50
"""In a round: of a search of an earlier version all are missing."""

_ENDED = (*FINISHED, *ASIDE)
_log = logging.getLogger(__name__)


class Chronicle:
    """Writes notes of studies and trials and the plots of a search, in a thread of its own, while
    it is entered.

    It never fails the search, and takes next to none of its time: what cannot be written now is
    written in a later round, or when the search is started the next time. It draws no random
    numbers.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._deadline = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        seconds = LAST_SECONDS if error is None else BROKEN_OFF_SECONDS
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        self._wanted.set()
        # All trials are done where there is no error: then Ctrl-C ends the waiting, not the search.
        with contextlib.suppress(*(() if error else (KeyboardInterrupt,))):
            self._thread.join(seconds)  # should it hang, it is left behind

    def start(
        self, record: SearchRecord, spec: StudySpec, spaces: Mapping[str, Sequence[Parameter]]
    ) -> None:
        """Begins to write.

        Args:
            record: the search as it is.
            spaces: what is searched, by family as `spec` has it.
        """
        if self._thread is not None:
            raise RuntimeError("it writes already")
        spaces = {family_label(family): tuple(space) for family, space in spaces.items()}
        self._wanted.set()
        self._thread = threading.Thread(
            target=self._run, args=(record, spec, spaces), name="chronicle", daemon=True
        )
        self._thread.start()

    def trial_ended(self) -> None:
        """There is something new."""
        self._wanted.set()

    def _run(
        self, record: SearchRecord, spec: StudySpec, spaces: Mapping[str, Sequence[Parameter]]
    ) -> None:
        chronicler: Chronicler | None = None
        pause = 0.0
        while True:
            self._closing.wait(pause)
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing.is_set()
            begun = time.perf_counter()
            try:
                if chronicler is None:
                    chronicler = Chronicler(record, spec, spaces)
                more = chronicler.write()
            except Exception:
                # Whatever it is: the trials matter, not what is told of them.
                _log.debug("notes and plots could not be written", exc_info=True)
                pause, more = _PAUSE_AFTER_FAILURE, not last
            else:
                pause = max(_LEAST_PAUSE, SHARE * (time.perf_counter() - begun))
            if more:
                self._wanted.set()
            if last and (not more or time.monotonic() > self._deadline):
                break
        if chronicler is not None:
            chronicler.close()


class Chronicler:
    """Writes the notes and plots of a search, a part of them at a time.

    Args:
        record: the search as it is.
        spaces: what is searched, by the names of the families.
    """

    def __init__(
        self, record: SearchRecord, spec: StudySpec, spaces: Mapping[str, Sequence[Parameter]]
    ) -> None:
        self._record = dataclasses.replace(record, trials=())
        self._spec, self._spaces = spec, spaces
        self._shares = {family_label(family): share for family, share in spec.shares().items()}
        self._storage = open_storage(record.place)
        self._storage.patience = 0.0
        self._ids = {
            family: self._storage.get_study_id_from_name(study_name(record.name, family))
            for family in record.families
        }
        # What has ended is read but once, by whoever read the record or here.
        self._ended = {t.name: t for t in record.trials if t.state in _ENDED}
        self._noted: set[int] = set()
        self._plots: dict[str, Mapping[str, str]] = {}

    def close(self) -> None:
        """Closes its connections."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def write(self) -> bool:
        """Writes what is new, as far as it is not too much; whether there is more."""
        with locked(self._record.place, f"chronicle-{self._record.name}"):
            trials = self._trials()
            record = dataclasses.replace(self._record, trials=tuple(trials.values()))
            missing = self._missing(trials)
            for family in record.families:
                self._write_family(record, family, missing)
            self._noted |= missing.keys()
        return len(missing) == _MOST_NOTES

    def _trials(self) -> dict[int, TrialRecord]:
        """The trials that were begun, by their ids."""
        families = {number: family for family, number in self._ids.items()}
        query = (
            select(TrialModel.trial_id, TrialModel.number, TrialModel.study_id)
            .where(TrialModel.study_id.in_(families), TrialModel.state != TrialState.WAITING)
            .order_by(TrialModel.study_id, TrialModel.number)
        )
        with Session(self._storage.engine) as session, session.begin():
            rows = session.execute(query).all()
        return {
            trial_id: self._trial(trial_id, families[study_id], number)
            for trial_id, number, study_id in rows
        }

    def _trial(self, trial_id: int, family: str, number: int) -> TrialRecord:
        known = self._ended.get(f"{family}-{number}")
        if known is not None:
            return known
        trial = trial_record(
            self._record.place,
            self._record.name,
            family,
            self._storage.get_trial(trial_id),
            objective=self._record.objective.name,
        )
        if trial.state in _ENDED:
            self._ended[trial.name] = trial
        return trial

    def _missing(self, trials: Mapping[int, TrialRecord]) -> dict[int, TrialRecord]:
        """Some of the trials that ended and have no note, by their ids."""

        def without() -> list[int]:
            ended = (number for number, trial in trials.items() if trial.state in _ENDED)
            return [number for number in ended if number not in self._noted]

        if without():
            self._noted |= noted_trials(self._storage, self._ids.values())
        return {number: trials[number] for number in without()[:_MOST_NOTES]}

    def _write_family(
        self, record: SearchRecord, family: str, missing: Mapping[int, TrialRecord]
    ) -> None:
        spec, space = self._spec, self._spaces[family]
        plots = study_plots(record, family)
        before = self._plots.get(family, {})
        write_board(
            self._storage,
            self._ids[family],
            note=study_note(record, family, spec=spec, space=space, studies=self._ids),
            trial_notes={
                number: trial_note(trial, spec=spec, space=space, why=self._why(record, trial))
                for number, trial in missing.items()
                if trial.family == family
            },
            plots={name: plot for name, plot in plots.items() if before.get(name) != plot},
        )
        self._plots[family] = plots

    def _why(self, record: SearchRecord, trial: TrialRecord) -> str:
        """Why the trial was pruned; empty where it was not, or where that cannot be told."""
        if trial.state != "pruned" or trial.failure or not trial.reported or trial.ended is None:
            return ""
        others = [
            other.reported
            for other in record.ranked(trial.family)
            if other.ended is not None and other.ended <= trial.ended
        ]
        return why_pruned(
            self._spec.pruner,
            self._spec.pruner_options,
            PrunedTrial(objective=record.objective, reported=trial.reported, others=others),
            epochs=epochs_of(self._spec, self._spaces[trial.family])[1],
            share=self._shares[trial.family],
        )
