"""What one process does in a search: trial after trial, until there are no more."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.engine.events import TrialStopped, WorkerWaits
from hpsearch.engine.lease_table import Lease, LeaseLostError
from hpsearch.engine.leases import Claim, Leases, Share, release_dead
from hpsearch.engine.open_trials import BEATS, end_times
from hpsearch.engine.presence import present
from hpsearch.engine.records import count_stale, stored_key
from hpsearch.engine.samplers import exhausted
from hpsearch.engine.states import FINISHED, trial_state
from hpsearch.engine.stop import Terminated
from hpsearch.engine.storage import SearchStorage
from hpsearch.engine.studies import study_deleted
from hpsearch.engine.trial import HandedBack, Trial
from hpsearch.engine.worker import Worker

POLL_SECONDS = 1.0
"""How often a worker that has nothing to do looks whether a trial falls to it."""


def work(
    worker: Worker,
    studies: Mapping[str, optuna.Study],
    storage: SearchStorage,
    owner: str,
    *,
    grace: float,
) -> None:
    """Runs trials of the families until each has its share, the search stagnates, or it is to
    stop.

    Args:
        owner: the worker's name for leases, which nobody else has.
        grace: seconds without a sign of life after which it is taken for dead.

    Raises:
        SearchError: a study of the search was deleted meanwhile, in the dashboard for example.
        SystemExit, KeyboardInterrupt: it was broken off; the trial that ran is handed back.
    """
    leases = Leases(storage, worker.place, owner, grace=grace)
    with present(worker.place, owner):
        try:
            _work(worker, studies, storage, leases, beat=grace / BEATS)
        except KeyError as error:
            stored = {study.study_name for study in storage.get_all_studies()}
            gone = sorted({study.study_name for study in studies.values()} - stored)
            if not gone:
                raise
            raise study_deleted(gone[0], worker.place) from error


def _work(
    worker: Worker,
    studies: Mapping[str, optuna.Study],
    storage: SearchStorage,
    leases: Leases,
    *,
    beat: float,
) -> None:
    waits = False
    while not worker.stop.wanted:
        stagnates = _stagnates(worker, studies, storage)
        shares = {
            family: Share(
                study_id=studies[family]._study_id,
                trials=trials,
                closed=stagnates or exhausted(studies[family], running=True),
            )
            for family, trials in worker.spec.shares().items()
        }
        claim = leases.claim(shares, attempts=worker.spec.attempts)
        if isinstance(claim, Claim):
            waits = False
            _run(worker, studies[claim.family], storage, leases, claim, beat)
            worker.gallery.follow(studies[claim.family], claim.family)
        elif claim.running:
            if not waits:
                worker.watch(WorkerWaits(worker=worker.number))
            waits = True
            worker.stop.wait(POLL_SECONDS)
        else:
            break
    worker.gallery.finish(studies)


def _run(
    worker: Worker,
    study: optuna.Study,
    storage: SearchStorage,
    leases: Leases,
    claim: Claim,
    beat: float,
) -> None:
    lease = claim.lease
    trial: Trial | None = None
    with leases.kept(lease, every=beat) as lost:
        try:
            trial = Trial(worker, study, claim.family, claim)
            trial.run(lost, lambda: leases.holds(lease))
            return
        except LeaseLostError as error:
            reason = str(error)
        except HandedBack as handed:
            reason = str(handed)
            leases.hand_back(lease, reason, pause=handed.pause)
        except UpdateFinishedTrialError:
            reason = "it was told from outside, in the dashboard for example"
        except Exception as error:
            # Its folder is gone, for example, since another worker has taken it over.
            if leases.holds(lease):
                _break_off(storage, leases, lease, error)
                raise
            reason = "the trial was taken over by another worker"
        except SystemExit as error:
            if isinstance(error, Terminated):
                _hand_back_at_once(leases, lease)
                raise
            text = "the family's code called sys.exit"
            release_dead(storage, leases.owner, text)
            raise RuntimeError(text) from error
        except BaseException:
            _hand_back_at_once(leases, lease)
            raise
    if trial is not None:
        worker.watch(TrialStopped(name=trial.name, reason=reason))


def _hand_back_at_once(leases: Leases, lease: Lease) -> None:
    """Where the database is away, the grace does the same later."""
    with contextlib.suppress(Exception):
        leases.hand_back(lease, "broken off", patience=5.0)


def _break_off(storage: SearchStorage, leases: Leases, lease: Lease, error: Exception) -> None:
    """Hands back a trial that an error ended which is not its own outcome."""
    with contextlib.suppress(Exception):
        if isinstance(error, OSError | StorageInternalError | SQLAlchemyError):
            leases.hand_back(lease, "the storage failed")
        else:  # a mistake that would come again, and again
            text = " ".join(f"{type(error).__name__}: {error}".split())
            release_dead(storage, leases.owner, text)


def _stagnates(worker: Worker, studies: Mapping[str, optuna.Study], storage: SearchStorage) -> bool:
    """Whether the last `patience` trials of all families did not make the best one better."""
    if not worker.spec.patience:
        return False
    objective = worker.spec.objectives[0]
    ends: list[tuple[float, tuple[float, float]]] = []
    for study in studies.values():
        times = end_times(storage, study._study_id)
        ends += [
            (times.get(trial._trial_id, 0.0), stored_key(trial, objective))
            for trial in study.get_trials(deepcopy=False)
            if trial_state(trial) in FINISHED
        ]
    ends.sort(key=lambda end: end[0])
    return count_stale(key for _, key in ends) >= worker.spec.patience
