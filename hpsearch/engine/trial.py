"""One trial: from its parameters through its training to its value, told to the study."""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from collections.abc import Callable
from contextlib import closing

import optuna
from optuna.trial import TrialState

from hpsearch.config import TrainConfig
from hpsearch.data.resident import ResidentData
from hpsearch.engine.events import EpochFinished, TrialFinished, TrialStarted
from hpsearch.engine.fit import Fit
from hpsearch.engine.hidden import CONFIG, hidden, hide
from hpsearch.engine.lease_table import LeaseLostError
from hpsearch.engine.leases import Claim
from hpsearch.engine.outcome import drop_checkpoint, drop_checkpoints, record_metrics
from hpsearch.engine.place import BATCHES, HISTORY, trial_folder
from hpsearch.engine.records import FAILURE, NOTE, TrialRecord
from hpsearch.engine.search_reader import trial_record
from hpsearch.engine.states import DUPLICATE, INFEASIBLE
from hpsearch.engine.stop import PAUSED
from hpsearch.engine.trial_files import TrialFiles, clear
from hpsearch.engine.worker import Worker
from hpsearch.errors import HpsearchError, InfeasibleError, NonFiniteLossError
from hpsearch.families import initial_model, resolve_config, suggest_config
from hpsearch.names import family_label
from hpsearch.training.checkpoint import Checkpoint, epoch_metrics
from hpsearch.training.epoch import EpochResult
from hpsearch.training.goals import trial_values
from hpsearch.training.history import write_batches, write_history
from hpsearch.training.memory import PeakMemory, is_out_of_memory, release_memory
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.seeds import derive_seed
from hpsearch.training.trainer import Training
from hpsearch.training.tuning import device_words
from hpsearch.training.validation import Validation


class HandedBack(Exception):  # noqa: N818 - nothing went wrong
    """A trial's state is saved, and another worker, or a later start, is to go on with it.

    Attributes:
        pause: not before it is resumed.
    """

    def __init__(self, reason: str, *, pause: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause


class Trial:
    """A trial that is this worker's to run.

    Attributes:
        name: family and number, such as cnn-7.
    """

    def __init__(self, worker: Worker, study: optuna.Study, family: str, claim: Claim) -> None:
        self._worker = worker
        self._study = study
        self._family = family
        self._claim = claim
        # Reading all trials has Optuna's cache know the one that was claimed behind its back.
        study._thread_local.cached_all_trials = None
        trials = study.get_trials(deepcopy=False)
        self._stored = next(t for t in reversed(trials) if t._trial_id == claim.lease.trial_id)
        self.name = f"{family_label(family)}-{self._stored.number}"
        self._folder = trial_folder(
            worker.place.runs, worker.spec.name, family, self._stored.number
        )
        self._files = TrialFiles(
            self._folder, attempt=claim.lease.token, every=worker.spec.checkpoint_every
        )
        self._memory: PeakMemory | None = None  # while it trains
        self._prunes = len(worker.spec.objectives) == 1  # Optuna cannot judge by several

    def run(self, lost: threading.Event, is_own: Callable[[], bool]) -> TrialRecord:
        """Runs it and tells the study how it ended.

        One that another worker had goes on from its newest whole training state, or else from its
        first epoch: its parameters and reports are those stored, and the pruner is not asked about
        epochs that it has passed already.

        Args:
            lost: is set when the trial is another worker's.
            is_own: asks the storage whether it is still this worker's.

        Raises:
            HandedBack: it is to be stopped, and its state is saved.
            LeaseLostError: another worker has taken it over; nothing of it was written since.
        """
        if not is_own():  # before it touches files that may be an adopter's
            raise LeaseLostError("the trial was taken over by another worker")
        self._take_files()
        if self._claim.hopeless:
            return self._give_up()
        trial = optuna.Trial(self._study, self._stored._trial_id)
        for mark, end in ((INFEASIBLE, TrialState.PRUNED), (DUPLICATE, TrialState.FAIL)):
            if mark in self._stored.user_attrs:  # all but told
                return self._tell(trial, end, [])
        history: list[EpochResult] = []
        values: tuple[float, ...] = ()
        try:
            config = self._config(trial)
            if hidden(self._stored, CONFIG) is None:
                if self._measured(trial):
                    return self._tell(trial, TrialState.FAIL, history)
                hide(self._study, trial._trial_id, CONFIG, config.to_dict())
            state, values = self._train(trial, config, history, lost)
        except (LeaseLostError, HandedBack):
            raise
        except InfeasibleError as error:
            state = self._keep_away(trial, str(error))
        except NonFiniteLossError as error:
            trial.set_user_attr(FAILURE, " ".join(str(error).split()))
            prune = self._worker.spec.non_finite == "prune"
            state = TrialState.PRUNED if prune else TrialState.FAIL
        except Exception as error:
            known = isinstance(error, HpsearchError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            if is_out_of_memory(error):  # before the first step: no smaller parts would help
                state = self._keep_away(trial, f"the model alone does not fit into memory: {text}")
            elif known or self._family.endswith(".py"):
                trial.set_user_attr(FAILURE, " ".join(text.split()))
                state = TrialState.FAIL
            else:
                raise  # a bug of ours; one in a user's own model is a failed trial
        return self._tell(trial, state, history, values)

    def _take_files(self) -> None:
        if hidden(self._stored, CONFIG) is not None:
            self._files.take_over()
        else:  # it is new
            self._files.begin()

    def _give_up(self) -> TrialRecord:
        """Has a trial fail that cost too many workers their lives, with its history."""
        trial = optuna.Trial(self._study, self._stored._trial_id)
        times = "" if self._claim.deaths == 1 else f" {self._claim.deaths} times in a row"
        trial.set_user_attr(FAILURE, f"its worker died{times}: {self._claim.lost}")
        return self._tell(trial, TrialState.FAIL, list(self._files.history()))

    def _measured(self, trial: optuna.Trial) -> bool:
        """Whether another trial has the same parameters; then it says so.

        Of two that are drawn at the same moment, the one with the lower number goes on.
        """
        params = trial.params  # a copy each time
        for other in self._study.get_trials(deepcopy=False):
            is_first = other.number < trial.number or (
                other.number > trial.number and hidden(other, CONFIG) is not None
            )
            if is_first and other.params == params and other.state is not TrialState.WAITING:
                first = other.user_attrs.get(DUPLICATE, "")
                name = first.partition(" ")[0] or f"{family_label(self._family)}-{other.number}"
                trial.set_user_attr(DUPLICATE, f"{name} has the same parameters")
                return True
        return False

    def _keep_away(self, trial: optuna.Trial, reason: str) -> TrialState:
        """Has the sampler learn to keep away; to it, a failed trial would look like any other."""
        trial.set_user_attr(INFEASIBLE, " ".join(reason.split()))
        if self._stored.constraints == {}:
            trial.set_constraint(INFEASIBLE, 1.0)
        return TrialState.PRUNED

    def _config(self, trial: optuna.Trial) -> TrainConfig:
        """Its configuration: its stored one, else a new one from the family's space."""
        stored = hidden(self._stored, CONFIG)
        if stored is not None:
            return TrainConfig.from_dict(stored)
        spec = self._worker.spec
        enqueued = "fixed_params" in self._stored.system_attrs
        drawn_by = "known-good" if enqueued else "model" if trial.relative_params else "random"
        trial.set_user_attr("chosen_by", drawn_by)
        seed = spec.training_seed
        if seed is None:
            seed = derive_seed(spec.seed, family_label(self._family), trial.number)
        config = suggest_config(
            self._family,
            trial,
            self._worker.data.shape,
            epochs=spec.epochs,
            seed=seed % 2**32,
            precision=self._worker.paces[self._family].precision,
            early_stopping=spec.early_stopping,
            objective=spec.objectives[0].name,
            overrides=spec.overrides,
        )
        return resolve_config(config)

    def _train(
        self,
        trial: optuna.Trial,
        config: TrainConfig,
        history: list[EpochResult],
        lost: threading.Event,
    ) -> tuple[TrialState, tuple[float, ...]]:
        """Trains in parts that fit the memory; adds to `history`. Its values are those of all
        objectives, where it was not pruned.
        """
        worker = self._worker
        data = worker.data.view(config)
        shape = data.preprocessing.shape
        model = initial_model(config, shape, len(data.classes))
        pace = worker.paces[self._family]
        fit = Fit(worker.spec, pace, worker.device, self._study, trial)
        config = fit.decided(config, model, data)
        trial.set_user_attr("parameters", parameter_counts(model)[0])
        trial.set_user_attr("device", device_words(worker.device))
        trial.set_user_attr("host", platform.node())
        self._memory = PeakMemory(worker.device)
        reported = max(self._stored.intermediate_values, default=-1)
        while (
            pruned := self._attempt(trial, config, model, data, history, reported, lost)
        ) is None:
            reported = max(reported, len(history) - 1)
            history.clear()
            self._files.empty()
            config = fit.smaller(config, model, data)
            release_memory(worker.device)
            model = initial_model(config, shape, len(data.classes))
        if pruned:
            return TrialState.PRUNED, ()
        rows = worker.spec.objectives
        best = max(history, key=rows[0].key)
        return TrialState.COMPLETE, trial_values(rows, best, model, shape, worker.device)

    def _attempt(
        self,
        trial: optuna.Trial,
        config: TrainConfig,
        model: StagedModel,
        data: ResidentData,
        history: list[EpochResult],
        reported: int,
        lost: threading.Event,
    ) -> bool | None:
        """Trains from the newest state of `config`, else from the first epoch; whether the pruner
        stopped it. None where the memory was not enough: then nothing of it is left in there.
        """
        resume = self._files.take_up(config)
        history += () if resume is None else resume.history
        self._worker.watch(
            TrialStarted(
                name=self.name,
                family=family_label(config.family),
                chosen_by=trial.user_attrs["chosen_by"],
                params=trial.params,
                epochs=config.epochs,
                history=tuple(history),
                worker=self._worker.number,
            )
        )
        checkpoint = functools.partial(self._checkpoint, config, model, data)
        try:
            training = Training(model, data, config, device=self._worker.device, resume=resume)
            return self._epochs(trial, training, checkpoint, history, reported, lost)
        except Exception as error:
            if is_out_of_memory(error):
                return None
            raise

    def _epochs(
        self,
        trial: optuna.Trial,
        training: Training,
        checkpoint: Callable[[EpochResult], Checkpoint],
        history: list[EpochResult],
        reported: int,
        lost: threading.Event,
    ) -> bool:
        """Trains, reports and saves; adds to `history`; returns whether the pruner stopped it.

        Epochs up to `reported` are in the storage already, and the pruner let them pass.
        """
        worker = self._worker
        objective = worker.spec.objectives[0]
        with closing(training.run()) as epochs:
            for result in epochs:
                if lost.is_set():
                    raise LeaseLostError("the trial was taken over by another worker")
                history.append(result)
                worker.gallery.account.trained(result.seconds)
                if result.is_best:
                    made = Validation.of(result.epoch, training.val_logits)
                    self._files.keep(checkpoint(result), made)
                if result.epoch > reported:
                    self._report(trial, objective.value(result), result.epoch)
                worker.watch(EpochFinished(name=self.name, result=result))
                worker.gpu.write(trial)
                if self._prunes and result.epoch >= reported and trial.should_prune():
                    return True
                pause = worker.should_pause(self.name, result)
                if (pause or worker.stop.wanted) and not training.is_over:
                    self._files.save(training.state)
                    raise HandedBack(PAUSED if pause else worker.stop.reason, pause=pause)
                self._files.save_if_due(len(history), training.state)
        return False

    def _report(self, trial: optuna.Trial, value: float, epoch: int) -> None:
        """Stores an epoch's value; that also shows that the trial gets further."""
        if self._prunes:
            trial.report(value, epoch)
        else:  # with several objectives, Optuna's own method refuses
            storage = self._study._storage
            storage.set_trial_intermediate_value(trial._trial_id, epoch, value)

    def _checkpoint(
        self, config: TrainConfig, model: StagedModel, data: ResidentData, result: EpochResult
    ) -> Checkpoint:
        """The model as it is now, in memory of its own."""
        state, worker = model.state_dict(), self._worker
        return Checkpoint(
            state={name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()},
            config=config,
            classes=data.classes,
            preprocessing=data.preprocessing,
            metrics=epoch_metrics(result),
            origin={
                "search": worker.spec.name,
                "trial": self.name,
                "data_fingerprint": worker.fingerprints["data"],
                "split_fingerprint": worker.fingerprints["split"],
            },
        )

    def _tell(
        self,
        trial: optuna.Trial,
        state: TrialState,
        history: list[EpochResult],
        values: tuple[float, ...] = (),
    ) -> TrialRecord:
        """Writes down how it ended: first its files, so that what the study says is there."""
        worker, spec = self._worker, self._worker.spec
        if history:
            write_history(self._files.folder / HISTORY, history)
            write_batches(self._files.folder / BATCHES, history)
            peak = None if self._memory is None else self._memory.mib()
            record_metrics(trial, history, spec.objectives[0], peak)
        if state is TrialState.COMPLETE:
            if len(values) > 1:
                trial.set_user_attr("values", list(values))
            self._files.write_best()
        if history:
            self._attach(trial, history)
        self._files.publish()
        # To the study, one that is not complete has no value.
        self._study.tell(trial, values if state is TrialState.COMPLETE else None, state=state)
        with contextlib.suppress(OSError):  # what stays is removed when the search is started
            clear(self._folder)
            if state is not TrialState.COMPLETE:
                drop_checkpoint(self._folder)
            drop_checkpoints(spec, worker.place, self._study, self._family)
        record = trial_record(
            worker.place,
            spec.name,
            self._family,
            self._study.get_trials(deepcopy=False)[trial.number],
            objective=spec.objective,
        )
        worker.watch(TrialFinished(trial=record))
        return record

    def _attach(self, trial: optuna.Trial, history: list[EpochResult]) -> None:
        """Gives the dashboard its files; where that fails, a note says so."""
        best = max(history, key=self._worker.spec.objectives[0].key)
        wrong = self._worker.gallery.attach(
            trial,
            self.name,
            history,
            self._files.folder,
            self._files.validation(best.epoch),
        )
        note = trial.user_attrs.get(NOTE, "")
        if wrong not in note:  # one that was taken over may have it already
            trial.set_user_attr(NOTE, f"{note}; {wrong}" if note else wrong)
