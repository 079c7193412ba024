"""Training one configuration with several seeds, and testing what comes out."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImagePart, Int64Array
from hpsearch.data.splits import DevelopmentData, development_data
from hpsearch.data.views import DataViews
from hpsearch.engine.place import HISTORY
from hpsearch.engine.records import TrialRecord
from hpsearch.errors import InfeasibleError, NonFiniteLossError, SearchError
from hpsearch.results.folder import writing
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.metrics import scores_of_new
from hpsearch.results.retraining.repeat import Repeat, compare_with_trial
from hpsearch.results.retraining.replay import follows_validation, replayed
from hpsearch.results.retraining.rerun import RunEpoch, RunOver, Watch, run_training
from hpsearch.results.retraining.seeds import SeedRun
from hpsearch.results.retraining.stored import stored_config, surroundings
from hpsearch.results.scores import score
from hpsearch.results.source import SearchData
from hpsearch.training.checkpoint import load_checkpoint, save_checkpoint
from hpsearch.training.device import torch_threads
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_history, write_batches
from hpsearch.training.objectives import objective_info
from hpsearch.training.seeds import derive_seed

On = Literal["train", "train+val"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeedJob:
    """What is to be trained, with which seeds.

    Attributes:
        config: with the first seed.
        length: after so many epochs training stops; None where the validation decides.
        repeats: the first seed's training is that of the trial again.
        why: why there are so many epochs, in words.
    """

    trial: TrialRecord
    data: SearchData
    on: On
    config: TrainConfig
    length: int | None
    seeds: tuple[int, ...]
    repeats: bool
    why: str
    notes: tuple[str, ...]
    device: torch.device
    watch: Watch


def seed_job(
    trial: TrialRecord,
    data: SearchData,
    seeds: int,
    on: On,
    device: torch.device,
    watch: Watch,
    *,
    epochs: int | None = None,
    folds_length: int | None = None,
) -> SeedJob:
    """What training `trial` again takes; the first seed is the trial's own.

    Args:
        seeds: how many.
        epochs: as the user asks: so many, without early stopping.
        folds_length: how many the configuration wanted when it was trained on folds.

    Raises:
        SearchError: the trial is not complete.
        CheckpointError: its history, which a schedule has to follow, is not there.
    """
    config = stored_config(trial, device)
    fresh = (derive_seed(config.seed, "retrain", number) % 2**32 for number in range(1, seeds))
    notes: list[str] = []
    length, repeats, why = None, False, ""
    if on == "train":
        stored = config
        if epochs is not None:
            config = dataclasses.replace(config, epochs=epochs, early_stopping=None)
        repeats = config == stored
    else:
        followed = follows_validation(config)
        history = read_history(trial.folder / HISTORY) if followed else ()
        notes += [
            f"In the search, {what} followed the validation; here there is none, and it has the "
            f"rates of the trial's own training, epoch by epoch."
            for what in followed
        ]
        if 0 < config.train_images <= len(data.split.train):
            notes.append(
                f"The configuration takes {config.train_images:,} training images (train_images), "
                "and the training part alone has as many: with the validation part there are no "
                "more."
            )
        config = replayed(config, epochs or config.epochs, history)
        found = 1 + (trial.best_epoch or 0)
        length = epochs or folds_length or found
        why = "as asked" if epochs else f"as the {'folds' if folds_length else 'search'} found best"
    return SeedJob(
        trial=trial,
        data=data,
        on=on,
        config=config,
        length=length,
        seeds=(config.seed, *fresh),
        repeats=repeats,
        why=why,
        notes=tuple(notes),
        device=device,
        watch=watch,
    )


def train_seeds(job: SeedJob, spool: Path) -> tuple[tuple[SeedRun, ...], Repeat | None]:
    """Trains with one seed after the other; the models go to `spool`, where they need no memory.

    Raises:
        SearchError: `spool` cannot be written.
    """
    views = DataViews.of(_development(job.data, job.on), job.device)
    then = surroundings(job.trial)
    seeds: list[SeedRun] = []
    repeat = None
    for number, seed in enumerate(job.seeds):
        what = f"seed {number + 1} of {len(job.seeds)}"
        repeats = job.repeats and number == 0
        same = then.threads if repeats and job.device.type == "cpu" else None
        try:
            with torch_threads(same):
                run = run_training(
                    dataclasses.replace(job.config, seed=seed),
                    views,
                    job.device,
                    origin=_origin(job, seed),
                    length=job.length,
                    watch=functools.partial(_tell_epoch, job, what),
                )
                if repeats:
                    repeat = compare_with_trial(job.trial, run, job.device, then)
        except (NonFiniteLossError, InfeasibleError) as error:
            seeds.append(SeedRun(seed=seed, failure=str(error)))
            job.watch(RunOver(what=what, epochs=_epochs(job), kept=None, failure=str(error)))
            continue
        seeds.append(SeedRun(seed=seed, history=run.history, kept=run.kept))
        with writing(spool):
            save_checkpoint(model_file(spool, seeds[-1]), run.checkpoint)
            write_batches(batches_file(spool, seeds[-1]), run.history)
        job.watch(RunOver(what=what, epochs=_epochs(job), kept=run.kept))
    return tuple(seeds), repeat


def _tell_epoch(job: SeedJob, what: str, result: EpochResult) -> None:
    job.watch(RunEpoch(what=what, epochs=_epochs(job), result=result))


def _epochs(job: SeedJob) -> int:
    """That a training has at most."""
    return job.length or job.config.epochs


def _development(data: SearchData, on: On) -> DevelopmentData:
    parts = development_data(data.dataset, data.split)
    if on == "train":
        return parts
    rows = np.sort(np.concatenate([parts.train.rows, parts.val.rows]))
    # The trainer wants something to validate on: one image, whose scores nobody gets to see.
    return DevelopmentData(train=data.dataset.part(rows), val=data.dataset.part(rows[:1]))


def _origin(job: SeedJob, seed: int) -> dict[str, str | int]:
    return {
        "search": job.trial.search,
        "trial": job.trial.name,
        "data_fingerprint": job.data.record.fingerprints["data"],
        "split_fingerprint": job.data.record.fingerprints["split"],
        "retrained": job.on,
        "seed": seed,
    }


def model_file(spool: Path, seed: SeedRun) -> Path:
    """Where `train_seeds` puts a seed's model."""
    return spool / f"{seed.seed}.pt"


def batches_file(spool: Path, seed: SeedRun) -> Path:
    """Where `train_seeds` puts the losses of a seed's mini-batches."""
    return spool / f"{seed.seed}.csv"


def choose_seed(job: SeedJob, seeds: tuple[SeedRun, ...]) -> int:
    """Which seed's model is kept: the best on the validation images; where there are none, the
    first that could be trained.

    Raises:
        SearchError: none could.
    """
    kept = {number: seed.kept for number, seed in enumerate(seeds) if seed.kept is not None}
    if not kept:
        raise SearchError(
            f"trial {job.trial.name} of search {job.trial.search!r} cannot be trained again with "
            f"any of {len(seeds)} seeds: {seeds[0].failure}"
        )
    if job.on == "train+val":
        return next(iter(kept))
    key = objective_info(job.trial.objective).key
    return max(kept, key=lambda number: key(kept[number]))


def with_test_scores(
    job: SeedJob,
    seeds: tuple[SeedRun, ...],
    spool: Path,
    test: ImagePart,
    new: Int64Array,
    kept: int,
) -> tuple[tuple[SeedRun, ...], Tensor]:
    """The seeds with their test scores, and the outputs of the one that is kept.

    Args:
        new: which images of `test` the weights had not seen that training started from.
    """
    tested, kept_logits = [], torch.empty(0)
    for number, seed in enumerate(seeds):
        if not seed.failure:
            checkpoint = load_checkpoint(model_file(spool, seed))
            logits = run_model(restore_model(checkpoint), checkpoint, test, job.device).logits
            seed = dataclasses.replace(
                seed,
                test_scores=score(logits, test).metrics,
                new_scores=scores_of_new(logits, test, new) or {},
            )
            kept_logits = logits if number == kept else kept_logits
        tested.append(seed)
    return tuple(tested), kept_logits
