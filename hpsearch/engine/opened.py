"""A search that is set up, or read again, for this process."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import optuna
import torch

from hpsearch.data.progress import Progress
from hpsearch.data.views import DataViews
from hpsearch.engine.crew import Crew, choose_crew
from hpsearch.engine.database import (
    create_storage,
    locked,
)
from hpsearch.engine.estimate import Pace, measure_families
from hpsearch.engine.events import (
    DatabaseAway,
    DataProgress,
    Event,
)
from hpsearch.engine.existing import Existing, find_existing, peek, stored_paces
from hpsearch.engine.place import Place
from hpsearch.engine.presence import forget_dead
from hpsearch.engine.setup import PreparedData, prepare_data
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.states import left_to_do, trial_state
from hpsearch.engine.storage import SearchStorage
from hpsearch.engine.studies import create_studies, load_studies
from hpsearch.training.device import torch_threads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A search that is set up, or read again, for this process."""

    storage: SearchStorage
    data: PreparedData
    views: DataViews
    studies: Mapping[str, optuna.Study]
    left: Mapping[str, int]
    paces: Mapping[str, Pace]
    crew: Crew
    resumed: bool


def open_search(
    spec: StudySpec,
    place: Place,
    device: torch.device,
    devices: int,
    workers: int | None,
    watch: Callable[[Event], None],
    *,
    joins: bool,
) -> Opened:
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
            left = trials_left(studies, left)
        paces, crew = measured_crew(
            spec, data, existing, left, views, device, devices=devices, workers=workers
        )
        if existing is None:
            studies = create_studies(
                spec, data, storage, place=place, paces=paces, threads=crew.threads
            )
    return Opened(
        storage=storage,
        data=data,
        views=views,
        studies=studies,
        left=left,
        paces=paces,
        crew=crew,
        resumed=existing is not None,
    )


def measured_crew(
    spec: StudySpec,
    data: PreparedData,
    existing: Existing | None,
    left: Mapping[str, int],
    views: DataViews,
    device: torch.device,
    *,
    devices: int,
    workers: int | None,
) -> tuple[dict[str, Pace], Crew]:
    """How fast each family is, and the processes that run what is left to do.

    Args:
        devices: how many there are.
        workers: where the user says how many.
    """
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
    return paces, crew


def _threads_then(existing: Existing | None) -> int:
    """How many threads a search has that exists; else those of this process."""
    return int(existing.attrs["threads"]) if existing else torch.get_num_threads()


def trials_left(studies: Mapping[str, optuna.Study], shares: Mapping[str, int]) -> dict[str, int]:
    """By family how many trials of its share are to be done."""
    return {
        family: left_to_do(map(trial_state, studies[family].get_trials(deepcopy=False)), share)
        for family, share in shares.items()
    }
