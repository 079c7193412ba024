"""A search: one Optuna study a family, trials in turn, until each family has its share."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import optuna
import torch
from optuna.trial import FixedTrial, TrialState

from hpsearch.config import Precision
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.engine.events import Event, FamilyEstimate, SearchStarted
from hpsearch.engine.objective import Worker, run_trial
from hpsearch.engine.records import SPLIT, SearchRecord, read_search
from hpsearch.engine.setup import (
    check_same_search,
    existing_attrs,
    open_studies,
    peek,
    prepare_data,
    resolve_precision,
)
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import create_storage
from hpsearch.errors import SearchError
from hpsearch.families import build_model, default_params, get_family, suggest_config
from hpsearch.training.device import resolve_device
from hpsearch.training.trainer import train


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search would do, and how long it would take; nothing is written for it."""

    spec: StudySpec
    data: dict[str, object]
    device: str
    precision: str
    estimates: tuple[FamilyEstimate, ...]


def plan(spec: StudySpec, *, device: str = "auto") -> SearchPlan:
    """Checks a specification and estimates its time from scratch, without starting it.

    Raises:
        HpsearchError: as `search`.
    """
    target = resolve_device(device)
    for family in spec.families:
        get_family(family)
    data = prepare_data(spec, None)
    precision = resolve_precision(spec, None, target)
    resident = data.resident(target)
    return SearchPlan(
        spec=spec,
        data=dict(data.summary),
        device=str(target),
        precision=precision,
        estimates=_estimates(spec, spec.shares(), resident, target, precision),
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
    bit, however often it was interrupted.

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
    spec = spec or StudySpec()
    runs = Path(runs)
    watch = watch or (lambda _: None)
    target = resolve_device(device)
    for family in spec.families:
        get_family(family)
    before = peek(runs, spec.name)
    data = prepare_data(spec, None if before is None else runs / spec.name / SPLIT)
    storage = create_storage(runs)
    with _only_one(runs, spec.name):
        attrs = existing_attrs(storage, spec.name)
        if (attrs is None) != (before is None):
            raise SearchError(
                f"search {spec.name!r} was made by another process a moment ago; "
                "the same command again will go on with it"
            )
        if attrs is not None:
            check_same_search(spec, data, attrs, storage, runs)
        precision = resolve_precision(spec, attrs, target)
        studies = open_studies(
            spec, data, storage, runs=runs, precision=precision, exists=attrs is not None
        )
        worker = Worker(
            spec=spec,
            runs=runs,
            data=data.resident(target),
            fingerprints=data.fingerprints,
            device=target,
            precision=precision,
            watch=watch,
        )
        left = {family: _left(studies[family], share) for family, share in spec.shares().items()}
        estimates = _estimates(spec, left, worker.data, target, precision)
        watch(
            SearchStarted(
                record=read_search(storage, runs, spec.name),
                device=str(target),
                precision=precision,
                estimates=estimates,
                resumed=attrs is not None,
            )
        )
        while any(left.values()):
            for family in (name for name in spec.families if left[name]):
                run_trial(worker, studies[family], family, _next_trial(studies[family]))
                left[family] = _left(studies[family], spec.shares()[family])
        return read_search(storage, runs, spec.name)


def _left(study: optuna.Study, share: int) -> int:
    finished = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    return max(0, share - finished)


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


def _estimates(
    spec: StudySpec,
    left: dict[str, int],
    data: ResidentData,
    device: torch.device,
    precision: Precision,
) -> tuple[FamilyEstimate, ...]:
    estimates = []
    for family, trials in left.items():
        seconds = _epoch_seconds(spec, family, data, device, precision) if trials else 0.0
        estimates.append(
            FamilyEstimate(
                family=family,
                trials=trials,
                epoch_seconds=seconds,
                seconds=seconds * spec.epochs * trials,
            )
        )
    return tuple(estimates)


def _epoch_seconds(
    spec: StudySpec, family: str, data: ResidentData, device: torch.device, precision: Precision
) -> float:
    """Trains the family's default on a part of the data for three epochs; the first, in which
    libraries warm up, does not count.
    """
    shape = data.preprocessing.shape
    config = suggest_config(
        family,
        FixedTrial(default_params(family, shape, spec.overrides)[0]),
        shape,
        epochs=spec.epochs,
        seed=spec.seed,
        precision=precision,
        overrides=spec.overrides,
    )
    part = min(1.0, 8 * config.batch_size / len(data.train))
    probe = dataclasses.replace(data, train=_head(data.train, part), val=_head(data.val, part))
    model = build_model(config, shape, len(data.classes))
    with contextlib.closing(train(model, probe, config, device=device)) as epochs:
        measured = [result.seconds for result in itertools.islice(epochs, 3)]
    return min(measured) / part


def _head(images: ResidentImages, part: float) -> ResidentImages:
    n = max(1, round(len(images) * part))
    return ResidentImages(images.images[:n], images.labels[:n])
