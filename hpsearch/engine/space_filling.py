"""Samplers that fill a space without a model of it: a grid, and a low-discrepancy sequence.

Neither keeps anything or writes to the study: what they propose follows from the seed, the trial's
number and the trials in the storage.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hpsearch.engine.states import DUPLICATE
from hpsearch.engine.study_sampler import StudySampler, all_trials
from hpsearch.training.seeds import derive_seed


class UnmodelledSampler(StudySampler):
    """A sampler that draws each parameter by itself."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Empty: no parameters are drawn together."""
        self._look(study, trial)
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Empty: no parameters are drawn together."""
        del study, trial, search_space
        return {}

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Reads once, for all parameters of `trial`, what the trials so far say."""
        raise NotImplementedError


def value_at(
    distribution: FloatDistribution | IntDistribution, share: float, *, even: bool
) -> float | int:
    """The value that lies at `share` (0 to 1) of a range, on its scale.

    Args:
        even: each of the values of a range with steps is there for as much of 0 to 1; else the
            first and last are for half as much, and at 0 and 1.
    """
    low, high, step = distribution.low, distribution.high, distribution.step
    margin = step / 2 if even and step else 0.0
    first, last = low - margin, high + margin
    span = last / first if distribution.log else last - first
    value = first * span**share if distribution.log else first + span * share
    if step:
        value = low + step * round((value - low) / step)
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def grid_values(distribution: BaseDistribution, points: int) -> list[Any]:
    """All choices; of a range, `points` values at even distances on its scale, or all that it has
    where these are fewer.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"no grid over {distribution}")
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution) and (high - low) // distribution.step < points:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    if step and round((high - low) / step) < points:
        count = round((high - low) / step)
        shares = [number / max(1, count) for number in range(count + 1)]
    else:
        shares = [number / (points - 1) for number in range(points)] if points > 1 else [0.5]
    return list(dict.fromkeys(value_at(distribution, share, even=False) for share in shares))


@dataclasses.dataclass(slots=True)
class _Node:
    """What the trials that agree in the first few parameters did next.

    Attributes:
        parameter: what they were asked for next; empty where none was asked for more.
        children: by value, as Optuna stores it; None: no trial had it.
        tried, running: a trial ended here, or is here.
        free: a combination below is tried by none.
        open: a combination below is not tried yet, though it may be running.
    """

    parameter: str = ""
    children: dict[float, _Node | None] = dataclasses.field(default_factory=dict)
    tried: bool = False
    running: bool = False
    free: bool = True
    open: bool = True

    def settle(self) -> None:
        """Sets `free` and `open`, here and below."""
        if not self.children:
            # A trial that broke off here while others went on says nothing of what is below.
            self.open = not self.tried
            self.free = self.open and not self.running
            return
        self.open = self.free = False
        for child in self.children.values():
            if child is not None:
                child.settle()
            self.open = self.open or child is None or child.open
            self.free = self.free or child is None or child.free


def _is_tried(trial: FrozenTrial) -> bool:
    # A worker that died before it asked for a parameter tried nothing.
    return trial.state.is_finished() and (
        trial.state is not TrialState.FAIL or bool(trial.distributions)
    )


class GridSampler(UnmodelledSampler):
    """Every combination once, in an order that follows from the seed.

    The parameters that exist only under some choices are part of the combinations with these
    choices only: the trials so far show which they are.

    Args:
        seed: of the search and family.
        points: of a range, how many values are tried.
    """

    def __init__(self, *, seed: int, points: int) -> None:
        self._seed = seed
        self._points = points
        self._number = -1
        self._root = _Node()

    def exhausted(self, study: optuna.Study, *, running: bool = False) -> bool:
        """Whether every combination has a finished trial, however it ended."""
        root = self._tree(all_trials(study))
        return not (root.free if running else root.open)

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._number = trial.number
        self._root = self._tree(t for t in all_trials(study) if t.number != trial.number)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One of the values that lead to a combination that no trial has; where all have one,
        to one that is not finished yet.
        """
        if self._number != trial.number:
            self._look(study, trial)
        values = grid_values(param_distribution, self._points)
        node = self._place(trial)
        if node is not None and node.parameter == param_name:
            found = [
                (value, node.children.get(param_distribution.to_internal_repr(value)))
                for value in values
            ]
            free = [value for value, child in found if child is None or child.free]
            open_ = [value for value, child in found if child is None or child.open]
            values = free or open_ or values
        random = np.random.default_rng(derive_seed(self._seed, "grid", trial.number, param_name))
        return values[random.integers(len(values))]

    def _tree(self, trials: Iterable[FrozenTrial]) -> _Node:
        root = _Node()
        for trial in trials:
            if trial.state is TrialState.WAITING or DUPLICATE in trial.user_attrs:
                continue
            node = self._grown(root, trial)
            if node is not None:
                node.tried = node.tried or _is_tried(trial)
                node.running = node.running or trial.state is TrialState.RUNNING
        root.settle()
        return root

    def _grown(self, root: _Node, trial: FrozenTrial) -> _Node | None:
        """Where the parameters of `trial` lead; None where they are not on the grid."""
        node, params = root, trial.params
        for name, distribution in trial.distributions.items():
            if not node.children:
                node.parameter = name
                node.children = {
                    distribution.to_internal_repr(value): None
                    for value in grid_values(distribution, self._points)
                }
            value = distribution.to_internal_repr(params[name])
            if node.parameter != name or value not in node.children:
                return None
            child = node.children[value]
            if child is None:
                child = node.children[value] = _Node()
            node = child
        return node

    def _place(self, trial: FrozenTrial) -> _Node | None:
        """Where the parameters that `trial` has so far lead; None where none has been yet."""
        node: _Node | None = self._root
        for name, distribution in trial.distributions.items():
            if node is None or node.parameter != name:
                return None
            node = node.children.get(distribution.to_internal_repr(trial.params[name]))
        return node


COLUMNS = 64
"""Dimensions that the sequence is made with at least: its points depend on how many it has."""


class QMCSampler(UnmodelledSampler):
    """The trial's number is that of its point in a Sobol' sequence, whose dimensions are the
    parameters in the order in which trials had them first.

    A parameter that no finished trial has had yet is drawn at random. (Optuna's sampler counts the
    points in the study, where two workers can get the same one, and an interrupted trial another.)

    Args:
        seed: of the search and family.
        scramble: the digits of the points at random, too; else all seeds have the same points.
    """

    def __init__(self, *, seed: int, scramble: bool) -> None:
        self._seed = seed
        self._scramble = scramble
        self._number = -1
        self._shares: dict[str, float] = {}

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> None:
        finished = (t for t in all_trials(study) if t.state.is_finished())
        names = list(dict.fromkeys(name for t in finished for name in t.distributions))
        columns = max(COLUMNS, 2 ** math.ceil(math.log2(max(1, len(names)))))
        sequence = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            columns, scramble=self._scramble, seed=derive_seed(self._seed, "sequence")
        )
        if trial.number:
            sequence.fast_forward(trial.number)  # type: ignore[no-untyped-call]
        point = sequence.draw(1, dtype=torch.float64)[0].tolist()
        self._number = trial.number
        self._shares = dict(zip(names, point, strict=False))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of the parameter's dimension."""
        if self._number != trial.number:
            self._look(study, trial)
        share = self._shares.get(param_name)
        if share is None:
            random = RandomSampler(
                seed=derive_seed(self._seed, "independent", trial.number, param_name) % 2**32
            )
            return random.sample_independent(study, trial, param_name, param_distribution)
        if isinstance(param_distribution, CategoricalDistribution):
            choices = param_distribution.choices
            return choices[min(int(share * len(choices)), len(choices) - 1)]
        if isinstance(param_distribution, FloatDistribution | IntDistribution):
            return value_at(param_distribution, share, even=True)
        raise TypeError(f"no point in {param_distribution}")
