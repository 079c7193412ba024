"""Retrain: a trial's configuration trained again with several seeds, and what that does on test
images that nothing before has seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch

from hpsearch.config import check_choice, check_int
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import development_data
from hpsearch.data.words import plural
from hpsearch.engine.ledger import record_opening, record_result
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.errors import SearchError
from hpsearch.figures import save_png
from hpsearch.figures.candidates import CandidateValues, candidates_figure
from hpsearch.figures.seeds import SeedCurve, seeds_figure
from hpsearch.files import whole_folder, write_text
from hpsearch.results import bundle
from hpsearch.results.bundle import (
    Trained,
    is_bundle,
    new_rows,
    write_model,
    write_test_report,
)
from hpsearch.results.evaluation import restore_model, run_model
from hpsearch.results.export import new_details, validation_interval
from hpsearch.results.folder import check_free
from hpsearch.results.retraining.candidates import Comparison, compare_candidates
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
from hpsearch.results.tables import write_table
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint
from hpsearch.training.device import resolve_device
from hpsearch.training.memory import keep_freed_memory
from hpsearch.training.objectives import objective_info
from hpsearch.training.tuning import device_name
from hpsearch.training.units import accuracy

SEEDS = "seeds"
CANDIDATES = "candidates"
DOCUMENT = "retrain.json"
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
    comparison: Comparison | None
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
            nothing left to validate on, and what is kept is the first seed's model.
        epochs: exactly so many, without early stopping; the schedules span them.
        replace: take the place of an export that exists.
        watch: is told of each epoch.

    Raises:
        ConfigError: `seeds`, `on` or `epochs` is out of range.
        SearchError: the trial is not complete; `out` exists, or cannot be written; no seed can be
            trained.
        CheckpointError: the trial's history, which a schedule has to follow, is not there.
        DataError: the data is not that of the search any more.
    """
    out, target = Path(out), _checked(seeds, on, epochs, device)
    stored_config(trial, target)
    check_free(out, "export", is_ours=is_bundle, replace=replace)
    data = search_data(trial)
    job = seed_job(trial, data, seeds, on, target, watch, epochs=epochs)
    with _folder(out, replace=replace) as folder:
        done = _train_and_test(job, folder)
    return _recorded(out, done)


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
        ConfigError: a number is out of range.
        SearchError, CheckpointError, DataError: as `retrain`; no trial is complete, or the images
            do not allow so many folds.
    """
    out, target = Path(out), _checked(seeds, on, None, device)
    check_int("top", top, low=1)
    check_int("folds", folds, low=2)
    check_free(out, "export", is_ours=is_bundle, replace=replace)
    data = search_data(record.best)
    with _folder(out, replace=replace) as folder:
        found = compare_candidates(data, top=top, folds=folds, device=target, watch=watch)
        job = seed_job(
            found.winner.trial, data, seeds, on, target, watch, folds_length=found.winner.length
        )
        done = _train_and_test(job, folder, found)
    return _recorded(out, done)


def _checked(seeds: int, on: str, epochs: int | None, device: str) -> torch.device:
    check_int("seeds", seeds, low=1)
    check_choice("on", on, get_args(On))
    if epochs is not None:
        check_int("epochs", epochs, low=1)
    return resolve_device(device)


@contextlib.contextmanager
def _folder(out: Path, *, replace: bool) -> Iterator[Path]:
    keep_freed_memory()
    try:
        with whole_folder(out, replace=replace) as folder:
            yield folder
    except OSError as error:
        raise SearchError(f"{out} cannot be written: {error.strerror or error}") from None


def _train_and_test(job: SeedJob, folder: Path, comparison: Comparison | None = None) -> Retrained:
    """Trains all seeds, then fills `folder`; all that can fail comes before the look at the test
    images.
    """
    spool = folder / _SPOOL
    spool.mkdir()
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
    missing = write_model(folder, trained, job.data)
    validation = _validation(job, trained.checkpoint)
    purpose = f"retrain, {plural(len(seeds), 'seed')}"
    record_opening(job.trial, purpose if job.on == "train" else f"{purpose} on {job.on}")
    test = open_test_split(job.data.dataset, job.data.split)
    new = new_rows(trained.start, test)
    seeds, logits = with_test_scores(job, seeds, spool, test, new, kept)
    shutil.rmtree(spool)
    opened = len(search_of(job.trial).openings)
    good = [seed for seed in seeds if not seed.failure]
    spread = Spread.of([seed.test_scores["accuracy"] for seed in good])
    spread_of_new = None
    if seeds[kept].new_scores:
        spread_of_new = Spread.of([seed.new_scores["accuracy"] for seed in good])
    notes = (*_notes(job, seeds, spread, repeat, comparison), *missing)
    done = Retrained(
        folder=folder,
        trial=job.trial,
        on=job.on,
        seeds=seeds,
        kept=seeds[kept],
        accuracy=spread,
        accuracy_of_new=spread_of_new,
        repeat=repeat,
        comparison=comparison,
        times_opened=opened,
        metrics={},
        notes=notes,
    )
    _write_seeds(folder, job, done)
    if comparison is not None:
        _write_candidates(folder, comparison, search=job.trial.search)
    facts = _facts(job, done)
    facts["validation"] |= validation
    trained = dataclasses.replace(trained, batches=folder / bundle.BATCHES)
    more = {"all seeds": folder / f"{SEEDS}.png"}
    if comparison is not None:
        more["best configurations on folds"] = folder / f"{CANDIDATES}.png"
    write_test_report(folder, trained, test, logits, opened=opened, facts=facts, more=more)
    metrics = json.loads((folder / bundle.METRICS).read_text(encoding="utf-8"))
    return dataclasses.replace(done, metrics=metrics, notes=tuple(metrics["notes"]))


def _validation(job: SeedJob, checkpoint: Checkpoint) -> dict[str, Any]:
    """How sure the validation accuracy of the kept model is; empty where it has none."""
    if job.on == "train+val":
        return {}
    images = development_data(job.data.dataset, job.data.split).val
    logits = run_model(restore_model(checkpoint), checkpoint, images, job.device).logits
    return validation_interval(logits, images)


def _notes(
    job: SeedJob,
    seeds: tuple[SeedRun, ...],
    spread: Spread,
    repeat: Repeat | None,
    comparison: Comparison | None,
) -> list[str]:
    notes = [_spread_note(spread)]
    notes += [
        f"Seed {seed.seed} could not be trained: {seed.failure}." for seed in seeds if seed.failure
    ]
    notes += job.notes
    notes += [] if repeat is None else [repeat.text]
    return notes + ([] if comparison is None else list(comparison.notes))


def _spread_note(spread: Spread) -> str:
    """The mean over the seeds, and as much of the spread as so many of them can tell."""
    if spread.std is None:
        return f"Test accuracy with one seed: {accuracy(spread.mean)}; there is no spread to tell."
    start = (
        f"Test accuracy over {spread.count} seeds: {accuracy(spread.mean)} in the mean, "
        f"standard deviation {100 * spread.std:.2f} points"
    )
    if spread.interval is None:
        few = "two seeds are" if spread.count == 2 else "seeds that all agree are"
        return f"{start}; {few} too little for an interval of the mean."
    low, high = spread.interval
    return (
        f"{start}, 95 % interval of the mean {accuracy(low)} to {accuracy(high)} (Student's t, for "
        "other seeds on the same images)."
    )


def _facts(job: SeedJob, done: Retrained) -> dict[str, Any]:
    """What `metrics.json` says of it before the test scores."""
    trial, kept = job.trial, done.kept
    row = kept.row(is_kept=True)
    objective = objective_info(trial.objective)
    return {
        "search": trial.search,
        "trial": trial.name,
        "chosen": _chosen(job, done),
        "epoch": row["epoch"],
        "objective": {"name": objective.name, "value": row[objective.name]},
        "validation": {
            name.removeprefix("val_"): row[name] for name in row if name.startswith("val_")
        },
        "parameters": trial.parameters,
        "data": job.data.facts(),
        "retrained": _summary(done),
        "notes": list(done.notes),
    }


def _chosen(job: SeedJob, done: Retrained) -> str:
    """Where the model comes from, in a sentence."""
    trial, kept = job.trial, done.kept
    objective = objective_info(trial.objective)
    count = len(done.seeds)
    seeds = "one seed" if count == 1 else f"{count} seeds"
    start = f"The configuration of trial {trial.name} of search {trial.search}, trained again with"
    if kept.kept is not None and done.on == "train":
        best = "" if count == 1 else f", the best of them by {objective.label}"
        return (
            f"{start} {seeds} on the training images. This is seed {kept.seed}{best} "
            f"({objective.value(kept.kept):.4f}), with the weights of epoch {kept.kept.epoch + 1} "
            f"of {len(kept.history)}."
        )
    which = "" if count == 1 else f" This is the first seed, {kept.seed}."
    return (
        f"{start} {seeds} on the training and validation images together, for "
        f"{len(kept.history)} epochs, {job.why}; there was nothing left to validate on.{which}"
    )


def _summary(done: Retrained) -> dict[str, Any]:
    """As plain JSON types: what the study keeps of it, too."""
    comparison = done.comparison
    return {
        "on": done.on,
        "seed": done.kept.seed,
        **done.accuracy.to_dict(),
        "of_new": None if done.accuracy_of_new is None else done.accuracy_of_new.to_dict(),
        "repeats_the_trial": None if done.repeat is None else done.repeat.exact,
        "candidates": None if comparison is None else len(comparison.candidates),
        "folds": None if comparison is None else comparison.folds,
    }


def _write_seeds(folder: Path, job: SeedJob, done: Retrained) -> None:
    trial = done.trial
    rows = [seed.row(is_kept=seed is done.kept) for seed in done.seeds]
    write_table(folder / f"{SEEDS}.csv", list(rows[0]), [list(row.values()) for row in rows])
    curves = [
        SeedCurve(
            seed=seed.seed,
            history=seed.history,
            kept=seed.kept,
            test_accuracy=(seed.new_scores or seed.test_scores)["accuracy"],
            test_accuracy_95=tuple((seed.new_scores or seed.test_scores)["accuracy_95"]),
            is_kept=seed is done.kept,
        )
        for seed in done.seeds
        if seed.kept is not None
    ]
    parts = "training" if done.on == "train" else "training and validation"
    title = f"{trial.search}, {trial.name} trained again on the {parts} images"
    if done.accuracy_of_new is not None:
        title += ", tested without those that the weights had seen"
    figure = seeds_figure(
        curves,
        title=title,
        objective=trial.objective,
        interval=(done.accuracy_of_new or done.accuracy).interval,
    )
    save_png(figure, folder / f"{SEEDS}.png")
    document = {
        "search": trial.search,
        "trial": trial.name,
        **_summary(done),
        "epochs": job.length or job.config.epochs,
        "device": device_name(job.device),
        "notes": list(done.notes),
        "runs": rows,
        "comparison": None if done.comparison is None else done.comparison.to_dict(),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_text(folder / DOCUMENT, f"{text}\n")


def _write_candidates(folder: Path, comparison: Comparison, *, search: str) -> None:
    rows = comparison.rows()
    write_table(folder / f"{CANDIDATES}.csv", list(rows[0]), [list(row.values()) for row in rows])
    values = [
        CandidateValues(name=c.trial.name, searched=c.searched, values=c.values)
        for c in sorted(comparison.candidates, key=lambda c: c.place)
    ]
    title = f"{search}: its best configurations, trained again on {comparison.folds} folds"
    figure = candidates_figure(values, title=title, objective=comparison.objective.name)
    save_png(figure, folder / f"{CANDIDATES}.png")


def _recorded(out: Path, done: Retrained) -> Retrained:
    """Writes into the study what the look at the test split gave."""
    test = done.metrics["test"]
    details = {
        **_summary(done),
        "accuracy_95": test["accuracy_95"],
        "images": test["images"],
        **new_details(done.metrics),
    }
    if done.accuracy_of_new is not None:
        details["new"] |= done.accuracy_of_new.to_dict()
    record_result(
        done.trial,
        kind="retrain",
        folder=str(out.absolute()),
        accuracy=test["accuracy"],
        details=details,
    )
    return dataclasses.replace(done, folder=out)
