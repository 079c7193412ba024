"""Optuna's samplers made replayable: what a trial draws follows from the seed, the trial's number,
the parameter's name and the other trials in the storage, not from what this process has drawn
before.

So a search that was interrupted, even in the middle of asking for parameters, goes on with the very
trials that it would have had.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpsearch.engine.states import DUPLICATE
from hpsearch.engine.study_sampler import StudySampler, all_trials
from hpsearch.training.seeds import derive_seed

# The Gaussian process tells when it is loaded that it would be faster with one more package.
logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)

MOST_DUPLICATES = 3
"""After so many in a row, a model has nothing new to propose, and one trial is drawn at random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """What one of Optuna's samplers is made for.

    Attributes:
        number: of the trial.
        seed: for what is drawn with it, and nothing else.
        infeasible: how many of the finished trials are.
    """

    number: int
    seed: int
    infeasible: int


class ReplayableSampler(StudySampler):
    """One of Optuna's samplers, made anew for each trial.

    Args:
        make: gives it.
        seed: of the search and family.
    """

    def __init__(self, make: Callable[[Draw], BaseSampler], *, seed: int) -> None:
        self._make = make
        self._seed = seed
        self._number = -1
        self._infeasible = 0
        self._stuck = False
        self._relative: BaseSampler = RandomSampler(seed=0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Lets Optuna's sampler mark a trial that begins."""
        if trial.state.is_finished():
            return
        # What Optuna's samplers look at is read anew for `study.ask` only, which a trial that was
        # claimed in the storage never goes through.
        study._thread_local.cached_all_trials = None
        draw = Draw(number=trial.number, seed=0, infeasible=0)
        self._make(draw).before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are modelled together."""
        self._look(study, trial)
        self._relative = self._made(trial, "relative", trial.number)
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for them."""
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value for a parameter that is not modelled yet."""
        if self._number != trial.number:
            self._look(study, trial)
        sampler = self._made(trial, "independent", trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Nothing is kept from one trial to the next."""

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> None:
        trials = all_trials(study)
        study._thread_local.cached_all_trials = trials
        finished = [other for other in trials if other.state.is_finished()]
        self._number = trial.number
        self._infeasible = sum(map(_is_infeasible, finished))
        last = [other for other in finished if other.number < trial.number][-MOST_DUPLICATES:]
        self._stuck = len(last) == MOST_DUPLICATES and all(DUPLICATE in t.user_attrs for t in last)

    def _made(self, trial: FrozenTrial, *parts: int | str) -> BaseSampler:
        seed = derive_seed(self._seed, *parts) % 2**32
        if self._stuck:
            return RandomSampler(seed=seed)
        return self._make(Draw(number=trial.number, seed=seed, infeasible=self._infeasible))


def _is_infeasible(trial: FrozenTrial) -> bool:
    return any(value > 0 for value in trial.constraints.values())


def tpe_sampler(
    draw: Draw,
    *,
    n_startup_trials: int,
    n_ei_candidates: int,
    multivariate: bool,
    constant_liar: bool,
) -> BaseSampler:
    """TPE that models parameters that exist only under some choices in groups."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # group
        return TPESampler(
            # A model of infeasible trials alone would propose their like again and again.
            n_startup_trials=n_startup_trials + draw.infeasible,
            n_ei_candidates=n_ei_candidates,
            multivariate=multivariate,
            group=multivariate,
            constant_liar=constant_liar,
            seed=draw.seed,
        )


class ProcessSampler(GPSampler):
    """A Gaussian process that learns from trials that were stopped or infeasible, too: without
    them it would go on proposing their like.

    Args:
        n_startup_trials: complete trials before the first that it proposes.
        n_modelled_trials: at most so many are modelled: the time grows with the cube.
    """

    def __init__(self, draw: Draw, *, n_startup_trials: int, n_modelled_trials: int) -> None:
        super().__init__(
            seed=draw.seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False
        )
        self._number = draw.number
        self._most = n_modelled_trials

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        trials = _as_complete(study, completed_trials, search_space)
        if len(trials) > self._most:
            # Of one objective half of them the best; there is no best of several.
            newest = self._most // 2 if len(study.directions) == 1 else self._most
            maximize = study.directions[0] is StudyDirection.MAXIMIZE
            rest = sorted(trials[:-newest], key=lambda trial: trial.values[0], reverse=maximize)
            kept = (*rest[: self._most - newest], *trials[-newest:])
            trials = sorted(kept, key=lambda trial: trial.number)
        # After an interruption the trial itself is among the running ones, to keep away from.
        running = [trial for trial in running_trials if trial.number != self._number]
        return super()._sample_relative_impl(study, trials, running, search_space)


def _as_complete(
    study: optuna.Study, complete: Sequence[FrozenTrial], space: dict[str, BaseDistribution]
) -> list[FrozenTrial]:
    """The complete trials, and the others that tell something, as if they were complete.

    A trial that was stopped has its best value so far; an infeasible one is as bad as the worst.
    """
    largest = [direction is StudyDirection.MAXIMIZE for direction in study.directions]
    worst = [
        (min if maximize else max)(trial.values[place] for trial in complete)
        for place, maximize in enumerate(largest)
    ]
    best = max if largest[0] else min
    told = []
    for trial in all_trials(study):
        if trial.state is TrialState.COMPLETE:
            value = trial.values
        elif trial.state is TrialState.PRUNED:
            reports = [v for v in trial.intermediate_values.values() if math.isfinite(v)]
            known = reports and len(largest) == 1 and not _is_infeasible(trial)
            value = [best(reports)] if known else worst
        else:
            continue
        if all(trial.distributions.get(name) == space[name] for name in space):
            trial = copy.copy(trial)
            trial.state, trial.values, trial.system_attrs = TrialState.COMPLETE, value, {}
            told.append(trial)
    return told


class GenerationSampler(NSGAIISampler):
    """NSGA-II whose every trial is of a generation: those that were given their parameters, too,
    so that they can be parents.
    """

    def __init__(self, draw: Draw, *, population_size: int, crossover_prob: float) -> None:
        super().__init__(
            population_size=population_size, crossover_prob=crossover_prob, seed=draw.seed
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Writes the generation on the trial; one that has it keeps it."""
        generation = self.get_trial_generation(study, trial)
        trial.system_attrs[self._get_generation_key()] = generation

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """By number: the first trial of a generation gets them in the order of their selection, and
        the others, as the first one does when it asks again, in that of the storage.
        """
        parents = super().get_parent_population(study, generation)
        return sorted(parents, key=lambda trial: trial.number)
