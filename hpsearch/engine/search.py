"""A search: one Optuna study a family, trials by one or many workers, until each family has its
share.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hpsearch.data.progress import Progress
from hpsearch.engine.chronicle import Chronicle
from hpsearch.engine.crew import Crew, choose_devices
from hpsearch.engine.database import (
    exists,
    open_storage,
    storage_errors,
    wait_for_server,
)
from hpsearch.engine.estimate import estimates, precision_text
from hpsearch.engine.events import (
    Event,
    FamilyEstimate,
    SearchStarted,
    Stopping,
    TrialFinished,
)
from hpsearch.engine.existing import peek
from hpsearch.engine.open_trials import GRACE_SECONDS
from hpsearch.engine.opened import Opened, measured_crew, open_search, trials_left
from hpsearch.engine.outcome import tidy
from hpsearch.engine.place import Place
from hpsearch.engine.presence import new_owner
from hpsearch.engine.records import SearchRecord
from hpsearch.engine.search_reader import choose_search, read_search, search_attrs
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.stop import Stop, stopped_after, stopped_by_signals
from hpsearch.engine.supervisor import Supervisor
from hpsearch.engine.work import work
from hpsearch.engine.worker import Worker
from hpsearch.engine.worker_messages import Job
from hpsearch.errors import SearchError
from hpsearch.families import Parameter
from hpsearch.training.device import torch_threads
from hpsearch.training.memory import keep_freed_memory, release_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search would do, and how long it would take; nothing is written for it.

    Attributes:
        data: as `SearchRecord` has it.
        spaces: by family what is searched.
        workers, threads, why, errors, warnings: as `SearchStarted` has them.
    """

    spec: StudySpec
    device: str
    precision: str
    data: Mapping[str, Any]
    spaces: Mapping[str, tuple[Parameter, ...]]
    estimates: tuple[FamilyEstimate, ...]
    workers: int
    threads: int
    why: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def plan(
    spec: StudySpec | None = None,
    *,
    runs: str | Path = "runs",
    storage: str | None = None,
    device: str = "auto",
    devices: Sequence[str] = (),
    workers: int | None = 0,
    watch: Callable[[Progress], None] | None = None,
) -> SearchPlan:
    """Checks a specification and estimates the time of what is left to do, without starting it.

    Args:
        device, devices, workers: as `search` takes them.
        watch: is told how far the decoding of data has come that is not in the store yet.

    Raises:
        HpsearchError: as `search`.
    """
    spec, place = spec or StudySpec(), Place.of(runs, storage)
    _check_workers(workers)
    targets = choose_devices(spec, device, devices)
    existing = peek(place, spec.name)
    data = prepare_data(spec, existing, place, watch=watch)
    _check_writable(place)
    left = spec.shares()
    if existing is not None:
        record = read_search(open_storage(place), place, spec.name)
        left = record.left_to_do(left)
    views = data.views(targets[0], watch=watch)
    paces, crew = measured_crew(
        spec, data, existing, left, views, targets[0], devices=len(targets), workers=workers
    )
    return SearchPlan(
        spec=spec,
        device=", ".join(map(str, targets)),
        precision=precision_text(paces),
        data=data.summary,
        spaces=data.spaces,
        estimates=estimates(paces, left, data.epochs),
        workers=crew.workers,
        threads=crew.threads,
        why=crew.why,
        errors=data.errors,
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
    spec = spec or StudySpec()
    return _search(
        spec,
        Place.of(runs, storage),
        choose_devices(spec, device, devices),
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
        if exists(place):  # then it is called otherwise
            choose_search(search_attrs(open_storage(place)), place, name)
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
    _check_workers(workers)
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
        opened = open_search(spec, place, devices[0], len(devices), workers, watch, joins=joins)
        record = read_search(opened.storage, place, spec.name)
        watch(_started(opened, record, devices, joins=joins))
        chronicle.start(record, spec, opened.data.spaces)
        del record  # its trials
        crew, storage, studies = opened.crew, opened.storage, opened.studies
        tidy(spec, place, studies)  # what a kill left, or another --keep
        if any(opened.left.values()):
            with (
                stopped_after(timeout, stop, tell_stopping),
                stopped_by_signals(stop, tell_stopping),
            ):
                if crew.workers:
                    del opened  # its images
                    release_memory(devices[0])
                    supervisor.run(_jobs(spec, place, crew, devices, grace), storage, stop)
                else:
                    _work_here(spec, place, devices[0], opened, stop, grace, tell)
        if stop.interrupted and any(trials_left(studies, spec.shares()).values()):
            raise KeyboardInterrupt
        wait_for_server(place)
        if crew.workers:
            tidy(spec, place, studies)  # what those left that were killed
        return read_search(open_storage(place), place, spec.name)


def _started(
    opened: Opened, record: SearchRecord, devices: Sequence[torch.device], *, joins: bool
) -> SearchStarted:
    return SearchStarted(
        record=record,
        device=", ".join(map(str, devices)),
        precision=precision_text(opened.paces),
        estimates=estimates(opened.paces, opened.left, opened.data.epochs),
        resumed=opened.resumed,
        errors=opened.data.errors,
        warnings=opened.data.warnings,
        workers=opened.crew.workers,
        threads=opened.crew.threads,
        why=opened.crew.why,
        joins=joins,
    )


def _jobs(
    spec: StudySpec, place: Place, crew: Crew, devices: Sequence[torch.device], grace: float
) -> list[Job]:
    return [
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


def _work_here(
    spec: StudySpec,
    place: Place,
    device: torch.device,
    opened: Opened,
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


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 0:
        raise SearchError(f"workers must be 0 or more, but is {workers}")


def _check_writable(place: Place) -> None:
    runs = place.runs
    nearest = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise SearchError(
            f"the runs folder {runs} cannot be written (see {nearest}); choose another with --runs"
        )
