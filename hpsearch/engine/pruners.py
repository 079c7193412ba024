"""What stops a trial early.

A new pruner is one row of `PRUNERS`. Steps are epochs, from 0.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.pruners._successive_halving import _completed_rung_key
from optuna.trial import FrozenTrial

from hpsearch.engine.policy_options import AMPLE, Budget, Setting, Values, find_row, settle
from hpsearch.engine.pruning_words import (
    PrunedTrial,
    below_percentile,
    beyond_limit,
    halved,
    without_gain,
)
from hpsearch.errors import SearchError
from hpsearch.families import ParamValue

DEFAULT_PRUNER = "median"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunerInfo:
    """One row of `PRUNERS`.

    Attributes:
        name: as the user gives it.
        help: for people.
        make: the pruner, of the values of all its settings.
        why: why it stopped a trial, in words without a full stop; empty where that is not known.
        problem: what is wrong with values that are allowed each by itself; empty: nothing.
    """

    name: str
    help: str
    settings: tuple[Setting, ...] = ()
    make: Callable[[Values, Budget], BasePruner]
    why: Callable[[Values, PrunedTrial], str]
    problem: Callable[[Values, Budget], str] = lambda _values, _budget: ""


class _Others:
    """A study without one of its trials, as far as `SuccessiveHalvingPruner` looks at it."""

    def __init__(self, study: optuna.Study, number: int) -> None:
        self._study = study
        self._number = number
        self._storage = study._storage
        self.direction = study.direction

    def get_trials(self, *, deepcopy: bool) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=deepcopy)
        return [trial for trial in trials if trial.number != self._number]


class _Halving(SuccessiveHalvingPruner):
    """Successive halving that says the same when it is asked about an epoch again.

    Optuna's writes on the trial which steps it has passed before it says whether it passes: one
    that was interrupted between that and its end would go on.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is stopped after its last epoch."""
        last = trial.last_step
        if last is None or self._min_resource is None:
            return False
        before = max((step for step in trial.intermediate_values if step < last), default=-1)
        attrs = dict(trial.system_attrs)
        rung = 0
        while (key := _completed_rung_key(rung)) in attrs:
            factor = self._reduction_factor ** (self._min_early_stopping_rate + rung)
            if self._min_resource * factor > before:
                del attrs[key]
            rung += 1
        asked = copy.copy(trial)
        asked.system_attrs = attrs
        return super().prune(cast(optuna.Study, _Others(study, trial.number)), asked)


class _Hyperband(HyperbandPruner):
    """Hyperband whose brackets are there from the start.

    Optuna's makes them when it is first asked; until then every trial is in the first one, so that
    a process that goes on with a search would sort them otherwise than the one that began it.
    """

    def __init__(
        self, *, epochs: int, min_resource: int, reduction_factor: int, bootstrap_count: int
    ) -> None:
        super().__init__(min_resource, epochs, reduction_factor, bootstrap_count)
        # The study is looked at for max_resource="auto" only.
        self._try_initialization(cast(Any, None))
        self._pruners = [
            _Halving(
                min_resource=min_resource,
                reduction_factor=reduction_factor,
                min_early_stopping_rate=bracket,
                bootstrap_count=bootstrap_count,
            )
            for bracket in range(len(self._pruners))
        ]


def _patient(values: Values, _: Budget) -> BasePruner:
    inner = dict(values)
    patience, min_delta = inner.pop("patience"), inner.pop("min_delta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PatientPruner(MedianPruner(**inner), patience, min_delta)


def _beyond_the_epochs(values: Values, budget: Budget) -> str:
    least = values["min_resource"]
    if least <= budget.epochs:
        return ""
    return f"min_resource must be at most the {budget.epochs} epochs of a trial, but is {least}"


def _no_threshold(values: Values, _: Budget) -> str:
    lower, upper = values["lower"], values["upper"]
    if lower is None and upper is None:
        return "one of lower and upper must be set"
    if lower is not None and upper is not None and lower >= upper:
        return f"lower must be below upper, but they are {lower:g} and {upper:g}"
    return ""


_WARMUP = Setting(
    name="n_warmup_steps",
    help="the first epoch, from 0, after which a trial can be stopped",
    kind=int,
    default=lambda budget: budget.epochs // 4,
    usual="a quarter of the epochs, before which ranks mean little",
    low=0,
)
_INTERVAL = Setting(
    name="interval_steps",
    help="epochs from one look at a trial to the next",
    kind=int,
    default=1,
    low=1,
)
_RANKED = (
    Setting(
        name="n_startup_trials",
        help="complete trials before any is stopped",
        kind=int,
        default=lambda budget: budget.startup_trials,
        usual="a quarter of the family's trials, 3 to 10",
        low=0,
    ),
    _WARMUP,
    _INTERVAL,
    Setting(
        name="n_min_trials",
        help="complete trials that must have reached an epoch to compare with there",
        kind=int,
        default=1,
        low=1,
    ),
)
_FACTOR = Setting(
    name="reduction_factor",
    help="one of so many trials goes on to so many times as many epochs",
    kind=int,
    default=3,
    low=2,
)
_BOOTSTRAP = Setting(
    name="bootstrap_count",
    help="trials that are stopped at each step before one may go on",
    kind=int,
    default=0,
    low=0,
)

PRUNERS: tuple[PrunerInfo, ...] = (
    PrunerInfo(
        name="median",
        help="stops a trial whose best epoch is below the median of the complete trials at the "
        "same epoch",
        settings=_RANKED,
        make=lambda values, _: MedianPruner(**values),
        why=below_percentile,
    ),
    PrunerInfo(
        name="percentile",
        help="as median, but keeps only the best few percent",
        settings=(
            Setting(
                name="percentile",
                help="how many percent of the complete trials a trial may be among the best of",
                kind=float,
                default=25.0,
                low=0,
                high=100,
            ),
            *_RANKED,
        ),
        make=lambda values, _: PercentilePruner(**values),
        why=below_percentile,
    ),
    PrunerInfo(
        name="hyperband",
        help="successive halving in brackets that begin it at different epochs, for searches of "
        "more than 100 trials (Li et al. 2018)",
        settings=(
            Setting(
                name="min_resource",
                help="the epoch, from 0, after which the first bracket stops trials first",
                kind=int,
                default=lambda budget: max(1, budget.epochs // 27),
                usual="a 27th of the epochs",
                low=1,
            ),
            _FACTOR,
            _BOOTSTRAP,
        ),
        make=lambda values, budget: _Hyperband(epochs=budget.epochs, **values),
        why=halved,
        problem=_beyond_the_epochs,
    ),
    PrunerInfo(
        name="halving",
        help="at a few epochs, each some times the one before, only the best part of the trials "
        "goes on (asynchronous successive halving, Li et al. 2020)",
        settings=(
            Setting(
                name="min_resource",
                help="the epoch, from 0, after which trials are stopped first",
                kind=int,
                default=lambda budget: max(1, budget.epochs // 9),
                usual="a ninth of the epochs",
                low=1,
            ),
            _FACTOR,
            Setting(
                name="min_early_stopping_rate",
                help="so many of the first steps are left out",
                kind=int,
                default=0,
                low=0,
                high=10,
            ),
            _BOOTSTRAP,
        ),
        make=lambda values, _: _Halving(**values),
        why=halved,
        problem=_beyond_the_epochs,
    ),
    PrunerInfo(
        name="patient",
        help="as median, but only a trial that did not get better for some epochs",
        settings=(
            Setting(
                name="patience",
                help="epochs without a gain before a trial is compared with others",
                kind=int,
                default=lambda budget: max(1, budget.epochs // 10),
                usual="a tenth of the epochs",
                low=0,
            ),
            Setting(
                name="min_delta",
                help="a loss up to this is no loss yet",
                kind=float,
                default=0.0,
                low=0,
            ),
            *_RANKED,
        ),
        make=_patient,
        why=without_gain,
    ),
    PrunerInfo(
        name="threshold",
        help="stops a trial whose value is below or above a limit",
        settings=(
            Setting(
                name="lower",
                help="stop below it",
                kind=float,
                default=None,
            ),
            Setting(
                name="upper",
                help="stop above it",
                kind=float,
                default=None,
            ),
            _WARMUP,
            _INTERVAL,
        ),
        make=lambda values, _: ThresholdPruner(**values),
        why=beyond_limit,
        problem=_no_threshold,
    ),
    PrunerInfo(
        name="none",
        help="stops nothing",
        make=lambda _values, _budget: NopPruner(),
        why=lambda _values, _trial: "",
    ),
)


def _settled(
    name: str, options: Mapping[str, ParamValue], budget: Budget
) -> tuple[PrunerInfo, dict[str, Any]]:
    row = find_row("pruner", PRUNERS, name)
    values = settle("pruner", row, options, budget)
    problem = row.problem(values, budget)
    if problem:
        raise SearchError(f"pruner {name}: {problem}")
    return row, values


def check_pruner(
    name: str, options: Mapping[str, ParamValue], *, epochs: int | None = None
) -> None:
    """Refuses a pruner or settings that cannot be made.

    Args:
        epochs: of a trial, where they are known.

    Raises:
        SearchError: there is no such pruner or setting, or a value is not allowed.
    """
    _settled(name, options, AMPLE if epochs is None else Budget(share=AMPLE.share, epochs=epochs))


def make_pruner(
    name: str = DEFAULT_PRUNER,
    options: Mapping[str, ParamValue] | None = None,
    *,
    epochs: int,
    share: int,
) -> BasePruner:
    """The pruner of one family's study.

    Args:
        name: of a row of `PRUNERS`.
        options: some of its settings by name; the others are as by default.
        epochs: of each trial.
        share: how many of the search's trials are the family's.

    Raises:
        SearchError: as `check_pruner`.
    """
    row, values = _settled(name, options or {}, Budget(share=share, epochs=epochs))
    return row.make(values, Budget(share=share, epochs=epochs))


def why_pruned(
    name: str, options: Mapping[str, ParamValue], trial: PrunedTrial, *, epochs: int, share: int
) -> str:
    """Why the pruner stopped a trial, in words without a full stop; empty where that cannot be
    told.

    Args:
        name, options, epochs, share: as for `make_pruner`.
    """
    row, values = _settled(name, options, Budget(share=share, epochs=epochs))
    return row.why(values, trial)
