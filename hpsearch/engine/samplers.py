"""What chooses the next trial's parameters, and what stops a trial early."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from hpsearch.training.trainer import derive_seed


def startup_trials(share: int) -> int:
    """How many trials of a family are tried before the sampler models and the pruner judges."""
    return min(10, max(3, share // 4))


class ReplayableTPESampler(BaseSampler):
    """TPE whose draws depend on nothing but the seed, the trial's number, the parameter's name
    and the finished trials: not on what this process has drawn before.

    So a search that was interrupted, even in the middle of asking for parameters, goes on
    with the very trials that it would have had. Parameters that exist only under some choices
    are modelled in groups (`group=True`).

    Args:
        seed: of the search and family.
        n_startup_trials: finished trials before the first model-based one. Infeasible ones are not
            among them: a model of them alone would propose their like again and again.
    """

    def __init__(self, *, seed: int, n_startup_trials: int) -> None:
        self._seed = seed
        self._n_startup_trials = n_startup_trials
        self._infeasible = 0
        self._relative = self._tpe()

    def _tpe(self, *parts: int | str) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # group
            return TPESampler(
                n_startup_trials=self._n_startup_trials + self._infeasible,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=derive_seed(self._seed, *parts) % 2**32,
            )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are modelled together."""
        self._infeasible = sum(
            any(value > 0 for value in other.constraints.values())
            for other in study.get_trials(deepcopy=False)
            if other.state.is_finished()
        )
        self._relative = self._tpe("relative", trial.number)
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
        sampler = self._tpe("independent", trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Nothing is kept from one trial to the next."""


def make_sampler(*, seed: int, family: str, share: int) -> BaseSampler:
    """The sampler of one family's study."""
    return ReplayableTPESampler(
        seed=derive_seed(seed, family), n_startup_trials=startup_trials(share)
    )


def make_pruner(*, epochs: int, share: int) -> BasePruner:
    """Stops a trial whose best epoch is below the median of the family's complete trials at the
    same epoch; none in the first quarter of the epochs, where ranks mean little.
    """
    return MedianPruner(n_startup_trials=startup_trials(share), n_warmup_steps=epochs // 4)
