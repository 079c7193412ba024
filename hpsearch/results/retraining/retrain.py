"""Retrain: a trial's configuration trained again with several seeds, and what that does on test
images that nothing before has seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, get_args

import torch

from hpsearch.checks import check_choice, check_int
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import development_data
from hpsearch.data.words import plural
from hpsearch.engine.ledger import record_opening, record_result
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.results.bundle import Trained, is_bundle, write_model, write_test_report
from hpsearch.results.folder import new_folder, writing
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.metrics import new_rows, study_details, validation_interval
from hpsearch.results.retraining.candidates import FoldComparison, compare_candidates
from hpsearch.results.retraining.outcome import Outcome, facts, write_candidates, write_seeds
from hpsearch.results.retraining.repeat import Repeat
from hpsearch.results.retraining.rerun import Watch
from hpsearch.results.retraining.seed_job import (
    On,
    SeedJob,
    batches_file,
    choose_seed,
    model_file,
    seed_job,
    train_seeds,
    with_test_scores,
)
from hpsearch.results.retraining.seeds import SeedRun, Spread
from hpsearch.results.retraining.stored import stored_config
from hpsearch.results.source import search_data, search_of
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint
from hpsearch.training.device import resolve_device
from hpsearch.training.memory import keep_freed_memory

_SPOOL = ".seeds"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Retrained:
    """What `retrain` wrote: an export of one of the models, and what became of all seeds.

    Attributes:
        trial: whose configuration it is.
        seeds: in the order in which they were trained, with their test scores.
        kept: the one whose model the folder has; never chosen by its test score.
        accuracy: on the test split, over the seeds.
        accuracy_of_new: the same without the test images that the weights had seen which training
            started from; None where these are all or none.
        repeat: how the first seed's curve compares with the trial's own; None where it was not
            trained the same way.
        comparison: of the search's best configurations; None where there was none.
        times_opened: how often the search's test split has been opened, this time included.
        metrics: the content of `metrics.json`.
        notes: what a user should know, in sentences.
    """

    folder: Path
    trial: TrialRecord
    on: On
    seeds: tuple[SeedRun, ...]
    kept: SeedRun
    accuracy: Spread
    accuracy_of_new: Spread | None
    repeat: Repeat | None
    comparison: FoldComparison | None
    times_opened: int
    metrics: dict[str, Any]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Retrained(folder={str(self.folder)!r}, trial={self.trial.name!r}, on={self.on!r}, "
            f"seeds={len(self.seeds)}, accuracy={self.accuracy.mean:.4f}, "
            f"times_opened={self.times_opened})"
        )


def retrain(
    trial: TrialRecord,
    out: str | Path,
    *,
    seeds: int = 5,
    on: On = "train",
    epochs: int | None = None,
    replace: bool = False,
    device: str = "auto",
    watch: Watch = lambda _: None,
) -> Retrained:
    """Trains a trial's configuration again with several seeds, tests all of the models at one look
    at the test split, and writes an export of one of them to the folder `out`.

    The first seed is the trial's own: on the same data and machine, its training is the trial's
    again, to the bit on a CPU. The folder appears whole or not at all.

    Args:
        on: "train": as in the search; the model that is kept is the seed's with the best value of
            the objective. "train+val": on the training and the validation images together, for as
            many epochs as the trial's best one took, with the schedules that it had; there is
            nothing left to validate on, and the model of the first seed that could be trained is
            kept.
        epochs: exactly so many, without early stopping; the schedules span them.
        replace: take the place of an export that exists.
        watch: is told of each epoch.

    Raises:
        ConfigError: `seeds`, `on` or `epochs` is out of range, or there is no such device here.
        SearchError: the trial is not complete; `out` exists, or cannot be written; no seed can be
            trained.
        CheckpointError: the trial's history, which a schedule has to follow, is not there.
        DataError: the data is not that of the search any more.
    """
    out, target = Path(out), _checked(seeds, on, epochs, device)
    stored_config(trial, target)
    keep_freed_memory()
    with new_folder(out, "export", is_ours=is_bundle, replace=replace) as folder:
        job = seed_job(trial, search_data(trial), seeds, on, target, watch, epochs=epochs)
        done = _train_and_test(job, folder, out)
    _record(done)
    return done


def retrain_best(
    record: SearchRecord,
    out: str | Path,
    *,
    top: int = 5,
    folds: int = 3,
    seeds: int = 5,
    on: On = "train+val",
    replace: bool = False,
    device: str = "auto",
    watch: Watch = lambda _: None,
) -> Retrained:
    """Trains a search's `top` best configurations (all, where it has fewer complete trials) on
    `folds` divisions of its training and validation images, and `retrain`s the one that stays best,
    which alone is tested.

    On both parts it is trained for the median of the epochs that were best on the folds.

    Raises:
        ConfigError: a number is out of range, or there is no such device here.
        SearchError, CheckpointError, DataError: as `retrain`; no trial is complete, or the images
            do not allow so many folds.
    """
    out, target = Path(out), _checked(seeds, on, None, device)
    check_int("top", top, low=1)
    check_int("folds", folds, low=2)
    best = record.best
    keep_freed_memory()
    with new_folder(out, "export", is_ours=is_bundle, replace=replace) as folder:
        data = search_data(best)
        for trial in data.record.ranked()[:top]:
            seed_job(trial, data, seeds, on, target, watch)  # refuses before the folds, not after
        found = compare_candidates(data, top=top, folds=folds, device=target, watch=watch)
        job = seed_job(
            found.winner.trial, data, seeds, on, target, watch, folds_length=found.winner.length
        )
        done = _train_and_test(job, folder, out, found)
    _record(done)
    return done


def _checked(seeds: int, on: str, epochs: int | None, device: str) -> torch.device:
    check_int("seeds", seeds, low=1)
    check_choice("on", on, get_args(On))
    if epochs is not None:
        check_int("epochs", epochs, low=1)
    return resolve_device(device)


def _train_and_test(
    job: SeedJob, folder: Path, out: Path, comparison: FoldComparison | None = None
) -> Retrained:
    """Trains all seeds, then fills `folder`, which becomes `out`; all that can fail comes before
    the look at the test images.
    """
    spool = folder / _SPOOL
    pictures: dict[str, Path] = {}
    with writing(out):
        spool.mkdir()
        if comparison is not None:
            picture = write_candidates(folder, comparison, search=job.trial.search)
            pictures["best configurations on folds"] = picture
    seeds, repeat = train_seeds(job, spool)
    kept = choose_seed(job, seeds)
    trained = Trained(
        checkpoint=load_checkpoint(model_file(spool, seeds[kept])),
        history=seeds[kept].history,
        batches=batches_file(spool, seeds[kept]),
        objective=job.trial.objective,
        title=f"{job.trial.search}, {job.trial.name} retrained",
        start=job.data.start_of(job.config),
    )
    found = facts(job, seeds, seeds[kept])
    found["validation"] |= _validation(job, trained.checkpoint)
    with writing(out):
        missing = write_model(folder, trained, job.data)
    purpose = f"retrain, {plural(len(seeds), 'seed')}"
    record_opening(job.trial, purpose if job.on == "train" else f"{purpose} on {job.on}")
    test = open_test_split(job.data.dataset, job.data.split)
    new = new_rows(trained.start, test)
    seeds, logits = with_test_scores(job, seeds, spool, test, new, kept)
    opened = len(search_of(job.trial).openings)
    outcome = Outcome(job=job, seeds=seeds, kept=seeds[kept], repeat=repeat, comparison=comparison)
    found |= {"retrained": outcome.summary(), "notes": [*outcome.notes, *missing]}
    with writing(out):
        shutil.rmtree(spool)
        pictures = {"all seeds": write_seeds(folder, outcome), **pictures}
        metrics = write_test_report(
            folder, trained, test, logits, opened=opened, facts=found, more=pictures
        )
    return Retrained(
        folder=out,
        trial=job.trial,
        on=job.on,
        seeds=seeds,
        kept=outcome.kept,
        accuracy=outcome.accuracy,
        accuracy_of_new=outcome.accuracy_of_new,
        repeat=repeat,
        comparison=comparison,
        times_opened=opened,
        metrics=metrics,
        notes=tuple(metrics["notes"]),
    )


def _validation(job: SeedJob, checkpoint: Checkpoint) -> dict[str, Any]:
    """How sure the validation accuracy of the kept model is; empty where it has none."""
    if job.on == "train+val":
        return {}
    images = development_data(job.data.dataset, job.data.split).val
    logits = run_model(restore_model(checkpoint), checkpoint, images, job.device).logits
    return validation_interval(logits, images)


def _record(done: Retrained) -> None:
    """Writes into the study what the look at the test split gave."""
    details = {**done.metrics["retrained"], **study_details(done.metrics)}
    if done.accuracy_of_new is not None:
        details["new"] |= done.accuracy_of_new.to_dict()
    record_result(
        done.trial,
        kind="retrain",
        folder=str(done.folder.absolute()),
        accuracy=done.metrics["test"]["accuracy"],
        details=details,
    )
