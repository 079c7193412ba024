"""One trial: from its parameters through its training to its value, told to the study."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.resident import ResidentData
from hpsearch.data.views import DataViews
from hpsearch.engine.events import EpochFinished, Event, TrialFinished, TrialStarted
from hpsearch.engine.records import (
    CHECKPOINT,
    HISTORY,
    INFEASIBLE,
    TrialRecord,
    rank,
    trial_folder,
    trial_record,
)
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import HpsearchError, InfeasibleError
from hpsearch.families import family_label, initial_model, resolve_config, suggest_config
from hpsearch.training.checkpoint import Checkpoint, save_checkpoint
from hpsearch.training.history import write_history
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.trainer import EpochResult, derive_seed, selection_key, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """What the trials of one process share."""

    spec: StudySpec
    runs: Path
    data: DataViews
    fingerprints: Mapping[str, str]
    device: torch.device
    precision: Precision
    watch: Callable[[Event], None]


def run_trial(worker: Worker, study: optuna.Study, family: str, trial: optuna.Trial) -> TrialRecord:
    """Runs `trial` from its first epoch and tells the study how it ended.

    An interrupted trial is run again under its own number: its parameters and reports are
    those stored, and the pruner is not asked about epochs that it has passed already.

    Where this is broken off (Ctrl-C, a crash), the trial stays "running" in the storage, and
    the next start of the search takes it up.
    """
    stored = study.get_trials(deepcopy=False)[trial.number]
    folder = trial_folder(worker.runs, worker.spec.name, family, trial.number)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir(parents=True)
    history: list[EpochResult] = []
    try:
        config = _config(worker, trial, family, enqueued="fixed_params" in stored.system_attrs)
        data = worker.data.view(config)
        model = initial_model(config, data.preprocessing.shape, len(data.classes))
        trial.set_user_attr("parameters", parameter_counts(model)[0])
        name = f"{family_label(family)}-{trial.number}"
        worker.watch(
            TrialStarted(
                name=name,
                family=family_label(family),
                chosen_by=trial.user_attrs["chosen_by"],
                params=trial.params,
                epochs=config.epochs,
            )
        )
        reported = max(stored.intermediate_values, default=-1)
        pruned = _train(worker, trial, name, config, model, data, folder, history, reported)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    except InfeasibleError as error:
        # The sampler learns to keep away; to it, a failed trial would look like any other.
        trial.set_user_attr(INFEASIBLE, " ".join(str(error).split()))
        if stored.constraints == {}:
            trial.set_constraint(INFEASIBLE, 1.0)
        state = TrialState.PRUNED
    except (HpsearchError, torch.OutOfMemoryError) as error:
        trial.set_user_attr("failure", " ".join(str(error).split()))
        state = TrialState.FAIL
    except Exception as error:
        if not family.endswith(".py"):
            raise  # a bug of ours; one in a user's own model is a failed trial
        trial.set_user_attr("failure", " ".join(f"{type(error).__name__}: {error}".split()))
        state = TrialState.FAIL
    value = None
    if history:
        write_history(folder / HISTORY, history)
        best = max(history, key=lambda r: selection_key(r.val_accuracy, r.val_loss))
        _record_metrics(trial, history, best)
        value = best.val_accuracy if state is TrialState.COMPLETE else None
    study.tell(trial, value, state=state)
    drop_checkpoints(worker, study, family)
    record = trial_record(
        worker.runs, worker.spec.name, family, study.get_trials(deepcopy=False)[trial.number]
    )
    worker.watch(TrialFinished(trial=record))
    return record


def _config(worker: Worker, trial: optuna.Trial, family: str, *, enqueued: bool) -> TrainConfig:
    """The trial's configuration: its stored one, else a new one from the family's space."""
    stored = trial.user_attrs.get("config")
    if stored is not None:
        return TrainConfig.from_dict(stored)
    spec = worker.spec
    drawn_by = "known-good" if enqueued else "model" if trial.relative_params else "random"
    trial.set_user_attr("chosen_by", drawn_by)
    config = suggest_config(
        family,
        trial,
        worker.data.shape,
        epochs=spec.epochs,
        seed=derive_seed(spec.seed, family_label(family), trial.number) % 2**32,
        precision=worker.precision,
        early_stopping=spec.early_stopping,
        overrides=spec.overrides,
    )
    config = resolve_config(config)
    trial.set_user_attr("config", config.to_dict())
    return config


def _train(
    worker: Worker,
    trial: optuna.Trial,
    name: str,
    config: TrainConfig,
    model: StagedModel,
    data: ResidentData,
    folder: Path,
    history: list[EpochResult],
    reported: int,
) -> bool:
    """Trains, reports and checkpoints; fills `history`; returns whether the pruner stopped it.

    Epochs up to `reported` are in the storage already, and the pruner let them pass.
    """
    with closing(train(model, data, config, device=worker.device)) as epochs:
        for result in epochs:
            history.append(result)
            if result.is_best:
                checkpoint = _checkpoint(worker, name, config, model, data, result)
                save_checkpoint(folder / CHECKPOINT, checkpoint)
            if result.epoch > reported:
                trial.report(result.val_accuracy, result.epoch)
            worker.watch(EpochFinished(name=name, result=result))
            if result.epoch >= reported and trial.should_prune():
                return True
    return False


def _checkpoint(
    worker: Worker,
    name: str,
    config: TrainConfig,
    model: StagedModel,
    data: ResidentData,
    result: EpochResult,
) -> Checkpoint:
    metrics = {
        key: value
        for key, value in dataclasses.asdict(result).items()
        if key not in ("is_best", "seconds", "images_per_second")  # the same in every repetition
    }
    return Checkpoint(
        state=model.state_dict(),
        config=config,
        classes=data.classes,
        preprocessing=data.preprocessing,
        metrics=metrics,
        origin={
            "search": worker.spec.name,
            "trial": name,
            "data_fingerprint": worker.fingerprints["data"],
            "split_fingerprint": worker.fingerprints["split"],
        },
    )


def _record_metrics(trial: optuna.Trial, history: list[EpochResult], best: EpochResult) -> None:
    seconds = sum(result.seconds for result in history)
    attrs = {
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "best_epoch": best.epoch,
        "epochs": len(history),
        "seconds": seconds,
        "images_per_second": sum(r.images_per_second * r.seconds for r in history) / seconds,
    }
    for key, value in attrs.items():
        trial.set_user_attr(key, value)


def drop_checkpoints(worker: Worker, study: optuna.Study, family: str) -> None:
    """Removes the checkpoints of all finished trials of a family but its best `keep`."""
    records = [
        trial_record(worker.runs, worker.spec.name, family, trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]
    kept = {record.number for record in rank(records)[: worker.spec.keep]}
    for record in records:
        if record.number not in kept and record.checkpoint is not None:
            record.checkpoint.unlink()
