"""One trial: from its parameters through its training to its value, told to the study."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config import TrainConfig
from hpsearch.data.resident import ResidentData
from hpsearch.data.views import DataViews
from hpsearch.engine.estimate import Pace
from hpsearch.engine.events import EpochFinished, Event, TrialFinished, TrialStarted
from hpsearch.engine.fit import Fit
from hpsearch.engine.records import (
    BATCHES,
    CONFIG,
    FAILURE,
    HISTORY,
    INFEASIBLE,
    TrialRecord,
    rank,
    trial_folder,
    trial_record,
)
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.trial_files import TrialFiles
from hpsearch.errors import HpsearchError, InfeasibleError, NonFiniteLossError
from hpsearch.families import family_label, initial_model, resolve_config, suggest_config
from hpsearch.training.checkpoint import Checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import write_batches, write_history
from hpsearch.training.memory import is_out_of_memory, release_memory
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.objectives import Objective, objective_info
from hpsearch.training.trainer import Training, derive_seed

# What a checkpoint tells of its epoch: the same in every repetition.
_METRICS = tuple(
    field.name
    for field in dataclasses.fields(EpochResult)
    if field.name not in ("is_best", "seconds", "images_per_second", "batch_losses")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """What the trials of one process share."""

    spec: StudySpec
    runs: Path
    data: DataViews
    fingerprints: Mapping[str, str]
    device: torch.device
    paces: Mapping[str, Pace]
    watch: Callable[[Event], None]


def run_trial(worker: Worker, study: optuna.Study, family: str, trial: optuna.Trial) -> TrialRecord:
    """Runs `trial` and tells the study how it ended.

    An interrupted trial goes on under its own number from its newest whole training state, or else
    from its first epoch: its parameters and reports are those stored, and the pruner is not asked
    about epochs that it has passed already.

    Where this is broken off (Ctrl-C, a crash), the trial stays "running" in the storage, and
    the next start of the search takes it up.
    """
    stored = study.get_trials(deepcopy=False)[trial.number]
    folder = trial_folder(worker.runs, worker.spec.name, family, trial.number)
    files = TrialFiles(folder, every=worker.spec.checkpoint_every)
    if CONFIG not in trial.user_attrs:  # it is new: files here are those of a search long gone
        files.empty()
    history: list[EpochResult] = []
    try:
        config = _config(worker, trial, family, enqueued="fixed_params" in stored.system_attrs)
        data = worker.data.view(config)
        model = initial_model(config, data.preprocessing.shape, len(data.classes))
        fit = Fit(worker.spec, worker.paces[family], worker.device, study, trial)
        config = fit.decided(config, model, data)
        trial.set_user_attr("parameters", parameter_counts(model)[0])
        name = f"{family_label(family)}-{trial.number}"
        reported = max(stored.intermediate_values, default=-1)
        while (
            pruned := _attempt(worker, trial, name, config, model, data, files, history, reported)
        ) is None:
            reported = max(reported, len(history) - 1)
            history.clear()
            files.empty()
            config = fit.smaller(config, model, data)
            release_memory(worker.device)
            model = initial_model(config, data.preprocessing.shape, len(data.classes))
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    except InfeasibleError as error:
        state = _keep_away(trial, stored, str(error))
    except NonFiniteLossError as error:
        trial.set_user_attr(FAILURE, " ".join(str(error).split()))
        prune = worker.spec.non_finite == "prune"
        state = TrialState.PRUNED if prune else TrialState.FAIL
    except Exception as error:
        known = isinstance(error, HpsearchError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):  # before the first step: no smaller parts would help
            state = _keep_away(trial, stored, f"the model alone does not fit into memory: {text}")
        elif known or family.endswith(".py"):
            trial.set_user_attr(FAILURE, " ".join(text.split()))
            state = TrialState.FAIL
        else:
            raise  # a bug of ours; one in a user's own model is a failed trial
    value = None
    if history:
        write_history(folder / HISTORY, history)
        write_batches(folder / BATCHES, history)
        value = _record_metrics(trial, history, objective_info(worker.spec.objective))
    if state is TrialState.COMPLETE:
        files.write_best()
    else:  # to the study it has none
        value = None
    study.tell(trial, value, state=state)
    drop_checkpoints(worker, study, family)
    record = trial_record(
        worker.runs,
        worker.spec.name,
        family,
        study.get_trials(deepcopy=False)[trial.number],
        objective=worker.spec.objective,
    )
    worker.watch(TrialFinished(trial=record))
    return record


def _keep_away(trial: optuna.Trial, stored: FrozenTrial, reason: str) -> TrialState:
    """Has the sampler learn to keep away; to it, a failed trial would look like any other."""
    trial.set_user_attr(INFEASIBLE, " ".join(reason.split()))
    if stored.constraints == {}:
        trial.set_constraint(INFEASIBLE, 1.0)
    return TrialState.PRUNED


def _config(worker: Worker, trial: optuna.Trial, family: str, *, enqueued: bool) -> TrainConfig:
    """The trial's configuration: its stored one, else a new one from the family's space."""
    stored = trial.user_attrs.get(CONFIG)
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
        precision=worker.paces[family].precision,
        early_stopping=spec.early_stopping,
        objective=spec.objective,
        overrides=spec.overrides,
    )
    config = resolve_config(config)
    trial.set_user_attr(CONFIG, config.to_dict())
    return config


def _attempt(
    worker: Worker,
    trial: optuna.Trial,
    name: str,
    config: TrainConfig,
    model: StagedModel,
    data: ResidentData,
    files: TrialFiles,
    history: list[EpochResult],
    reported: int,
) -> bool | None:
    """Trains from the newest state of `config`, else from the first epoch; whether the pruner
    stopped it. None where the memory was not enough: then nothing of it is left in there.
    """
    resume = files.take_up(config)
    history += () if resume is None else resume.history
    worker.watch(
        TrialStarted(
            name=name,
            family=family_label(config.family),
            chosen_by=trial.user_attrs["chosen_by"],
            params=trial.params,
            epochs=config.epochs,
            history=tuple(history),
        )
    )
    checkpoint = functools.partial(_checkpoint, worker, name, config, model, data)
    try:
        training = Training(model, data, config, device=worker.device, resume=resume)
        return _train(worker, trial, name, training, checkpoint, files, history, reported)
    except Exception as error:
        if is_out_of_memory(error):
            return None
        raise


def _train(
    worker: Worker,
    trial: optuna.Trial,
    name: str,
    training: Training,
    checkpoint: Callable[[EpochResult], Checkpoint],
    files: TrialFiles,
    history: list[EpochResult],
    reported: int,
) -> bool:
    """Trains, reports and saves; adds to `history`; returns whether the pruner stopped it.

    Epochs up to `reported` are in the storage already, and the pruner let them pass.
    """
    objective = objective_info(worker.spec.objective)
    with closing(training.run()) as epochs:
        for result in epochs:
            history.append(result)
            if result.is_best:
                files.keep(checkpoint(result))
            if result.epoch > reported:
                trial.report(objective.value(result), result.epoch)
            worker.watch(EpochFinished(name=name, result=result))
            if result.epoch >= reported and trial.should_prune():
                return True
            files.save_if_due(len(history), training.state)
    return False


def _checkpoint(
    worker: Worker,
    name: str,
    config: TrainConfig,
    model: StagedModel,
    data: ResidentData,
    result: EpochResult,
) -> Checkpoint:
    """The model as it is now, in memory of its own."""
    return Checkpoint(
        state={n: tensor.detach().to("cpu", copy=True) for n, tensor in model.state_dict().items()},
        config=config,
        classes=data.classes,
        preprocessing=data.preprocessing,
        metrics={name: getattr(result, name) for name in _METRICS},
        origin={
            "search": worker.spec.name,
            "trial": name,
            "data_fingerprint": worker.fingerprints["data"],
            "split_fingerprint": worker.fingerprints["split"],
        },
    )


def _record_metrics(trial: optuna.Trial, history: list[EpochResult], objective: Objective) -> float:
    """Stores what the trial gave, and returns its value: that of its best epoch."""
    best = max(history, key=objective.key)
    value = objective.value(best)
    seconds = sum(result.seconds for result in history)
    attrs = {
        "value": value,
        "val_accuracy": best.val_accuracy,
        "val_balanced_accuracy": best.val_balanced_accuracy,
        "val_macro_f1": best.val_macro_f1,
        "val_loss": best.val_loss,
        "best_epoch": best.epoch,
        "epochs": len(history),
        "seconds": seconds,
        "images_per_second": sum(r.images_per_second * r.seconds for r in history) / seconds,
    }
    for key, attr in attrs.items():
        trial.set_user_attr(key, attr)
    return value


def drop_checkpoints(worker: Worker, study: optuna.Study, family: str) -> None:
    """Removes the checkpoints of all finished trials of a family but its best `keep`, and what
    only running trials need.
    """
    records = [
        trial_record(worker.runs, worker.spec.name, family, trial, objective=worker.spec.objective)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]
    kept = {record.number for record in rank(records)[: worker.spec.keep]}
    for record in records:
        TrialFiles(record.folder).clear()
        if record.number not in kept and record.checkpoint is not None:
            record.checkpoint.unlink()
