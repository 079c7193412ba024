"""A search: one Optuna study a family, trials in turn, until each family has its share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.data.decode import Progress
from hpsearch.engine.estimate import estimates, measure_families, precision_text
from hpsearch.engine.events import DataProgress, Event, FamilyEstimate, SearchStarted
from hpsearch.engine.objective import Worker, drop_checkpoints, run_trial
from hpsearch.engine.records import SearchRecord, left_to_do, read_search, trial_state
from hpsearch.engine.setup import (
    create_studies,
    find_existing,
    load_studies,
    peek,
    prepare_data,
    stored_paces,
)
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import create_storage, open_storage
from hpsearch.errors import SearchError
from hpsearch.families import family_label
from hpsearch.training.device import resolve_device
from hpsearch.training.memory import keep_freed_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search would do, and how long it would take; nothing is written for it."""

    spec: StudySpec
    device: str
    precision: str
    estimates: tuple[FamilyEstimate, ...]
    warnings: tuple[str, ...]


def plan(
    spec: StudySpec | None = None,
    *,
    runs: str | Path = "runs",
    device: str = "auto",
    watch: Callable[[Progress], None] | None = None,
) -> SearchPlan:
    """Checks a specification and estimates the time of what is left to do, without starting it.

    Args:
        watch: is told how far the decoding of data has come that is not in the store yet.

    Raises:
        HpsearchError: as `search`.
    """
    spec, runs = spec or StudySpec(), Path(runs)
    target = _device(spec, device)
    existing = peek(runs, spec.name)
    data = prepare_data(spec, existing, runs, watch=watch)
    _check_writable(runs)
    left = spec.shares()
    if existing is not None:
        record = read_search(open_storage(runs), runs, spec.name)
        states: dict[str, list[str]] = {family_label(family): [] for family in spec.families}
        for trial in record.trials:
            states[trial.family].append(trial.state)
        left = {f: left_to_do(states[family_label(f)], share) for f, share in left.items()}
    views = data.views(target, watch=watch)
    paces = measure_families(spec, left, views, target, stored_paces(existing))
    return SearchPlan(
        spec=spec,
        device=str(target),
        precision=precision_text(paces),
        estimates=estimates(paces, left, data.epochs),
        warnings=data.warnings,
    )


def search(
    spec: StudySpec | None = None,
    *,
    runs: str | Path = "runs",
    device: str = "auto",
    watch: Callable[[Event], None] | None = None,
) -> SearchRecord:
    """Runs a search, or goes on with it: the same call again finishes what was interrupted.

    On one CPU, the same specification gives the same trials with the same results, bit for
    bit, however often it was interrupted. (The number of torch's threads changes the last bits;
    a search keeps the number that it was started with.)

    Args:
        spec: what to search; the default study where None.
        runs: folder of the storage, checkpoints and histories.
        device: "auto", "cpu", "cuda" or "cuda:N".
        watch: is told what happens.

    Returns:
        All trials; `.best` is the one to export. Of a search that has all its trials already,
        what it found, at once.

    Raises:
        HpsearchError: the specification, the data, the runs folder or an override is not
            right; the search was made with other settings; or it runs in another process.
    """
    spec, runs = spec or StudySpec(), Path(runs)
    target = _device(spec, device)
    keep_freed_memory()
    existing = peek(runs, spec.name)
    tell = watch or (lambda _: None)
    data = prepare_data(
        spec, existing, runs, watch=lambda progress: tell(DataProgress(progress=progress))
    )
    with _storage_errors(runs):
        storage = create_storage(runs)
        with _only_one(runs, spec.name):
            if (find_existing(storage, spec.name) is None) != (existing is None):
                raise SearchError(
                    f"search {spec.name!r} was made by another process a moment ago; "
                    "the same command again will go on with it"
                )
            resumed = existing is not None
            threads = existing.attrs["threads"] if existing else torch.get_num_threads()
            views = data.views(target, watch=lambda progress: tell(DataProgress(progress=progress)))
            with _torch_threads(threads):
                studies = load_studies(spec, data, storage, runs=runs) if resumed else {}
                left = {
                    family: _left(studies[family], share) if resumed else share
                    for family, share in spec.shares().items()
                }
                paces = measure_families(spec, left, views, target, stored_paces(existing))
                if not resumed:
                    studies = create_studies(
                        spec, data, storage, runs=runs, paces=paces, threads=threads
                    )
                worker = Worker(
                    spec=spec,
                    runs=runs,
                    data=views,
                    fingerprints=data.fingerprints,
                    device=target,
                    paces=paces,
                    watch=tell,
                )
                tell(
                    SearchStarted(
                        record=read_search(storage, runs, spec.name),
                        device=str(target),
                        precision=precision_text(paces),
                        estimates=estimates(paces, left, data.epochs),
                        resumed=resumed,
                        warnings=data.warnings,
                    )
                )
                _run(worker, studies, left)
            return read_search(storage, runs, spec.name)


def _device(spec: StudySpec, name: str) -> torch.device:
    device = resolve_device(name)
    if spec.execution == "graph" and device.type != "cuda":
        raise SearchError(
            f"execution graph is for CUDA graphs, but the device is {device}; use auto or eager"
        )
    return device


def _run(worker: Worker, studies: dict[str, optuna.Study], left: dict[str, int]) -> None:
    """Runs trials of the families in turn until each has its share; `left` to do are so many."""
    shares = worker.spec.shares()
    for family, study in studies.items():  # after an interruption, or with another --keep
        drop_checkpoints(worker, study, family)
    while any(left.values()):
        for family in (name for name in shares if left[name]):
            run_trial(worker, studies[family], family, _next_trial(studies[family]))
            left[family] = _left(studies[family], shares[family])


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _storage_errors(runs: Path) -> Iterator[None]:
    """A full disk or missing rights, in words."""
    try:
        yield
    except (OSError, StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or str(getattr(cause, "orig", cause))
        raise SearchError(
            f"the runs folder {runs} cannot be written ({reason.splitlines()[0]}); what was "
            "finished is stored: mend it, and the same command goes on"
        ) from error


def _check_writable(runs: Path) -> None:
    nearest = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise SearchError(
            f"the runs folder {runs} cannot be written (see {nearest}); choose another with --runs"
        )


def _left(study: optuna.Study, share: int) -> int:
    return left_to_do(map(trial_state, study.get_trials(deepcopy=False)), share)


def _next_trial(study: optuna.Study) -> optuna.Trial:
    """An interrupted trial under its own number, else a new one.

    This process is the search's only one, so a trial that is running was interrupted.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return optuna.Trial(study, running[0]._trial_id) if running else study.ask()


@contextlib.contextmanager
def _only_one(runs: Path, name: str) -> Iterator[None]:
    """A lock that the system gives back when this process ends, however it ends."""
    (runs / name).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(runs / name / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SearchError(
            f"search {name!r} in {runs} runs in another process; look at it with "
            "'hpsearch report', or start another one with --name"
        ) from None
    try:
        yield
    finally:
        lock.release()
