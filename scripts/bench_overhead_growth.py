"""The part "growth" of `bench_overhead.py`: the bookkeeping of a trial in a study that grows."""

from __future__ import annotations

import contextlib
import cProfile
import dataclasses
import functools
import pstats
import sys
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any
from unittest import mock

import optuna
import torch
from bench_common import CPU, FAMILY, Bench, fresh_name, shown, spread
from bench_overhead_fill import fill
from optuna.trial import TrialState
from torch import nn

from hpsearch import StudySpec
from hpsearch.config import TrainConfig
from hpsearch.engine import outcome
from hpsearch.engine import trial as trial_module
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.estimate import Pace
from hpsearch.engine.events import Event, TrialFinished
from hpsearch.engine.existing import peek
from hpsearch.engine.leases import Leases
from hpsearch.engine.open_trials import GRACE_SECONDS
from hpsearch.engine.place import Place
from hpsearch.engine.presence import new_owner
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.stop import Stop
from hpsearch.engine.storage import SearchStorage
from hpsearch.engine.studies import create_studies, load_studies
from hpsearch.engine.trial import Trial
from hpsearch.engine.work import work
from hpsearch.engine.worker import Worker
from hpsearch.training.epoch import EpochResult
from hpsearch.training.model import StagedModel

REPORTS = 20
"""Epochs of a trial whose bookkeeping is measured."""

STAGES: dict[str, tuple[Any, str]] = {
    "claim": (Leases, "claim"),
    "set-up": (Trial, "__init__"),
    "ask": (Trial, "_config"),
    "repeat?": (Trial, "_measured"),
    "reports": (optuna.Trial, "report"),
    "pruner": (optuna.Trial, "should_prune"),
    "tell": (optuna.Study, "tell"),
    "checkpoints": (trial_module, "drop_checkpoints"),
}
"""The steps of a trial: functions of which none calls another one. What is left is the attributes
and files, mostly.
"""


START = ("find", "read", "tidy")
"""Of a process that has just been started, in seconds."""


class Untrained:
    """Stands in for the trainer: its epochs take no time, and no pruner stops it."""

    def __init__(self, model: Any, data: Any, config: TrainConfig, **_: Any) -> None:
        del model
        self._config = config
        self.val_logits = torch.zeros(len(data.val), len(data.classes))
        self.is_over = False
        self.state = None  # is not saved

    def run(self) -> Generator[EpochResult, None, None]:
        """As the trainer's."""
        for epoch in range(self._config.epochs):
            score = 0.96 + 0.001 * epoch
            self.is_over = epoch + 1 == self._config.epochs
            yield EpochResult(
                epoch=epoch,
                train_loss=1.0,
                train_accuracy=score,
                train_balanced_accuracy=score,
                train_macro_f1=score,
                val_loss=1 - score,
                val_accuracy=score,
                val_balanced_accuracy=score,
                val_macro_f1=score,
                lr=0.001,
                dropout=0.0,
                seconds=1.0,
                images_per_second=1000.0,
                is_best=True,
                batch_losses=(1.0,) * 17,
            )


def tiny_model(config: Any, shape: Any, n_classes: int) -> StagedModel:
    """What is built in place of the configuration's model."""
    del config
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape.channels, 2))
    return StagedModel({"only": nn.Sequential(layers, nn.Linear(2, n_classes))})


class Steps:
    """Milliseconds of the steps of a trial, while it is entered."""

    def __init__(self) -> None:
        self.taken = dict.fromkeys(STAGES, 0.0)
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> Steps:
        for stage, (owner, name) in STAGES.items():
            self._patches.enter_context(
                mock.patch.object(owner, name, self._timed(stage, getattr(owner, name)))
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.taken[stage] += 1000 * (time.perf_counter() - start)

        return call

    def lap(self, whole: float) -> dict[str, float]:
        """The steps since the last lap, which took `whole` milliseconds."""
        taken, self.taken = self.taken, dict.fromkeys(STAGES, 0.0)
        return {"trial": whole, **taken, "rest": whole - sum(taken.values())}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown:
    """A search with many finished trials, as a process has it that was started for it.

    Attributes:
        seconds: what starting took, by the names in `START`.
    """

    worker: Worker
    studies: Mapping[str, optuna.Study]
    storage: SearchStorage
    seconds: Mapping[str, float]

    def run(self, trials: int = 1) -> list[dict[str, float]]:
        """The steps of so many trials more, in milliseconds."""
        laps: list[dict[str, float]] = []
        stop = Stop()
        with Steps() as steps:
            last = time.perf_counter()

            def watch(event: Event) -> None:
                nonlocal last
                if not isinstance(event, TrialFinished):
                    return
                now = time.perf_counter()
                if event.trial.state != "complete":
                    raise SystemExit(f"a trial is {event.trial.state}: {event.trial.failure}")
                laps.append(steps.lap(1000 * (now - last)))
                last = now
                if len(laps) >= trials:
                    stop.request("enough")

            worker = dataclasses.replace(self.worker, watch=watch, stop=stop)
            work(worker, self.studies, self.storage, new_owner(), grace=GRACE_SECONDS)
        return laps


def grown(place: Place, size: int) -> Grown:
    """A search with `size` finished trials."""
    # With a number of epochs that never comes, no training state is saved.
    spec = StudySpec(
        name=fresh_name(),
        families=(FAMILY,),
        trials=10**6,
        epochs=REPORTS,
        precision="fp32",
        checkpoint_every=10**6,
    )
    data, paces = prepare_data(spec, None, place), {FAMILY: Pace(precision="fp32")}
    storage = create_storage(place)
    studies = create_studies(spec, data, storage, place=place, paces=paces, threads=1)
    worker = Worker(
        spec=spec,
        place=place,
        data=data.views(CPU),
        fingerprints=data.fingerprints,
        device=CPU,
        paces=paces,
        watch=lambda _: None,
        stop=Stop(),
    )
    made = Grown(worker=worker, studies=studies, storage=storage, seconds={})
    # What is tried first is not what the sampler proposes.
    made.run(len(studies[FAMILY].get_trials(deepcopy=False, states=(TrialState.WAITING,))))
    fill(storage, studies[FAMILY], spec, data, place, size)
    storage.engine.dispose()
    storage = open_storage(place, write=True)
    moments = [time.perf_counter()]
    if peek(place, spec.name) is None:
        raise SystemExit(f"search {spec.name} is not there")
    moments.append(time.perf_counter())
    studies = load_studies(spec, data, storage, place=place, marks=False)
    studies[FAMILY].get_trials(deepcopy=False)
    moments.append(time.perf_counter())
    outcome.drop_checkpoints(spec, place, studies[FAMILY], FAMILY, everywhere=True)
    moments.append(time.perf_counter())
    seconds = {
        name: end - start for name, start, end in zip(START, moments, moments[1:], strict=False)
    }
    return Grown(worker=worker, studies=studies, storage=storage, seconds=seconds)


def growth(bench: Bench) -> dict[str, Any]:
    torch.set_num_threads(1)
    print(
        f"\ngrowth: milliseconds of one trial's bookkeeping, {REPORTS} reports\n"
        f"{'storage':11}{'trials':>7}{'a trial':>21}{'ratio':>22}"
        + "".join(f"{name:>{len(name) + 3}}" for name in (*STAGES, "rest", *START))
    )
    tables: dict[str, Any] = {}
    for name, fresh_place in bench.places.items():
        with (
            mock.patch.object(trial_module, "Training", Untrained),
            mock.patch.object(trial_module, "initial_model", tiny_model),
        ):
            searches = {size: grown(fresh_place(), size) for size in bench.sizes}
            laps = in_turn(searches, bench)
        first = laps[bench.sizes[0]]
        tables[name] = {}
        for size, own in laps.items():
            row = {step: spread([lap[step] for lap in own]) for step in own[0]}
            row |= {step: spread([took]) for step, took in searches[size].seconds.items()}
            pairs = zip(own, first, strict=True)
            row["ratio"] = spread([lap["trial"] / other["trial"] for lap, other in pairs])
            tables[name][size] = row
            print(
                f"{name:11}{size:>7,}{shown(row['trial'], '{:.0f}'):>21}"
                f"{shown(row['ratio'], '{:.2f}'):>22}"
                + "".join(
                    f"{row[step]['median']:>{len(step) + 3}.1f}"
                    for step in (*STAGES, "rest", *START)
                ),
                flush=True,
            )
        for search in searches.values():
            search.storage.engine.dispose()
    return tables


def in_turn(searches: Mapping[int, Grown], bench: Bench) -> dict[int, list[dict[str, float]]]:
    """The steps of trials in searches of several sizes, which take turns; the first warm up."""
    laps: dict[int, list[dict[str, float]]] = {size: [] for size in searches}
    profile = cProfile.Profile()
    largest = max(searches)
    for number in range(bench.bookkept + 1):
        for size, search in searches.items():
            if bench.profile and number and size == largest:
                profile.enable()
            steps = search.run()
            profile.disable()
            if number:
                laps[size] += steps
    if bench.profile:
        statistics = pstats.Stats(profile, stream=sys.stderr)
        statistics.sort_stats("cumulative").print_stats("hpsearch|optuna", 45)
        statistics.sort_stats("tottime").print_stats(25)
    return laps
