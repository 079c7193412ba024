"""A search: one Optuna study a family, trials by one or many workers, until each family has its
share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
import torch

from hpsearch.data.decode import Progress
from hpsearch.data.views import DataViews
from hpsearch.engine.chronicle import Chronicle
from hpsearch.engine.crew import Crew, choose_crew, choose_devices
from hpsearch.engine.estimate import Pace, estimates, measure_families, precision_text
from hpsearch.engine.events import (
    DatabaseAway,
    DataProgress,
    Event,
    FamilyEstimate,
    SearchStarted,
    Stopping,
    TrialFinished,
)
from hpsearch.engine.open_trials import GRACE_SECONDS
from hpsearch.engine.outcome import tidy
from hpsearch.engine.place import Place
from hpsearch.engine.presence import forget_dead, new_owner
from hpsearch.engine.records import SearchRecord, read_search
from hpsearch.engine.setup import (
    Existing,
    PreparedData,
    create_studies,
    find_existing,
    load_studies,
    peek,
    prepare_data,
    stored_paces,
)
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.states import left_to_do, trial_state
from hpsearch.engine.stop import Stop, stopped_after, stopped_by_signals
from hpsearch.engine.storage import (
    SearchStorage,
    create_storage,
    locked,
    open_storage,
    storage_errors,
    wait_for_server,
)
from hpsearch.engine.supervisor import Job, Supervisor
from hpsearch.engine.work import work
from hpsearch.engine.worker import Worker
from hpsearch.errors import SearchError
from hpsearch.training.device import torch_threads
from hpsearch.training.memory import keep_freed_memory, release_memory


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
    storage: str | None = None,
    device: str = "auto",
    watch: Callable[[Progress], None] | None = None,
) -> SearchPlan:
    """Checks a specification and estimates the time of what is left to do, without starting it.

    Args:
        watch: is told how far the decoding of data has come that is not in the store yet.

    Raises:
        HpsearchError: as `search`.
    """
    spec, place = spec or StudySpec(), Place.of(runs, storage)
    (target,) = choose_devices(spec, device, ())
    existing = peek(place, spec.name)
    data = prepare_data(spec, existing, place, watch=watch)
    _check_writable(place)
    left = spec.shares()
    if existing is not None:
        record = read_search(open_storage(place), place, spec.name)
        left = record.left_to_do(left)
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
    storage: str | None = None,
    device: str = "auto",
    devices: Sequence[str] = (),
    workers: int | None = 0,
    timeout: float | None = None,
    grace: float = GRACE_SECONDS,
    watch: Callable[[Event], None] | None = None,
) -> SearchRecord:
    """Runs a search, or goes on with it: the same call again finishes what was interrupted.

    The same call may run several times at once, on machines that share `storage` and `runs`: they
    share the trials.

    On one CPU and with one worker, the same specification gives the same trials with the same
    results, bit for bit, however often it was interrupted. (The number of torch's threads changes
    the last bits; a search keeps the number that it was started with.) With several workers, which
    trials there are depends on which ended first, and each trial can be repeated exactly.

    The first Ctrl-C has running trials saved and handed back at the end of their epoch; a second
    one, or SIGTERM, ends everything at once.

    Args:
        spec: what to search; the default study where None.
        runs: folder of the storage, checkpoints and histories.
        storage: address of a PostgreSQL database; None: a SQLite file in `runs`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        devices: several of them, in place of `device`; workers take turns.
        workers: how many processes run trials, which are started again when they die; 0: none but
            this one. None: measured; on GPUs one each.
        timeout: seconds after which it stops as after one Ctrl-C.
        grace: seconds without a sign of life after which a worker on another machine is taken for
            dead, and its trial goes to another one.
        watch: is told what happens.

    Returns:
        All trials; `.best` is the one to export. Of a search that has all its trials already,
        what it found, at once.

    Raises:
        HpsearchError: the specification, the data, the runs folder or an override is not
            right; the search was made with other settings; or all workers died.
        KeyboardInterrupt: after Ctrl-C, when all is handed back.
    """
    return _search(
        spec or StudySpec(),
        Place.of(runs, storage),
        choose_devices(spec or StudySpec(), device, devices),
        workers=workers,
        timeout=timeout,
        grace=grace,
        watch=watch or (lambda _: None),
        joins=False,
    )


def join(
    name: str,
    *,
    runs: str | Path = "runs",
    storage: str | None = None,
    data: str | None = None,
    device: str = "auto",
    devices: Sequence[str] = (),
    workers: int | None = 0,
    timeout: float | None = None,
    grace: float = GRACE_SECONDS,
    watch: Callable[[Event], None] | None = None,
) -> SearchRecord:
    """Takes part in a search that was started elsewhere, with the settings that it was started
    with.

    Args:
        data: where its data lie on this machine, if it is another path than there.

    Raises:
        HpsearchError: as `search`; or there is no such search.
    """
    place = Place.of(runs, storage)
    existing = peek(place, name)
    if existing is None:
        raise SearchError(
            f"no search {name!r} in {place}; start it with 'hpsearch search', and give the worker "
            "the same --storage and --runs"
        )
    spec = StudySpec.from_dict(existing.attrs["spec"])
    if data is not None:
        spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data_spec, source=data))
    return _search(
        spec,
        place,
        choose_devices(spec, device, devices),
        workers=workers,
        timeout=timeout,
        grace=grace,
        watch=watch or (lambda _: None),
        joins=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opened:
    """A search that is set up, or read again, for this process."""

    storage: SearchStorage
    data: PreparedData
    views: DataViews
    studies: Mapping[str, optuna.Study]
    left: Mapping[str, int]
    paces: Mapping[str, Pace]
    crew: Crew
    resumed: bool


def _search(
    spec: StudySpec,
    place: Place,
    devices: Sequence[torch.device],
    *,
    workers: int | None,
    timeout: float | None,
    grace: float,
    watch: Callable[[Event], None],
    joins: bool,
) -> SearchRecord:
    if workers is not None and workers < 0:
        raise SearchError(f"workers must be 0 or more, but is {workers}")
    stop = Stop()

    def tell_stopping() -> None:
        watch(Stopping(reason=stop.reason))

    def tell(event: Event) -> None:
        if isinstance(event, TrialFinished):
            chronicle.trial_ended()
        watch(event)

    keep_freed_memory()
    with (
        storage_errors(place),
        Chronicle() as chronicle,
        Supervisor(place, tell) as supervisor,
    ):
        # They import torch while this process sets the search up.
        supervisor.warm_up(workers or 0)
        opened = _open(spec, place, devices[0], len(devices), workers, watch, joins=joins)
        crew = opened.crew
        record = read_search(opened.storage, place, spec.name)
        watch(
            SearchStarted(
                record=record,
                device=", ".join(map(str, devices)),
                precision=precision_text(opened.paces),
                estimates=estimates(opened.paces, opened.left, opened.data.epochs),
                resumed=opened.resumed,
                warnings=opened.data.warnings,
                workers=crew.workers,
                threads=crew.threads,
                why=crew.why,
                joins=joins,
            )
        )
        chronicle.start(record, spec, opened.data.spaces)
        del record  # its trials
        studies = opened.studies
        tidy(spec, place, studies)  # what a kill left, or another --keep
        if any(opened.left.values()):
            with (
                stopped_after(timeout, stop, tell_stopping),
                stopped_by_signals(stop, tell_stopping),
            ):
                if crew.workers:
                    jobs = [
                        Job(
                            spec=spec,
                            place=place,
                            device=str(devices[number % len(devices)]),
                            threads=crew.threads,
                            number=number + 1,
                            grace=grace,
                        )
                        for number in range(crew.workers)
                    ]
                    storage = opened.storage
                    del opened  # its images
                    release_memory(devices[0])
                    supervisor.run(jobs, storage, stop)
                else:
                    _work_here(spec, place, devices[0], opened, stop, grace, tell)
        if stop.interrupted:
            raise KeyboardInterrupt
        wait_for_server(place)
        if crew.workers:
            tidy(spec, place, studies)  # what those left that were killed
        return read_search(open_storage(place), place, spec.name)


def _open(
    spec: StudySpec,
    place: Place,
    device: torch.device,
    devices: int,
    workers: int | None,
    watch: Callable[[Event], None],
    *,
    joins: bool,
) -> _Opened:
    """Makes the search, or reads it; of several processes that would make it, one does."""

    def show(progress: Progress) -> None:
        watch(DataProgress(progress=progress))

    existing = peek(place, spec.name)
    data = prepare_data(spec, existing, place, watch=show)
    storage = create_storage(place)
    storage.tell_away = lambda away: watch(DatabaseAway(worker=0, away=away))
    forget_dead(place)
    with contextlib.ExitStack() as lock:
        if existing is None:
            lock.enter_context(locked(place, f"search-{spec.name}"))
            existing = find_existing(storage, spec.name)
            if existing is not None:  # another process was faster
                lock.close()
                data = prepare_data(spec, existing, place, watch=show)
        views = data.views(device, watch=show)
        studies = {}
        left = spec.shares()
        if existing is not None:
            studies = load_studies(spec, data, storage, place=place, marks=not joins)
            left = {family: _left(studies[family], share) for family, share in left.items()}
        cores = torch.get_num_threads()
        with torch_threads(_threads_then(existing)):
            paces = measure_families(spec, left, views, device, stored_paces(existing))
            crew = choose_crew(
                spec,
                left,
                views,
                device,
                paces=paces,
                epochs=data.epochs,
                workers=workers,
                devices=devices,
                cores=cores,
            )
        if existing is None:
            studies = create_studies(
                spec, data, storage, place=place, paces=paces, threads=crew.threads
            )
    return _Opened(
        storage=storage,
        data=data,
        views=views,
        studies=studies,
        left=left,
        paces=paces,
        crew=crew,
        resumed=existing is not None,
    )


def _work_here(
    spec: StudySpec,
    place: Place,
    device: torch.device,
    opened: _Opened,
    stop: Stop,
    grace: float,
    watch: Callable[[Event], None],
) -> None:
    worker = Worker(
        spec=spec,
        place=place,
        data=opened.views,
        fingerprints=opened.data.fingerprints,
        device=device,
        paces=opened.paces,
        watch=watch,
        stop=stop,
    )
    with torch_threads(opened.crew.threads):
        work(worker, opened.studies, opened.storage, new_owner(), grace=grace)


def _threads_then(existing: Existing | None) -> int:
    """How many threads a search has that exists; else those of this process."""
    return int(existing.attrs["threads"]) if existing else torch.get_num_threads()


def _check_writable(place: Place) -> None:
    runs = place.runs
    nearest = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise SearchError(
            f"the runs folder {runs} cannot be written (see {nearest}); choose another with --runs"
        )


def _left(study: optuna.Study, share: int) -> int:
    return left_to_do(map(trial_state, study.get_trials(deepcopy=False)), share)
